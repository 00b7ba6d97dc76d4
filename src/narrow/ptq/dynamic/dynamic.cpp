// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/dynamic/dynamic.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "narrow/core/error.h"

namespace narrow {
namespace {

struct QuantizedInput {
  ValueId codes;
  ValueId scale;
  ValueId zero_point;
};

/// [K, N] from [N, K], of 8-bit codes.
Tensor transposed(const Tensor& codes) {
  const int64_t rows = codes.dim(0);
  const int64_t columns = codes.dim(1);
  Tensor out(codes.dtype(), {columns, rows});
  const std::byte* from = codes.raw();
  std::byte* to = out.mutable_raw();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
  }
  return out;
}

Tensor as_8_bit(const Tensor& codes) {
  if (bits(codes.dtype()) == 8) return codes;
  const DType wide = is_signed_integer(codes.dtype()) ? DType::int8 : DType::uint8;
  return Tensor::from_ints(codes.to_ints(), wide, codes.dims());
}

class DynamicWriter {
 public:
  DynamicWriter(Graph& graph, const QdqPlan& plan) : graph_(graph), plan_(plan) {}

  void rewrite(const AssignedLayer& layer) {
    const NodeId id = *graph_.find_node(layer.node);
    const Node node = graph_.node(id);  // a copy: the graph changes below
    const ValueId result = node.outputs[0];
    const std::vector<Use> users = graph_.value(result).uses;
    const bool conv = node.is("Conv");
    to_integer(id, node, layer);

    constexpr int64_t kFloat = 1;  // TensorProto.FLOAT
    const std::string name = graph_.value(result).name;
    const ValueId real =
        add("Cast", {result}, name + "_cast", {{"to", kFloat}}, result, node.name + "_cast");
    // One scale (and bias) per channel, broadcast over what follows the channel axis.
    const QuantParams& params = plan_.weights.at(layer.weights).params;
    const size_t trailing = conv ? graph_.constant(graph_.node(id).inputs[1])->rank() - 2 : 0;
    const ValueId w_scale =
        constant(layer.weights + "_scale", over_channels(params.scale, trailing));
    const ValueId scale = add("Mul", {quantized(node.inputs[0]).scale, w_scale}, name + "_scale",
                              {}, kNoId, node.name + "_scale");
    ValueId y = add("Mul", {real, scale}, name + "_scaled", {}, result, node.name + "_scaled");
    const ValueId bias = node.is("MatMul") ? kNoId : node.input(2);
    if (bias != kNoId) {
      const ValueId b = constant(graph_.value(bias).name + "_channels",
                                 over_channels(*graph_.constant(bias), trailing));
      y = add("Add", {y, b}, name + "_biased", {}, result, node.name + "_bias");
    }
    for (const Use& use : users) graph_.set_input(use.node, static_cast<size_t>(use.index), y);
    if (graph_.value(result).is_output) {
      graph_.replace_output(result, y);
    } else {
      graph_.rename_value(result, graph_.unique_name(name + "_integer"));
      graph_.rename_value(y, name);
    }
  }

 private:
  /// The node itself becomes the integer product; its result int32.
  void to_integer(NodeId id, const Node& node, const AssignedLayer& layer) {
    const QuantizedTensor& weights = plan_.weights.at(layer.weights);
    const bool conv = node.is("Conv");
    Tensor codes = as_8_bit(weights.codes);
    if (node.is("Gemm") && node.int_or("transB", 0) != 0) codes = transposed(codes);
    const QuantizedInput x = quantized(node.inputs[0]);
    std::vector<ValueId> inputs{x.codes, constant(layer.weights + "_quantized", codes),
                                x.zero_point};
    if (weights.params.zero_point.defined()) {
      inputs.push_back(
          constant(layer.weights + "_zero_point", short_zero_point(weights.params, codes.dtype())));
    }
    graph_.set_op(id, conv ? "ConvInteger" : "MatMulInteger");
    if (!conv) graph_.attributes(id).clear();
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (i < graph_.node(id).inputs.size()) {
        graph_.set_input(id, i, inputs[i]);
      } else {
        graph_.add_node_input(id, inputs[i]);
      }
    }
    graph_.mutable_value(node.outputs[0]).dtype = DType::int32;
  }

  /// A scalar where all channels agree: onnxruntime's ConvInteger takes nothing else.
  static Tensor short_zero_point(const QuantParams& params, DType dtype) {
    const std::vector<int64_t> values = params.zero_point.to_ints();
    const bool equal =
        std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == values.front(); });
    if (equal && !values.empty())
      return Tensor::from_ints(std::span(values).first(1), dtype, Dims{});
    return Tensor::from_ints(values, dtype, params.scale.dims());
  }

  QuantizedInput quantized(ValueId x) {
    if (const auto found = inputs_.find(x); found != inputs_.end()) return found->second;
    const std::string name = graph_.value(x).name;
    const NodeId node = graph_.add_node(
        "DynamicQuantizeLinear", {x},
        {graph_.unique_name(name + "_quantized"), graph_.unique_name(name + "_scale"),
         graph_.unique_name(name + "_zero_point")});
    const auto outputs = graph_.node(node).outputs;
    graph_.mutable_value(outputs[0]).dtype = DType::uint8;
    graph_.mutable_value(outputs[0]).shape = graph_.value(x).shape;
    graph_.mutable_value(outputs[1]).dtype = DType::float32;
    graph_.mutable_value(outputs[1]).shape = SymbolicShape{};
    graph_.mutable_value(outputs[2]).dtype = DType::uint8;
    graph_.mutable_value(outputs[2]).shape = SymbolicShape{};
    return inputs_[x] = {outputs[0], outputs[1], outputs[2]};
  }

  ValueId constant(const std::string& name, const Tensor& tensor) {
    return graph_.add_initializer(graph_.unique_name(name), tensor);
  }

  /// [channels, 1, ...]; a scalar stays one.
  static Tensor over_channels(const Tensor& values, size_t trailing) {
    if (values.elements() == 1 && values.rank() == 0) return values;
    Dims dims{values.elements()};
    dims.insert(dims.end(), trailing, 1);
    return values.reshaped(dims);
  }

  ValueId add(const char* op, std::vector<ValueId> inputs, const std::string& output,
              Attributes attributes, ValueId shape_of, const std::string& name) {
    const NodeId node = graph_.add_node(op, std::move(inputs), {graph_.unique_name(output)},
                                        std::move(attributes), "", name);
    const ValueId y = graph_.node(node).outputs[0];
    graph_.mutable_value(y).dtype = DType::float32;
    if (shape_of != kNoId) graph_.mutable_value(y).shape = graph_.value(shape_of).shape;
    return y;
  }

  Graph& graph_;
  const QdqPlan& plan_;
  std::map<ValueId, QuantizedInput> inputs_;
};

}  // namespace

void write_dynamic(Graph& graph, const Assignment& assignment, const QdqPlan& plan) {
  DynamicWriter writer(graph, plan);
  for (const AssignedLayer& layer : assignment.layers) {
    if (layer.weight_scheme) writer.rewrite(layer);
  }
}

}  // namespace narrow
