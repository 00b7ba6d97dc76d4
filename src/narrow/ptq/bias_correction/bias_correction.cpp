// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/bias_correction/bias_correction.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/ptq/weight_position.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

const Tensor& constant_of(const Graph& graph, const std::string& name) {
  const auto id = graph.find_value(name);
  const Tensor* tensor = id ? graph.constant(*id) : nullptr;
  if (tensor == nullptr) {
    throw Error(ErrorCode::internal, fmt::format("no initializer '{}'", name));
  }
  return *tensor;
}

/// The node's bias input as a new initializer of zeros; an empty name where it cannot have one.
std::string add_zero_bias(Graph& graph, const AssignedLayer& layer) {
  const NodeId id = *graph.find_node(layer.node);
  if (graph.node(id).is("MatMul")) return {};
  const ValueId bias = graph.add_initializer(graph.unique_name(layer.node + "_bias"),
                                             Tensor(DType::float32, {layer.channels}));
  if (graph.node(id).inputs.size() > 2) {
    graph.set_input(id, 2, bias);
  } else {
    graph.add_node_input(id, bias);
  }
  return graph.value(bias).name;
}

}  // namespace

std::vector<double> rounding_shift(const Graph& graph, const AssignedLayer& layer,
                                   const QuantizedTensor& weights, const ChannelMoments& moments) {
  const Tensor& w = constant_of(graph, layer.weights);
  std::vector<double> shift(static_cast<size_t>(layer.channels), 0.0);
  const WeightPosition position(layer, w.elements(), static_cast<int64_t>(moments.mean.size()));
  if (!position.fits()) return shift;
  const auto exact = w.data<float>();
  const std::vector<float> rounded = dequantize(weights.codes, weights.params).to_floats();
  for (size_t i = 0; i < exact.size(); ++i) {
    const auto element = static_cast<int64_t>(i);
    const double error = static_cast<double>(exact[i]) - static_cast<double>(rounded[i]);
    shift[static_cast<size_t>(position.channel(element))] +=
        error * moments.mean[static_cast<size_t>(position.input(element))];
  }
  return shift;
}

void shift_bias(Graph& graph, AssignedLayer& layer, const std::vector<double>& shift,
                BiasForm form) {
  if (std::all_of(shift.begin(), shift.end(), [](double s) { return s == 0; })) return;
  if (layer.bias.empty()) {
    layer.bias = add_zero_bias(graph, layer);
    if (layer.bias.empty()) return;
    layer.integer_bias = form == BiasForm::int32 && layer.integer_layer;
  }
  const ValueId bias = *graph.find_value(layer.bias);
  const Tensor old = *graph.constant(bias);
  std::vector<float> values = old.to_floats();
  for (size_t c = 0; c < values.size(); ++c) {
    values[c] = static_cast<float>(static_cast<double>(values[c]) + shift.at(c));
    if (!std::isfinite(values[c])) {
      throw Error(ErrorCode::numeric_failure,
                  fmt::format("node '{}': the corrected bias {} is {}", layer.node, c, values[c]));
    }
  }
  graph.set_constant(bias, Tensor::from(values, old.dims()));
}

}  // namespace narrow
