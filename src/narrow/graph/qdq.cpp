// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/qdq.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"

namespace narrow {
namespace {

std::optional<QdqGrid> grid_of(const Graph& graph, const Node& node, ValueId codes, ValueId real) {
  const Tensor* scale = graph.constant(node.input(1));
  if (scale == nullptr) return std::nullopt;
  if (node.input(2) != kNoId && graph.constant(node.input(2)) == nullptr) return std::nullopt;
  QdqGrid grid;
  grid.codes = codes;
  grid.real = real;
  grid.scale = node.input(1);
  grid.zero_point = node.input(2);
  grid.axis = node.int_or("axis", 1);
  grid.block_size = node.int_or("block_size", 0);
  grid.per_tensor = scale->elements() == 1 && grid.block_size == 0;
  grid.code_dtype = graph.value(codes).dtype;
  return grid;
}

/// The zero_point as ONNX stores it, in the dtype of the codes; all zeros when the grid has none.
Tensor stored_zero_point(const QuantParams& params, DType dtype) {
  const Dims& dims = params.scale.dims();
  if (!params.zero_point.defined()) return Tensor(dtype, dims);
  const std::vector<int64_t> values = params.zero_point.to_ints();
  return Tensor::from_ints(values, dtype, dims);
}

/// One pair of scale and zero_point initializers per grid and name.
struct GridInputs {
  ValueId scale = kNoId;
  ValueId zero_point = kNoId;
};

GridInputs add_grid(Graph& graph, const std::string& name, const QuantParams& params, DType dtype) {
  if (params.scheme.symmetry == Symmetry::offset) {
    throw Error(ErrorCode::unsupported,
                fmt::format("'{}': QuantizeLinear has no real-valued offset", name),
                "choose a symmetric or asymmetric scheme");
  }
  GridInputs grid;
  grid.scale = graph.add_initializer(graph.unique_name(name + "_scale"), params.scale);
  // Zeros for every group would be bytes without content; elsewhere some runtimes want them spelt
  // out.
  const bool implied = params.scheme.granularity == Granularity::per_group &&
                       params.scheme.is_signed && !params.zero_point.defined();
  if (!implied) {
    grid.zero_point = graph.add_initializer(graph.unique_name(name + "_zero_point"),
                                            stored_zero_point(params, dtype));
  }
  return grid;
}

Attributes grid_attributes(const QuantParams& params) {
  Attributes attributes;
  const Scheme& scheme = params.scheme;
  if (scheme.granularity == Granularity::per_axis) attributes["axis"] = scheme.axis;
  if (scheme.granularity == Granularity::per_group) {
    attributes["axis"] = scheme.axis;
    attributes["block_size"] = scheme.group_size;
  }
  return attributes;
}

/// Nominal grids that the storage type exceeds (3 bits in int4, narrow range) are a Clip in front.
bool needs_clip(const Scheme& scheme) {
  const DType storage = scheme.storage();
  return scheme.qmin() > integer_min(storage) || scheme.qmax() < integer_max(storage);
}

ValueId add_clip(Graph& graph, ValueId x, const std::string& name, const QuantParams& params) {
  const float scale = params.scale.to_floats()[0];
  const int64_t zero_point =
      params.zero_point.defined() ? params.zero_point.to_ints()[0] : int64_t{0};
  const auto bound = [&](int32_t code) {
    return scale * static_cast<float>(static_cast<int64_t>(code) - zero_point);
  };
  const ValueId lo = graph.add_initializer(graph.unique_name(name + "_clip_min"),
                                           Tensor::scalar(bound(params.scheme.qmin())));
  const ValueId hi = graph.add_initializer(graph.unique_name(name + "_clip_max"),
                                           Tensor::scalar(bound(params.scheme.qmax())));
  const NodeId clip = graph.add_node("Clip", {x, lo, hi}, {name + "_clipped"});
  return graph.node(clip).outputs[0];
}

void quantize_activation(Graph& graph, const std::string& name, const QuantParams& params) {
  const auto found = graph.find_value(name);
  if (!found) throw Error(ErrorCode::internal, fmt::format("no value '{}' to quantize", name));
  const ValueId x = *found;
  const DType dtype = params.scheme.storage();
  const std::vector<Use> users = graph.value(x).uses;
  const bool is_output = graph.value(x).is_output;
  const GridInputs grid = add_grid(graph, name, params, dtype);
  ValueId source = x;
  if (needs_clip(params.scheme)) source = add_clip(graph, x, name, params);
  const NodeId q = graph.add_node("QuantizeLinear", {source, grid.scale, grid.zero_point},
                                  {name + "_quantized"}, grid_attributes(params));
  graph.mutable_value(graph.node(q).outputs[0]).dtype = dtype;
  const NodeId dq =
      graph.add_node("DequantizeLinear", {graph.node(q).outputs[0], grid.scale, grid.zero_point},
                     {name + "_dequantized"}, grid_attributes(params));
  const ValueId y = graph.node(dq).outputs[0];
  graph.mutable_value(y).dtype = graph.value(x).dtype;
  graph.mutable_value(y).shape = graph.value(x).shape;
  graph.mutable_value(graph.node(q).outputs[0]).shape = graph.value(x).shape;
  for (const Use& use : users) graph.set_input(use.node, static_cast<size_t>(use.index), y);
  if (is_output) graph.replace_output(x, y);
}

void quantize_constant(Graph& graph, const std::string& name, const QuantizedTensor& quantized) {
  const auto found = graph.find_value(name);
  if (!found || !graph.value(*found).is_constant()) {
    throw Error(ErrorCode::internal, fmt::format("no initializer '{}' to quantize", name));
  }
  const ValueId w = *found;
  const std::vector<Use> users = graph.value(w).uses;
  const GridInputs grid = add_grid(graph, name, quantized.params, quantized.codes.dtype());
  const ValueId codes =
      graph.add_initializer(graph.unique_name(name + "_quantized"), quantized.codes);
  std::vector<ValueId> inputs = {codes, grid.scale};
  if (grid.zero_point != kNoId) inputs.push_back(grid.zero_point);
  const NodeId dq = graph.add_node("DequantizeLinear", std::move(inputs), {name + "_dequantized"},
                                   grid_attributes(quantized.params));
  const ValueId y = graph.node(dq).outputs[0];
  graph.mutable_value(y).dtype = DType::float32;
  graph.mutable_value(y).shape = symbolic(quantized.codes.dims());
  for (const Use& use : users) graph.set_input(use.node, static_cast<size_t>(use.index), y);
}

}  // namespace

std::optional<QdqGrid> dequantized_from(const Graph& graph, ValueId value) {
  const Node* node = graph.producer(value);
  if (node == nullptr || !node->is("DequantizeLinear")) return std::nullopt;
  return grid_of(graph, *node, node->inputs[0], value);
}

std::optional<QdqGrid> quantizes_to(const Graph& graph, NodeId id) {
  if (id == kNoId) return std::nullopt;
  const Node& node = graph.node(id);
  if (!node.is("QuantizeLinear")) return std::nullopt;
  auto grid = grid_of(graph, node, node.outputs[0], node.inputs[0]);
  // Inference may not have run yet: the zero_point decides the type, then the attribute, then
  // uint8.
  if (grid && grid->code_dtype == DType::undefined) {
    const Tensor* zero_point = graph.constant(node.input(2));
    grid->code_dtype = zero_point != nullptr ? zero_point->dtype() : DType::uint8;
  }
  return grid;
}

int64_t insert_qdq(Graph& graph, const QdqPlan& plan) {
  for (const auto& [name, quantized] : plan.weights) quantize_constant(graph, name, quantized);
  for (const auto& [name, quantized] : plan.biases) quantize_constant(graph, name, quantized);
  for (const auto& [name, params] : plan.activations) quantize_activation(graph, name, params);
  graph.sort();
  graph.remove_dead();
  return static_cast<int64_t>(plan.weights.size() + plan.biases.size() + plan.activations.size());
}

}  // namespace narrow
