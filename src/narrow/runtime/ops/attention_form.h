// SPDX-License-Identifier: Apache-2.0
// What an Attention node says, made concrete for operands of given shapes: where heads and rows
// lie in memory, and which keys a query sees.
#pragma once

#include <cstdint>

#include "narrow/graph/graph.h"
#include "narrow/runtime/op_impl.h"

namespace narrow::ops {

/// Elements from one batch item, head and token to the next; a token's numbers are contiguous.
struct HeadStrides {
  int64_t batch = 0;
  int64_t head = 0;
  int64_t row = 0;
};

/// Keys [begin, end).
struct KeyRange {
  int64_t begin;
  int64_t end;
};

/// Inputs of narrow.Attention with codes: scales [batch, heads, keys, blocks].
inline constexpr size_t kKeyScales = 7;
inline constexpr size_t kValueScales = 8;

/// For ONNX Attention. Where past keys come in, k and v are those behind them (`present`).
struct AttentionShape {
  int64_t batch = 0;
  int64_t heads = 0;     // of the query
  int64_t kv_heads = 0;  // divides heads
  int64_t queries = 0;
  int64_t keys = 0;  // the past ones included
  int64_t past = 0;
  int64_t width = 0;  // of query and key
  int64_t value_width = 0;
  HeadStrides q, k, v, y;
  int64_t group() const { return heads / kv_heads; }
};

class AttentionForm {
 public:
  explicit AttentionForm(const Node& node);

  /// Throws invalid_argument where shapes contradict each other.
  AttentionShape shape(std::span<const TensorView> inputs) const;
  float scale(const AttentionShape& shape) const;
  float softcap() const { return softcap_; }
  int64_t qk_mode() const { return qk_mode_; }
  /// Numbers of a key that share a scale, of keys that are codes.
  int64_t scale_block() const { return scale_block_; }
  /// Scales from one batch item, head and key to the next; `input` is kKeyScales or kValueScales.
  /// Throws invalid_argument where they do not go with the codes.
  HeadStrides scale_strides(std::span<const TensorView> inputs, size_t input) const;

  /// What query `i` sees, attn_mask aside; empty where begin >= end. `valid` is nonpad_kv_seqlen of
  /// the batch item, -1 without.
  KeyRange visible(const AttentionShape& shape, int64_t valid, int64_t i) const;

 private:
  int64_t q_heads_;
  int64_t kv_heads_;
  bool causal_;
  int64_t left_;
  int64_t right_;
  bool has_scale_;
  float scale_;
  float softcap_;
  int64_t qk_mode_;
  int64_t scale_block_;
};

/// attn_mask seen from the scores: strides are 0 along broadcast axes.
struct MaskView {
  const std::byte* data = nullptr;  // nullptr: no mask
  DType dtype = DType::undefined;   // boolean or floating
  int64_t batch = 0;
  int64_t head = 0;
  int64_t row = 0;
  int64_t key = 0;
  int64_t length = 0;  // keys from here on are masked
};
MaskView mask_view(const AttentionShape& shape, std::span<const TensorView> inputs);

/// nonpad_kv_seqlen of a batch item; -1 where the node has none.
int64_t valid_keys(std::span<const TensorView> inputs, int64_t batch);

/// Writes present_key and present_value: what was there, then what is new.
void write_present(const AttentionShape& shape, std::span<const TensorView> inputs,
                   std::span<const TensorView> outputs);

}  // namespace narrow::ops
