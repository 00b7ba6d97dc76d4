// SPDX-License-Identifier: Apache-2.0
// Where the activations of a product with weights in blocks stand in its scratch memory. Internal
// to kernels/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "narrow/kernels/block_gemm.h"

namespace narrow::kernels {

struct BlockScratch {
  static constexpr int64_t kRun = 32;  // values between two scales of the activations

  /// `rows` of x, padded to whole tiles.
  BlockScratch(const PackedBlocks& w, int64_t rows) : runs(w.k / kRun), groups(w.k / w.form.group) {
    scales = aligned(rows * w.k);
    start = scales + aligned(rows * runs * 4);
    sums = start + aligned(rows * groups * 4);
    bytes = sums + aligned(rows * groups * 4);
  }
  static int64_t aligned(int64_t size) { return (size + 63) / 64 * 64; }

  /// `tile` and `padded` are the caller's.
  BlockRows at(std::byte* memory) const {
    BlockRows rows{};
    rows.codes = reinterpret_cast<int8_t*>(memory);
    rows.scales = reinterpret_cast<float*>(memory + scales);
    rows.start = reinterpret_cast<int32_t*>(memory + start);
    rows.sums = reinterpret_cast<float*>(memory + sums);
    return rows;
  }

  int64_t runs;    // of a row
  int64_t groups;  // of a row: what has a scale in the weights
  int64_t scales;  // offsets in bytes
  int64_t start;
  int64_t sums;
  int64_t bytes;  // of all
};

inline int64_t panels_of(const PackedBlocks& w) {
  return (w.n + kPanel - 1) / kPanel;
}

}  // namespace narrow::kernels
