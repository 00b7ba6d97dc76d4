// SPDX-License-Identifier: Apache-2.0
// Add, Sub, Mul, Div and Concat of codes; unary operators as tables.
#include <fmt/format.h>

#include "narrow/graph/lower/patterns.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/quant/tables.h"

namespace narrow::lower {
namespace {

/// The 256-entry table of a chain of functions between two grids.
Tensor table_of(const Graph& graph, const QdqGrid& x, std::span<const UnaryFunction> chain,
                const QdqGrid& y) {
  const auto code_grid = [&](const QdqGrid& g) {
    CodeGrid grid;
    grid.scale = scalar_scale(graph, g);
    grid.zero_point = static_cast<int32_t>(scalar_zero_point(graph, g));
    grid.dtype = g.code_dtype;
    return grid;
  };
  return chain.empty() ? make_requantize_table(code_grid(x), code_grid(y))
                       : make_table(code_grid(x), chain, code_grid(y));
}

void emit_lookup(Graph& graph, ValueId codes, Tensor table, NodeId quantize,
                 const std::string& name) {
  const ValueId old = graph.node(quantize).outputs[0];
  const DType dtype = table.dtype();
  const ValueId t =
      graph.add_initializer(graph.unique_name(graph.value(old).name + "_table"), std::move(table));
  const NodeId node =
      graph.add_node(ops::kQLookup, {codes, t}, {graph.value(old).name + "_integer"}, {},
                     ops::kDomain, name + "_integer");
  annotate(graph, graph.node(node).outputs[0], dtype, old);
  graph.replace_uses(old, graph.node(node).outputs[0]);
}

/// The scalar constant among the two inputs of a binary operator whose other input is `x`.
std::optional<float> scalar_operand(const Graph& graph, const Node& node, ValueId x, bool* first) {
  *first = node.inputs[1] == x;
  const ValueId other = *first ? node.inputs[0] : node.inputs[1];
  const Tensor* constant = graph.constant(other);
  if (constant == nullptr || constant->elements() != 1 || !is_float(constant->dtype()) ||
      constant->rank() > 1) {
    return std::nullopt;
  }
  return constant->to_floats()[0];
}

UnaryFunction with(UnaryKind kind, double alpha, double beta = 0) {
  return {kind, alpha, beta};
}

/// A binary operator with one scalar constant.
std::optional<UnaryFunction> scalar_function(const Graph& graph, const Node& node, ValueId x) {
  bool first = false;
  const auto scalar = scalar_operand(graph, node, x, &first);
  if (!scalar) return std::nullopt;
  if (node.is("Add")) return with(UnaryKind::add, *scalar);
  if (node.is("Mul")) return with(UnaryKind::multiply, *scalar);
  if (node.is("Sub")) {
    return with(first ? UnaryKind::reverse_subtract : UnaryKind::subtract, *scalar);
  }
  if (node.is("Div")) return with(first ? UnaryKind::reverse_divide : UnaryKind::divide, *scalar);
  if (node.is("Pow") && !first) return with(UnaryKind::pow, *scalar);
  return std::nullopt;
}

/// Clip, Min or Max with constant scalar bounds.
std::optional<UnaryFunction> limits_function(const Graph& graph, const Node& node) {
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    if (node.inputs[i] == kNoId) continue;
    const Tensor* bound = graph.constant(node.inputs[i]);
    if (bound == nullptr || bound->elements() != 1 || !is_float(bound->dtype())) {
      return std::nullopt;
    }
    (i == 1 ? lo : hi) = bound->to_floats()[0];
  }
  return with(UnaryKind::clip, static_cast<double>(lo), static_cast<double>(hi));
}

/// The function that a node applies to the value `x`, if it is one of a table's functions.
std::optional<UnaryFunction> function_of(const Graph& graph, const Node& node, ValueId x) {
  if (!node.domain.empty() || node.outputs.size() != 1) return std::nullopt;
  if (node.is("Add") || node.is("Sub") || node.is("Mul") || node.is("Div") || node.is("Pow")) {
    return scalar_function(graph, node, x);
  }
  if (node.inputs.empty() || node.inputs[0] != x) return std::nullopt;
  if (node.is("Clip")) return limits_function(graph, node);
  if (node.is("PRelu")) {
    const Tensor* slope = graph.constant(node.input(1));
    if (slope == nullptr || slope->elements() != 1) return std::nullopt;
    return with(UnaryKind::leaky_relu, static_cast<double>(slope->to_floats()[0]));
  }
  if (node.inputs.size() != 1) return std::nullopt;
  if (node.is("Gelu") && node.string_or("approximate", "none") == "tanh") {
    return with(UnaryKind::gelu_tanh, 0);
  }
  auto function = unary_function(node.op);
  if (!function) return std::nullopt;
  const auto override_by = [&](const char* name, double& parameter) {
    if (node.has(name)) parameter = static_cast<double>(node.float_or(name, 0));
  };
  override_by("alpha", function->alpha);
  override_by(node.is("Selu") ? "gamma" : "beta", function->beta);
  return function;
}

}  // namespace

Outcome lower_unary(Graph& graph, NodeId id, const LoweringOptions& options) {
  if (!options.lookups) return Outcome::refuse("tables are switched off");
  // Starts at the first node behind a DequantizeLinear and follows single uses to the
  // QuantizeLinear.
  const Node& first = graph.node(id);
  ValueId x = kNoId;
  std::optional<QdqGrid> source;
  for (const ValueId input : first.inputs) {
    if ((source = activation_grid(graph, input))) {
      x = input;
      break;
    }
  }
  if (!source) return Outcome::none();
  std::vector<UnaryFunction> chain;
  NodeId node_id = id;
  while (true) {
    const Node& node = graph.node(node_id);
    if (node.is("QuantizeLinear")) break;
    const auto function = function_of(graph, node, x);
    if (!function) {
      return chain.empty() ? Outcome::none()
                           : Outcome::refuse("its result is not quantized before " + node.op);
    }
    chain.push_back(*function);
    x = node.outputs[0];
    node_id = graph.single_user(x);
    if (node_id == kNoId) return Outcome::refuse("its result is not quantized");
  }
  const auto y = quantizes_to(graph, node_id);
  if (!y || !y->per_tensor || !is_8_bit(y->code_dtype)) {
    return Outcome::refuse("its result is not quantized per tensor with 8 bits");
  }
  emit_lookup(graph, source->codes, table_of(graph, *source, chain, *y), node_id, first.name);
  return Outcome::done();
}

Outcome lower_requantize(Graph& graph, NodeId id, const LoweringOptions& options) {
  const auto y = quantizes_to(graph, id);
  const auto x = activation_grid(graph, graph.node(id).inputs[0]);
  if (!x || !y || !y->per_tensor || !is_8_bit(y->code_dtype)) return Outcome::none();
  if (same_grid(graph, *x, *y)) {
    replace_codes(graph, id, x->codes);
    return Outcome::done();
  }
  if (!options.lookups) return Outcome::refuse("tables are switched off");
  emit_lookup(graph, x->codes, table_of(graph, *x, {}, *y), id, graph.node(id).name);
  return Outcome::done();
}

Outcome lower_binary(Graph& graph, NodeId id, const LoweringOptions& options) {
  const Node& node = graph.node(id);
  const auto a = activation_grid(graph, node.input(0));
  const auto b = activation_grid(graph, node.input(1));
  if (!a && !b) return Outcome::none();
  if (!a || !b) return lower_unary(graph, id, options);
  const Tail tail = tail_of(graph, node.outputs[0]);
  if (tail.quantize == kNoId) return Outcome::refuse("its result is not quantized");
  Attributes attributes;
  attributes["op"] = node.op;
  emit(graph, tail, ops::kQBinary,
       {a->codes, a->scale, a->zero_point, b->codes, b->scale, b->zero_point}, 6,
       std::move(attributes), node.name);
  return Outcome::done();
}

Outcome lower_concat(Graph& graph, NodeId id, const LoweringOptions& options) {
  const Node& node = graph.node(id);
  std::vector<ValueId> inputs;
  size_t quantized = 0;
  for (const ValueId input : node.inputs) {
    const auto x = activation_grid(graph, input);
    if (!x) continue;
    ++quantized;
    inputs.insert(inputs.end(), {x->codes, x->scale, x->zero_point});
  }
  if (quantized == 0) return Outcome::none();
  if (quantized < node.inputs.size()) return Outcome::refuse("not all of its inputs are quantized");
  const Tail tail = tail_of(graph, node.outputs[0]);
  if (tail.quantize == kNoId) return lower_movement(graph, id, options);
  Attributes attributes;
  attributes["axis"] = node.int_or("axis", 0);
  emit(graph, tail, ops::kQConcat, std::move(inputs), 0, std::move(attributes), node.name);
  return Outcome::done();
}

}  // namespace narrow::lower
