// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "narrow/core/file.h"
#include "narrow/core/parallel.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/control_flow.h"
#include "narrow/runtime/reorder.h"

namespace narrow {
namespace {

std::string full_op(const Node& node) {
  return node.domain.empty() ? node.op : node.domain + "::" + node.op;
}

// --- choosing implementations -------------------------------------------------------------------

struct Selection {
  NodeId node = kNoId;
  const OpImpl* row = nullptr;  // nullptr: control flow, whose step is there already
  std::unique_ptr<Step> step;
  KernelChoice choice;
};

bool is_reference(const OpImpl& row) {
  return std::string_view(row.name) == "reference";
}

void choose_row(const Graph& graph, const PlanOptions& options, Selection& selection) {
  const Node& node = graph.node(selection.node);
  const std::vector<const OpImpl*> rows = options.rows(node.domain, node.op);
  // Where an operator has one plain implementation under another name, that is the reference.
  const bool only_reference =
      options.step.deterministic_reference &&
      std::any_of(rows.begin(), rows.end(), [](const OpImpl* row) { return is_reference(*row); });
  for (const OpImpl* row : rows) {
    Refusal refusal = only_reference && !is_reference(*row)
                          ? "only the reference was asked for"
                          : row->accepts(graph, node, options.step);
    if (refusal.empty()) {
      selection.row = row;
      selection.choice.chosen = row->name;
      return;
    }
    selection.choice.refused.emplace_back(row->name, std::move(refusal));
  }
}

std::string explain(const Node& node, const KernelChoice& choice) {
  std::string text = fmt::format("'{}' ({}): ", node.name, full_op(node));
  if (choice.refused.empty()) return text + "no implementation";
  std::vector<std::string> reasons;
  for (const auto& [name, reason] : choice.refused) {
    reasons.push_back(fmt::format("{}: {}", name, reason));
  }
  return text + fmt::format("{}", fmt::join(reasons, "; "));
}

/// Nodes that outputs or observed values depend on, in order.
std::vector<NodeId> needed_nodes(const Graph& graph, const PlanOptions& options) {
  std::vector<bool> needed(graph.value_capacity(), false);
  for (const ValueId id : graph.outputs()) needed[id] = true;
  for (const std::string& name : options.observed) {
    if (const auto id = graph.find_value(name)) needed[*id] = true;
  }
  std::vector<NodeId> order = graph.nodes();
  std::vector<NodeId> kept;
  for (size_t i = order.size(); i-- > 0;) {
    const Node& node = graph.node(order[i]);
    const auto wanted = [&](ValueId id) { return id != kNoId && needed[id]; };
    if (!std::any_of(node.outputs.begin(), node.outputs.end(), wanted)) continue;
    kept.push_back(order[i]);
    for (const ValueId id : node.inputs) {
      if (id != kNoId) needed[id] = true;
    }
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

std::vector<Selection> select(const Graph& graph, const PlanOptions& options) {
  std::vector<Selection> selections;
  std::vector<std::string> refused;
  for (const NodeId id : needed_nodes(graph, options)) {
    const Node& node = graph.node(id);
    Selection s;
    s.node = id;
    s.choice = {node.name, full_op(node), "", {}};
    if (is_control_flow(node)) {
      try {
        s.step = make_control_flow(graph, node, options);
        s.choice.chosen = "subgraph";
      } catch (const NodesNotSupported& inner) {
        for (const std::string& text : inner.nodes()) {
          refused.push_back(fmt::format("in '{}': {}", node.name, text));
        }
      }
    } else {
      choose_row(graph, options, s);
      if (s.row == nullptr) refused.push_back(explain(node, s.choice));
    }
    selections.push_back(std::move(s));
  }
  if (!refused.empty()) throw NodesNotSupported(std::move(refused));
  return selections;
}

int64_t constant_bytes(const Graph& graph, const Node& node) {
  size_t bytes = 0;
  for (const ValueId id : node.inputs) {
    const Tensor* constant = id == kNoId ? nullptr : graph.constant(id);
    if (constant != nullptr) bytes += constant->bytes();
  }
  return static_cast<int64_t>(bytes);
}

void create_step(const Graph& graph, const PlanOptions& options, Selection& s) {
  if (s.row == nullptr) return;
  const Node& node = graph.node(s.node);
  try {
    s.step = s.row->create(graph, node, options.step);
  } catch (Error& error) {
    error.add_context(fmt::format("node '{}'", s.choice.node));
    throw;
  }
  if (s.step->packed_bytes() == 0) return;
  // The step has its own copy: a mapped file need not stay in memory beside it.
  for (const ValueId id : node.inputs) {
    const Tensor* constant = id == kNoId ? nullptr : graph.constant(id);
    if (constant != nullptr) MappedFile::release({constant->raw(), constant->bytes()});
  }
}

/// Steps with large weights one after the other, each with all threads; the others side by side.
void create_steps(const Graph& graph, const PlanOptions& options,
                  std::vector<Selection>& selections) {
  constexpr int64_t kLarge = int64_t{1} << 20;
  std::vector<Selection*> small;
  std::vector<Selection*> large;
  int64_t total = 0;
  for (Selection& s : selections) {
    const int64_t bytes = constant_bytes(graph, graph.node(s.node));
    (bytes < kLarge ? small : large).push_back(&s);
    if (bytes >= kLarge) total += bytes;
  }
  parallel_blocks(static_cast<int64_t>(small.size()),
                  [&](int64_t i) { create_step(graph, options, *small[static_cast<size_t>(i)]); });
  int64_t done = 0;
  for (Selection* s : large) {
    options.progress.check_cancelled();
    create_step(graph, options, *s);
    done += constant_bytes(graph, graph.node(s->node));
    options.progress.report("load", done, total);
  }
}

// --- layouts ------------------------------------------------------------------------------------

class ReorderStep : public Step {
 public:
  void run(RunContext& context) const override { reorder(context.inputs[0], context.outputs[0]); }
};

/// Operators that move no bytes when their data is plain; of these, the first line also keeps any
/// layout.
bool renames(const Node& node) {
  return node.is("Identity");
}
bool reshapes(const Node& node) {
  return node.is("Reshape") || node.is("Flatten") || node.is("Squeeze") || node.is("Unsqueeze");
}

/// Inputs that are no operands but tables: their elements have no position in the image.
bool is_table(const Node& node, size_t input) {
  if (input == 0) return false;
  if (node.is(ops::kQLookup, ops::kDomain)) return input == 1;
  return node.is("Slice") || node.is("Pad") || node.is("Split");
}

class LayoutPlanner {
 public:
  explicit LayoutPlanner(Plan& plan)
      : plan_(plan),
        slots_(plan.graph.value_capacity(), {-1, -1}),
        demand_(plan.graph.value_capacity(), {false, false}),
        home_(plan.graph.value_capacity(), Layout::plain) {}

  /// From the last step to the first: in which layouts the readers of each value want it. Agnostic
  /// steps want what theirs do.
  void find_demand(const std::vector<Selection>& selections) {
    for (const ValueId id : plan_.graph.outputs()) demand_[id][index(Layout::plain)] = true;
    for (size_t k = selections.size(); k-- > 0;) {
      const Node& node = plan_.graph.node(selections[k].node);
      const Step& step = *selections[k].step;
      if (!step.layout_agnostic()) {
        for (size_t i = 0; i < node.inputs.size(); ++i) {
          if (node.inputs[i] != kNoId) demand_[node.inputs[i]][index(step.input_layout(i))] = true;
        }
        continue;
      }
      for (const ValueId id : image_operands(node)) {
        for (const ValueId out : node.outputs) {
          if (out == kNoId) continue;
          for (size_t l = 0; l < 2; ++l) demand_[id][l] = demand_[id][l] || demand_[out][l];
        }
      }
    }
  }

  void add_inputs() {
    for (size_t i = 0; i < plan_.graph.inputs().size(); ++i) {
      const int slot = add_slot(plan_.graph.inputs()[i], Layout::plain);
      plan_.slots[slot].input = static_cast<int>(i);
      plan_.inputs.push_back(slot);
    }
  }

  void add_step(Selection selection) {
    const Node& node = plan_.graph.node(selection.node);
    const Step& step = *selection.step;
    const bool agnostic = step.layout_agnostic();
    const Layout common = agnostic ? common_layout(node) : Layout::plain;
    PlannedStep planned;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      const bool follows = agnostic && id != kNoId && rank(id) >= 3 && !is_table(node, i);
      const Layout wanted = follows ? common : agnostic ? Layout::plain : step.input_layout(i);
      planned.inputs.push_back(id == kNoId ? -1 : slot_of(id, wanted));
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueId id = node.outputs[i];
      if (id != kNoId && plan_.graph.value(id).dtype == DType::undefined) {
        throw Error(ErrorCode::unsupported,
                    fmt::format("node '{}' ({}): the element type of '{}' is not known", node.name,
                                node.op, plan_.graph.value(id).name));
      }
      const Layout written = agnostic ? common : step.output_layout(i);
      planned.outputs.push_back(id == kNoId ? -1 : add_slot(id, written));
    }
    planned.is_view = is_view(node, planned);
    planned.node = selection.node;
    planned.name = node.name;
    planned.op = selection.choice.op;
    planned.implementation = selection.choice.chosen;
    planned.step = std::move(selection.step);
    plan_.choices.push_back(std::move(selection.choice));
    plan_.steps.push_back(std::move(planned));
  }

  /// The slot of a value in a layout; inserts the reorder the first time.
  int slot_of(ValueId id, Layout layout) {
    const Value& value = plan_.graph.value(id);
    if (value.is_constant() && home_slot(id) < 0) {
      const int slot = add_slot(id, Layout::plain);
      plan_.slots[slot].constant = value.constant;
    }
    if (value.shape && value.shape->size() < 3) layout = home_[id];
    int& slot = slots_[id][index(layout)];
    if (slot >= 0) return slot;
    const int source = home_slot(id);
    if (source < 0) {
      throw Error(ErrorCode::internal,
                  fmt::format("value '{}' is read before it is written", value.name));
    }
    if (value.is_constant()) {
      slot = new_slot(id, layout);
      plan_.slots[slot].constant = to_layout(value.constant, layout);
    } else {
      slot = new_slot(id, layout);
      insert_reorder(source, slot);
    }
    return slot;
  }

  int home_slot(ValueId id) const { return slots_[id][index(home_[id])]; }

 private:
  size_t rank(ValueId id) const {
    const auto& shape = plan_.graph.value(id).shape;
    return shape ? shape->size() : 0;
  }

  int new_slot(ValueId id, Layout layout) {
    plan_.slots.push_back({id, plan_.graph.value(id).dtype, layout, -1, {}});
    return static_cast<int>(plan_.slots.size()) - 1;
  }

  int add_slot(ValueId id, Layout layout) {
    const auto& shape = plan_.graph.value(id).shape;
    if (shape && shape->size() < 3) layout = Layout::plain;  // the same bytes under either name
    const int slot = new_slot(id, layout);
    home_[id] = layout;
    slots_[id][index(layout)] = slot;
    return slot;
  }

  void insert_reorder(int source, int target) {
    const Value& value = plan_.graph.value(plan_.slots[source].value);
    PlannedStep planned;
    planned.name = fmt::format("reorder {} to {}", value.name,
                               to_string(plan_.slots[static_cast<size_t>(target)].layout));
    planned.op = "Reorder";
    planned.implementation = "reorder";
    planned.step = std::make_unique<ReorderStep>();
    planned.inputs = {source};
    planned.outputs = {target};
    plan_.choices.push_back({planned.name, planned.op, planned.implementation, {}});
    plan_.steps.push_back(std::move(planned));
    ++plan_.reorders;
  }

  static bool single_element(const Value& value) {
    const auto dims = value.shape ? concrete(*value.shape) : std::nullopt;
    return dims && num_elements(*dims) == 1;
  }

  /// Bytes that a reorder of the value moves, as far as sizes are known; 0 where it is a view.
  double reorder_cost(ValueId id) const {
    const Value& value = plan_.graph.value(id);
    const SymbolicShape& shape = *value.shape;
    const auto is_one = [](const Dim& dim) { return dim.known() && dim.value == 1; };
    if (is_one(shape[1]) || std::all_of(shape.begin() + 2, shape.end(), is_one)) return 0;
    double bytes = bits(value.dtype) / 8.0;
    for (const Dim& dim : shape) bytes *= dim.known() ? static_cast<double>(dim.value) : 1;
    return bytes;
  }

  /// Operands of an agnostic step that have the common layout; nothing where it must be plain,
  /// since an operand of another rank would have to be broadcast against permuted memory.
  std::vector<ValueId> image_operands(const Node& node) const {
    const size_t wanted = node.output(0) == kNoId ? 0 : rank(node.output(0));
    if (wanted < 3) return {};
    for (const ValueId id : node.outputs) {
      if (id != kNoId && (rank(id) != wanted || is_sub_byte(plan_.graph.value(id).dtype))) {
        return {};
      }
    }
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      if (id == kNoId || is_table(node, i)) continue;
      const Value& value = plan_.graph.value(id);
      if (single_element(value)) continue;
      if (rank(id) != wanted || is_sub_byte(value.dtype)) return {};
      if (!value.is_constant()) operands.push_back(id);
    }
    return operands;
  }

  /// The layout of an agnostic step with the fewest bytes to move in front of it and behind it;
  /// among equals channels_last if an operand has it, as convolutions want.
  Layout common_layout(const Node& node) const {
    const std::vector<ValueId> operands = image_operands(node);
    if (operands.empty()) return Layout::plain;
    const auto cost = [&](Layout layout) {
      double bytes = 0;
      for (const ValueId id : operands) {
        if (slots_[id][index(layout)] < 0) bytes += reorder_cost(id);
      }
      for (const ValueId id : node.outputs) {
        if (id != kNoId && demand_[id][index(other(layout))]) bytes += reorder_cost(id);
      }
      return bytes;
    };
    const double plain = cost(Layout::plain);
    const double last = cost(Layout::channels_last);
    if (plain != last) return plain < last ? Layout::plain : Layout::channels_last;
    const auto is_last = [&](ValueId id) { return home_[id] == Layout::channels_last; };
    return std::any_of(operands.begin(), operands.end(), is_last) ? Layout::channels_last
                                                                  : Layout::plain;
  }

  bool is_view(const Node& node, const PlannedStep& planned) const {
    if (!renames(node) && !reshapes(node)) return false;
    if (planned.inputs.empty() || planned.inputs[0] < 0 || planned.outputs[0] < 0) return false;
    const Slot& from = plan_.slots[planned.inputs[0]];
    const Slot& to = plan_.slots[planned.outputs[0]];
    if (from.layout != to.layout || from.dtype != to.dtype) return false;
    return renames(node) || from.layout == Layout::plain;
  }

  static size_t index(Layout layout) { return static_cast<size_t>(layout); }
  static Layout other(Layout layout) {
    return layout == Layout::plain ? Layout::channels_last : Layout::plain;
  }

  Plan& plan_;
  std::vector<std::array<int, 2>> slots_;    // by value and layout; -1: none yet
  std::vector<std::array<bool, 2>> demand_;  // likewise: some reader wants it so
  std::vector<Layout> home_;                 // in which the producer writes it
};

void add_observed(const PlanOptions& options, LayoutPlanner& layouts, Plan& plan) {
  std::vector<int> written(plan.slots.size(), -1);
  for (size_t k = 0; k < plan.steps.size(); ++k) {
    for (const int slot : plan.steps[k].outputs) {
      if (slot >= 0) written[slot] = static_cast<int>(k);
    }
  }
  for (const std::string& name : options.observed) {
    const auto id = plan.graph.find_value(name);
    if (!id) continue;
    const int slot = plan.graph.value(*id).is_constant() ? layouts.slot_of(*id, Layout::plain)
                                                         : layouts.home_slot(*id);
    if (slot < 0) continue;
    const int step = static_cast<size_t>(slot) < written.size() ? written[slot] : -1;
    plan.observed.push_back({step, slot, name});
  }
  std::stable_sort(plan.observed.begin(), plan.observed.end(),
                   [](const ObservedSlot& a, const ObservedSlot& b) { return a.step < b.step; });
}

std::string list(const std::vector<std::string>& nodes) {
  return fmt::format("{} node{} cannot run:\n  {}", nodes.size(), nodes.size() == 1 ? "" : "s",
                     fmt::join(nodes, "\n  "));
}

}  // namespace

NodesNotSupported::NodesNotSupported(std::vector<std::string> nodes)
    : Error(ErrorCode::unsupported, list(nodes)), nodes_(std::move(nodes)) {}

std::unique_ptr<const Plan> make_plan(Graph graph, const PlanOptions& options) {
  auto plan = std::make_unique<Plan>();
  plan->graph = std::move(graph);
  plan->reuse_memory = options.reuse_memory;
  plan->states = options.states;
  plan->graph.sort();
  infer_shapes(plan->graph);
  std::vector<Selection> selections = select(plan->graph, options);
  create_steps(plan->graph, options, selections);
  LayoutPlanner layouts(*plan);
  layouts.find_demand(selections);
  layouts.add_inputs();
  for (Selection& selection : selections) layouts.add_step(std::move(selection));
  for (const ValueId id : plan->graph.outputs()) {
    plan->outputs.push_back(layouts.slot_of(id, Layout::plain));
  }
  add_observed(options, layouts, *plan);
  return plan;
}

}  // namespace narrow
