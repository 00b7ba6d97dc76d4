// SPDX-License-Identifier: Apache-2.0
// Decoders: llama and its kin, gemma, gpt2. What tells them apart is in the config.
#include <fmt/format.h>

#include <limits>

#include "narrow/graph/lowered_ops.h"
#include "narrow/llm/architectures/model_builder.h"

namespace narrow::llm {
namespace {

class Decoder {
 public:
  Decoder(const Checkpoint& checkpoint, const GraphOptions& options)
      : b_(checkpoint, options),
        c_(b_.config()),
        options_(options),
        capacity_(options.capacity > 0 ? options.capacity : c_.context) {}

  Graph build();

 private:
  ValueId attention(const std::string& block, int64_t layer, ValueId x);
  ValueId attend(const std::string& block, int64_t layer, ModelBuilder::Projections p);
  ValueId attend_past(const std::string& block, int64_t layer, ModelBuilder::Projections p);
  void add_positions();
  std::pair<ValueId, ValueId> rope(bool local);
  ValueId stored(const std::string& name, DType dtype, ValueId update, int64_t width);
  ValueId cached(const std::string& name, ValueId x);
  ValueId heads_first(ValueId x, int64_t heads, const std::string& name);
  ValueId logits(ValueId x);

  bool onnx() const { return options_.form == GraphForm::onnx; }

  ModelBuilder b_;
  const ModelConfig& c_;
  GraphOptions options_;
  int64_t capacity_;
  ValueId ids_ = kNoId;
  ValueId position_ = kNoId;
  ValueId position_ids_ = kNoId;
  // Of form onnx.
  ValueId attention_mask_ = kNoId;
  std::vector<ValueId> presents_;
};

ValueId Decoder::heads_first(ValueId x, int64_t heads, const std::string& name) {
  const ValueId shape = b_.constant(fmt::format("shape.heads.{}", heads),
                                    Tensor::vector<int64_t>({0, 0, heads, c_.head_dim}));
  const ValueId split = b_.add("Reshape", {x, shape}, name + ".heads");
  return b_.add("Transpose", {split}, name + ".heads_first",
                {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
}

/// Writes `update` [batch, kv_heads, length, width] behind the tokens of the state `name`; all of
/// it.
ValueId Decoder::stored(const std::string& name, DType dtype, ValueId update, int64_t width) {
  Graph& graph = b_.graph();
  const ValueId cache = graph.add_input(
      name, dtype, SymbolicShape{Dim::symbol("batch"), c_.kv_heads, capacity_, width});
  const ValueId next =
      b_.add("TensorScatter", {cache, update, position_}, name + "_next", {{"axis", int64_t{2}}});
  graph.add_output(next);
  return next;
}

/// Writes x behind the tokens of a cache; the whole cache as float32.
ValueId Decoder::cached(const std::string& name, ValueId x) {
  const ValueId update = heads_first(x, c_.kv_heads, name + ".new");
  if (options_.cache == CacheType::f32) {
    return stored(name, DType::float32, update, c_.head_dim);
  }
  if (options_.cache == CacheType::f16) {
    const ValueId half = b_.add("Cast", {update}, name + ".narrow", {{"to", int64_t{10}}});
    return b_.add("Cast", {stored(name, DType::float16, half, c_.head_dim)}, name + ".wide",
                  {{"to", int64_t{1}}});
  }
  const int64_t blocks = (c_.head_dim + kCacheBlock - 1) / kCacheBlock;
  Graph& graph = b_.graph();
  const NodeId quantize =
      graph.add_node(ops::kDynamicQuantize, {update}, {name + ".new_codes", name + ".new_scales"},
                     {{"block_size", kCacheBlock}}, ops::kDomain, name + ".narrow");
  const std::vector<ValueId> narrow = graph.node(quantize).outputs;
  const ValueId codes = stored(name, DType::int8, narrow[0], c_.head_dim);
  const ValueId scales = stored(name + ".scale", DType::float32, narrow[1], blocks);
  return b_.add("DequantizeLinear", {codes, scales}, name + ".wide",
                {{"axis", int64_t{-1}}, {"block_size", kCacheBlock}});
}

ValueId Decoder::attend(const std::string& block, int64_t layer, ModelBuilder::Projections p) {
  Attributes attributes = b_.attention_attributes(layer);
  const std::string name = block + "attn";
  if (onnx()) return attend_past(block, layer, p);
  if (options_.cache == CacheType::none) {
    attributes["q_num_heads"] = c_.heads;
    attributes["kv_num_heads"] = c_.kv_heads;
    return b_.add("Attention", {p.q, p.k, p.v}, name, attributes);
  }
  const ValueId q = heads_first(p.q, c_.heads, block + "attn_q");
  const ValueId k = cached(fmt::format("cache_k.{}", layer), p.k);
  const ValueId v = cached(fmt::format("cache_v.{}", layer), p.v);
  const ValueId total = b_.total_length(ids_, position_);
  const ValueId y =
      b_.add("Attention", {q, k, v, kNoId, kNoId, kNoId, total}, name + ".heads", attributes);
  const ValueId rows =
      b_.add("Transpose", {y}, name + ".rows", {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
  const ValueId joined = b_.constant(fmt::format("shape.joined.{}", c_.heads),
                                     Tensor::vector<int64_t>({0, 0, c_.heads * c_.head_dim}));
  return b_.add("Reshape", {rows, joined}, name);
}

/// Keys and values grow: the past ones come in, all go out.
ValueId Decoder::attend_past(const std::string& block, int64_t layer, ModelBuilder::Projections p) {
  Graph& graph = b_.graph();
  Attributes attributes = b_.attention_attributes(layer);
  attributes["q_num_heads"] = c_.heads;
  attributes["kv_num_heads"] = c_.kv_heads;
  const SymbolicShape past{Dim::symbol("batch"), c_.kv_heads, Dim::symbol("past"), c_.head_dim};
  std::vector<ValueId> inputs{p.q, p.k, p.v,
                              b_.causal_mask(ids_, attention_mask_, c_.window_of(layer))};
  std::vector<std::string> outputs{block + "attn"};
  for (const char* kind : {"key", "value"}) {
    inputs.push_back(
        graph.add_input(fmt::format("past_key_values.{}.{}", layer, kind), DType::float32, past));
    outputs.push_back(fmt::format("present.{}.{}", layer, kind));
  }
  const NodeId node = graph.add_node("Attention", std::move(inputs), std::move(outputs),
                                     std::move(attributes), "", block + "attn");
  const std::vector<ValueId> results = graph.node(node).outputs;
  presents_.insert(presents_.end(), {results[1], results[2]});
  return results[0];
}

ValueId Decoder::attention(const std::string& block, int64_t layer, ValueId x) {
  ModelBuilder::Projections p = b_.projections(block, x);
  if (c_.qk_norm) {
    p.q = b_.head_norm(block + "attn_q_norm", p.q, c_.heads);
    p.k = b_.head_norm(block + "attn_k_norm", p.k, c_.kv_heads);
  }
  if (c_.positions == PositionKind::rope) {
    const bool local = c_.rope_theta_local != 0 && c_.window_of(layer) != 0;
    const auto tables = rope(local);
    const ValueId rows = onnx() ? kNoId : position_ids_;
    p.q = b_.rotated(p.q, c_.heads, tables, rows, block + "attn_q_rope");
    p.k = b_.rotated(p.k, c_.kv_heads, tables, rows, block + "attn_k_rope");
  }
  return b_.linear(block + "attn_output", attend(block, layer, p));
}

/// Tables by position; of form onnx, which has no capacity, the angles of these tokens.
std::pair<ValueId, ValueId> Decoder::rope(bool local) {
  const char* name = local ? "rope_local" : "rope";
  return onnx() ? b_.rope_angles(name, position_ids_, local)
                : b_.rope_tables(name, capacity_, local);
}

ValueId Decoder::logits(ValueId x) {
  if (options_.first_logit != 0 && !onnx()) {
    const auto numbers = [this](const char* name, int64_t n) {
      return b_.constant(name, Tensor::vector<int64_t>({n}));
    };
    x = b_.add("Slice",
               {x, numbers("logits.first", options_.first_logit),
                numbers("logits.end", std::numeric_limits<int64_t>::max()), numbers("axis_1", 1)},
               "logits.rows");
  }
  const ValueId normed = b_.norm("output_norm", x);
  const char* matrix = c_.tied_embedding ? "token_embd" : "output";
  if (c_.logit_softcap == 0) return b_.linear_as(matrix, normed, "logits");
  return b_.softcapped(b_.linear_as(matrix, normed, "logits.raw"), c_.logit_softcap, "logits");
}

void Decoder::add_positions() {
  Graph& graph = b_.graph();
  const Dim batch = Dim::symbol("batch");
  const SymbolicShape tokens{batch, Dim::symbol("length")};
  ids_ = graph.add_input("input_ids", DType::int64, tokens);
  if (onnx()) {
    const SymbolicShape all{batch, Dim::symbol("total")};
    attention_mask_ = graph.add_input("attention_mask", DType::int64, all);
    position_ids_ = graph.add_input("position_ids", DType::int64, tokens);
  } else {
    position_ = graph.add_input("position", DType::int64, SymbolicShape{batch});
    position_ids_ = b_.position_ids(ids_, position_);
  }
}

Graph Decoder::build() {
  Graph& graph = b_.graph();
  graph.name = c_.architecture;
  add_positions();
  ValueId x = b_.embedding("token_embd", ids_);
  if (c_.embedding_scale != 1) x = b_.scaled(x, c_.embedding_scale, "token_embd.scaled");
  if (c_.positions == PositionKind::learned) {
    x = b_.add("Add", {x, b_.embedding("position_embd", position_ids_)}, "embedded");
  }
  const bool around = c_.norm_placement == NormPlacement::around;
  for (int64_t layer = 0; layer < c_.layers; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    ValueId y = attention(block, layer, b_.norm(block + "attn_norm", x));
    if (around) y = b_.norm(block + "post_attention_norm", y);
    x = b_.add("Add", {x, y}, block + "attn_residual");
    y = b_.feed_forward(block, b_.norm(block + "ffn_norm", x));
    if (around) y = b_.norm(block + "post_ffw_norm", y);
    x = b_.add("Add", {x, y}, block + "ffn_residual");
  }
  graph.add_output(logits(x));
  for (const ValueId present : presents_) graph.add_output(present);
  return std::move(graph);
}

}  // namespace

Graph build_decoder(const Checkpoint& checkpoint, const GraphOptions& options) {
  return Decoder(checkpoint, options).build();
}

}  // namespace narrow::llm
