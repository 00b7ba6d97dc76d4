// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/candidate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/ptq/bias_correction/bias_correction.h"
#include "narrow/ptq/targets.h"

namespace narrow {
namespace {

using Errors = std::map<std::string, double>;  // SQNR in dB by value

Errors errors_of(const std::vector<ValueDifference>& compared) {
  Errors errors;
  for (const ValueDifference& d : compared) errors[d.value] = d.sqnr_db;
  return errors;
}

double sqnr(const Errors& errors, const std::string& value) {
  const auto found = errors.find(value);
  return found != errors.end() ? found->second : std::numeric_limits<double>::quiet_NaN();
}

/// Noise power over signal power.
double noise(double sqnr_db) {
  return std::isnan(sqnr_db) ? 0 : std::pow(10.0, -sqnr_db / 10);
}

}  // namespace

QuantizeOptions resolved_options(const Recipe& recipe) {
  QuantizeOptions options = recipe.quantize;
  options.integer_throughout = options.integer_throughout || recipe.integer_only;
  return resolve(options);
}

Candidate make_candidate(const Graph& float_graph, const QuantizeOptions& options,
                         const Recipe& recipe, const Knowledge& knowledge,
                         const BiasShifts& shifts) {
  Candidate c;
  c.graph = float_graph;
  c.assignment = assign(c.graph, options);
  PlanOptions plan;
  plan.moments = knowledge.moments;
  plan.bias_correction = recipe.bias_correction;
  plan.bias_form = find_target(options.target).bias;
  for (AssignedLayer& layer : c.assignment.layers) {
    const auto shift = shifts.find(layer.node);
    if (shift != shifts.end()) shift_bias(c.graph, layer, shift->second, plan.bias_form);
  }
  const auto ranges = activation_ranges(c.assignment, knowledge.statistics, recipe.observer);
  c.plan = make_plan(c.graph, c.assignment, ranges, plan);
  apply_plan(c.graph, c.assignment, c.plan);
  infer_shapes(c.graph);
  return c;
}

BiasShifts measure_shifts(const Graph& float_graph, const QuantizeOptions& options,
                          const Recipe& recipe, const Knowledge& knowledge, const Dataset& data,
                          const MomentOptions& run) {
  Graph graph = float_graph;
  const Assignment assignment = assign(graph, options);
  std::map<std::string, ChannelAxis> outputs;
  std::vector<std::pair<std::string, std::string>> layers;  // node, its own output
  for (const AssignedLayer& layer : assignment.layers) {
    if (!layer.weight_scheme) continue;
    const Node& node = graph.node(*graph.find_node(layer.node));
    const std::string& value = graph.value(node.outputs[0]).name;
    outputs[value] = channel_axis(graph, value);
    layers.emplace_back(layer.node, value);
  }
  const auto wanted = channel_moments(float_graph, outputs, data, run);
  BiasShifts shifts;
  for (const auto& [node, value] : layers) {
    const Candidate c = make_candidate(float_graph, options, recipe, knowledge, shifts);
    const auto got = channel_moments(c.graph, {{value, outputs.at(value)}}, data, run);
    if (wanted.count(value) == 0 || got.count(value) == 0) continue;
    const auto& before = wanted.at(value).mean;
    const auto& after = got.at(value).mean;
    std::vector<double>& shift = shifts[node];
    for (size_t i = 0; i < before.size(); ++i) shift.push_back(before[i] - after.at(i));
  }
  return shifts;
}

std::vector<QuantizedLayer> describe_layers(const Candidate& candidate,
                                            const std::vector<ValueDifference>& compared) {
  const Errors errors = errors_of(compared);
  std::vector<QuantizedLayer> layers;
  for (size_t i = 0; i < candidate.assignment.layers.size(); ++i) {
    const AssignedLayer& a = candidate.assignment.layers[i];
    QuantizedLayer layer;
    layer.node = a.node;
    layer.op = a.op;
    layer.weight_sqnr_db = std::numeric_limits<double>::infinity();
    if (a.weight_scheme) {
      layer.weights = a.weight_scheme->describe();
      layer.weight_sqnr_db = candidate.plan.layers[i].weight_sqnr_db;
      layer.weight_elements = candidate.plan.qdq.weights.at(a.weights).codes.elements();
    } else if (a.half_weights) {
      layer.weights = "float16";
      layer.weight_sqnr_db = std::numeric_limits<double>::quiet_NaN();
    }
    const auto activation = candidate.assignment.activations.find(a.input);
    if (activation != candidate.assignment.activations.end()) {
      layer.activations = activation->second.scheme.describe();
    } else if (a.quantized_input) {
      layer.activations = "uint8 at run time";
    }
    layer.output_sqnr_db = sqnr(errors, a.output);
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::vector<std::string> most_harmful(const Candidate& candidate,
                                      const std::vector<ValueDifference>& compared) {
  const Errors errors = errors_of(compared);
  std::vector<std::pair<double, std::string>> added;
  for (const AssignedLayer& layer : candidate.assignment.layers) {
    const double out = noise(sqnr(errors, layer.output));
    const double in = noise(sqnr(errors, layer.input));
    added.emplace_back(out - in, layer.node);
  }
  std::stable_sort(added.begin(), added.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> names;
  for (auto& [harm, name] : added) names.push_back(std::move(name));
  return names;
}

}  // namespace narrow
