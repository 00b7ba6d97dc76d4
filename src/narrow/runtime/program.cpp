// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "narrow/runtime/check_inputs.h"
#include "narrow/runtime/control_flow.h"

namespace narrow {
namespace {

/// Shape plans kept: as many as texts have usual lengths.
constexpr size_t kCachedShapes = 64;
/// Of these, the ones used last, that keep their memory too: more than the full and the last batch
/// of an evaluation at a few sizes.
constexpr size_t kCachedWorkspaces = 8;

/// Runs whose times a profile keeps: enough for a median that a busy machine does not move.
constexpr size_t kTimedRuns = 512;

/// Of the runs kept in one step's ring.
double median_seconds(std::span<const float> ring, int64_t runs) {
  const size_t kept = std::min(ring.size(), static_cast<size_t>(runs));
  if (kept == 0) return 0;
  std::vector<float> sorted(ring.begin(), ring.begin() + static_cast<std::ptrdiff_t>(kept));
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>((kept - 1) / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return static_cast<double>(*middle);
}

bool same_dims(const std::vector<Dims>& a, std::span<const Tensor> b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i].dims()) return false;
  }
  return true;
}

std::vector<Dims> dims_of(std::span<const Tensor> tensors) {
  std::vector<Dims> dims;
  for (const Tensor& tensor : tensors) dims.push_back(tensor.dims());
  return dims;
}

std::string path(std::string_view prefix, const std::string& name) {
  return prefix.empty() ? name : fmt::format("{}/{}", prefix, name);
}

}  // namespace

Program::Program(Graph graph, const PlanOptions& options)
    : plan_(make_plan(std::move(graph), options)), profile_(options.profile) {
  if (profile_) timing_.seconds.resize(plan_->steps.size() * kTimedRuns, 0.0F);
}

Program::Cached& Program::find_cached(const std::vector<Dims>& dims) const {
  const auto it = std::find_if(cache_.begin(), cache_.end(), [&](const Cached& cached) {
    return cached.shapes->input_dims == dims;
  });
  if (it != cache_.end()) {
    std::rotate(cache_.begin(), it, it + 1);
    drop_memory();
    return cache_.front();
  }
  check_input_dims(plan_->graph, dims);
  Cached fresh;
  fresh.shapes = std::make_shared<const ShapePlan>(make_shape_plan(*plan_, dims));
  ++plans_made_;
  if (cache_.size() == kCachedShapes) cache_.pop_back();
  cache_.insert(cache_.begin(), std::move(fresh));
  drop_memory();
  return cache_.front();
}

void Program::drop_memory() const {
  for (size_t i = kCachedWorkspaces; i < cache_.size(); ++i) cache_[i].idle.clear();
}

std::unique_ptr<Workspace> Program::take_workspace(std::span<const Tensor> inputs) const {
  std::shared_ptr<const ShapePlan> shapes;
  {
    const std::lock_guard lock(mutex_);
    const bool same = !cache_.empty() && same_dims(cache_.front().shapes->input_dims, inputs);
    Cached& cached = same ? cache_.front() : find_cached(dims_of(inputs));
    if (!cached.idle.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(cached.idle.back());
      cached.idle.pop_back();
      return workspace;
    }
    shapes = cached.shapes;
  }
  return std::make_unique<Workspace>(*plan_, std::move(shapes));
}

void Program::return_workspace(std::unique_ptr<Workspace> workspace) const {
  const std::lock_guard lock(mutex_);
  for (Cached& cached : cache_) {
    if (cached.shapes.get() == &workspace->shapes()) {
      cached.idle.push_back(std::move(workspace));
      return;
    }
  }
}

std::vector<Tensor> Program::run(std::span<const Tensor> inputs, const RunOptions& options) const {
  check_input_types(plan_->graph, inputs);
  std::unique_ptr<Workspace> workspace = take_workspace(inputs);
  std::vector<double> seconds(profile_ ? plan_->steps.size() : 0, 0.0);
  // A workspace whose run threw is not used again.
  std::vector<Tensor> outputs = workspace->run(inputs, options, seconds);
  if (profile_) keep_times(seconds);
  return_workspace(std::move(workspace));
  return outputs;
}

void Program::keep_times(std::span<const double> seconds) const {
  const std::lock_guard lock(mutex_);
  const size_t place = static_cast<size_t>(timing_.runs) % kTimedRuns;
  for (size_t k = 0; k < seconds.size(); ++k) {
    timing_.seconds[k * kTimedRuns + place] = static_cast<float>(seconds[k]);
  }
  ++timing_.runs;
}

std::shared_ptr<const ShapePlan> Program::shape_plan(const std::vector<Dims>& input_dims) const {
  const std::lock_guard lock(mutex_);
  return find_cached(input_dims).shapes;
}

MemoryReport Program::memory() const {
  MemoryReport report;
  {
    const std::lock_guard lock(mutex_);
    report.shape_plans = plans_made_;
    if (!cache_.empty()) {
      report.state_copy_bytes = cache_.front().shapes->state_copy_bytes;
      report.arena_bytes = cache_.front().shapes->arena_bytes;
      report.activation_bytes = cache_.front().shapes->activation_bytes;
    }
  }
  report.reorders = plan_->reorders;
  for (const ValueId id : plan_->graph.live_values()) {
    report.constant_bytes += plan_->graph.value(id).constant.bytes();
  }
  for (const PlannedStep& planned : plan_->steps) {
    report.packed_bytes += planned.step->packed_bytes();
    const ControlFlow* control = as_control_flow(planned.step.get());
    if (control == nullptr) continue;
    for (const Body& body : control->bodies()) {
      const MemoryReport inner = body.program->memory();
      report.arena_bytes += inner.arena_bytes;
      report.activation_bytes += inner.activation_bytes;
      report.packed_bytes += inner.packed_bytes;
      report.constant_bytes += inner.constant_bytes;
      report.reorders += inner.reorders;
    }
  }
  return report;
}

void Program::collect_profile(std::string_view prefix, std::vector<NodeProfile>& profile,
                              int depth) const {
  Timing timing;
  std::shared_ptr<const ShapePlan> shapes;
  {
    const std::lock_guard lock(mutex_);
    timing = timing_;
    if (!cache_.empty()) shapes = cache_.front().shapes;
  }
  for (size_t k = 0; k < plan_->steps.size(); ++k) {
    const PlannedStep& planned = plan_->steps[k];
    NodeProfile node;
    node.node = path(prefix, planned.name);
    node.op = planned.op;
    node.implementation = planned.implementation;
    node.is_reorder = planned.is_reorder();
    node.depth = depth;
    node.runs = timing.runs;
    if (timing.runs > 0) {
      const std::span<const float> rings = timing.seconds;
      node.microseconds =
          1e6 * median_seconds(rings.subspan(k * kTimedRuns, kTimedRuns), timing.runs);
    }
    if (shapes) {
      const Session::MacCount macs = count_macs(*shapes, k);
      node.macs = macs.total;
      node.integer_macs = macs.integer > 0;
      node.bytes = count_bytes(*shapes, k);
    }
    profile.push_back(std::move(node));
    if (const ControlFlow* control = as_control_flow(planned.step.get())) {
      for (const Body& body : control->bodies()) {
        body.program->collect_profile(path(path(prefix, planned.name), body.name), profile,
                                      depth + 1);
      }
    }
  }
}

void Program::reset_profile() const {
  {
    const std::lock_guard lock(mutex_);
    timing_.runs = 0;
  }
  for (const PlannedStep& planned : plan_->steps) {
    if (const ControlFlow* control = as_control_flow(planned.step.get())) {
      for (const Body& body : control->bodies()) body.program->reset_profile();
    }
  }
}

void Program::collect_choices(std::string_view prefix, std::vector<KernelChoice>& choices) const {
  for (size_t k = 0; k < plan_->choices.size(); ++k) {
    choices.push_back(plan_->choices[k]);
    choices.back().node = path(prefix, plan_->choices[k].node);
    const PlannedStep& planned = plan_->steps[k];
    if (const ControlFlow* control = as_control_flow(planned.step.get())) {
      for (const Body& body : control->bodies()) {
        body.program->collect_choices(path(path(prefix, planned.name), body.name), choices);
      }
    }
  }
}

Session::MacCount Program::count_macs(const std::vector<Dims>& input_dims) const {
  const std::shared_ptr<const ShapePlan> shapes = shape_plan(input_dims);
  Session::MacCount sum;
  for (size_t k = 0; k < plan_->steps.size(); ++k) {
    const Session::MacCount count = count_macs(*shapes, k);
    sum.integer += count.integer;
    sum.total += count.total;
  }
  return sum;
}

Session::MacCount Program::count_macs(const ShapePlan& shapes, size_t k) const {
  const PlannedStep& planned = plan_->steps[k];
  if (!shapes.steps[k].runs) return {};
  const auto known = [&](const std::vector<int>& slots, std::vector<Dims>& dims) {
    for (const int slot : slots) {
      const Dims* d = shapes.dims(slot);
      if (slot >= 0 && d == nullptr) return false;
      dims.push_back(d == nullptr ? Dims{} : *d);
    }
    return true;
  };
  std::vector<Dims> inputs;
  std::vector<Dims> outputs;
  if (!known(planned.inputs, inputs)) return {};
  if (const ControlFlow* control = as_control_flow(planned.step.get())) {
    return control->count_macs(inputs);
  }
  if (!known(planned.outputs, outputs)) return {};
  const int64_t macs = planned.step->macs(inputs, outputs);
  return {planned.step->integer_macs() ? macs : 0, macs};
}

uint64_t Program::count_bytes(const ShapePlan& shapes, size_t k) const {
  const PlannedStep& planned = plan_->steps[k];
  if (!shapes.steps[k].runs || as_control_flow(planned.step.get()) != nullptr) return 0;
  bool known = true;
  const auto sum = [&](const std::vector<int>& slots, bool constant) {
    uint64_t bytes = 0;
    for (const int slot : slots) {
      if (slot < 0) continue;
      const SlotPlace& place = shapes.slots[static_cast<size_t>(slot)];
      if (place.storage == Storage::dynamic) known = false;
      if (place.storage == Storage::unused || place.storage == Storage::dynamic) continue;
      if ((place.storage == Storage::constant) != constant) continue;
      bytes += activation_bytes(plan_->slots[static_cast<size_t>(slot)].dtype, place.dims);
    }
    return bytes;
  };
  const uint64_t read = sum(planned.inputs, false);
  const uint64_t constants = sum(planned.inputs, true);
  const uint64_t written = sum(planned.outputs, false);
  if (!known) return 0;
  const uint64_t packed = planned.step->packed_bytes();
  uint64_t weights = packed > 0 ? packed : constants;
  // Without multiply-adds a table is looked up: no more of it is read than comes out.
  if (count_macs(shapes, k).total == 0) weights = std::min(weights, written);
  return read + weights + written;
}

}  // namespace narrow
