// SPDX-License-Identifier: Apache-2.0
// Operators of language models.
#include <fmt/format.h>

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

/// (q, k, v, mask?, past_key?, past_value?, ...) -> (y, present_key?, present_value?, scores?)
void infer_attention(InferContext& c) {
  for (size_t i = 0; i < 4; ++i) {
    c.set_output(i, c.dtype(i == 1 || i == 2 ? i : 0), std::nullopt);
  }
  if (!c.shape(0) || !c.shape(1) || !c.shape(2)) return;
  const Heads q = heads_of(c, 0, "q_num_heads");
  const Heads k = heads_of(c, 1, "kv_num_heads");
  const Heads v = heads_of(c, 2, "kv_num_heads");
  unify(c, q.width, k.width, "the widths of query and key");
  unify(c, k.length, v.length, "the lengths of key and value");
  const Dim batch = unify(c, q.batch, k.batch, "the batch");
  Dim total = k.length;
  if (c.has_input(4)) {
    const SymbolicShape* past = c.shape(4);
    require_rank(c, 4, 4);
    total = past && (*past)[2].known() ? add(c, total, (*past)[2].value) : Dim();
  }
  if (c.shape(0)->size() == 4) {
    c.set_output(0, c.dtype(0), SymbolicShape{batch, q.heads, q.length, v.width});
  } else {
    c.set_output(0, c.dtype(0), SymbolicShape{batch, q.length, multiply(c, q.heads, v.width)});
  }
  c.set_output(1, c.dtype(1), SymbolicShape{batch, k.heads, total, k.width});
  c.set_output(2, c.dtype(2), SymbolicShape{batch, v.heads, total, v.width});
  c.set_output(3, c.dtype(0), SymbolicShape{batch, q.heads, q.length, total});
}

/// (x, cos, sin, positions?)
void infer_rotary_embedding(InferContext& c) {
  require_min_rank(c, 0, 3);
  infer_same(c);
}

/// (cache, update, write_indices?)
void infer_tensor_scatter(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_same(c);
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Attention", 3, 7, 1, 4, 23, infer_attention},
    {"", "RotaryEmbedding", 3, 4, 1, 1, 23, infer_rotary_embedding},
    {"", "TensorScatter", 2, 3, 1, 1, 24, infer_tensor_scatter},
};

}  // namespace

std::span<const OpInfo> attention_ops() {
  return kOps;
}

}  // namespace narrow::ops
