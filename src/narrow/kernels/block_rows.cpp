// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/block_rows.h"

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/block_scratch.h"

namespace narrow::kernels {
namespace {

/// Panels that are packed before they are multiplied: some MiB, and enough for many threads.
constexpr int64_t kChunkPanels = 64;

int32_t form_index(BlockType type) {
  const std::span<const BlockForm> forms = block_forms();
  const auto at = std::find_if(forms.begin(), forms.end(),
                               [&](const BlockForm& form) { return form.type == type; });
  return static_cast<int32_t>(at - forms.begin());
}

void multiply_few(const KernelSet& kernels, const PackedBlocks& layout,
                  std::span<const std::byte> w, const float* x, int64_t m, float* y,
                  std::byte* scratch) {
  const BlockScratch parts(layout, m);
  const BlockRows rows = parts.at(scratch);
  for (int64_t r = 0; r < m; ++r) {
    QuantizeBlocksArgs args{x + r * layout.k, 0, 1, layout.k, layout.form.group, 0, {}};
    args.rows = {rows.codes + r * layout.k,
                 rows.scales + r * parts.runs,
                 rows.start + r * parts.groups,
                 rows.sums + r * parts.groups,
                 1,
                 1};
    kernels.quantize_blocks(args);
  }
  const BlockCodec& c = codec(layout.form.type);
  const int64_t row_bytes = layout.k / c.block_values * c.block_bytes;
  constexpr int64_t kBlockBytes = int64_t{1} << 17;
  const int64_t width = std::max<int64_t>(1, kBlockBytes / (row_bytes * kPanel + 1));
  parallel_for(panels_of(layout), width, [&](int64_t begin, int64_t end) {
    BlockRowsArgs args;
    args.form = form_index(layout.form.type);
    args.weights = reinterpret_cast<const uint8_t*>(w.data()) + begin * kPanel * row_bytes;
    args.row_bytes = row_bytes;
    args.block_bytes = c.block_bytes;
    args.k = layout.k;
    args.n = std::min(layout.n, end * kPanel) - begin * kPanel;
    args.m = m;
    args.codes = rows.codes;
    args.scales = rows.scales;
    args.sums = rows.sums;
    args.dst = y + begin * kPanel;
    args.ldc = layout.n;
    kernels.block_rows(args);
  });
}

void multiply_many(const KernelSet& kernels, const PackedBlocks& layout,
                   std::span<const std::byte> w, const float* x, int64_t m, float* y,
                   std::span<std::byte> scratch) {
  const size_t activations = block_gemm_scratch_bytes(kernels, layout, m);
  const BlockRows rows = quantize_rows(kernels, layout, x, m, scratch.first(activations));
  auto* panels = reinterpret_cast<uint8_t*>(scratch.data() + activations);
  for (int64_t first = 0; first < panels_of(layout); first += kChunkPanels) {
    const int64_t count = std::min(kChunkPanels, panels_of(layout) - first);
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      pack_panels(layout, w, first + begin, first + end, panels + begin * layout.panel_bytes);
    });
    multiply_panels(kernels, layout, panels, first, count, rows, m, y);
  }
}

}  // namespace

size_t stored_gemm_scratch_bytes(const KernelSet& kernels, const PackedBlocks& layout, int64_t m) {
  if (m <= kMostBlockRows) return static_cast<size_t>(BlockScratch(layout, m).bytes);
  const int64_t panels = std::min(kChunkPanels, panels_of(layout));
  return block_gemm_scratch_bytes(kernels, layout, m) +
         static_cast<size_t>(panels * layout.panel_bytes);
}

void run_stored_gemm(const KernelSet& kernels, const PackedBlocks& layout,
                     std::span<const std::byte> w, const float* x, int64_t m, float* y,
                     std::span<std::byte> scratch) {
  if (m == 0 || layout.n == 0) return;
  if (layout.k == 0) {
    std::fill(y, y + m * layout.n, 0.0F);
    return;
  }
  if (scratch.size() < stored_gemm_scratch_bytes(kernels, layout, m)) {
    throw Error(ErrorCode::internal, "scratch memory of a product is too small");
  }
  if (m <= kMostBlockRows) {
    multiply_few(kernels, layout, w, x, m, y, scratch.data());
  } else {
    multiply_many(kernels, layout, w, x, m, y, scratch);
  }
}

}  // namespace narrow::kernels
