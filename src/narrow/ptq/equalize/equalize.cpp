// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/equalize/equalize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "narrow/ptq/weight_position.h"

namespace narrow {
namespace {

constexpr std::array<double, 5> kPowers = {0, 0.25, 0.5, 0.75, 1};
// A channel is taken as at least this share of the widest: one that calibration hardly saw must
// not be clipped at what little was seen.
constexpr double kSmallestShare = 1.0 / 64;
// Predicted noise must fall by at least this factor: the prediction is no better than that.
constexpr double kWorthwhile = 0.95;

using LayersByName = std::map<std::string, const AssignedLayer*>;

const Tensor& constant_of(const Graph& graph, const std::string& name) {
  return graph.value(*graph.find_value(name)).constant;
}

bool takes_part(const AssignedLayer& layer) {
  return layer.integer_layer && layer.op != "ConvTranspose" &&
         layer.weight_scheme->granularity == Granularity::per_axis &&
         layer.weight_scheme->axis == layer.channel_axis;
}

/// The layer that makes a value and those that read it, and nothing else does.
struct Pair {
  const AssignedLayer* producer = nullptr;
  std::vector<const AssignedLayer*> readers;
};

/// Whether between node and output there is nothing but a bias and Relu.
bool is_homogeneous(const Graph& graph, const AssignedLayer& layer) {
  ValueId value = *graph.find_value(layer.output);
  const NodeId first = *graph.find_node(layer.node);
  while (graph.producer_id(value) != first) {
    const Node& node = *graph.producer(value);
    if (node.is("Add")) {  // the bias of a MatMul
      value = graph.value(node.inputs[0]).is_constant() ? node.inputs[1] : node.inputs[0];
    } else if (node.is("Relu")) {
      value = node.inputs[0];
    } else {
      return false;
    }
  }
  return true;
}

bool is_product(const AssignedLayer& layer) {
  return layer.op == "Gemm" || layer.op == "MatMul";
}

std::optional<Pair> pair_of(const Graph& graph, const LayersByName& by_node,
                            const AssignedLayer& producer) {
  if (!takes_part(producer) || !is_homogeneous(graph, producer)) return std::nullopt;
  const Value& value = graph.value(*graph.find_value(producer.output));
  if (value.is_output || value.uses.empty()) return std::nullopt;
  Pair pair{&producer, {}};
  for (const Use& use : value.uses) {
    const auto reader = by_node.find(graph.node(use.node).name);
    if (use.index != 0 || reader == by_node.end() || !takes_part(*reader->second) ||
        is_product(*reader->second) != is_product(producer)) {
      return std::nullopt;
    }
    pair.readers.push_back(reader->second);
  }
  return pair;
}

LayersByName layers_by_name(const Assignment& assignment) {
  LayersByName layers;
  for (const AssignedLayer& layer : assignment.layers) layers[layer.node] = &layer;
  return layers;
}

/// One value with all that the prediction needs.
class Equalizer {
 public:
  Equalizer(Graph& graph, const Pair& pair, const ChannelMoments& moments)
      : graph_(graph), pair_(pair), moments_(moments) {
    const size_t channels = moments.high.size();
    range_.resize(channels);
    for (size_t c = 0; c < channels; ++c) {
      range_[c] = static_cast<double>(moments.high[c]) - static_cast<double>(moments.low[c]);
      widest_ = std::max(widest_, range_[c]);
    }
    for (double& r : range_) r = std::max(r, widest_ * kSmallestShare);
    largest_.assign(channels, 0.0);
    fits_ = static_cast<int64_t>(channels) == pair.producer->channels && widest_ > 0;
    for (const AssignedLayer* reader : pair.readers) fits_ = fits_ && note_weights(*reader);
  }

  std::optional<EqualizedValue> run() {
    if (!fits_) return std::nullopt;
    EqualizedValue best{pair_.producer->output, 0, 0, 0};
    std::vector<double> chosen;
    best.noise_before = noise(std::vector<double>(range_.size(), 1.0));
    best.noise_after = best.noise_before * kWorthwhile;
    for (const double power : kPowers) {
      std::vector<double> scales = scales_for(power);
      const double predicted = noise(scales);
      if (!(predicted < best.noise_after)) continue;
      best.noise_after = predicted;
      best.power = power;
      chosen = std::move(scales);
    }
    if (chosen.empty()) return std::nullopt;
    apply(chosen);
    return best;
  }

 private:
  WeightPosition position(const AssignedLayer& layer) const {
    return {layer, constant_of(graph_, layer.weights).elements(),
            static_cast<int64_t>(range_.size())};
  }

  bool note_weights(const AssignedLayer& reader) {
    const WeightPosition where = position(reader);
    if (!where.fits()) return false;
    const auto w = constant_of(graph_, reader.weights).data<float>();
    for (size_t i = 0; i < w.size(); ++i) {
      double& largest = largest_[static_cast<size_t>(where.input(static_cast<int64_t>(i)))];
      largest = std::max(largest, std::abs(static_cast<double>(w[i])));
    }
    return true;
  }

  /// Dividing channel i by scale i leaves the widest channel as wide as it was.
  std::vector<double> scales_for(double power) const {
    std::vector<double> scales(range_.size(), 1.0);
    double widest = 0;
    for (size_t c = 0; c < scales.size(); ++c) {
      if (!(largest_[c] > 0)) continue;  // nobody reads it
      scales[c] = std::pow(range_[c], power) / std::pow(largest_[c], 1 - power);
      widest = std::max(widest, range_[c] / scales[c]);
    }
    for (size_t c = 0; c < scales.size(); ++c) {
      scales[c] = largest_[c] > 0 ? scales[c] * widest / widest_ : 1.0;
    }
    return scales;
  }

  /// Mean squared rounding error of the readers' outputs, up to a common factor.
  double noise(const std::vector<double>& scales) const {
    double low = 0;
    double high = 0;
    for (size_t c = 0; c < scales.size(); ++c) {
      low = std::min(low, static_cast<double>(moments_.low[c]) / scales[c]);
      high = std::max(high, static_cast<double>(moments_.high[c]) / scales[c]);
    }
    const double step = (high - low) / 255;
    double total = 0;
    for (const AssignedLayer* reader : pair_.readers) total += noise_of(*reader, scales, step);
    return total;
  }

  double noise_of(const AssignedLayer& reader, const std::vector<double>& scales,
                  double step) const {
    const WeightPosition where = position(reader);
    const auto w = constant_of(graph_, reader.weights).data<float>();
    const auto channels = static_cast<size_t>(reader.channels);
    std::vector<double> largest(channels, 0.0);
    std::vector<double> energy(channels, 0.0);  // of the inputs, summed over the row
    double total = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      const auto element = static_cast<int64_t>(i);
      const auto in = static_cast<size_t>(where.input(element));
      const auto out = static_cast<size_t>(where.channel(element));
      const double scaled = static_cast<double>(w[i]) * scales[in];
      total += scaled * scaled * step * step;
      largest[out] = std::max(largest[out], std::abs(scaled));
      energy[out] += moments_.mean_square[in] / (scales[in] * scales[in]);
    }
    for (size_t c = 0; c < channels; ++c) {
      const double weight_step = largest[c] / 127;
      total += energy[c] * weight_step * weight_step;
    }
    return total;
  }

  void apply(const std::vector<double>& scales) {
    const AssignedLayer& producer = *pair_.producer;
    scale_outputs(producer, scales);
    for (const AssignedLayer* reader : pair_.readers) {
      const WeightPosition where = position(*reader);
      rescale(reader->weights,
              [&](int64_t element) { return scales[static_cast<size_t>(where.input(element))]; });
    }
  }

  void scale_outputs(const AssignedLayer& producer, const std::vector<double>& scales) {
    const int64_t elements = constant_of(graph_, producer.weights).elements();
    const int64_t row = elements / producer.channels;
    rescale(producer.weights, [&](int64_t element) {
      const int64_t channel =
          producer.channel_axis != 0 ? element % producer.channels : element / row;
      return 1 / scales[static_cast<size_t>(channel)];
    });
    if (producer.bias.empty()) return;
    rescale(producer.bias,
            [&](int64_t element) { return 1 / scales[static_cast<size_t>(element)]; });
  }

  template <class Factor>
  void rescale(const std::string& name, const Factor& factor) {
    const ValueId id = *graph_.find_value(name);
    const Tensor old = graph_.value(id).constant;
    std::vector<float> values = old.to_floats();
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] =
          static_cast<float>(static_cast<double>(values[i]) * factor(static_cast<int64_t>(i)));
    }
    graph_.set_constant(id, Tensor::from(values, old.dims()));
  }

  Graph& graph_;
  const Pair& pair_;
  const ChannelMoments& moments_;
  std::vector<double> range_;    // of each channel
  std::vector<double> largest_;  // weight of each channel in the readers
  double widest_ = 0;
  bool fits_ = false;
};

}  // namespace

std::vector<std::string> equalizable_values(const Graph& graph, const Assignment& assignment) {
  const LayersByName by_node = layers_by_name(assignment);
  std::vector<std::string> values;
  for (const AssignedLayer& layer : assignment.layers) {
    if (pair_of(graph, by_node, layer)) values.push_back(layer.output);
  }
  return values;
}

std::vector<EqualizedValue> equalize(Graph& graph, const Assignment& assignment,
                                     const ValueMoments& moments) {
  const LayersByName by_node = layers_by_name(assignment);
  std::vector<EqualizedValue> changed;
  for (const AssignedLayer& layer : assignment.layers) {
    const auto pair = pair_of(graph, by_node, layer);
    const auto known = moments.find(layer.output);
    if (!pair || known == moments.end()) continue;
    if (auto done = Equalizer(graph, *pair, known->second).run()) changed.push_back(*done);
  }
  return changed;
}

}  // namespace narrow
