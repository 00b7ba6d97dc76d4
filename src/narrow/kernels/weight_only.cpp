// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/weight_only.h"

#include <algorithm>
#include <array>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/conv.h"

namespace narrow::kernels {
namespace {

// 4-bit codes are stored unsigned: signed ones move up by 8, and so does their zero_point.
constexpr int kNibbleShift = 8;
// Multiply-adds of one parallel block: some 20 us.
constexpr int64_t kBlockMacs = 500'000;

constexpr int64_t kFloat = sizeof(float);

using RowFloats = std::function<void(int64_t first, int64_t count, const float** rows)>;

struct Problem {
  int64_t m = 0;
  const PackedWeightOnly* w = nullptr;
  RowFloats rows;
  std::span<const int64_t> taps;  // in elements
  float* dst = nullptr;
  int64_t ldc = 0;
};

void run_block(const KernelSet& kernels, const Problem& p, int64_t row, int64_t panel,
               int64_t panels) {
  const PackedWeightOnly& w = *p.w;
  std::array<const float*, kWgemmRows> rows;
  const int64_t count = std::min(kWgemmRows, p.m - row);
  p.rows(row, count, rows.data());
  WgemmArgs args;
  args.rows = rows.data();
  args.m = count;
  args.taps = p.taps.data();
  args.num_taps = static_cast<int64_t>(p.taps.size());
  args.run = w.k / std::max<int64_t>(args.num_taps, 1);
  args.weights =
      reinterpret_cast<const uint8_t*>(w.weights.raw()) + panel * w.k * kPanel * w.bits / 8;
  args.bits = w.bits;
  args.group = w.group.empty() ? nullptr : w.group.data();
  args.groups = w.groups;
  args.scale = w.scale.data() + panel * w.groups * kPanel;
  args.zero = w.zero.data() + panel * w.groups * kPanel;
  args.bias = w.bias.data() + panel * kPanel;
  args.n = std::min(panels * kPanel, w.n - panel * kPanel);
  args.dst = p.dst + row * p.ldc + panel * kPanel;
  args.ldc = p.ldc;
  kernels.wgemm(args);
}

void run_problem(const KernelSet& kernels, const Problem& p) {
  const PackedWeightOnly& w = *p.w;
  if (p.m == 0 || w.n == 0) return;
  const int64_t panels = (w.n + kPanel - 1) / kPanel;
  const int64_t rows = std::min(p.m, kWgemmRows);
  // As many panels per block as make it worth handing out; borders depend on the shape alone.
  const int64_t per_panel = std::max<int64_t>(rows * w.k * kPanel, 1);
  const int64_t width = std::clamp<int64_t>(kBlockMacs / per_panel, 1, panels);
  const int64_t across = (panels + width - 1) / width;
  const int64_t down = (p.m + kWgemmRows - 1) / kWgemmRows;
  parallel_blocks(across * down, [&](int64_t i) {
    const int64_t panel = i / down * width;
    run_block(kernels, p, i % down * kWgemmRows, panel, std::min(width, panels - panel));
  });
}

}  // namespace

size_t PackedWeightOnly::bytes() const {
  return weights.bytes() + group.size() * sizeof(int32_t) +
         (scale.size() + zero.size() + bias.size()) * sizeof(float);
}

PackedWeightOnly pack_weight_only(const WeightOnlyCodes& w, std::span<const float> bias) {
  const int64_t panels = (w.n + kPanel - 1) / kPanel;
  PackedWeightOnly out;
  out.n = w.n;
  out.k = w.k;
  out.bits = w.bits;
  out.groups = w.groups;
  out.weights = Tensor(DType::uint8, {panels * w.k * kPanel * w.bits / 8});
  out.group.assign(w.group.begin(), w.group.end());
  const auto padded = static_cast<size_t>(panels * w.groups * kPanel);
  out.scale.assign(padded, 0.0f);
  out.zero.assign(padded, 0.0f);
  out.bias.assign(static_cast<size_t>(panels * kPanel), 0.0f);
  std::copy(bias.begin(), bias.end(), out.bias.begin());
  const bool signed_nibbles =
      w.bits == 4 && std::any_of(w.codes.begin(), w.codes.end(), [](int8_t c) { return c < 0; });
  const int shift = signed_nibbles ? kNibbleShift : 0;
  auto* bytes = reinterpret_cast<uint8_t*>(out.weights.mutable_raw());
  for (int64_t c = 0; c < w.n; ++c) {
    const int64_t panel = c / kPanel;
    const int64_t j = c % kPanel;
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t at = (panel * w.groups + g) * kPanel + j;
      out.scale[at] = w.scale[c * w.groups + g];
      out.zero[at] = static_cast<float>(shift);
      if (!w.zero.empty()) out.zero[at] += w.zero[c * w.groups + g];
    }
    for (int64_t k = 0; k < w.k; ++k) {
      const int code = w.codes[c * w.k + k] + shift;
      const int64_t row = panel * w.k + k;
      if (w.bits == 8) {
        bytes[row * kPanel + j] = static_cast<uint8_t>(code);
      } else {
        uint8_t& pair = bytes[row * (kPanel / 2) + j % (kPanel / 2)];
        pair = static_cast<uint8_t>(pair | (j < kPanel / 2 ? code : code << 4));
      }
    }
  }
  return out;
}

void run_weight_only_gemm(const KernelSet& kernels, const PackedWeightOnly& w, const float* x,
                          int64_t m, float* y) {
  const int64_t tap = 0;
  Problem p;
  p.m = m;
  p.w = &w;
  p.rows = [&](int64_t first, int64_t count, const float** rows) {
    for (int64_t i = 0; i < count; ++i) rows[i] = x + (first + i) * w.k;
  };
  p.taps = {&tap, 1};
  p.dst = y;
  p.ldc = w.n;
  run_problem(kernels, p);
}

size_t weight_only_conv_scratch_bytes(const ConvProblem& p) {
  return ImageReader::scratch_bytes(p, {.element_bytes = kFloat, .must_copy = false});
}

void run_weight_only_conv(const KernelSet& kernels, const ConvProblem& p,
                          std::span<const PackedWeightOnly> w, const float* x, float* y,
                          std::span<std::byte> scratch) {
  if (p.out_values() == 0) return;
  if (scratch.size() < weight_only_conv_scratch_bytes(p)) {
    throw Error(ErrorCode::internal, "scratch memory of a convolution is too small");
  }
  const ImageReader image(p, {.element_bytes = kFloat, .must_copy = false});
  const ConvRuns runs(p);
  const auto kind = runs.rows ? ImageReader::Taps::rows : ImageReader::Taps::positions;
  const std::span<const int64_t> offsets = image.taps(kind, runs.shape.taps, scratch);
  // The reader counts in bytes, the kernel in elements; the offsets are ours to change.
  auto* taps = reinterpret_cast<int64_t*>(scratch.data());
  for (size_t t = 0; t < offsets.size(); ++t) taps[t] /= kFloat;
  const ImageSource source{reinterpret_cast<const uint8_t*>(x), 0, 0};
  image.for_pieces(
      kernels, source, scratch, [&](const uint8_t* base, int64_t first, int64_t count) {
        for (int64_t g = 0; g < p.groups; ++g) {
          Problem problem;
          problem.m = count;
          problem.w = &w[g];
          problem.rows = [&](int64_t row, int64_t rows, const float** pointers) {
            std::array<const uint8_t*, kWgemmRows> bytes;
            image.pixels(base, row, rows, g * p.group_channels() * kFloat, bytes.data());
            for (int64_t i = 0; i < rows; ++i) {
              pointers[i] = reinterpret_cast<const float*>(bytes[i]);
            }
          };
          problem.taps = offsets;
          problem.dst = y + first * p.filters + g * p.group_filters();
          problem.ldc = p.filters;
          run_problem(kernels, problem);
        }
      });
}

}  // namespace narrow::kernels
