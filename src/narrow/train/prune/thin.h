// SPDX-License-Identifier: Apache-2.0
// Removal of whole filters: ranking, a recipe of what is cut out of which tensor, and its
// application, after which the graph is smaller and runs faster. Of language models heads, neurons
// and layers go instead (pipeline/train_llm_thin.h).
//
//   Channels channels(graph);
//   auto groups = filter_groups(graph, channels, {}, {});
//   ThinRecipe recipe = make_recipe(graph, channels, lowest_filters(groups, scores, 0.3, 8));
//   Graph thin = thinned(graph, recipe);
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/train/prune/channels.h"

namespace narrow::train {

/// How filters are ranked; the lowest go.
///   l1: sum of |w| (Li et al., Pruning Filters for Efficient ConvNets, 2017).
///   apoz: share of activations behind Relu that are not zero (Hu et al., Network Trimming, 2016).
///   gradient: sum of |dL/dw|.
///   taylor: |sum of w dL/dw|, the loss that goes with the filter to first order (Molchanov et al.,
///           Importance Estimation for Neural Network Pruning, 2019).
enum class RankMethod : uint8_t { l1, apoz, gradient, taylor };
const char* to_string(RankMethod method);

struct ThinOptions {
  bool active = false;
  RankMethod method = RankMethod::l1;
  std::optional<double> ratio;  // share of the filters of each layer that go
  std::optional<double> macs;   // or: share of the multiply-adds that stay
  // Of language models: shares that go, of each layer alike.
  std::optional<double> heads;     // of the query heads; with their keys and values where each has
                                   // its own
  std::optional<double> kv_heads;  // of the key and value heads, with the query heads that use them
  std::optional<double> ff;        // of the feed-forward neurons
  int64_t blocks = 0;              // layers that go
  int64_t align = 8;       // filters or neurons that stay are a multiple, where twice as many are
  int64_t samples = 1000;  // that apoz, gradient and taylor look at
  std::vector<std::string> layers;  // globs on node names; empty: all
  std::vector<std::string> except;

  bool of_language_model() const { return heads || kv_heads || ff || blocks > 0; }
};
/// "METHOD,macs=0.5" or "METHOD,ratio=0.3"; of language models "METHOD,heads=0.25,ff=0.5,blocks=2",
/// where 32 neurons and 64 samples (sequences) are the default. Throws invalid_argument.
ThinOptions parse_thin(std::string_view text);
std::string to_text(const ThinOptions& options);

/// By channel class.
using FilterScores = std::map<int64_t, double>;
/// The sum over each filter, and over all that are tied, of f(w, factor): |w| for l1, |factor| for
/// gradient, w * factor, whose magnitude is taken at the end, for taylor. `gradients` (by weights)
/// may be empty for l1.
FilterScores score_filters(const Graph& graph, const std::vector<FilterGroup>& groups,
                           RankMethod method, const std::map<std::string, Tensor>& gradients);

/// How many of `count` stay where the share `ratio` goes, a multiple of `align` where it can be.
int64_t kept_count(int64_t count, double ratio, int64_t align);
/// Of a float32 tensor the lines of these indices of an axis; and all of it, zero in other lines.
Tensor kept_lines(const Tensor& x, int64_t axis, std::span<const int64_t> kept);
Tensor only_lines(const Tensor& x, int64_t axis, std::span<const int64_t> kept);

/// Classes that go: of each group the share `ratio` with the lowest scores, so that what stays is a
/// multiple of `align` where it can be, and at least one filter.
std::set<int64_t> lowest_filters(const std::vector<FilterGroup>& groups, const FilterScores& scores,
                                 double ratio, int64_t align);

/// What is done to a graph, as data.
struct ThinCut {
  std::string tensor;  // initializer
  int64_t axis = 0;
  std::vector<int64_t> kept;  // indices, rising
};
struct ThinRecipe {
  std::vector<ThinCut> cuts;
  std::map<std::string, int64_t> conv_groups;  // of depthwise convolutions, by node
  std::map<std::string, int64_t> columns;      // second dimension of Reshape targets, by tensor
};
ThinRecipe make_recipe(const Graph& graph, const Channels& channels,
                       const std::set<int64_t>& removed);

/// A smaller graph; shapes are inferred anew. Throws internal where the recipe is of another graph.
Graph thinned(const Graph& graph, const ThinRecipe& recipe);
/// The same graph with zeros where the recipe cuts: its outputs are those of the thinned one.
Graph masked(const Graph& graph, const ThinRecipe& recipe);

}  // namespace narrow::train
