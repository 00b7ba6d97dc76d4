// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/infer_node.h"

#include <fmt/format.h>

#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

/// The values that shapes depend on: sizes, axes, counts, scales. KnownValue tracks no larger ones.
bool may_steer_shapes(const TensorView& view) {
  return view.layout == Layout::plain && view.elements() <= KnownValue::kMaxElements &&
         KnownValue::tracks(view.dtype);
}

Tensor copy_of(const TensorView& view) {
  Tensor tensor(view.dtype, view.dims);
  if (tensor.bytes() > 0) std::memcpy(tensor.mutable_raw(), view.data, tensor.bytes());
  return tensor;
}

}  // namespace

Graph single_node_graph(const Graph& graph, const Node& node,
                        std::span<const NodeOperand> operands) {
  Graph single;
  single.name = node.name;
  std::vector<ValueId> inputs;
  for (size_t i = 0; i < operands.size(); ++i) {
    const NodeOperand& operand = operands[i];
    const std::string name = fmt::format("input_{}", i);
    if (!operand.present) {
      inputs.push_back(kNoId);
    } else if (operand.value.defined()) {
      inputs.push_back(single.add_initializer(name, operand.value));
    } else {
      inputs.push_back(single.add_input(name, operand.dtype, symbolic(operand.dims)));
    }
  }
  std::vector<ValueId> outputs;
  for (const ValueId id : node.outputs) {
    if (id == kNoId) {
      outputs.push_back(kNoId);
      continue;
    }
    const DType dtype = graph.value(id).dtype;
    outputs.push_back(single.add_value(fmt::format("output_{}", outputs.size()), dtype));
  }
  const std::vector<ValueId> results = outputs;
  single.add_node_onto(node.op, std::move(inputs), std::move(outputs), node.attributes, node.domain,
                       node.name);
  for (const ValueId id : results) {
    if (id != kNoId) single.add_output(id);
  }
  return single;
}

std::vector<Dims> infer_output_dims(const Graph& graph, const Node& node,
                                    std::span<const TensorView> inputs) {
  std::vector<NodeOperand> operands(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    NodeOperand& operand = operands[i];
    operand.present = inputs[i].data != nullptr;
    if (!operand.present) continue;
    operand.dtype = inputs[i].dtype;
    operand.dims = inputs[i].dims;
    if (const Tensor* constant = graph.constant(node.inputs[i])) {
      operand.value = *constant;
    } else if (may_steer_shapes(inputs[i])) {
      operand.value = copy_of(inputs[i]);
    }
  }
  Graph single = single_node_graph(graph, node, operands);
  infer_shapes(single);
  std::vector<Dims> dims;
  size_t next = 0;
  for (const ValueId id : node.outputs) {
    if (id == kNoId) {
      dims.emplace_back();
      continue;
    }
    const auto& shape = single.value(single.outputs()[next++]).shape;
    std::optional<Dims> known = shape ? concrete(*shape) : std::nullopt;
    if (!known) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("node '{}' ({}): the shape of output '{}' is not known even when its "
                              "inputs are",
                              node.name, node.op, graph.value(id).name));
    }
    dims.push_back(std::move(*known));
  }
  return dims;
}

}  // namespace narrow
