// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/executor.h"

#include <fmt/format.h>

#include <set>

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"

namespace narrow::train {
namespace {

const OpRule* find_rule(const Node& node) {
  for (const std::span<const OpRule> table : all_rules()) {
    for (const OpRule& rule : table) {
      if (node.is(rule.op, rule.domain)) return &rule;
    }
  }
  return nullptr;
}

/// w where the mask says so, else 0; backward as if there were no mask.
struct PassThrough : torch::autograd::Function<PassThrough> {
  static torch::Tensor forward(torch::autograd::AutogradContext* /*context*/,
                               const torch::Tensor& w, const torch::Tensor& mask) {
    return w.masked_fill(mask == 0, 0);
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* /*context*/,
                                               const torch::autograd::tensor_list& gradients) {
    return {gradients[0], torch::Tensor()};
  }
};

/// libtorch's messages end in a list of its functions.
std::string first_line(const char* what) {
  const std::string text = what;
  return text.substr(0, text.find('\n'));
}

[[noreturn]] void failed(const Node& node, const char* what) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): {}", node.name, node.op, first_line(what)));
}

/// Grids of what comes in: data, of which calibration knows the range. Learning them would ask for
/// the gradient of the first layer's input, which nothing else needs.
std::set<std::string> groups_of_inputs(const TrainPlan& plan) {
  std::set<std::string> groups;
  for (const ValueId id : plan.graph.inputs()) {
    const auto grid = plan.activations.find(plan.graph.value(id).name);
    if (grid != plan.activations.end()) groups.insert(grid->second.group);
  }
  return groups;
}

}  // namespace

std::array<std::span<const OpRule>, 3> all_rules() {
  return {math_rules(), layer_rules(), shape_rules()};
}

Executor::Executor(const TrainPlan& plan, const QatOptions& qat, torch::Device device)
    : graph_(plan.graph), device_(device) {
  graph_.sort();
  std::string unknown;
  for (const NodeId id : graph_.nodes()) {
    const Node& node = graph_.node(id);
    const OpRule* rule = find_rule(node);
    if (rule == nullptr) {
      unknown += fmt::format("{}'{}' ({})", unknown.empty() ? "" : ", ", node.name, node.op);
      continue;
    }
    try {
      steps_.push_back({id, rule->make(graph_, node), {}});
    } catch (Error& e) {
      e.add_context(fmt::format("node '{}' ({})", node.name, node.op));
      throw;
    }
  }
  if (!unknown.empty()) {
    throw Error(ErrorCode::unsupported, "these nodes have no training rule: " + unknown,
                "cut them off the model, or train the part before them");
  }
  constants_.resize(graph_.value_capacity());
  rounding_.resize(graph_.value_capacity());
  trained_.resize(graph_.value_capacity());
  adapter_of_.resize(graph_.value_capacity());
  blocks_of_.resize(graph_.value_capacity());
  dynamic_.resize(graph_.value_capacity());
  for (const ValueId id : graph_.live_values()) {
    const Value& value = graph_.value(id);
    if (value.is_constant()) constants_[static_cast<size_t>(id)] = to_torch(value.constant);
  }
  const auto value_id = [&](const std::string& name) {
    const auto id = graph_.find_value(name);
    if (!id) throw Error(ErrorCode::not_found, fmt::format("the graph has no value '{}'", name));
    return static_cast<size_t>(*id);
  };
  for (const std::string& name : plan.parameters) {
    const size_t id = value_id(name);
    torch::Tensor& parameter = parameters_[name] = constants_[id];
    parameter.set_requires_grad(true);
    trained_[id] = &parameter;
  }
  for (const NodeId id : graph_.nodes()) {
    const Node& node = graph_.node(id);
    if (!node.is("BatchNormalization")) continue;
    for (const size_t i : {3, 4}) {
      const ValueId value = node.input(i);
      if (graph_.constant(value) == nullptr) continue;
      torch::Tensor& x = constants_[static_cast<size_t>(value)];
      x = x.to(device_);
      buffers_[graph_.value(value).name] = x;
    }
  }
  for (const auto& [name, params] : plan.weights) {
    const GridRule rule = plan.fixed_grids.contains(name) ? GridRule{} : weight_rule(qat);
    Grid& grid = weight_grids_.try_emplace(name, params, rule).first->second;
    rounding_[value_id(name)].grid = &grid;
  }
  for (const auto& [name, adapter] : plan.adapters) {
    adapter_of_[value_id(name)] = &adapters_.emplace(name, adapter).first->second;
  }
  for (const auto& [name, type] : plan.blocks) blocks_of_[value_id(name)] = type;
  for (const auto& [name, grid] : plan.dynamic) dynamic_[value_id(name)] = grid;
  const std::set<std::string> fixed = groups_of_inputs(plan);
  for (const auto& [name, grid] : plan.activations) {
    groups_[name] = grid.group;
    GridRule rule = activation_rule(qat);
    rule.learn_scale = rule.learn_scale && !fixed.contains(grid.group);
    rule.learn_zero = rule.learn_zero && !fixed.contains(grid.group);
    rounding_[value_id(name)].grid =
        &activation_grids_.try_emplace(grid.group, grid.params, rule).first->second;
  }
  std::vector<bool> read(graph_.value_capacity());
  for (const ValueId id : graph_.outputs()) read[static_cast<size_t>(id)] = true;
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    for (const ValueId id : graph_.node(step->node).inputs) {
      if (id == kNoId || read[static_cast<size_t>(id)]) continue;
      read[static_cast<size_t>(id)] = true;
      step->last_uses.push_back(id);
    }
  }
  spare_work();
  move_constants();
}

/// What no step changes goes to the device once. Integers stay: they are shapes, axes and indices.
void Executor::move_constants() {
  for (const ValueId id : graph_.live_values()) {
    const auto slot = static_cast<size_t>(id);
    torch::Tensor& x = constants_[slot];
    const bool changes = trained_[slot] != nullptr || rounding_[slot].grid != nullptr ||
                         adapter_of_[slot] != nullptr || blocks_of_[slot].has_value();
    if (!x.defined() || changes) continue;
    if (x.is_floating_point() || x.scalar_type() == torch::kBool) x = x.to(device_);
  }
}

/// What need not be done: rounding what is on the grid already, Relu where the grid ends at 0, and
/// a second tensor for a rounded value whose producer does not keep it for its gradient.
void Executor::spare_work() {
  static const std::set<std::string, std::less<>> kMoves = {
      "MaxPool",   "Reshape",  "Flatten", "Transpose",    "Squeeze",
      "Unsqueeze", "Identity", "Slice",   "GlobalMaxPool"};
  static const std::set<std::string, std::less<>> kForgetful = {"Conv", "Gemm", "MatMul", "Add",
                                                                "BatchNormalization"};
  std::vector<int> uses(graph_.value_capacity());
  for (const NodeId id : graph_.nodes()) {
    for (const ValueId in : graph_.node(id).inputs) {
      if (in != kNoId) ++uses[static_cast<size_t>(in)];
    }
  }
  for (const ValueId id : graph_.outputs()) ++uses[static_cast<size_t>(id)];
  const auto forgotten = [&](ValueId id) {
    const Node* producer = graph_.producer(id);
    return producer != nullptr && kForgetful.contains(producer->op);
  };
  for (Step& step : steps_) {
    const Node& node = graph_.node(step.node);
    if (node.outputs.empty() || node.outputs[0] == kNoId || node.inputs.empty()) continue;
    const auto in = static_cast<size_t>(node.inputs[0]);
    Rounding& out = rounding_[static_cast<size_t>(node.outputs[0])];
    if (out.grid == nullptr) continue;
    if (kMoves.contains(node.op) && rounding_[in].grid == out.grid) {
      out.grid = nullptr;
    } else if (node.is("Relu") && rounding_[in].grid == nullptr && uses[in] == 1 &&
               out.grid->ends_at_zero()) {
      step.forward = [](const Tensors& x, const RunMode&) -> Tensors { return {x[0]}; };
      out.into = forgotten(node.inputs[0]);
    } else {
      out.into = forgotten(node.outputs[0]);
    }
  }
}

void Executor::put(Tensors& values, ValueId id, torch::Tensor value, const RunMode& mode) const {
  const auto slot = static_cast<size_t>(id);
  const Rounding& rounding = rounding_[slot];
  torch::Tensor& out = values[slot];
  out = std::move(value);
  if (rounding.grid != nullptr) {
    if (mode.training && observe && rounding.grid->rule().observe) {
      observe(groups_.at(graph_.value(id).name), *rounding.grid, out, mode.ranks);
    }
    out = (*rounding.grid)(out, rounding.into, mode.portable);
  }
  if (dynamic_[slot]) out = round_dynamically(out, *dynamic_[slot]);
}

/// The value of a constant that is trained, rounded or changed by an adapter.
torch::Tensor Executor::weight(ValueId id, const RunMode& mode) const {
  const auto slot = static_cast<size_t>(id);
  const std::string& name = graph_.value(id).name;
  torch::Tensor w = constants_[slot];
  const Grid* grid = rounding_[slot].grid;
  if (trained_[slot] != nullptr || grid != nullptr) {
    w = used(name, trained_[slot] != nullptr ? *trained_[slot] : w);
  }
  const LowRank* adapter = adapter_of_[slot];
  if (adapter != nullptr && adapter->merged) w = w + adapter->change(w);
  if (grid != nullptr) w = (*grid)(w, false, mode.portable);
  if (blocks_of_[slot]) w = round_to_blocks(w, *blocks_of_[slot]);
  if (adapter != nullptr && !adapter->merged) w = w + adapter->change(w);
  return w.is_floating_point() ? w.to(device_) : w;
}

torch::Tensor Executor::used(const std::string& name, const torch::Tensor& w) const {
  const auto mask = masks_.find(name);
  const torch::Tensor kept = mask == masks_.end() ? w : PassThrough::apply(w, mask->second);
  const auto grid = weight_grids_.find(name);
  return grid == weight_grids_.end() ? kept : grid->second.shaped(kept);
}

Tensors Executor::values_of(const std::map<std::string, torch::Tensor>& inputs,
                            const RunMode& mode) const {
  Tensors values = constants_;
  for (const ValueId id : graph_.live_values()) {
    if (!graph_.value(id).is_constant()) continue;
    try {
      values[static_cast<size_t>(id)] = weight(id, mode);
    } catch (Error& e) {
      e.add_context(fmt::format("weights '{}'", graph_.value(id).name));
      throw;
    }
  }
  for (const ValueId id : graph_.inputs()) {
    const std::string& name = graph_.value(id).name;
    const auto found = inputs.find(name);
    if (found == inputs.end()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("the data have no input '{}'", name));
    }
    put(values, id, found->second.to(device_), mode);
  }
  return values;
}

/// Whether it came to the end.
bool Executor::run_steps(Tensors& values, const RunMode& mode, const Look& look) const {
  Tensors arguments;
  for (const Step& step : steps_) {
    const Node& node = graph_.node(step.node);
    arguments.clear();
    for (const ValueId id : node.inputs) {
      arguments.push_back(id == kNoId ? torch::Tensor() : values[static_cast<size_t>(id)]);
    }
    try {
      Tensors results = step.forward(arguments, mode);
      for (size_t i = 0; i < node.outputs.size(); ++i) {
        if (node.outputs[i] == kNoId) continue;
        if (look && !look(node, results.at(i))) return false;
        put(values, node.outputs[i], std::move(results.at(i)), mode);
      }
    } catch (const Error&) {
      throw;
    } catch (const c10::Error& e) {
      failed(node, e.what_without_backtrace());
    } catch (const std::exception& e) {
      failed(node, e.what());
    }
    for (const int32_t id : step.last_uses) values[static_cast<size_t>(id)] = torch::Tensor();
  }
  return true;
}

Tensors Executor::run(const std::map<std::string, torch::Tensor>& inputs,
                      const RunMode& mode) const {
  Tensors values = values_of(inputs, mode);
  run_steps(values, mode);
  Tensors outputs;
  for (const ValueId id : graph_.outputs()) outputs.push_back(values[static_cast<size_t>(id)]);
  return outputs;
}

std::string Executor::first_non_finite(const std::map<std::string, torch::Tensor>& inputs) const {
  const torch::NoGradGuard guard;
  const auto finite = [](const torch::Tensor& x) {
    return !x.defined() || !x.is_floating_point() || torch::isfinite(x).all().item<bool>();
  };
  for (const auto& [name, parameter] : parameters_) {
    if (!finite(parameter)) return fmt::format("the parameter '{}'", name);
  }
  Tensors values = values_of(inputs, {});
  std::string found;
  run_steps(values, {}, [&](const Node& node, const torch::Tensor& output) {
    if (!finite(output)) found = fmt::format("the output of '{}' ({})", node.name, node.op);
    return found.empty();
  });
  return found;
}

}  // namespace narrow::train
