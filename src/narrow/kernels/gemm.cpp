// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow::kernels {
namespace {

// Rows that have to be copied (int8 codes, or a K whose last group of four would be read past the
// end) are copied in pieces that stay in the L2 cache.
constexpr int64_t kPieceBytes = 512 * 1024;

int64_t pitch_of(int64_t k) {
  return (k + kGroup - 1) / kGroup * kGroup;
}

int64_t piece_rows(int64_t m, int64_t k) {
  return std::clamp<int64_t>(kPieceBytes / std::max<int64_t>(pitch_of(k), 1), 1,
                             std::max<int64_t>(m, 1));
}

void run_piece(const KernelSet& kernels, const GemmProblem& g, int64_t first, int64_t rows,
               const uint8_t* a, int64_t pitch) {
  const int64_t zero = 0;
  const int64_t n = g.w.shape.n;
  IgemmProblem p;
  p.m = rows;
  p.w = g.w;
  p.rows = [a, pitch](int64_t row, int64_t count, const uint8_t** pointers) {
    for (int64_t i = 0; i < count; ++i) pointers[i] = a + (row + i) * pitch;
  };
  p.tap_offsets = {&zero, 1};
  p.epilogue = g.epilogue;
  p.dst = static_cast<std::byte*>(g.dst) + first * n * (g.epilogue.out == Out::codes ? 1 : 4);
  p.ldc = n;
  run_igemm(kernels, p);
}

}  // namespace

size_t gemm_scratch_bytes(int64_t m, int64_t k) {
  const int64_t bytes = piece_rows(m, k) * pitch_of(k);
  return static_cast<size_t>((bytes + 63) / 64 * 64);
}

void run_gemm(const KernelSet& kernels, const GemmProblem& g, std::span<std::byte> scratch) {
  const int64_t k = g.w.shape.run_bytes;
  const int64_t pitch = pitch_of(k);
  if (g.flip == 0 && pitch == k) return run_piece(kernels, g, 0, g.m, g.a, k);
  if (scratch.size() < gemm_scratch_bytes(g.m, k)) {
    throw Error(ErrorCode::internal, "scratch memory of a matrix product is too small");
  }
  auto* copy = reinterpret_cast<uint8_t*>(scratch.data());
  const int64_t piece = piece_rows(g.m, k);
  for (int64_t first = 0; first < g.m; first += piece) {
    const int64_t rows = std::min(piece, g.m - first);
    const auto copy_row = [&](int64_t i) {
      kernels.xor_copy(copy + i * pitch, g.a + (first + i) * k, k, g.flip);
      std::memset(copy + i * pitch + k, 0, static_cast<size_t>(pitch - k));
    };
    for (int64_t i = 0; i < rows; ++i) copy_row(i);
    run_piece(kernels, g, first, rows, copy, pitch);
  }
}

}  // namespace narrow::kernels
