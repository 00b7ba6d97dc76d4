// SPDX-License-Identifier: Apache-2.0
// How much a model suffers when one layer alone is changed: a scan over layers and levels. What a
// level does to weights and how a model is judged is the caller's.
//
//   SensitivityScan scan = scan_layers(graph, layers, {8, 4, 2}, at_bits, judge);
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/graph/graph.h"

namespace narrow {

struct ScanLayer {
  std::string node;
  std::string weights;  // initializer
};

struct LayerCurve {
  std::string node;
  std::string op;
  int64_t weights = 0;
  std::vector<double> values;  // of the judge, one for each level
};

struct SensitivityScan {
  double reference = 0;  // of the model as it is
  std::vector<double> levels;
  std::vector<LayerCurve> layers;  // in graph order
};

/// The weights of a layer at a level.
using AtLevel = std::function<Tensor(const ScanLayer& layer, const Tensor& weights, double level)>;
/// How good a model is; larger is better.
using Judge = std::function<double(const Graph& graph)>;

/// Throws not_found for a layer without weights of that name.
SensitivityScan scan_layers(const Graph& graph, const std::vector<ScanLayer>& layers,
                            const std::vector<double>& levels, const AtLevel& change,
                            const Judge& judge, const Progress& progress = {});

/// Indices of the layers, those first that lose most: by the sum of what they lose over all levels.
std::vector<size_t> most_sensitive(const SensitivityScan& scan);

}  // namespace narrow
