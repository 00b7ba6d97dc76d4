// SPDX-License-Identifier: Apache-2.0
// Masks: which weights of which layers are zero. A mask is float32 of the weight's shape, 1 where
// the weight stays and 0 where it goes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"
#include "narrow/train/prune/prune_options.h"

namespace narrow::train {

/// A layer whose weights may be pruned.
struct PruneTarget {
  std::string node;
  std::string weights;      // initializer
  int64_t input_axis = 1;   // along which patterns count
  int64_t output_axis = 0;  // one index for each filter
};

/// Layers with constant float32 weights that the globs name, in graph order. Throws
/// invalid_argument with the nearest names for a glob that names none, and where no layer is left.
std::vector<PruneTarget> find_targets(const Graph& graph, const std::vector<std::string>& layers,
                                      const std::vector<std::string>& except = {});

using Masks = std::map<std::string, Tensor>;  // by weights

/// A share `sparsity` of the lowest scores becomes 0, to one unit of the pattern: in each layer, or
/// over all. Equal scores go in the order of layers and elements. `scores` have the weights'
/// shapes; a NaN stays.
Masks lowest_masks(const std::vector<PruneTarget>& targets,
                   const std::map<std::string, Tensor>& scores, double sparsity,
                   const PruneOptions& options);

/// Where |w| is below `threshold` becomes 0, where it is above `back` 1; between, and with no
/// `before`, as it was (1).
Tensor threshold_mask(const Tensor& weights, double threshold, double back, const Tensor& before);
/// Where the weight is not zero.
Tensor nonzero_mask(const Tensor& weights);
Tensor absolute(const Tensor& weights);
Tensor masked(const Tensor& weights, const Tensor& mask);
double deviation(const Tensor& weights);
/// Mean of |w| plus k of its deviations: around it splicing cuts and joins.
double splicing_threshold(const Tensor& weights, double k);

/// Masks of a run without training.
Masks masks_at_once(const Graph& graph, const std::vector<PruneTarget>& targets,
                    const PruneOptions& options);

/// How many weights of a layer are zero, as they stand in a graph: floats, or codes behind a
/// DequantizeLinear.
struct LayerZeros {
  std::string node;
  std::string op;
  int64_t weights = 0;
  int64_t zeros = 0;
};
std::vector<LayerZeros> count_zeros(const Graph& graph);

}  // namespace narrow::train
