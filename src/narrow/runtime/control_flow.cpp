// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/control_flow.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "narrow/graph/op_table.h"
#include "narrow/runtime/program.h"

namespace narrow {
namespace {

[[noreturn]] void refuse(const Node& node, const std::string& why) {
  throw Error(ErrorCode::corrupt_data, fmt::format("node '{}' ({}): {}", node.name, node.op, why));
}

Tensor copy_of(const TensorView& view) {
  Tensor tensor(view.dtype, view.dims);
  if (tensor.bytes() > 0) std::memcpy(tensor.mutable_raw(), view.data, tensor.bytes());
  return tensor;
}

void give(RunContext& context, size_t output, const Tensor& value) {
  if (context.outputs[output].dtype == DType::undefined) return;  // nobody wants it
  if (value.dtype() != context.outputs[output].dtype) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the body gives {} for output {}, which is {}", value.describe(),
                            output, to_string(context.outputs[output].dtype)));
  }
  const TensorView& view = context.allocate_output(output, value.dims());
  if (value.bytes() > 0) std::memcpy(view.data, value.raw(), value.bytes());
}

const RunOptions& options_of(const RunContext& context) {
  static const RunOptions none;
  return context.run_options == nullptr ? none : *context.run_options;
}

/// [before, size of the axis, behind] of a row-major array.
struct AxisView {
  int64_t before = 1;
  int64_t length = 1;
  size_t behind_bytes = 0;
};
AxisView axis_view(const Dims& dims, DType dtype, int64_t axis) {
  const auto a = static_cast<size_t>(axis);
  return {num_elements(dims, 0, a), dims[a],
          packed_bytes(dtype, num_elements(dims, a + 1, dims.size()))};
}

/// The index-th slice along an axis, without that axis.
Tensor slice_of(const TensorView& view, int64_t axis, int64_t index) {
  Dims dims = view.dims;
  dims.erase(dims.begin() + axis);
  Tensor out(view.dtype, std::move(dims));
  const AxisView a = axis_view(view.dims, view.dtype, axis);
  for (int64_t i = 0; i < a.before && a.behind_bytes > 0; ++i) {
    std::memcpy(out.mutable_raw() + i * static_cast<int64_t>(a.behind_bytes),
                view.data + (i * a.length + index) * static_cast<int64_t>(a.behind_bytes),
                a.behind_bytes);
  }
  return out;
}

/// What the iterations yielded for one output, along a new axis. `like` is the body's output, for
/// the shape of nothing at all.
class Stacked {
 public:
  Stacked(const Value& like, int64_t axis, bool backward)
      : like_(like), axis_(axis), backward_(backward) {}

  void add(Tensor slice) { slices_.push_back(std::move(slice)); }

  Tensor stack(const Node& node) {
    if (backward_) std::reverse(slices_.begin(), slices_.end());
    Dims dims = slices_.empty() ? dims_of_nothing() : slices_[0].dims();
    const int64_t axis = normalize_axis(axis_, dims.size() + 1);
    dims.insert(dims.begin() + axis, static_cast<int64_t>(slices_.size()));
    Tensor out(slices_.empty() ? like_.dtype : slices_[0].dtype(), std::move(dims));
    const AxisView a = axis_view(out.dims(), out.dtype(), axis);
    const auto behind = static_cast<int64_t>(a.behind_bytes);
    for (size_t s = 0; s < slices_.size(); ++s) {
      if (slices_[s].dims() != slices_[0].dims()) {
        throw Error(
            ErrorCode::invalid_argument,
            fmt::format("node '{}' ({}): iterations give shapes {} and {} to be stacked", node.name,
                        node.op, to_string(slices_[0].dims()), to_string(slices_[s].dims())));
      }
      for (int64_t i = 0; i < a.before && behind > 0; ++i) {
        std::memcpy(out.mutable_raw() + (i * a.length + static_cast<int64_t>(s)) * behind,
                    slices_[s].raw() + i * behind, a.behind_bytes);
      }
    }
    return out;
  }

 private:
  Dims dims_of_nothing() const {
    Dims dims;
    if (like_.shape) {
      for (const Dim& dim : *like_.shape) dims.push_back(dim.known() ? dim.value : 0);
    }
    return dims;
  }

  const Value& like_;
  int64_t axis_;
  bool backward_;
  std::vector<Tensor> slices_;
};

bool is_true(const Tensor& flag) {
  return flag.elements() == 1 && flag.raw()[0] != std::byte{0};
}

/// Scalars are [1] where the body says so.
Tensor fit_scalar(Tensor scalar, const Value& input) {
  if (input.shape && input.shape->size() == 1) return scalar.reshaped({1});
  return scalar;
}

Session::MacCount count_body(const Program& program, std::span<const Dims> inputs) {
  try {
    return program.count_macs({inputs.begin(), inputs.end()});
  } catch (const Error&) {
    return {};  // these shapes are not those of an iteration
  }
}

// --- If -----------------------------------------------------------------------------------------

class IfStep final : public ControlFlow {
 public:
  explicit IfStep(std::vector<Body> bodies) : ControlFlow(std::move(bodies)) {}

  void run(RunContext& context) const override {
    const TensorView& condition = context.inputs[0];
    if (condition.data == nullptr || condition.elements() != 1) {
      throw Error(ErrorCode::invalid_argument, "the condition is not one value");
    }
    const bool taken = condition.data[0] != std::byte{0};
    std::vector<Tensor> inputs;
    for (const TensorView& view : context.inputs.subspan(1)) inputs.push_back(copy_of(view));
    const std::vector<Tensor> results = body(taken ? 0 : 1).run(inputs, options_of(context));
    for (size_t i = 0; i < context.outputs.size(); ++i) give(context, i, results[i]);
  }

  Session::MacCount count_macs(std::span<const Dims> inputs) const override {
    const Session::MacCount a = count_body(body(0), inputs.subspan(1));
    const Session::MacCount b = count_body(body(1), inputs.subspan(1));
    return a.total >= b.total ? a : b;
  }
};

// --- Loop ---------------------------------------------------------------------------------------

class LoopStep final : public ControlFlow {
 public:
  LoopStep(std::vector<Body> bodies, const Node& node, size_t states)
      : ControlFlow(std::move(bodies)), node_(node), states_(states) {}

  void run(RunContext& context) const override {
    const auto& in = context.inputs;
    for (size_t i = 0; i < 2; ++i) {
      if (in[i].data == nullptr || in[i].elements() == 1) continue;
      throw Error(ErrorCode::invalid_argument, fmt::format("input {} is not one value", i));
    }
    const int64_t trips =
        in[0].data == nullptr ? std::numeric_limits<int64_t>::max() : in[0].as<int64_t>()[0];
    bool going = in[1].data == nullptr || in[1].data[0] != std::byte{0};
    const Graph& graph = body(0).plan().graph;
    std::vector<Stacked> scans;
    for (size_t i = 1 + states_; i < graph.outputs().size(); ++i) {
      scans.emplace_back(graph.value(graph.outputs()[i]), 0, false);
    }
    std::vector<Tensor> inputs(2);
    for (const TensorView& view : in.subspan(2)) inputs.push_back(copy_of(view));
    for (int64_t trip = 0; trip < trips && going; ++trip) {
      inputs[0] = fit_scalar(Tensor::scalar<int64_t>(trip), graph.value(graph.inputs()[0]));
      inputs[1] = fit_scalar(Tensor::scalar<bool>(true), graph.value(graph.inputs()[1]));
      std::vector<Tensor> results = body(0).run(inputs, options_of(context));
      going = is_true(results[0]);
      for (size_t i = 0; i < states_; ++i) inputs[2 + i] = std::move(results[1 + i]);
      for (size_t i = 0; i < scans.size(); ++i) scans[i].add(std::move(results[1 + states_ + i]));
    }
    for (size_t i = 0; i < context.outputs.size(); ++i) {
      give(context, i, i < states_ ? inputs[2 + i] : scans[i - states_].stack(node_));
    }
  }

  Session::MacCount count_macs(std::span<const Dims> inputs) const override {
    std::vector<Dims> dims(inputs.begin(), inputs.end());
    dims[0].clear();
    dims[1].clear();
    const Graph& graph = body(0).plan().graph;
    for (size_t i = 0; i < 2; ++i) {
      const auto& shape = graph.value(graph.inputs()[i]).shape;
      if (shape && shape->size() == 1) dims[i] = {1};
    }
    return count_body(body(0), dims);
  }

 private:
  const Node& node_;  // of the plan's graph
  size_t states_;
};

// --- Scan ---------------------------------------------------------------------------------------

struct ScanInput {
  int64_t axis = 0;
  bool backward = false;
};

class ScanStep final : public ControlFlow {
 public:
  ScanStep(std::vector<Body> bodies, const Node& node, size_t states, std::vector<ScanInput> inputs,
           std::vector<ScanInput> outputs)
      : ControlFlow(std::move(bodies)),
        node_(node),
        states_(states),
        scan_inputs_(std::move(inputs)),
        scan_outputs_(std::move(outputs)) {}

  void run(RunContext& context) const override {
    const int64_t trips = trip_count(context.inputs);
    const Graph& graph = body(0).plan().graph;
    std::vector<Stacked> scans;
    for (size_t i = 0; i < scan_outputs_.size(); ++i) {
      scans.emplace_back(graph.value(graph.outputs()[states_ + i]), scan_outputs_[i].axis,
                         scan_outputs_[i].backward);
    }
    std::vector<Tensor> inputs;
    for (size_t i = 0; i < context.inputs.size(); ++i) {
      const bool sliced = i >= states_ && i < states_ + scan_inputs_.size();
      inputs.push_back(sliced ? Tensor() : copy_of(context.inputs[i]));
    }
    for (int64_t trip = 0; trip < trips; ++trip) {
      for (size_t i = 0; i < scan_inputs_.size(); ++i) {
        const TensorView& view = context.inputs[states_ + i];
        inputs[states_ + i] = slice_of(view, axis_of(i, view.dims),
                                       scan_inputs_[i].backward ? trips - 1 - trip : trip);
      }
      std::vector<Tensor> results = body(0).run(inputs, options_of(context));
      for (size_t i = 0; i < states_; ++i) inputs[i] = std::move(results[i]);
      for (size_t i = 0; i < scans.size(); ++i) scans[i].add(std::move(results[states_ + i]));
    }
    for (size_t i = 0; i < context.outputs.size(); ++i) {
      give(context, i, i < states_ ? inputs[i] : scans[i - states_].stack(node_));
    }
  }

  Session::MacCount count_macs(std::span<const Dims> inputs) const override {
    std::vector<Dims> dims(inputs.begin(), inputs.end());
    for (size_t i = 0; i < scan_inputs_.size(); ++i) {
      Dims& d = dims[states_ + i];
      if (d.empty()) return {};
      d.erase(d.begin() + axis_of(i, d));
    }
    return count_body(body(0), dims);
  }

 private:
  int64_t axis_of(size_t i, const Dims& dims) const {
    return normalize_axis(scan_inputs_[i].axis, dims.size());
  }

  int64_t trip_count(std::span<const TensorView> inputs) const {
    std::optional<int64_t> trips;
    for (size_t i = 0; i < scan_inputs_.size(); ++i) {
      const Dims& dims = inputs[states_ + i].dims;
      const int64_t length = dims[axis_of(i, dims)];
      if (trips.value_or(length) != length) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("node '{}' (Scan): scan inputs of {} and {} slices", node_.name,
                                *trips, length));
      }
      trips = length;
    }
    return trips.value_or(0);
  }

  const Node& node_;
  size_t states_;
  std::vector<ScanInput> scan_inputs_;
  std::vector<ScanInput> scan_outputs_;
};

std::vector<ScanInput> scan_sides(const Node& node, const char* axes, const char* directions,
                                  size_t count) {
  const std::vector<int64_t> a = node.ints_or(axes, std::vector<int64_t>(count, 0));
  const std::vector<int64_t> d = node.ints_or(directions, std::vector<int64_t>(count, 0));
  if (a.size() != count || d.size() != count) {
    refuse(node, fmt::format("'{}' and '{}' must have {} entries", axes, directions, count));
  }
  std::vector<ScanInput> sides;
  for (size_t i = 0; i < count; ++i) sides.push_back({a[i], d[i] != 0});
  return sides;
}

// --- bodies -------------------------------------------------------------------------------------

size_t captures_of(const Node& node) {
  const int64_t count = node.int_or(kCaptures, 0);
  if (count < 0 || static_cast<size_t>(count) > node.inputs.size()) {
    refuse(node, fmt::format("{} captured values of {} inputs", count, node.inputs.size()));
  }
  return static_cast<size_t>(count);
}

/// Values that the node carries from one iteration to the next.
size_t states_of(const Node& node) {
  const size_t own = node.inputs.size() - captures_of(node);
  const size_t before = node.op == "Loop" ? 2 : node.op == "If" ? 1 : 0;
  const int64_t scanned = node.op == "Scan" ? node.int_or("num_scan_inputs", 0) : 0;
  if (scanned < 0 || own < before + static_cast<size_t>(scanned)) {
    refuse(node, "has fewer inputs than its body needs");
  }
  return own - before - static_cast<size_t>(scanned);
}

void check_counts(const Node& node, const Graph& body) {
  const size_t inputs = node.op == "If" ? node.inputs.size() - 1 : node.inputs.size();
  const size_t outputs = node.outputs.size() + (node.op == "Loop" ? 1 : 0);
  if (node.outputs.size() < states_of(node)) refuse(node, "has fewer outputs than states");
  if (body.inputs().size() != inputs || body.outputs().size() != outputs) {
    refuse(node, fmt::format("its body takes {} values and gives {}, which does not fit {} and {}",
                             body.inputs().size(), body.outputs().size(), inputs, outputs));
  }
}

void set_type(Graph& body, size_t input, DType dtype, std::optional<SymbolicShape> shape) {
  Value& value = body.mutable_value(body.inputs()[input]);
  if (dtype != DType::undefined) value.dtype = dtype;
  value.shape = std::move(shape);
}

/// The scalars that a loop makes itself; [1] where the body says so.
void set_scalar(Graph& body, size_t input, DType dtype) {
  const auto& declared = body.value(body.inputs()[input]).shape;
  const bool is_vector = declared && declared->size() == 1;
  set_type(body, input, dtype, is_vector ? SymbolicShape{Dim(1)} : SymbolicShape{});
}

/// What two iterations agree on.
std::optional<SymbolicShape> common(const std::optional<SymbolicShape>& a,
                                    const std::optional<SymbolicShape>& b) {
  if (!a || !b || a->size() != b->size()) return std::nullopt;
  SymbolicShape shape = *a;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != (*b)[i]) shape[i] = Dim();
  }
  return shape;
}

/// Widens the states' shapes until an iteration gives back what it was given.
void settle_states(Graph& body, size_t first_input, size_t first_output, size_t states) {
  constexpr int kRounds = 4;  // known -> partly known -> rank unknown needs three
  for (int round = 0; round < kRounds; ++round) {
    Graph trial = body;
    bool open = round + 1 == kRounds;
    try {
      infer_shapes(trial);
    } catch (const Error&) {
      open = true;  // the next iteration's shapes may be fine where these are not
    }
    bool changed = false;
    for (size_t i = 0; i < states; ++i) {
      Value& input = body.mutable_value(body.inputs()[first_input + i]);
      const Value& output = trial.value(trial.outputs()[first_output + i]);
      auto shape = open ? std::nullopt : common(input.shape, output.shape);
      if (shape == input.shape) continue;
      input.shape = std::move(shape);
      changed = true;
    }
    if (!changed) return;
  }
}

}  // namespace

bool is_control_flow(const Node& node) {
  return node.is("If") || node.is("Loop") || node.is("Scan");
}

std::vector<std::string> body_attributes(const Node& node) {
  if (node.is("If")) return {"then_branch", "else_branch"};
  if (node.is("Loop") || node.is("Scan")) return {"body"};
  return {};
}

void annotate_body(const Graph& graph, const Node& node, Graph& body) {
  const size_t states = states_of(node);
  check_counts(node, body);
  const size_t skipped = node.op == "If" ? 1 : 0;
  const size_t scanned_from = states;
  const size_t scanned_to = node.op == "Scan" ? node.inputs.size() - captures_of(node) : states;
  const std::vector<ScanInput> sides =
      node.op == "Scan"
          ? scan_sides(node, "scan_input_axes", "scan_input_directions", scanned_to - scanned_from)
          : std::vector<ScanInput>{};
  for (size_t i = skipped; i < node.inputs.size(); ++i) {
    const size_t input = i - skipped;
    if (node.op == "Loop" && i < 2) {
      set_scalar(body, input, i == 0 ? DType::int64 : DType::boolean);
      continue;
    }
    if (node.inputs[i] == kNoId) refuse(node, fmt::format("input {} is absent", i));
    const Value& outer = graph.value(node.inputs[i]);
    std::optional<SymbolicShape> shape = outer.shape;
    if (node.op == "Scan" && i >= scanned_from && i < scanned_to && shape) {
      const int64_t axis = normalize_axis(sides[i - scanned_from].axis, shape->size());
      shape->erase(shape->begin() + axis);
    }
    set_type(body, input, outer.dtype, std::move(shape));
  }
  if (node.op == "Loop") settle_states(body, 2, 1, states);
  if (node.op == "Scan") settle_states(body, 0, 0, states);
}

ControlFlow::ControlFlow(std::vector<Body> bodies) : bodies_(std::move(bodies)) {}
ControlFlow::~ControlFlow() = default;

const ControlFlow* as_control_flow(const Step* step) {
  return dynamic_cast<const ControlFlow*>(step);
}

std::unique_ptr<Step> make_control_flow(const Graph& graph, const Node& node,
                                        const PlanOptions& options) {
  std::vector<Body> bodies;
  std::vector<std::string> refused;
  for (const std::string& key : body_attributes(node)) {
    const std::shared_ptr<Graph> attribute = node.graph(key);
    if (!attribute) refuse(node, fmt::format("has no '{}'", key));
    Graph body = *attribute;
    annotate_body(graph, node, body);
    try {
      PlanOptions inner = options;
      inner.states.clear();
      bodies.push_back({key, std::make_unique<Program>(std::move(body), inner)});
    } catch (const NodesNotSupported& inner) {
      refused.insert(refused.end(), inner.nodes().begin(), inner.nodes().end());
    }
  }
  if (!refused.empty()) throw NodesNotSupported(std::move(refused));
  if (node.op == "If") return std::make_unique<IfStep>(std::move(bodies));
  const size_t states = states_of(node);
  if (node.op == "Loop") return std::make_unique<LoopStep>(std::move(bodies), node, states);
  const size_t scanned = node.inputs.size() - captures_of(node) - states;
  if (scanned == 0) refuse(node, "has nothing to scan");
  return std::make_unique<ScanStep>(
      std::move(bodies), node, states,
      scan_sides(node, "scan_input_axes", "scan_input_directions", scanned),
      scan_sides(node, "scan_output_axes", "scan_output_directions", node.outputs.size() - states));
}

}  // namespace narrow
