// SPDX-License-Identifier: Apache-2.0
// Which channels of a graph live and die together. Each index of each dimension of each value is
// an element; operators join elements (a residual addition those of both sides, a concatenation
// those of its parts, a flattening one channel with all of its columns, a depthwise convolution its
// input with its output), and what joins a graph's input or output, or an operator that mixes
// channels, is fixed. A class of joined elements is removed everywhere or nowhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow::train {

class Channels {
 public:
  /// Shapes are inferred; dimensions that are not known are fixed.
  explicit Channels(const Graph& graph);

  /// The class of an element; kFixed where it cannot be removed.
  static constexpr int64_t kFixed = 0;
  int64_t class_of(ValueId value, int64_t axis, int64_t index) const;
  /// Whether the dimension has classes at all.
  bool known(ValueId value, int64_t axis) const;

 private:
  class Joiner;
  int64_t root(int64_t element) const;
  std::vector<std::vector<int64_t>> base_;  // by value, by axis: its first element; -1: none
  mutable std::vector<int64_t> parent_;
};

/// Filters that are removed together: one index of each producer.
struct Filter {
  int64_t channel_class = 0;
  std::vector<std::pair<ValueId, int64_t>> producers;  // weights, index along their output axis
};
/// Filters of the same producers: layers with as many outputs that add up, or one layer.
struct FilterGroup {
  std::vector<std::string> nodes;  // that produce them
  std::vector<Filter> filters;
};
/// Groups that can lose filters, in graph order, all of whose nodes the globs name.
std::vector<FilterGroup> filter_groups(const Graph& graph, const Channels& channels,
                                       const std::vector<std::string>& layers,
                                       const std::vector<std::string>& except);

}  // namespace narrow::train
