// SPDX-License-Identifier: Apache-2.0
// softmax(scale * q k^T + mask) v without the scores: tiles of queries pass over stretches of keys
// with a running maximum and sum. The queries of one key head share its tile; stretches that none
// of a tile's rows sees are skipped. Few queries (decoding) are split over keys instead, in fixed
// parts that are put together in order. Results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "narrow/kernels/kernel_set.h"

namespace narrow::kernels {

/// Elements from one batch item, head and token to the next.
struct AttentionStrides {
  int64_t batch;
  int64_t head;
  int64_t row;
};

struct AttentionProblem {
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t width = 0;
  int64_t value_width = 0;
  AttentionStrides q_strides{}, k_strides{}, v_strides{}, y_strides{};
  const float* q = nullptr;
  const void* k = nullptr;  // as `store` says
  const void* v = nullptr;
  KeyStore store = KeyStore::f32;
  /// Of int8: a scale for each `scale_block` numbers of a row, strides in scales.
  const float* k_scales = nullptr;
  const float* v_scales = nullptr;
  AttentionStrides k_scale_strides{}, v_scale_strides{};
  int64_t scale_block = 0;
  float* y = nullptr;
  float scale = 1;
  float softcap = 0;
  /// Keys [begin, end) that a query of a batch item sees; what lies outside of [0, keys) is not
  /// there.
  struct Range {
    int64_t begin;
    int64_t end;
  };
  std::function<Range(int64_t batch, int64_t query)> visible;
  /// Adds to scores: out[j] for the keys [first, first + count). Empty: nothing to add.
  std::function<void(int64_t batch, int64_t head, int64_t query, int64_t first, int64_t count,
                     float* out)>
      bias;
};

/// Why keys and values of these widths cannot have a scale for each `block` numbers; empty if they
/// can.
std::string refuse_scale_block(int64_t block, int64_t width, int64_t value_width);

/// Bytes of 64-byte aligned scratch.
size_t attention_scratch_bytes(int64_t batch, int64_t heads, int64_t kv_heads, int64_t queries,
                               int64_t keys, int64_t value_width);

/// A row that sees no key becomes zeros.
void run_attention(const KernelSet& kernels, const AttentionProblem& problem,
                   std::span<std::byte> scratch);

}  // namespace narrow::kernels
