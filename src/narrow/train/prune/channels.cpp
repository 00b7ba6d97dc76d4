// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/channels.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "narrow/train/prune/masks.h"

namespace narrow::train {
namespace {

constexpr int64_t kLongestAxis = int64_t{1} << 20;
constexpr size_t kMostElements = size_t{1} << 26;  // beyond: fixed

constexpr std::string_view kUnary[] = {
    "Relu",      "LeakyRelu", "Elu",      "Selu", "Celu",    "Sigmoid", "Tanh", "HardSigmoid",
    "HardSwish", "Clip",      "Softplus", "Mish", "Gelu",    "Erf",     "Exp",  "Abs",
    "Neg",       "Sqrt",      "Identity", "Cast", "Dropout", "Swish"};
constexpr std::string_view kBinary[] = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu"};
constexpr std::string_view kPools[] = {"MaxPool", "AveragePool", "GlobalAveragePool",
                                       "GlobalMaxPool"};

template <size_t kCount>
bool among(const std::string_view (&names)[kCount], const std::string& op) {
  return std::ranges::find(names, op) != std::end(names);
}

}  // namespace

/// Joins elements, node by node.
class Channels::Joiner {
 public:
  Joiner(const Graph& graph, Channels& channels) : graph_(graph), c_(channels) {}

  void join_all() {
    for (const ValueId id : graph_.inputs()) fix(id);
    for (const ValueId id : graph_.outputs()) fix(id);
    for (const NodeId id : graph_.nodes()) join(graph_.node(id));
  }

 private:
  void join(const Node& node) {
    const bool standard = node.domain.empty();
    if (standard && among(kUnary, node.op)) {
      same(node.input(0), node.output(0), 0);
    } else if (standard && among(kBinary, node.op)) {
      for (const ValueId in : node.inputs) broadcast(in, node.output(0));
    } else if (standard && among(kPools, node.op)) {
      tie(node.input(0), 0, node.output(0), 0);
      tie(node.input(0), 1, node.output(0), 1);
      if (node.output(1) != kNoId) fix(node.output(1));
    } else if (node.is("Conv")) {
      conv(node);
    } else if (node.is("Gemm")) {
      gemm(node);
    } else if (node.is("MatMul")) {
      matmul(node);
    } else if (node.is("BatchNormalization")) {
      same(node.input(0), node.output(0), 0);
      for (size_t i = 1; i < node.inputs.size(); ++i) tie(node.input(i), 0, node.output(0), 1);
    } else if (node.is("Concat")) {
      concat(node);
    } else if (node.is("Flatten") || node.is("Reshape")) {
      flatten(node);
    } else if (node.is("Transpose")) {
      transpose(node);
    } else {
      for (const ValueId id : node.inputs) fix(id);
      for (const ValueId id : node.outputs) fix(id);
    }
  }

  void conv(const Node& node) {
    const ValueId x = node.input(0);
    const ValueId w = node.input(1);
    const ValueId y = node.output(0);
    const int64_t group = node.int_or("group", 1);
    tie(w, 0, y, 1);
    tie(node.input(2), 0, y, 1);
    if (group == 1) {
      tie(w, 1, x, 1);
    } else if (size(w, 0) == group && size(x, 1) == group) {
      tie(x, 1, y, 1);
    } else {
      fix(x, 1);
      fix(y, 1);
    }
    for (int64_t axis = group == 1 ? 2 : 1; axis < rank(w); ++axis) fix(w, axis);
  }

  void gemm(const Node& node) {
    const int64_t outputs = node.int_or("transB", 0) != 0 ? 0 : 1;
    const ValueId b = node.input(1);
    if (node.int_or("transA", 0) != 0) fix(node.input(0));
    if (graph_.constant(b) == nullptr) fix(node.input(0));
    tie(b, 1 - outputs, node.input(0), 1);
    tie(b, outputs, node.output(0), 1);
    broadcast(node.input(2), node.output(0));
  }

  void matmul(const Node& node) {
    const ValueId x = node.input(0);
    const ValueId w = node.input(1);
    const ValueId y = node.output(0);
    if (graph_.constant(w) == nullptr || rank(w) != 2 || rank(x) != rank(y)) {
      fix(x);
      fix(w);
      fix(y);
      return;
    }
    const int64_t last = rank(x) - 1;
    tie(w, 0, x, last);
    tie(w, 1, y, last);
    for (int64_t axis = 0; axis < last; ++axis) tie(x, axis, y, axis);
  }

  void concat(const Node& node) {
    const ValueId y = node.output(0);
    const int64_t raw = node.int_or("axis", 0);
    const int64_t axis = raw < 0 ? raw + rank(y) : raw;
    int64_t offset = 0;
    for (const ValueId x : node.inputs) {
      for (int64_t i = 0; i < rank(y); ++i) {
        if (i != axis) tie(x, i, y, i);
      }
      const int64_t count = size(x, axis);
      if (count < 0 || size(y, axis) < offset + count) {
        fix(y, axis);
        for (const ValueId each : node.inputs) fix(each, axis);
        return;
      }
      for (int64_t i = 0; i < count; ++i) unite(at(x, axis, i), at(y, axis, offset + i));
      offset += count;
    }
  }

  /// [N, C, ...] to [N, C * ...]: each channel is a run of columns.
  void flatten(const Node& node) {
    const ValueId x = node.input(0);
    const ValueId y = node.output(0);
    const int64_t channels = size(x, 1);
    const int64_t columns = size(y, 1);
    int64_t each = 1;
    for (int64_t axis = 2; axis < rank(x); ++axis) each *= std::max<int64_t>(size(x, axis), 0);
    // A target shape that others use too cannot be changed for this one.
    const bool shared = node.is("Reshape") && (graph_.constant(node.input(1)) == nullptr ||
                                               graph_.value(node.input(1)).uses.size() != 1);
    if (rank(x) < 2 || rank(y) != 2 || channels < 1 || shared || channels * each != columns) {
      fix(x);
      fix(y);
      return;
    }
    tie(x, 0, y, 0);
    for (int64_t i = 0; i < columns; ++i) unite(at(x, 1, i / each), at(y, 1, i));
  }

  void transpose(const Node& node) {
    const ValueId x = node.input(0);
    std::vector<int64_t> perm = node.ints_or("perm", {});
    if (perm.empty()) {
      for (int64_t i = rank(x) - 1; i >= 0; --i) perm.push_back(i);
    }
    for (size_t i = 0; i < perm.size(); ++i) {
      tie(x, perm[i], node.output(0), static_cast<int64_t>(i));
    }
  }

  /// All axes from `first` on are the same.
  void same(ValueId x, ValueId y, int64_t first) {
    if (rank(x) != rank(y)) {
      fix(x);
      fix(y);
      return;
    }
    for (int64_t axis = first; axis < rank(y); ++axis) tie(x, axis, y, axis);
  }

  /// Axes count from the last; those of size 1 stand for all.
  void broadcast(ValueId x, ValueId y) {
    if (x == kNoId) return;
    const int64_t shift = rank(y) - rank(x);
    for (int64_t axis = 0; axis < rank(x); ++axis) {
      if (size(x, axis) == 1 && size(y, axis + shift) != 1) {
        fix(x, axis);
      } else {
        tie(x, axis, y, axis + shift);
      }
    }
  }

  int64_t rank(ValueId id) const {
    return id == kNoId ? 0 : static_cast<int64_t>(c_.base_[static_cast<size_t>(id)].size());
  }
  int64_t size(ValueId id, int64_t axis) const {
    if (id == kNoId || axis < 0 || axis >= rank(id)) return -1;
    const Value& value = graph_.value(id);
    if (value.is_constant()) return value.constant.dims()[static_cast<size_t>(axis)];
    return value.shape->at(static_cast<size_t>(axis)).value;
  }
  int64_t at(ValueId id, int64_t axis, int64_t index) const {
    const int64_t base = c_.base_[static_cast<size_t>(id)][static_cast<size_t>(axis)];
    return base < 0 ? kFixed : base + index;
  }
  void unite(int64_t a, int64_t b) {
    const int64_t x = c_.root(a);
    const int64_t y = c_.root(b);
    // The smaller number is the root: whatever meets kFixed is fixed.
    c_.parent_[static_cast<size_t>(std::max(x, y))] = std::min(x, y);
  }
  void tie(ValueId a, int64_t axis_a, ValueId b, int64_t axis_b) {
    if (a == kNoId || b == kNoId) return;
    const int64_t count = size(a, axis_a);
    if (count < 0 || count != size(b, axis_b)) {
      fix(a, axis_a);
      fix(b, axis_b);
      return;
    }
    for (int64_t i = 0; i < count; ++i) unite(at(a, axis_a, i), at(b, axis_b, i));
  }
  void fix(ValueId id, int64_t axis) {
    for (int64_t i = 0; i < size(id, axis); ++i) unite(kFixed, at(id, axis, i));
  }
  void fix(ValueId id) {
    for (int64_t axis = 0; axis < rank(id); ++axis) fix(id, axis);
  }

  const Graph& graph_;
  Channels& c_;
};

Channels::Channels(const Graph& graph) : base_(graph.value_capacity()) {
  size_t elements = 1;  // kFixed
  for (const ValueId id : graph.live_values()) {
    const Value& value = graph.value(id);
    SymbolicShape shape;
    if (value.is_constant()) {
      shape = symbolic(value.constant.dims());
    } else if (value.shape) {
      shape = *value.shape;
    }
    for (const Dim& dim : shape) {
      const bool fits = dim.known() && dim.value <= kLongestAxis &&
                        elements + static_cast<size_t>(dim.value) <= kMostElements;
      base_[static_cast<size_t>(id)].push_back(fits ? static_cast<int64_t>(elements) : -1);
      if (fits) elements += static_cast<size_t>(dim.value);
    }
  }
  parent_.resize(elements);
  std::iota(parent_.begin(), parent_.end(), 0);
  Joiner(graph, *this).join_all();
}

int64_t Channels::root(int64_t element) const {
  int64_t top = element;
  while (parent_[static_cast<size_t>(top)] != top) top = parent_[static_cast<size_t>(top)];
  while (parent_[static_cast<size_t>(element)] != top) {
    element = std::exchange(parent_[static_cast<size_t>(element)], top);
  }
  return top;
}

bool Channels::known(ValueId value, int64_t axis) const {
  const auto& axes = base_[static_cast<size_t>(value)];
  return axis < static_cast<int64_t>(axes.size()) && axes[static_cast<size_t>(axis)] >= 0;
}

int64_t Channels::class_of(ValueId value, int64_t axis, int64_t index) const {
  return known(value, axis)
             ? root(base_[static_cast<size_t>(value)][static_cast<size_t>(axis)] + index)
             : kFixed;
}

std::vector<FilterGroup> filter_groups(const Graph& graph, const Channels& channels,
                                       const std::vector<std::string>& layers,
                                       const std::vector<std::string>& except) {
  const auto all = find_targets(graph, {}, {});
  const auto named = find_targets(graph, layers, except);
  std::map<int64_t, Filter> filters;  // by class
  std::map<ValueId, std::string> nodes;
  std::vector<int64_t> order;
  for (const PruneTarget& target : all) {
    const ValueId w = *graph.find_value(target.weights);
    nodes[w] = target.node;
    for (int64_t i = 0; i < graph.constant(w)->dim(target.output_axis); ++i) {
      const int64_t c = channels.class_of(w, target.output_axis, i);
      if (c == Channels::kFixed) continue;
      Filter& filter = filters[c];
      if (filter.producers.empty()) order.push_back(c);
      filter.channel_class = c;
      filter.producers.emplace_back(w, i);
    }
  }
  std::map<std::vector<ValueId>, size_t> seen;
  std::vector<FilterGroup> groups;
  for (const int64_t c : order) {
    std::vector<ValueId> key;
    for (const auto& [w, index] : filters[c].producers) key.push_back(w);
    const auto [entry, fresh] = seen.emplace(key, groups.size());
    if (fresh) {
      FilterGroup& group = groups.emplace_back();
      for (const ValueId w : key) group.nodes.push_back(nodes.at(w));
    }
    groups[entry->second].filters.push_back(std::move(filters[c]));
  }
  std::erase_if(groups, [&](const FilterGroup& group) {
    const auto is_named = [&](const std::string& node) {
      return std::ranges::any_of(named, [&](const PruneTarget& t) { return t.node == node; });
    };
    return !std::ranges::all_of(group.nodes, is_named);
  });
  return groups;
}

}  // namespace narrow::train
