// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "narrow/core/error.h"
#include "narrow/ptq/bias_correction/bias_correction.h"
#include "narrow/ptq/dynamic/dynamic.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/quant/error_measures.h"
#include "narrow/quant/overflow.h"

namespace narrow {
namespace {

const Tensor& constant_of(const Graph& graph, const std::string& name) {
  const auto id = graph.find_value(name);
  const Tensor* tensor = id ? graph.constant(*id) : nullptr;
  if (tensor == nullptr) {
    throw Error(ErrorCode::internal, fmt::format("no initializer '{}' to quantize", name));
  }
  return *tensor;
}

std::vector<int32_t> int32_values(const Tensor& tensor) {
  std::vector<int32_t> out;
  if (!tensor.defined()) return out;
  for (const int64_t v : tensor.to_ints()) out.push_back(static_cast<int32_t>(v));
  return out;
}

class Planner {
 public:
  Planner(Graph& graph, Assignment& assignment, const std::map<std::string, Range>& ranges,
          const PlanOptions& options)
      : graph_(graph), assignment_(assignment), ranges_(ranges), options_(options) {}

  QuantizationPlan run() {
    out_.qdq.activations = options_.activation_grids.empty()
                               ? activation_grids(assignment_, ranges_)
                               : options_.activation_grids;
    for (const auto& entry : assignment_.constants) {
      const std::string& name = entry.first;
      const Scheme& scheme = entry.second;
      const Tensor& constant = constant_of(graph_, name);
      located("constant", name, [&] {
        QuantizedTensor q;
        q.params = minmax_params(constant, scheme);
        q.codes = quantize(constant, q.params);
        out_.qdq.weights[name] = std::move(q);
      });
    }
    for (AssignedLayer& layer : assignment_.layers) {
      located("node", layer.node, [&] { add_layer(layer); });
    }
    note_widened();
    note_storage();
    return std::move(out_);
  }

 private:
  template <class F>
  static void located(const char* what, const std::string& name, F&& act) {
    try {
      act();
    } catch (Error& e) {
      e.add_context(fmt::format("{} '{}'", what, name));
      throw;
    }
  }

  void add_layer(AssignedLayer& layer) {
    LayerOutcome outcome;
    outcome.node = layer.node;
    if (layer.weight_scheme) {
      const Tensor w = constant_of(graph_, layer.weights);  // the graph may grow below
      QuantizedTensor weights;
      try {
        weights = rounded(layer, w);
      } catch (Error& e) {
        e.add_context(fmt::format("weights '{}'", layer.weights));
        throw;
      }
      correct_bias(layer, weights);
      QuantizedTensor bias;
      if (layer.integer_bias) {
        BiasResult rounded =
            round_bias(constant_of(graph_, layer.bias), input_scale(layer), w, weights);
        outcome.widened = std::move(rounded.widened);
        bias = std::move(rounded.bias);
      }
      prove(layer, weights, bias);
      outcome.weight_sqnr_db =
          measure_error(w, dequantize(weights.codes, weights.params)).sqnr_db();
      out_.qdq.weights[layer.weights] = std::move(weights);
      if (bias.codes.defined()) out_.qdq.biases[layer.bias] = std::move(bias);
    }
    out_.layers.push_back(std::move(outcome));
  }

  QuantizedTensor rounded(const AssignedLayer& layer, const Tensor& w) const {
    const auto known = options_.weight_grids.find(layer.weights);
    if (known == options_.weight_grids.end()) {
      return round_weights(w, *layer.weight_scheme, importance_of(layer, w));
    }
    return {quantize(w, known->second), known->second};
  }

  void correct_bias(AssignedLayer& layer, const QuantizedTensor& weights) {
    const auto found = options_.moments.find(layer.node);
    const bool wanted = options_.bias_correction == BiasCorrection::fast;
    if (!wanted || found == options_.moments.end()) return;
    shift_bias(graph_, layer, rounding_shift(graph_, layer, weights, found->second),
               options_.bias_form);
  }

  /// The mean square of each input channel, once for every weight of a row that reads it. Grouped
  /// convolutions read other channels in other rows: their weights count alike.
  Importance importance_of(const AssignedLayer& layer, const Tensor& weights) const {
    const auto found = options_.moments.find(layer.node);
    if (found == options_.moments.end()) return {};
    const std::vector<double>& channels = found->second.mean_square;
    const auto count = static_cast<int64_t>(channels.size());
    const int64_t row = weights.elements() / std::max<int64_t>(1, layer.channels);
    if (count == 0 || row % count != 0 || layer.groups != 1) return {};
    Importance importance;
    importance.channel_axis = layer.channel_axis;
    for (int64_t i = 0; i < row; ++i) {
      importance.row.push_back(
          static_cast<float>(channels[static_cast<size_t>(i / (row / count))]));
    }
    return importance;
  }

  const QuantParams& input_grid(const AssignedLayer& layer) const {
    return out_.qdq.activations.at(layer.input);
  }
  float input_scale(const AssignedLayer& layer) const {
    return input_grid(layer).scale.to_floats()[0];
  }

  void prove(const AssignedLayer& layer, const QuantizedTensor& weights,
             const QuantizedTensor& bias) const {
    const bool grouped = layer.weight_scheme->granularity == Granularity::per_group;
    if (!layer.quantized_input || grouped) return;
    CodeRange codes{0, 255, 0};  // dynamic: any zero_point of uint8; the worst is at either end
    if (assignment_.mode == Mode::static_) {
      const QuantParams& grid = input_grid(layer);
      if (grid.scheme.bits > 8) return;  // runs in float
      const auto zero_points = int32_values(grid.zero_point);
      codes = {grid.scheme.qmin(), grid.scheme.qmax(), zero_points.empty() ? 0 : zero_points[0]};
    }
    const auto zero_points = int32_values(weights.params.zero_point);
    const OverflowProof proof = prove_accumulators(weights.codes, zero_points, codes,
                                                   int32_values(bias.codes), layer.channel_axis);
    if (proof.fits_int32()) return;
    throw Error(ErrorCode::numeric_failure,
                fmt::format("its accumulators reach {} to {}: int32 could overflow (channel {})",
                            proof.min, proof.max, proof.worst_row),
                "use fewer bits for this layer, or keep it float");
  }

  void note_widened() {
    for (const LayerOutcome& layer : out_.layers) {
      if (layer.widened.empty()) continue;
      out_.notes.push_back(
          fmt::format("{}: weight scales of {} channels enlarged so that their bias fits int32",
                      layer.node, layer.widened.size()));
    }
  }

  /// Where the file is larger than the number of bits says.
  void note_storage() {
    const bool dynamic = assignment_.mode == Mode::dynamic;
    std::set<std::string> lines;
    for (const AssignedLayer& layer : assignment_.layers) {
      if (!layer.weight_scheme) continue;
      const int used = layer.weight_scheme->bits;
      const int stored = dynamic ? 8 : bits(layer.weight_scheme->storage());
      if (used == stored) continue;
      const char* sign = layer.weight_scheme->is_signed ? "int" : "uint";
      lines.insert(fmt::format("{}{} weights are stored as {}{}: {}", sign, used, sign, stored,
                               dynamic ? "the integer operators of mode dynamic take bytes"
                                       : "ONNX has no type of that many bits"));
    }
    out_.notes.insert(out_.notes.end(), lines.begin(), lines.end());
  }

  Graph& graph_;
  Assignment& assignment_;
  const std::map<std::string, Range>& ranges_;
  const PlanOptions& options_;
  QuantizationPlan out_;
};

/// NaN, infinities and what would become one.
void check_half(const AssignedLayer& layer, const std::vector<float>& values,
                const std::vector<float>& halves) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(halves[i])) continue;
    const bool range = std::isfinite(values[i]);
    throw Error(ErrorCode::numeric_failure,
                fmt::format("node '{}': weights '{}': element {} is {}{}", layer.node,
                            layer.weights, i, values[i], range ? ", past float16" : ""),
                range ? fmt::format("keep the layer in float: --keep-float '{}'", layer.node)
                      : "repair the model: values must be finite");
  }
}

/// Weights in half precision: the initializer as float16 behind a Cast.
void store_half(Graph& graph, const AssignedLayer& layer) {
  const std::string& name = layer.weights;
  const ValueId w = *graph.find_value(name);
  const Tensor tensor = *graph.constant(w);
  const Tensor half = Tensor::from_floats(tensor.to_floats(), DType::float16, tensor.dims());
  check_half(layer, tensor.to_floats(), half.to_floats());
  const std::vector<Use> users = graph.value(w).uses;
  const ValueId stored = graph.add_initializer(graph.unique_name(name + "_float16"), half);
  constexpr int64_t kFloat = 1;  // TensorProto.FLOAT
  const NodeId cast =
      graph.add_node("Cast", {stored}, {graph.unique_name(name + "_float32")}, {{"to", kFloat}});
  const ValueId y = graph.node(cast).outputs[0];
  graph.mutable_value(y).dtype = DType::float32;
  graph.mutable_value(y).shape = symbolic(tensor.dims());
  for (const Use& use : users) graph.set_input(use.node, static_cast<size_t>(use.index), y);
}

}  // namespace

std::map<std::string, Range> activation_ranges(const Assignment& assignment,
                                               const Statistics& statistics,
                                               const ObserverOptions& observer) {
  std::map<std::string, Range> ranges;
  for (const auto& [name, activation] : assignment.activations) {
    const auto& sources = activation.sources;
    const bool overridden = std::any_of(sources.begin(), sources.end(), [&](const auto& source) {
      return statistics.overrides.count(source) > 0;
    });
    Range range;
    if (overridden || sources.size() == 1) {
      for (const std::string& source : sources) {
        const Range r = statistics.range_of(source, observer, activation.scheme);
        range.rmin = std::min(range.rmin, r.rmin);
        range.rmax = std::max(range.rmax, r.rmax);
      }
    } else {
      Statistic pooled(detail_for(observer.kind));
      for (const std::string& source : sources) {
        const auto found = statistics.values.find(source);
        if (found == statistics.values.end()) {
          throw Error(ErrorCode::not_found, fmt::format("no statistics of value '{}'", source),
                      "calibrate this model again");
        }
        pooled.merge(found->second);
      }
      range = estimate_range(pooled, observer, activation.scheme);
    }
    ranges[name] = range;
  }
  return ranges;
}

std::map<std::string, QuantParams> activation_grids(const Assignment& assignment,
                                                    const std::map<std::string, Range>& ranges) {
  std::map<std::string, QuantParams> grids;
  for (const auto& [name, activation] : assignment.activations) {
    const auto range = ranges.find(name);
    if (range == ranges.end()) {
      throw Error(ErrorCode::internal, fmt::format("no range for value '{}'", name));
    }
    grids[name] = params_from_ranges(std::array{range->second.rmin}, std::array{range->second.rmax},
                                     {}, activation.scheme);
  }
  return grids;
}

QuantizationPlan make_plan(Graph& graph, Assignment& assignment,
                           const std::map<std::string, Range>& ranges, const PlanOptions& options) {
  return Planner(graph, assignment, ranges, options).run();
}

void apply_plan(Graph& graph, const Assignment& assignment, const QuantizationPlan& plan) {
  for (const AssignedLayer& layer : assignment.layers) {
    if (layer.half_weights) store_half(graph, layer);
  }
  if (assignment.mode == Mode::dynamic) {
    write_dynamic(graph, assignment, plan.qdq);
  } else {
    insert_qdq(graph, plan.qdq);
  }
  graph.sort();
  graph.remove_dead();
}

}  // namespace narrow
