// SPDX-License-Identifier: Apache-2.0
#include "narrow/search/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "narrow/core/error.h"

namespace narrow {

SensitivityScan scan_layers(const Graph& graph, const std::vector<ScanLayer>& layers,
                            const std::vector<double>& levels, const AtLevel& change,
                            const Judge& judge, const Progress& progress) {
  SensitivityScan scan;
  scan.levels = levels;
  const auto total = static_cast<int64_t>(layers.size() * levels.size()) + 1;
  int64_t done = 0;
  const auto value_of = [&](const Graph& changed, const std::string& what) {
    progress.check_cancelled();
    const double value = judge(changed);
    progress.report(what, ++done, total);
    return value;
  };
  scan.reference = value_of(graph, "as it is");
  for (const ScanLayer& layer : layers) {
    const auto id = graph.find_value(layer.weights);
    const Tensor* weights = id ? graph.constant(*id) : nullptr;
    const auto node = graph.find_node(layer.node);
    if (weights == nullptr || !node) {
      throw Error(ErrorCode::not_found, fmt::format("no layer '{}' with weights", layer.node));
    }
    LayerCurve curve{layer.node, graph.node(*node).op, weights->elements(), {}};
    for (const double level : levels) {
      Graph changed = graph;
      changed.set_constant(*id, change(layer, *weights, level));
      curve.values.push_back(value_of(changed, layer.node));
    }
    scan.layers.push_back(std::move(curve));
  }
  return scan;
}

std::vector<size_t> most_sensitive(const SensitivityScan& scan) {
  std::vector<double> lost;
  for (const LayerCurve& layer : scan.layers) {
    double sum = 0;
    for (const double value : layer.values) sum += scan.reference - value;
    lost.push_back(sum);
  }
  std::vector<size_t> order(scan.layers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return lost[a] > lost[b]; });
  return order;
}

}  // namespace narrow
