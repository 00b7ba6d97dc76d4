// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/thin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/train/prune/masks.h"
#include "narrow/train/prune/spec_text.h"

namespace narrow::train {
namespace {

constexpr const char* kRanks[] = {"l1", "apoz", "gradient", "taylor"};
constexpr const char* kKeys[] = {"ratio",  "macs",  "heads",   "kv_heads", "ff",
                                 "blocks", "align", "samples", "layers",   "except"};
constexpr int64_t kNeurons = 32;    // a group of weights of a row
constexpr int64_t kSequences = 64;  // each of hundreds of tokens

/// A tensor as [outer, length of the axis, inner].
struct Lines {
  Lines(const Dims& dims, int64_t axis) : length(dims[static_cast<size_t>(axis)]) {
    for (size_t i = 0; i < dims.size(); ++i) {
      if (static_cast<int64_t>(i) < axis) outer *= dims[i];
      if (static_cast<int64_t>(i) > axis) inner *= dims[i];
    }
  }
  /// f(element) for each element of one index.
  template <class F>
  void at(int64_t index, const F& f) const {
    for (int64_t o = 0; o < outer; ++o) {
      for (int64_t i = 0; i < inner; ++i) {
        f(static_cast<size_t>((o * length + index) * inner + i));
      }
    }
  }
  int64_t length;
  int64_t outer = 1;
  int64_t inner = 1;
};

const Tensor& initializer(const Graph& graph, const std::string& name, int64_t axis) {
  const auto id = graph.find_value(name);
  const Tensor* x = id ? graph.constant(*id) : nullptr;
  if (x == nullptr || axis >= static_cast<int64_t>(x->rank())) {
    throw Error(ErrorCode::internal, fmt::format("the recipe cuts '{}', which is not there", name));
  }
  return *x;
}

/// Constants that the removed classes reach.
void add_cuts(const Graph& graph, const Channels& channels, const std::set<int64_t>& removed,
              ThinRecipe& recipe) {
  for (const ValueId id : graph.live_values()) {
    const Value& value = graph.value(id);
    if (!value.is_constant() || value.constant.dtype() != DType::float32) continue;
    for (int64_t axis = 0; axis < static_cast<int64_t>(value.constant.rank()); ++axis) {
      if (!channels.known(id, axis)) continue;
      ThinCut c{value.name, axis, {}};
      const int64_t length = value.constant.dim(axis);
      for (int64_t i = 0; i < length; ++i) {
        if (!removed.contains(channels.class_of(id, axis, i))) c.kept.push_back(i);
      }
      if (static_cast<int64_t>(c.kept.size()) < length) recipe.cuts.push_back(std::move(c));
    }
  }
}

/// How many indices of a dimension stay.
int64_t kept_classes(const Channels& channels, ValueId id, int64_t axis, int64_t length,
                     const std::set<int64_t>& removed) {
  int64_t kept = 0;
  for (int64_t i = 0; i < length; ++i) kept += !removed.contains(channels.class_of(id, axis, i));
  return kept;
}

}  // namespace

const char* to_string(RankMethod method) {
  return kRanks[static_cast<size_t>(method)];
}

int64_t kept_count(int64_t count, double ratio, int64_t align) {
  const double wanted = static_cast<double>(count) * (1 - ratio);
  const int64_t step = count >= 2 * align ? align : 1;
  return std::clamp<int64_t>(step * std::llround(wanted / static_cast<double>(step)), step, count);
}

Tensor kept_lines(const Tensor& x, int64_t axis, std::span<const int64_t> kept) {
  const Lines from(x.dims(), axis);
  Dims dims = x.dims();
  dims[static_cast<size_t>(axis)] = static_cast<int64_t>(kept.size());
  Tensor out(DType::float32, dims);
  const auto source = x.data<float>();
  const auto target = out.mutable_data<float>();
  const Lines to(dims, axis);
  for (size_t k = 0; k < kept.size(); ++k) {
    if (kept[k] < 0 || kept[k] >= from.length) {
      throw Error(ErrorCode::internal,
                  fmt::format("line {} of {} cannot be kept", kept[k], from.length));
    }
    size_t next = 0;
    std::vector<size_t> places(static_cast<size_t>(from.outer * from.inner));
    to.at(static_cast<int64_t>(k), [&](size_t i) { places[next++] = i; });
    next = 0;
    from.at(kept[k], [&](size_t i) { target[places[next++]] = source[i]; });
  }
  return out;
}

Tensor only_lines(const Tensor& x, int64_t axis, std::span<const int64_t> kept) {
  Tensor out = x.clone();
  const auto data = out.mutable_data<float>();
  const Lines lines(x.dims(), axis);
  const std::set<int64_t> stay(kept.begin(), kept.end());
  for (int64_t i = 0; i < lines.length; ++i) {
    if (!stay.contains(i)) lines.at(i, [&](size_t e) { data[e] = 0; });
  }
  return out;
}

ThinOptions parse_thin(std::string_view text) {
  const SpecText parts = split_spec(text, "thin");
  ThinOptions o;
  o.active = true;
  o.method = static_cast<RankMethod>(choice_of("thin", parts.word, kRanks));
  std::optional<int64_t> align;
  std::optional<int64_t> samples;
  for (const auto& [key, value] : parts.keys) {
    if (key == "heads" || key == "kv_heads" || key == "ff") {
      (key == "ff"      ? o.ff
       : key == "heads" ? o.heads
                        : o.kv_heads) = number_of(key, value, 0.001, 0.999);
    } else if (key == "blocks") {
      o.blocks = integer_of(key, value, 1, 10000);
    } else if (key == "ratio") {
      o.ratio = number_of(key, value, 0, 0.999);
    } else if (key == "macs") {
      o.macs = number_of(key, value, 0.001, 1);
    } else if (key == "align") {
      align = integer_of(key, value, 1, 1024);
    } else if (key == "samples") {
      samples = integer_of(key, value, 1, 1000000);
    } else if (key == "layers") {
      o.layers.push_back(value);
    } else if (key == "except") {
      o.except.push_back(value);
    } else {
      unknown_key("thin", key, kKeys);
    }
  }
  const int ways = (o.ratio ? 1 : 0) + (o.macs ? 1 : 0) + (o.of_language_model() ? 1 : 0);
  if (ways != 1) {
    throw Error(ErrorCode::invalid_argument, "thin: one of ratio and macs is needed",
                "ratio=0.3 removes 30 % of the filters, macs=0.5 half of the multiply-adds; of a "
                "language model heads=0.25, kv_heads=0.5, ff=0.5 and blocks=2 remove such parts");
  }
  const bool filters = !o.layers.empty() || !o.except.empty() || o.method == RankMethod::apoz;
  if (o.of_language_model() && filters) {
    throw Error(ErrorCode::invalid_argument, "thin: layers, except and apoz are for filters",
                "the layers of a language model have one size; rank by l1, gradient or taylor");
  }
  o.align = align.value_or(o.of_language_model() ? kNeurons : o.align);
  o.samples = samples.value_or(o.of_language_model() ? kSequences : o.samples);
  return o;
}

std::string to_text(const ThinOptions& o) {
  if (!o.active) return "";
  std::string out = to_string(o.method);
  if (o.ratio) out += fmt::format(",ratio={}", *o.ratio);
  if (o.macs) out += fmt::format(",macs={}", *o.macs);
  if (o.heads) out += fmt::format(",heads={}", *o.heads);
  if (o.kv_heads) out += fmt::format(",kv_heads={}", *o.kv_heads);
  if (o.ff) out += fmt::format(",ff={}", *o.ff);
  if (o.blocks > 0) out += fmt::format(",blocks={}", o.blocks);
  out += fmt::format(",align={},samples={}", o.align, o.samples);
  for (const std::string& glob : o.layers) out += ",layers=" + glob;
  for (const std::string& glob : o.except) out += ",except=" + glob;
  return out;
}

FilterScores score_filters(const Graph& graph, const std::vector<FilterGroup>& groups,
                           RankMethod method, const std::map<std::string, Tensor>& gradients) {
  std::map<std::string, int64_t> axes;
  for (const PruneTarget& target : find_targets(graph, {}, {})) {
    axes[target.weights] = target.output_axis;
  }
  FilterScores scores;
  for (const FilterGroup& group : groups) {
    for (const Filter& filter : group.filters) {
      double& score = scores[filter.channel_class];
      for (const auto& [weights, index] : filter.producers) {
        const std::string& name = graph.value(weights).name;
        const auto w = graph.constant(weights)->data<float>();
        const auto g = method == RankMethod::l1 ? w : gradients.at(name).data<float>();
        double sum = 0;
        Lines(graph.constant(weights)->dims(), axes.at(name)).at(index, [&](size_t i) {
          sum += method == RankMethod::taylor ? static_cast<double>(w[i]) * g[i] : std::fabs(g[i]);
        });
        score += std::fabs(sum);
      }
    }
  }
  return scores;
}

std::set<int64_t> lowest_filters(const std::vector<FilterGroup>& groups, const FilterScores& scores,
                                 double ratio, int64_t align) {
  std::set<int64_t> removed;
  for (const FilterGroup& group : groups) {
    const auto count = static_cast<int64_t>(group.filters.size());
    const int64_t kept = kept_count(count, ratio, align);
    std::vector<int64_t> order;
    for (const Filter& filter : group.filters) order.push_back(filter.channel_class);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return scores.at(a) < scores.at(b); });
    removed.insert(order.begin(), order.end() - kept);
  }
  return removed;
}

ThinRecipe make_recipe(const Graph& graph, const Channels& channels,
                       const std::set<int64_t>& removed) {
  ThinRecipe recipe;
  add_cuts(graph, channels, removed, recipe);
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.is("Conv") && node.int_or("group", 1) > 1) {
      const int64_t group = node.int_or("group", 1);
      const int64_t kept = kept_classes(channels, node.output(0), 1, group, removed);
      const bool depthwise = graph.value(node.output(0)).shape->at(1).value == group;
      if (depthwise && kept < group) recipe.conv_groups[node.name] = kept;
    }
    if (!node.is("Reshape") || !graph.value(node.output(0)).shape) continue;
    const SymbolicShape& shape = *graph.value(node.output(0)).shape;
    if (shape.size() != 2 || !shape[1].known()) continue;
    const int64_t kept = kept_classes(channels, node.output(0), 1, shape[1].value, removed);
    if (kept < shape[1].value) recipe.columns[graph.value(node.input(1)).name] = kept;
  }
  return recipe;
}

Graph thinned(const Graph& graph, const ThinRecipe& recipe) {
  Graph out = graph;
  for (const ThinCut& c : recipe.cuts) {
    const Tensor smaller = kept_lines(initializer(out, c.tensor, c.axis), c.axis, c.kept);
    out.set_constant(*out.find_value(c.tensor), smaller);
  }
  for (const auto& [name, groups] : recipe.conv_groups) {
    const auto id = out.find_node(name);
    if (!id) throw Error(ErrorCode::internal, fmt::format("the recipe names no node '{}'", name));
    out.attributes(*id)["group"] = groups;
  }
  for (const auto& [name, columns] : recipe.columns) {
    const auto id = out.find_value(name);
    const Tensor* shape = id ? out.constant(*id) : nullptr;
    if (shape == nullptr || shape->elements() != 2) {
      throw Error(ErrorCode::internal, fmt::format("the recipe names no shape '{}'", name));
    }
    std::vector<int64_t> dims = shape->to_ints();
    if (dims[1] > 0) dims[1] = columns;
    out.set_constant(*id, Tensor::vector(dims));
  }
  // What was inferred is of the larger graph.
  for (const ValueId id : out.live_values()) {
    const Value& value = out.value(id);
    if (!value.is_input && !value.is_constant()) out.mutable_value(id).shape.reset();
  }
  infer_shapes(out);
  return out;
}

Graph masked(const Graph& graph, const ThinRecipe& recipe) {
  Graph out = graph;
  for (const ThinCut& c : recipe.cuts) {
    const Tensor masked = only_lines(initializer(out, c.tensor, c.axis), c.axis, c.kept);
    out.set_constant(*out.find_value(c.tensor), masked);
  }
  return out;
}

}  // namespace narrow::train
