// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/op_class.h"

#include <algorithm>

namespace narrow {
namespace {

using Check = std::string (*)(const Graph&, const Node&);

std::string accept(const Graph&, const Node&) {
  return {};
}

std::string check_product(const Graph& graph, const Node& node) {
  std::string reason;
  // Only constness and shapes: the node's id is not needed for that.
  const Tensor* w = graph.constant(node.input(1));
  if (w == nullptr) return "its weights are not constant";
  if (w->dtype() != DType::float32) return "its weights are not float32";
  if (w->rank() < 2) return "its weights are no matrix";
  return reason;
}

std::string check_conv(const Graph& graph, const Node& node) {
  if (auto reason = check_product(graph, node); !reason.empty()) return reason;
  if (graph.constant(node.input(1))->rank() < 3) return "its weights have no spatial axis";
  if (node.input(2) != kNoId && graph.constant(node.input(2)) == nullptr) {
    return "its bias is not constant";
  }
  return {};
}

std::string check_gemm(const Graph& graph, const Node& node) {
  if (auto reason = check_product(graph, node); !reason.empty()) return reason;
  if (node.int_or("transA", 0) != 0) return "transA is set";
  if (node.float_or("alpha", 1) != 1 || node.float_or("beta", 1) != 1) {
    return "alpha or beta is not 1";
  }
  if (node.input(2) == kNoId) return {};
  const Tensor* w = graph.constant(node.input(1));
  const Tensor* bias = graph.constant(node.input(2));
  if (bias == nullptr) return "its bias is not constant";
  const int64_t channels = w->dim(node.int_or("transB", 0) != 0 ? 0 : 1);
  if (bias->elements() != channels) return "its bias is not one value per output";
  return {};
}

std::string check_matmul(const Graph& graph, const Node& node) {
  const Tensor* w = graph.constant(node.input(1));
  if (w == nullptr) return {};  // of two activations
  if (w->dtype() != DType::float32) return "its weights are not float32";
  if (w->rank() != 2) return "its constant weights are no matrix";
  return {};
}

std::string check_mean(const Graph& graph, const Node& node) {
  const auto& shape = graph.value(node.input(0)).shape;
  const Tensor* axes = graph.constant(node.input(1));
  if (!shape || shape->size() < 3 || axes == nullptr) return "it is not over known spatial axes";
  std::vector<int64_t> wanted = axes->to_ints();
  for (int64_t& axis : wanted) axis += axis < 0 ? static_cast<int64_t>(shape->size()) : 0;
  std::sort(wanted.begin(), wanted.end());
  bool spatial = wanted.size() + 2 == shape->size();
  for (size_t i = 0; spatial && i < wanted.size(); ++i) {
    spatial = wanted[i] == static_cast<int64_t>(i) + 2;
  }
  return spatial ? std::string() : "it is not over the spatial axes";
}

std::string check_max_pool(const Graph&, const Node& node) {
  return node.output(1) != kNoId ? "its indices are used" : std::string();
}

std::string check_pad(const Graph& graph, const Node& node) {
  if (node.string_or("mode", "constant") != "constant" || node.input(2) == kNoId) return {};
  const Tensor* fill = graph.constant(node.input(2));
  const bool zero = fill != nullptr && fill->elements() == 1 && fill->to_floats()[0] == 0.0f;
  return zero ? std::string() : "it pads with a value other than 0";
}

std::string check_resize(const Graph&, const Node& node) {
  return node.string_or("mode", "nearest") == "nearest" ? std::string() : "it interpolates";
}

std::string check_prelu(const Graph& graph, const Node& node) {
  const Tensor* slope = graph.constant(node.input(1));
  const bool scalar = slope != nullptr && slope->elements() == 1;
  return scalar ? std::string() : "its slope is not one constant";
}

std::string check_clip(const Graph& graph, const Node& node) {
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (node.input(i) != kNoId && graph.constant(node.input(i)) == nullptr) {
      return "its bounds are not constant";
    }
  }
  return {};
}

std::string check_div(const Graph& graph, const Node& node) {
  const Tensor* divisor = graph.constant(node.input(1));
  const bool scalar = divisor != nullptr && divisor->elements() == 1;
  return scalar ? std::string() : "it divides by more than one constant";
}

struct OpRow {
  const char* name;
  OpClass op_class;
  Check check = accept;
};

// To let another operator run on codes: a row here, and a rule in graph/lower.
constexpr OpRow kRows[] = {
    {"Conv", OpClass::product, check_conv},
    {"Gemm", OpClass::product, check_gemm},
    {"MatMul", OpClass::product, check_matmul},
    {"Add", OpClass::binary},
    {"Sub", OpClass::binary},
    {"Mul", OpClass::binary},
    {"Div", OpClass::binary, check_div},
    {"Concat", OpClass::concat},
    {"AveragePool", OpClass::pool},
    {"GlobalAveragePool", OpClass::pool},
    {"ReduceMean", OpClass::pool, check_mean},
    {"Relu", OpClass::unary},
    {"LeakyRelu", OpClass::unary},
    {"PRelu", OpClass::unary, check_prelu},
    {"Clip", OpClass::unary, check_clip},
    {"Sigmoid", OpClass::unary},
    {"Tanh", OpClass::unary},
    {"HardSigmoid", OpClass::unary},
    {"HardSwish", OpClass::unary},
    {"Elu", OpClass::unary},
    {"Selu", OpClass::unary},
    {"Celu", OpClass::unary},
    {"Softplus", OpClass::unary},
    {"Softsign", OpClass::unary},
    {"Gelu", OpClass::unary},
    {"Mish", OpClass::unary},
    {"Swish", OpClass::unary},
    {"Abs", OpClass::unary},
    {"Neg", OpClass::unary},
    {"MaxPool", OpClass::movement, check_max_pool},
    {"Reshape", OpClass::movement},
    {"Flatten", OpClass::movement},
    {"Transpose", OpClass::movement},
    {"Squeeze", OpClass::movement},
    {"Unsqueeze", OpClass::movement},
    {"Slice", OpClass::movement},
    {"Split", OpClass::movement},
    {"Gather", OpClass::movement},
    {"Expand", OpClass::movement},
    {"Tile", OpClass::movement},
    {"DepthToSpace", OpClass::movement},
    {"SpaceToDepth", OpClass::movement},
    {"Identity", OpClass::movement},
    {"Pad", OpClass::movement, check_pad},
    {"Resize", OpClass::movement, check_resize},
};

bool is_float32(const Graph& graph, ValueId value) {
  return value != kNoId && graph.value(value).dtype == DType::float32;
}

/// The Add of a constant vector over the last axis behind a MatMul, if it is the only user.
NodeId bias_add(const Graph& graph, ValueId product, int64_t channels, ValueId* bias) {
  const NodeId next = graph.single_user(product);
  if (next == kNoId || !graph.node(next).is("Add")) return kNoId;
  const Node& add = graph.node(next);
  const ValueId other = add.inputs[0] == product ? add.inputs[1] : add.inputs[0];
  const Tensor* constant = graph.constant(other);
  if (constant == nullptr || constant->dtype() != DType::float32 || constant->rank() == 0 ||
      constant->elements() != channels || constant->dims().back() != channels) {
    return kNoId;
  }
  *bias = other;
  return next;
}

}  // namespace

OpClassification classify(const Graph& graph, const Node& node) {
  if (!node.domain.empty()) return {};
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const OpRow& r) { return node.op == r.name; });
  if (row == std::end(kRows) || !is_float32(graph, node.output(0))) return {};
  OpClassification result{row->op_class, row->check(graph, node)};
  const bool activation_product = node.is("MatMul") && !graph.value(node.inputs[1]).is_constant();
  if (activation_product) result.op_class = OpClass::binary;
  if (result.reason.empty() && activation_inputs(graph, node).empty()) {
    result.reason = "it has no float32 activation";
  }
  const bool first_is_data =
      result.op_class != OpClass::binary && result.op_class != OpClass::concat;
  if (result.reason.empty() && first_is_data &&
      (!is_float32(graph, node.input(0)) || graph.value(node.inputs[0]).is_constant())) {
    result.reason = "its first input is no float32 activation";
  }
  if (!result.reason.empty()) result.op_class = OpClass::none;
  return result;
}

std::vector<ValueId> activation_inputs(const Graph& graph, const Node& node) {
  std::vector<ValueId> inputs;
  for (const ValueId input : node.inputs) {
    if (is_float32(graph, input) && !graph.value(input).is_constant()) inputs.push_back(input);
  }
  return inputs;
}

bool is_table_function(const Graph& graph, const Node& node, OpClass op_class) {
  if (op_class == OpClass::unary) return true;
  if (op_class != OpClass::binary || node.is("MatMul") || node.inputs.size() != 2) return false;
  return std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId input) {
    const Tensor* constant = graph.constant(input);
    return constant != nullptr && constant->elements() == 1 && constant->rank() <= 1;
  });
}

ValueId behind_activations(const Graph& graph, ValueId from, std::vector<NodeId>* passed) {
  ValueId value = from;
  while (true) {
    const NodeId next = graph.single_user(value);
    if (next == kNoId) return value;
    const Node& node = graph.node(next);
    if (!node.is("Relu") && !(node.is("Clip") && check_clip(graph, node).empty())) return value;
    if (node.input(0) != value) return value;
    if (passed != nullptr) passed->push_back(next);
    value = node.outputs[0];
  }
}

std::optional<Layer> layer_of(const Graph& graph, NodeId id, std::string* reason) {
  const Node& node = graph.node(id);
  const bool transposed = node.is("ConvTranspose");
  if (transposed) {
    *reason = check_conv(graph, node);
  } else {
    const OpClassification c = classify(graph, node);
    *reason = c.reason;
    if (c.op_class != OpClass::product) return std::nullopt;
  }
  if (!reason->empty()) return std::nullopt;
  Layer layer;
  layer.node = id;
  layer.input = node.inputs[0];
  layer.weights = node.inputs[1];
  layer.bias = node.input(2);
  layer.output = node.outputs[0];
  if (node.is("MatMul") || (node.is("Gemm") && node.int_or("transB", 0) == 0) || transposed) {
    layer.channel_axis = 1;
    layer.reduce_axis = 0;
  }
  layer.channels = graph.constant(layer.weights)->dim(layer.channel_axis);
  if (node.is("MatMul")) {
    const NodeId add = bias_add(graph, node.outputs[0], layer.channels, &layer.bias);
    if (add != kNoId) {
      layer.absorbed.push_back(add);
      layer.output = graph.node(add).outputs[0];
    }
  }
  layer.output = behind_activations(graph, layer.output, &layer.absorbed);
  return layer;
}

}  // namespace narrow
