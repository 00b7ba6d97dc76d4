// SPDX-License-Identifier: Apache-2.0
// Operators of language models.
#include <fmt/format.h>

#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// One operand as [batch, heads, length, width].
struct Heads {
  Dim batch;
  Dim heads;
  Dim length;
  Dim width;
};

Heads heads_of(const InferContext& c, size_t input, std::string_view heads_key) {
  const SymbolicShape& x = *c.shape(input);
  if (x.size() == 4) return {x[0], x[1], x[2], x[3]};
  if (x.size() != 3) c.fail(fmt::format("input {} has shape {}", input, to_string(x)));
  const int64_t heads = c.node().int_or(heads_key, 0);
  return {x[0], heads, x[1], divide(c, x[2], heads, heads_key)};
}

void check_windows(const InferContext& c) {
  for (const char* key : {"left_window_size", "right_window_size"}) {
    const int64_t size = c.node().int_or(key, -1);
    if (size < -1) c.fail(fmt::format("{} is {}, must be -1 or more", key, size));
  }
}

/// The number of keys once the past ones stand in front; checks what else says something of them.
Dim total_length(const InferContext& c, const Heads& k, const Heads& v, const Dim& batch) {
  if (c.has_input(4) != c.has_input(5)) c.fail("past_key and past_value need each other");
  if (c.has_input(6) && c.has_input(4)) c.fail("nonpad_kv_seqlen and past_key exclude each other");
  if (c.has_input(6)) {
    require_integer(c, 6);
    require_rank(c, 6, 1);
    if (c.shape(6)) unify(c, (*c.shape(6))[0], batch, "nonpad_kv_seqlen and the batch");
  }
  if (!c.has_input(4)) return k.length;
  Dim past;
  for (const size_t i : {size_t{4}, size_t{5}}) {
    require_same_dtype(c, i, i - 3);
    require_rank(c, i, 4);
    if (!c.shape(i)) continue;
    const SymbolicShape& shape = *c.shape(i);
    const Heads& now = i == 4 ? k : v;
    unify(c, shape[0], batch, "the batch of past keys and values");
    unify(c, shape[1], now.heads, "the heads of past keys and values");
    unify(c, shape[3], now.width, "the widths of past keys and values");
    past = past.known() ? unify(c, past, shape[2], "the past lengths") : shape[2];
  }
  if (past.known()) return add(c, k.length, past.value);
  return k.length.known() && k.length.value == 0 ? past : Dim();
}

/// attn_mask broadcasts to the scores; its last axis may be shorter.
void check_mask(const InferContext& c, SymbolicShape scores) {
  const SymbolicShape* mask = c.shape(3);
  if (!mask || mask->empty()) return;
  if (mask->size() > 4) c.fail(fmt::format("attn_mask has shape {}", to_string(*mask)));
  if (mask->back().known()) {
    if (scores.back().known() && mask->back().value > scores.back().value) {
      c.fail(fmt::format("attn_mask has shape {}, the scores have {}", to_string(*mask),
                         to_string(scores)));
    }
    scores.back() = mask->back();
  }
  const SymbolicShape both = broadcast(c, scores, *mask);
  for (size_t i = 0; i < scores.size(); ++i) unify(c, both[i], scores[i], "attn_mask");
}

/// (q, k, v, mask?, past_key?, past_value?, nonpad_kv_seqlen?)
///     -> (y, present_key?, present_value?, scores?)
void infer_attention(InferContext& c) {
  for (size_t i = 0; i < 4; ++i) {
    c.set_output(i, c.dtype(i == 1 || i == 2 ? i : 0), std::nullopt);
  }
  check_windows(c);
  if (!c.shape(0) || !c.shape(1) || !c.shape(2)) return;
  const size_t rank = c.shape(0)->size();
  require_rank(c, 1, rank);
  require_rank(c, 2, rank);
  const Heads q = heads_of(c, 0, "q_num_heads");
  const Heads k = heads_of(c, 1, "kv_num_heads");
  const Heads v = heads_of(c, 2, "kv_num_heads");
  unify(c, q.width, k.width, "the widths of query and key");
  unify(c, k.length, v.length, "the lengths of key and value");
  unify(c, k.heads, v.heads, "the heads of key and value");
  if (k.heads.known()) divide(c, q.heads, k.heads.value, "the heads of query and of key");
  const Dim batch = unify(c, unify(c, q.batch, k.batch, "the batch"), v.batch, "the batch");
  const Dim total = total_length(c, k, v, batch);
  check_mask(c, {batch, q.heads, q.length, total});
  if (rank == 4) {
    c.set_output(0, c.dtype(0), SymbolicShape{batch, q.heads, q.length, v.width});
  } else {
    c.set_output(0, c.dtype(0), SymbolicShape{batch, q.length, multiply(c, q.heads, v.width)});
  }
  c.set_output(1, c.dtype(1), SymbolicShape{batch, k.heads, total, k.width});
  c.set_output(2, c.dtype(2), SymbolicShape{batch, v.heads, total, v.width});
  c.set_output(3, c.dtype(0), SymbolicShape{batch, q.heads, q.length, total});
}

/// Scales of codes [batch, heads, keys, blocks of `block` numbers].
void check_scales(const InferContext& c, size_t codes, size_t scales, int64_t block) {
  require_rank(c, codes, 4);
  require_rank(c, scales, 4);
  if (c.dtype(scales) != DType::float32 && c.dtype(scales) != DType::undefined) {
    c.fail(fmt::format("input {} are scales of type {}", scales, to_string(c.dtype(scales))));
  }
  if (!c.shape(codes) || !c.shape(scales)) return;
  const SymbolicShape& x = *c.shape(codes);
  const SymbolicShape& s = *c.shape(scales);
  for (size_t i = 0; i < 3; ++i) unify(c, s[i], x[i], "codes and their scales");
  if (!x[3].known()) return;
  const int64_t blocks = x[3].value / block + (x[3].value % block != 0 ? 1 : 0);
  unify(c, s[3], blocks, "the scales of a key");
}

/// With k and v in int8 two more inputs, their scales.
void infer_stored_attention(InferContext& c) {
  infer_attention(c);
  const bool codes = c.dtype(1) == DType::int8 || c.dtype(2) == DType::int8;
  if (codes != c.has_input(7) || codes != c.has_input(8)) {
    c.fail("keys and values have scales where they are int8, and only there");
  }
  if (!codes) return;
  require_same_dtype(c, 1, 2);
  const int64_t block = c.node().int_or("block_size", 0);
  if (block < 1) c.fail(fmt::format("block_size is {}", block));
  if (c.has_input(4)) c.fail("past keys do not go with scales");
  check_scales(c, 1, 7, block);
  check_scales(c, 2, 8, block);
}

/// (x, cos, sin, positions?): caches [positions, width / 2], or [batch, length, width / 2] without
/// positions.
void infer_rotary_embedding(InferContext& c) {
  require_min_rank(c, 0, 3);
  infer_same(c);
  require_same_dtype(c, 0, 1);
  require_same_dtype(c, 0, 2);
  require_rank(c, 1, c.has_input(3) ? 2 : 3);
  require_rank(c, 2, c.has_input(3) ? 2 : 3);
  if (!c.shape(0)) return;
  const Heads x = heads_of(c, 0, "num_heads");
  const int64_t part = c.node().int_or("rotary_embedding_dim", 0);
  if (part < 0 || (x.width.known() && part > x.width.value)) {
    c.fail(fmt::format("rotary_embedding_dim is {}, the head has {}", part,
                       to_string(SymbolicShape{x.width})));
  }
  const Dim half = divide(c, part > 0 ? Dim(part) : x.width, 2, "the rotated width");
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (!c.shape(i)) continue;
    const SymbolicShape& cache = *c.shape(i);
    unify(c, cache.back(), half, "the width of the caches");
    if (cache.size() != 3) continue;
    unify(c, cache[0], x.batch, "the batch of the caches");
    unify(c, cache[1], x.length, "the length of the caches");
  }
  if (!c.has_input(3)) return;
  require_integer(c, 3);
  require_rank(c, 3, 2);
  if (!c.shape(3)) return;
  unify(c, (*c.shape(3))[0], x.batch, "the batch of position_ids");
  unify(c, (*c.shape(3))[1], x.length, "the length of position_ids");
}

/// (cache, update, write_indices?): update differs from the cache along `axis` only.
void infer_tensor_scatter(InferContext& c) {
  require_same_dtype(c, 0, 1);
  require_min_rank(c, 0, 2);
  infer_same(c);
  const std::string mode = c.node().string_or("mode", "linear");
  if (mode != "linear" && mode != "circular") c.fail(fmt::format("mode is '{}'", mode));
  if (c.has_input(2)) {
    require_integer(c, 2);
    require_rank(c, 2, 1);
  }
  if (!c.shape(0)) return;
  const SymbolicShape& cache = *c.shape(0);
  const size_t axis = axis_attribute(c, -2, cache.size());
  if (axis == 0) c.fail("axis is the batch");
  if (c.shape(2)) unify(c, (*c.shape(2))[0], cache[0], "write_indices and the batch");
  require_rank(c, 1, cache.size());
  if (!c.shape(1)) return;
  const SymbolicShape& update = *c.shape(1);
  for (size_t i = 0; i < cache.size(); ++i) {
    if (i != axis) unify(c, update[i], cache[i], "cache and update");
  }
  if (cache[axis].known() && update[axis].known() && update[axis].value > cache[axis].value) {
    c.fail(fmt::format("an update of {} does not fit a cache of {}", update[axis].value,
                       cache[axis].value));
  }
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Attention", 3, 7, 1, 4, 23, infer_attention},
    {kDomain, kAttention, 3, 9, 1, 4, 1, infer_stored_attention},
    {"", "RotaryEmbedding", 3, 4, 1, 1, 23, infer_rotary_embedding},
    {"", "TensorScatter", 2, 3, 1, 1, 24, infer_tensor_scatter},
};

}  // namespace

std::span<const OpInfo> attention_ops() {
  return kOps;
}

}  // namespace narrow::ops
