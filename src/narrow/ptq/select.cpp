// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/select.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"

namespace narrow {
namespace {

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& p) { return glob_match(p, name); });
}

void require_matches(const Graph& graph, const QuantizeOptions& options) {
  std::vector<std::string> names;
  for (const NodeId id : graph.nodes()) names.push_back(graph.node(id).name);
  const auto check = [&](const char* key, const std::string& pattern) {
    const bool hit = std::any_of(names.begin(), names.end(),
                                 [&](const std::string& n) { return glob_match(pattern, n); });
    if (hit) return;
    const std::string near = closest_name(pattern, names);
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: '{}' matches no node of the model", key, pattern),
                near.empty() ? std::string("`narrow inspect` lists the nodes")
                             : fmt::format("did you mean '{}'?", near));
  };
  for (const std::string& p : options.include) check("include", p);
  for (const std::string& p : options.exclude) check("exclude", p);
  for (const std::string& p : options.keep_float) check("keep_float", p);
  for (const LayerRule& rule : options.layers) check("layers", rule.match);
}

/// Operators that carry trained weights, whether we can quantize them or not.
bool has_weights(const Node& node) {
  for (const char* op : {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}) {
    if (node.is(op)) return true;
  }
  return false;
}

class Selector {
 public:
  Selector(const Graph& graph, const QuantizeOptions& options)
      : graph_(graph),
        options_(options),
        target_(find_target(options.target)),
        order_(graph.nodes()),
        classes_(graph.node_capacity(), OpClass::none),
        eligible_(graph.node_capacity(), false),
        reached_(graph.value_capacity(), false) {}

  Selection run() {
    for (const NodeId id : order_) consider(id);
    if (options_.mode != Mode::static_) return std::move(out_);
    for (const NodeId id : order_) absorb(id);
    for (const NodeId id : order_) reach(id);
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) demand_of(*it);
    for (const NodeId id : order_) explain(id);
    return std::move(out_);
  }

 private:
  const Node& node(NodeId id) const { return graph_.node(id); }

  std::string exclusion(const Node& n) const {
    if (matches_any(options_.keep_float, n.name)) return "keep_float names it";
    if (matches_any(options_.exclude, n.name)) return "exclude names it";
    if (!options_.include.empty() && !matches_any(options_.include, n.name)) {
      return "include does not name it";
    }
    return {};
  }

  void keep(const Node& n, std::string reason) {
    out_.kept_float.push_back({n.name, n.op, std::move(reason)});
  }

  /// Whether the node could run on codes; for layers, why not.
  void consider(NodeId id) {
    const Node& n = node(id);
    const OpClassification c = classify(graph_, n);
    classes_[id] = c.op_class;
    std::string reason = exclusion(n);
    if (c.op_class == OpClass::product || (n.is("ConvTranspose") && takes_transposed())) {
      std::string why;
      const auto layer = layer_of(graph_, id, &why);
      if (!layer) {
        keep(n, why);
        return;
      }
      const LayerChoice choice = choose(options_, n.name);
      if (reason.empty() && !choice.weights && !choice.activations) reason = "a rule says so";
      if (reason.empty() && options_.mode != Mode::weight_only && !runs_quantized(target_, n.op)) {
        reason = fmt::format("target {} has no integer {}", target_.name, n.op);
      }
      if (!reason.empty()) {
        keep(n, reason);
        return;
      }
      out_.layers.emplace(id, *layer);
      eligible_[id] = true;
      return;
    }
    if (has_weights(n) && c.op_class == OpClass::none) {
      keep(n, c.reason.empty() ? fmt::format("there is no integer form of {}", n.op) : c.reason);
      return;
    }
    eligible_[id] = c.op_class != OpClass::none && reason.empty() && runs_quantized(target_, n.op);
  }

  bool throughout() const { return target_.integer_throughout || options_.integer_throughout; }
  bool quantize_outputs() const { return target_.quantize_outputs || options_.integer_throughout; }

  bool takes_transposed() const {
    if (options_.mode == Mode::weight_only) return true;
    return options_.mode == Mode::static_ && *target_.operators != '\0' &&
           runs_quantized(target_, "ConvTranspose");
  }

  /// Activations behind a layer or an elementwise operator belong to it.
  void absorb(NodeId id) {
    if (!eligible_[id]) return;
    if (const auto layer = out_.layers.find(id); layer != out_.layers.end()) {
      out_.absorbed.insert(layer->second.absorbed.begin(), layer->second.absorbed.end());
      return;
    }
    const OpClass c = classes_[id];
    const bool computes = c == OpClass::binary || c == OpClass::concat || c == OpClass::pool;
    if (!computes || is_table_function(graph_, node(id), c) || out_.absorbed.count(id) > 0) return;
    std::vector<NodeId> passed;
    tail_[id] = behind_activations(graph_, node(id).outputs[0], &passed);
    out_.absorbed.insert(passed.begin(), passed.end());
  }

  /// The values that a node gives to others: behind what it absorbed.
  std::vector<ValueId> results(NodeId id) const {
    if (const auto layer = out_.layers.find(id); layer != out_.layers.end()) {
      return {layer->second.output};
    }
    if (const auto tail = tail_.find(id); tail != tail_.end()) return {tail->second};
    std::vector<ValueId> values;
    for (const ValueId v : node(id).outputs) {
      if (v != kNoId && graph_.value(v).dtype == DType::float32) values.push_back(v);
    }
    return values;
  }

  /// Forward: values that integers lead to.
  void reach(NodeId id) {
    if (!eligible_[id] || out_.absorbed.count(id) > 0) return;
    bool integers = out_.layers.count(id) > 0 || throughout();
    for (const ValueId v : data_inputs(id)) integers = integers || reached_[v];
    if (!integers) return;
    for (const ValueId v : results(id)) reached_[v] = true;
  }

  /// Activations whose codes the node reads.
  std::vector<ValueId> data_inputs(NodeId id) const {
    const Node& n = node(id);
    const OpClass c = classes_[id];
    if (c == OpClass::binary || c == OpClass::concat) return activation_inputs(graph_, n);
    return {n.inputs[0]};
  }

  bool wants_grid(const std::vector<ValueId>& values) const {
    return std::any_of(values.begin(), values.end(),
                       [&](ValueId v) { return out_.grids.count(v) > 0; });
  }

  /// Backward: a node runs on codes where codes lead to it and are wanted behind it.
  void demand_of(NodeId id) {
    if (!eligible_[id] || out_.absorbed.count(id) > 0) return;
    if (const auto found = out_.layers.find(id); found != out_.layers.end()) {
      const LayerChoice choice = choose(options_, node(id).name);
      if (choice.activations) {
        out_.grids[found->second.input].push_back(*choice.activations);
        if (quantize_outputs()) out_.grids[found->second.output];
      }
      return;
    }
    const std::vector<ValueId> values = results(id);
    const bool moves = classes_[id] == OpClass::movement;
    bool integers = moves || throughout();
    for (const ValueId v : data_inputs(id)) integers = integers || reached_[v];
    const bool wanted = wants_grid(values) || chained_.count(id) > 0 ||
                        (quantize_outputs() && reached_[values.front()]);
    if (!integers || !wanted) return;
    out_.nodes.insert(id);
    // All results of a data movement lie on its one grid.
    if (chained_.count(id) == 0 && (moves || quantize_outputs())) {
      for (const ValueId v : values) out_.grids[v];
    }
    for (const ValueId v : data_inputs(id)) demand_input(id, v);
  }

  /// A chain of functions of one variable is one table: only its ends need grids.
  void demand_input(NodeId id, ValueId v) {
    const NodeId before = graph_.producer_id(v);
    const bool chains = before != kNoId && is_table(id) && is_table(before) && eligible_[before] &&
                        out_.absorbed.count(before) == 0 && graph_.single_user(v) == id &&
                        reached_[v] && options_.activations->bits <= 8;
    if (chains) {
      chained_.insert(before);
    } else {
      out_.grids[v];
    }
  }
  bool is_table(NodeId id) const { return is_table_function(graph_, node(id), classes_[id]); }

  /// Reasons for operators that interrupt the integers.
  void explain(NodeId id) {
    const Node& n = node(id);
    if (out_.layers.count(id) > 0 || out_.nodes.count(id) > 0 || out_.absorbed.count(id) > 0) {
      return;
    }
    if (has_weights(n)) return;  // named already
    const auto inputs = activation_inputs(graph_, n);
    const bool reads_codes =
        std::any_of(inputs.begin(), inputs.end(), [&](ValueId v) { return reached_[v]; });
    if (!reads_codes) return;
    const OpClassification c = classify(graph_, n);
    if (!exclusion(n).empty()) {
      keep(n, exclusion(n));
    } else if (c.op_class == OpClass::none) {
      keep(n, c.reason.empty() ? fmt::format("there is no integer form of {}", n.op) : c.reason);
    } else if (!runs_quantized(target_, n.op)) {
      keep(n, fmt::format("target {} has no integer {}", target_.name, n.op));
    } else {
      keep(n, "only float operators or the caller read its result");
    }
  }

  const Graph& graph_;
  const QuantizeOptions& options_;
  const TargetProfile& target_;
  const std::vector<NodeId> order_;
  std::vector<OpClass> classes_;
  std::vector<bool> eligible_;
  std::vector<bool> reached_;
  std::map<NodeId, ValueId> tail_;
  std::set<NodeId> chained_;
  Selection out_;
};

/// Union-find over values.
class Groups {
 public:
  explicit Groups(size_t size) : parent_(size) { std::iota(parent_.begin(), parent_.end(), 0); }
  ValueId root(ValueId v) {
    while (parent_[v] != v) v = parent_[v] = parent_[parent_[v]];
    return v;
  }
  void join(ValueId a, ValueId b) {
    a = root(a);
    b = root(b);
    if (a != b) parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<ValueId> parent_;
};

}  // namespace

LayerChoice choose(const QuantizeOptions& options, const std::string& node) {
  QuantizeOptions o = options;
  bool by_rule = false;
  for (const LayerRule& rule : options.layers) {
    if (!glob_match(rule.match, node)) continue;
    by_rule = true;
    if (rule.weights) o.weights = rule.weights;
    if (rule.activations) o.activations = rule.activations;
    if (rule.weight_symmetry) o.weight_symmetry = rule.weight_symmetry;
    if (rule.group_size) {
      o.group_size = *rule.group_size;
      o.granularity = o.group_size > 0 ? Granularity::per_group : Granularity::per_axis;
    }
    if (rule.granularity) o.granularity = rule.granularity;
  }
  LayerChoice choice;
  if (!o.weights->floating || o.weights->bits == 16) choice.weights = o.weights;
  if (!o.activations->floating) choice.activations = o.activations;
  choice.granularity = *o.granularity;
  choice.group_size = choice.granularity == Granularity::per_group ? o.group_size : 0;
  choice.weight_symmetry = *o.weight_symmetry;
  const auto refuse = [&](std::string_view why) {
    throw Error(ErrorCode::invalid_argument, fmt::format("layer '{}': {}", node, why));
  };
  if (choice.granularity == Granularity::per_group) {
    if (choice.group_size < 1) refuse("granularity per_group needs a group_size");
    if (choice.activations) refuse("groups of weights need float32 activations");
  }
  if (choice.weights && !choice.weights->floating && choice.weights->bits > 8) {
    refuse("weights have at most 8 bits");
  }
  if (by_rule) {
    try {
      check_layer_types(o);
    } catch (Error& e) {
      e.add_context(fmt::format("layer '{}'", node));
      throw;
    }
  }
  return choice;
}

Scheme activation_scheme(const QuantizeOptions& options, const NumberType& type) {
  Scheme scheme;
  scheme.bits = type.bits;
  scheme.is_signed = type.is_signed;
  scheme.symmetry = *options.activation_symmetry;
  scheme.granularity = Granularity::per_tensor;
  scheme.scale_type = options.scale_type;
  return scheme;
}

Selection select_nodes(const Graph& graph, const QuantizeOptions& options) {
  require_matches(graph, options);
  return Selector(graph, options).run();
}

std::vector<std::vector<ValueId>> grid_groups(const Graph& graph, const Selection& selection,
                                              const TargetProfile& target) {
  Groups groups(graph.value_capacity());
  for (const NodeId id : selection.nodes) {
    const Node& node = graph.node(id);
    const OpClass c = classify(graph, node).op_class;
    const bool copies = c == OpClass::movement || (c == OpClass::concat && target.equal_concat);
    if (!copies) continue;
    std::vector<ValueId> values = c == OpClass::movement ? std::vector<ValueId>{node.inputs[0]}
                                                         : activation_inputs(graph, node);
    for (const ValueId v : node.outputs) {
      if (v != kNoId) values.push_back(v);
    }
    if (c == OpClass::concat) {
      // Relu behind an equal Concat keeps its codes' grid too.
      values.push_back(behind_activations(graph, node.outputs[0], nullptr));
    }
    for (const ValueId v : values) {
      if (selection.grids.count(v) > 0) groups.join(values.front(), v);
    }
  }
  std::map<ValueId, std::vector<ValueId>> by_root;
  for (const auto& [value, wishes] : selection.grids) by_root[groups.root(value)].push_back(value);
  std::vector<std::vector<ValueId>> out;
  for (auto& [root, members] : by_root) out.push_back(std::move(members));
  return out;
}

}  // namespace narrow
