// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/decompose.h"

#include <fmt/format.h>

#include <limits>
#include <numbers>
#include <optional>

#include "narrow/graph/op_table.h"

namespace narrow::onnx {
namespace {

/// Nodes that stand for one, named after it.
class Body {
 public:
  Body(Graph& graph, const Node& node) : graph_(graph), name_(node.name) {}

  ValueId add(const char* op, std::vector<ValueId> inputs, Attributes attributes = {}) {
    const std::string name = fmt::format("{}/{}_{}", name_, op, count_++);
    const NodeId node = graph_.add_node(op, std::move(inputs), {graph_.unique_name(name)},
                                        std::move(attributes), "", name);
    return graph_.node(node).outputs[0];
  }
  ValueId number(float x) { return constant(Tensor::scalar(x)); }
  ValueId numbers(const std::vector<int64_t>& x) { return constant(Tensor::vector(x)); }
  ValueId reshape(ValueId x, const std::vector<int64_t>& dims) {
    return add("Reshape", {x, numbers(dims)});
  }
  ValueId unsqueeze(ValueId x, const std::vector<int64_t>& axes) {
    return add("Unsqueeze", {x, numbers(axes)});
  }
  ValueId transpose(ValueId x, const std::vector<int64_t>& perm) {
    return add("Transpose", {x}, {{"perm", perm}});
  }
  ValueId concat(std::vector<ValueId> parts, int64_t axis) {
    return add("Concat", std::move(parts), {{"axis", axis}});
  }
  std::pair<ValueId, ValueId> split(ValueId x, int64_t first, int64_t second) {
    const std::string name = fmt::format("{}/Split_{}", name_, count_++);
    const NodeId node =
        graph_.add_node("Split", {x, numbers({first, second})},
                        {graph_.unique_name(name + "_0"), graph_.unique_name(name + "_1")},
                        {{"axis", int64_t{-1}}}, "", name);
    return {graph_.node(node).outputs[0], graph_.node(node).outputs[1]};
  }

 private:
  ValueId constant(Tensor tensor) {
    const std::string name = fmt::format("{}/constant_{}", name_, count_++);
    return graph_.add_initializer(graph_.unique_name(name), std::move(tensor));
  }
  Graph& graph_;
  std::string name_;
  int count_ = 0;
};

using Outputs = std::optional<std::vector<ValueId>>;

/// Dimension `axis` of a value, or nothing where it is not known.
std::optional<int64_t> known_dim(const Graph& graph, ValueId value, int64_t axis) {
  const auto& shape = graph.value(value).shape;
  const int64_t rank = shape ? static_cast<int64_t>(shape->size()) : 0;
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return {};
  const Dim& dim = (*shape)[static_cast<size_t>(axis)];
  return dim.known() ? std::optional(dim.value) : std::nullopt;
}

size_t rank_of(const Graph& graph, ValueId value) {
  const auto& shape = graph.value(value).shape;
  return shape ? shape->size() : 0;
}

bool is_float32(const Graph& graph, const Node& node) {
  return graph.value(node.inputs[0]).dtype == DType::float32;
}

/// Over the last axis alone: there axes are one attribute in all opsets.
bool over_last_axis(const Graph& graph, const Node& node) {
  const int64_t axis = node.int_or("axis", -1);
  return axis == -1 || axis + 1 == static_cast<int64_t>(rank_of(graph, node.inputs[0]));
}

ValueId mean(Body& b, ValueId x) {
  return b.add("ReduceMean", {x, b.numbers({-1})}, {{"keepdims", int64_t{1}}});
}

/// x / sqrt(mean(x^2) + epsilon).
ValueId divided_by_rms(Body& b, ValueId x, float epsilon) {
  const ValueId squares = mean(b, b.add("Mul", {x, x}));
  return b.add("Div", {x, b.add("Sqrt", {b.add("Add", {squares, b.number(epsilon)})})});
}

Outputs rms_normalization(Graph& graph, const Node& node, Body& b) {
  if (!is_float32(graph, node) || !over_last_axis(graph, node)) return {};
  const ValueId x = divided_by_rms(b, node.inputs[0], node.float_or("epsilon", 1e-5F));
  return {{b.add("Mul", {x, node.inputs[1]})}};
}

Outputs layer_normalization(Graph& graph, const Node& node, Body& b) {
  if (!is_float32(graph, node) || !over_last_axis(graph, node) || node.output(1) != kNoId ||
      node.output(2) != kNoId) {
    return {};
  }
  const ValueId centred = b.add("Sub", {node.inputs[0], mean(b, node.inputs[0])});
  const ValueId x = divided_by_rms(b, centred, node.float_or("epsilon", 1e-5F));
  const ValueId scaled = b.add("Mul", {x, node.inputs[1]});
  if (node.input(2) == kNoId) return {{scaled}};
  return {{b.add("Add", {scaled, node.inputs[2]})}};
}

Outputs swish(Graph& graph, const Node& node, Body& b) {
  if (!is_float32(graph, node)) return {};
  const ValueId x = node.inputs[0];
  const float alpha = node.float_or("alpha", 1);
  const ValueId gate = alpha == 1 ? x : b.add("Mul", {x, b.number(alpha)});
  return {{b.add("Mul", {x, b.add("Sigmoid", {gate})})}};
}

Outputs gelu(Graph& graph, const Node& node, Body& b) {
  if (!is_float32(graph, node)) return {};
  const ValueId x = node.inputs[0];
  ValueId inner = kNoId;
  if (node.string_or("approximate", "none") == "tanh") {
    // tanh(sqrt(2 / pi) (x + 0.044715 x^3))
    const ValueId cube = b.add("Mul", {b.add("Mul", {x, x}), x});
    const ValueId sum = b.add("Add", {x, b.add("Mul", {cube, b.number(0.044715F)})});
    const auto factor =
        static_cast<float>(std::numbers::sqrt2 * std::numbers::inv_sqrtpi);  // sqrt(2 / pi)
    inner = b.add("Tanh", {b.add("Mul", {sum, b.number(factor)})});
  } else {
    inner = b.add("Erf", {b.add("Div", {x, b.number(std::numbers::sqrt2_v<float>)})});
  }
  const ValueId half = b.add("Mul", {x, b.number(0.5F)});
  return {{b.add("Mul", {half, b.add("Add", {inner, b.number(1)})})}};
}

/// Of [batch, length, heads * width].
Outputs rotary_embedding(Graph& graph, const Node& node, Body& b) {
  const int64_t heads = node.int_or("num_heads", 0);
  const auto size = known_dim(graph, node.inputs[0], 2);
  if (!is_float32(graph, node) || rank_of(graph, node.inputs[0]) != 3 || heads < 1 || !size ||
      *size % heads != 0) {
    return {};
  }
  const int64_t width = *size / heads;
  const int64_t part = node.int_or("rotary_embedding_dim", 0);
  const int64_t rotated = part > 0 ? part : width;
  const bool pairs = node.int_or("interleaved", 0) != 0;
  ValueId x = b.reshape(node.inputs[0], {0, 0, heads, width});
  ValueId rest = kNoId;
  if (rotated < width) std::tie(x, rest) = b.split(x, rotated, width - rotated);
  if (pairs) x = b.reshape(x, {0, 0, heads, rotated / 2, 2});
  const int64_t each = pairs ? 1 : rotated / 2;
  const auto [first, second] = b.split(x, each, each);
  const auto angles = [&](ValueId table) {
    if (node.input(3) != kNoId) {
      table = b.add("Gather", {table, node.inputs[3]}, {{"axis", int64_t{0}}});
    }
    return b.unsqueeze(table, pairs ? std::vector<int64_t>{2, 4} : std::vector<int64_t>{2});
  };
  const ValueId c = angles(node.inputs[1]);
  const ValueId s = angles(node.inputs[2]);
  const ValueId left = b.add("Sub", {b.add("Mul", {first, c}), b.add("Mul", {second, s})});
  const ValueId right = b.add("Add", {b.add("Mul", {first, s}), b.add("Mul", {second, c})});
  ValueId y = b.concat({left, right}, -1);
  if (pairs) y = b.reshape(y, {0, 0, heads, rotated});
  if (rest != kNoId) y = b.concat({y, rest}, -1);
  return {{b.reshape(y, {0, 0, *size})}};
}

/// [batch, heads, length, width].
ValueId heads_first(Body& b, ValueId x, int64_t heads, int64_t width) {
  return b.transpose(b.reshape(x, {0, 0, heads, width}), {0, 2, 1, 3});
}

/// Of rank 3, with a boolean mask that has all axes, or none: what this project writes.
Outputs attention(Graph& graph, const Node& node, Body& b) {
  const int64_t heads = node.int_or("q_num_heads", 0);
  const int64_t kv_heads = node.int_or("kv_num_heads", 0);
  const auto q_size = known_dim(graph, node.inputs[0], 2);
  const auto v_size = known_dim(graph, node.inputs[2], 2);
  const ValueId mask = node.input(3);
  const bool fits = is_float32(graph, node) && rank_of(graph, node.inputs[0]) == 3 && heads > 0 &&
                    kv_heads > 0 && heads % kv_heads == 0 && q_size && v_size &&
                    *q_size % heads == 0 && *v_size % kv_heads == 0;
  const bool plain =
      node.int_or("is_causal", 0) == 0 && node.int_or("left_window_size", -1) == -1 &&
      node.int_or("right_window_size", -1) == -1 && node.input(6) == kNoId &&
      node.output(3) == kNoId && !node.has("softmax_precision") && node.has("scale") &&
      (mask == kNoId || (graph.value(mask).dtype == DType::boolean && rank_of(graph, mask) == 4));
  if (!fits || !plain) return {};
  const int64_t width = *q_size / heads;
  const int64_t group = heads / kv_heads;
  ValueId q = heads_first(b, node.inputs[0], heads, width);
  ValueId k = heads_first(b, node.inputs[1], kv_heads, width);
  ValueId v = heads_first(b, node.inputs[2], kv_heads, *v_size / kv_heads);
  if (node.input(4) != kNoId) {
    k = b.concat({node.inputs[4], k}, 2);
    v = b.concat({node.inputs[5], v}, 2);
  }
  const std::vector<ValueId> present{k, v};
  ValueId seen = mask;
  if (group > 1) {
    // The queries that share a key stand on an axis of their own.
    q = b.reshape(q, {0, kv_heads, group, -1, width});
    k = b.unsqueeze(k, {2});
    v = b.unsqueeze(v, {2});
    if (mask != kNoId) seen = b.unsqueeze(mask, {1});
  }
  k = b.transpose(
      k, group > 1 ? std::vector<int64_t>{0, 1, 2, 4, 3} : std::vector<int64_t>{0, 1, 3, 2});
  ValueId scores = b.add("Mul", {b.add("MatMul", {q, k}), b.number(node.float_or("scale", 1))});
  if (const float cap = node.float_or("softcap", 0); cap != 0) {
    const ValueId small = b.add("Tanh", {b.add("Div", {scores, b.number(cap)})});
    scores = b.add("Mul", {small, b.number(cap)});
  }
  if (mask != kNoId) {
    scores = b.add("Where", {seen, scores, b.number(std::numeric_limits<float>::lowest())});
  }
  ValueId y = b.add("MatMul", {b.add("Softmax", {scores}, {{"axis", int64_t{-1}}}), v});
  if (group > 1) y = b.reshape(y, {0, heads, -1, *v_size / kv_heads});
  y = b.reshape(b.transpose(y, {0, 2, 1, 3}), {0, 0, heads * (*v_size / kv_heads)});
  return {{y, present[0], present[1]}};
}

struct DecomposeRow {
  const char* op;
  int below;  // applies to files of the opsets below this one
  Outputs (*body)(Graph&, const Node&, Body&);
};

constexpr DecomposeRow kRows[] = {
    {"Swish", 24, swish},
    {"Attention", 23, attention},
    {"RMSNormalization", 23, rms_normalization},
    {"RotaryEmbedding", 23, rotary_embedding},
    {"Gelu", 20, gelu},
    {"LayerNormalization", 17, layer_normalization},
};

/// The new values take over users and names of the node's.
void replace(Graph& graph, NodeId id, const std::vector<ValueId>& results) {
  const std::vector<ValueId> old = graph.node(id).outputs;
  for (size_t i = 0; i < old.size(); ++i) {
    if (old[i] == kNoId) continue;
    // What comes behind asks for them.
    graph.mutable_value(results[i]).dtype = graph.value(old[i]).dtype;
    graph.mutable_value(results[i]).shape = graph.value(old[i]).shape;
    if (graph.value(old[i]).is_output) graph.replace_output(old[i], results[i]);
    graph.replace_uses(old[i], results[i]);
  }
  graph.remove_node(id);
}

}  // namespace

int64_t decompose(Graph& graph, int64_t opset) {
  int64_t count = 0;
  for (const NodeId id : graph.nodes()) {
    for (const DecomposeRow& row : kRows) {
      const Node node = graph.node(id);  // a copy: the graph changes below
      if (opset >= row.below || !node.is(row.op)) continue;
      Body body(graph, node);
      const Outputs results = row.body(graph, node, body);
      if (!results) break;
      replace(graph, id, *results);
      ++count;
      break;
    }
  }
  if (count == 0) return 0;
  graph.sort();
  graph.remove_dead();
  infer_shapes(graph);
  return count;
}

}  // namespace narrow::onnx
