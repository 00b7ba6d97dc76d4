// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/workspace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "narrow/kernels/weight_memory.h"
#include "narrow/runtime/infer_node.h"
#include "narrow/runtime/memory_plan.h"
#include "narrow/runtime/reorder.h"

namespace narrow {
namespace {

/// What a tensor without elements points to: a null pointer would mean that it is absent.
alignas(kArenaAlignment) std::byte g_nothing[kArenaAlignment];

std::byte* data_of(const Tensor& tensor) {
  return tensor.raw() == nullptr ? g_nothing : const_cast<std::byte*>(tensor.raw());
}

/// Nothing to compute for it: absent, or without elements.
bool is_empty(const TensorView& view) {
  if (view.dtype == DType::undefined) return true;
  return std::find(view.dims.begin(), view.dims.end(), 0) != view.dims.end();
}

}  // namespace

// In huge pages: every layer reads and writes all of its activations, and in small pages waits for
// their addresses.
AlignedMemory::AlignedMemory(size_t bytes)
    : data_(kernels::huge_memory(bytes + kArenaAlignment, "activations")), size_(bytes) {}

Workspace::Workspace(const Plan& plan, std::shared_ptr<const ShapePlan> shapes)
    : plan_(plan), shapes_(std::move(shapes)), arena_(shapes_->arena_bytes) {
  bind_slots();
  bind_steps();
}

void Workspace::poison() {
  std::memset(arena_.data(), 0xA5, arena_.size());
}

void Workspace::bind_slots() {
  slots_.resize(plan_.slots.size());
  dynamic_.resize(plan_.slots.size());
  for (size_t s = 0; s < slots_.size(); ++s) {
    const SlotPlace& place = shapes_->slots[s];
    slots_[s].dtype = plan_.slots[s].dtype;
    slots_[s].layout = plan_.slots[s].layout;
    slots_[s].dims = place.dims;
    if (place.storage == Storage::arena) slots_[s].data = arena_.data() + place.offset;
    if (place.storage == Storage::constant) slots_[s].data = data_of(place.constant);
    if (place.storage == Storage::input) input_patches_.push_back({&slots_[s], place.index});
    if (place.storage == Storage::output) output_patches_.push_back({&slots_[s], place.index});
  }
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const SlotPlace& place = shapes_->slots[plan_.outputs[i]];
    if (place.storage == Storage::output && place.index == static_cast<int>(i)) {
      direct_outputs_.emplace_back(static_cast<int>(i), plan_.outputs[i]);
    }
  }
}

void Workspace::bind_view(TensorView& view, int slot) {
  if (slot < 0) return;  // absent: no data
  view = slots_[slot];
  const SlotPlace& place = shapes_->slots[slot];
  if (place.storage == Storage::input) input_patches_.push_back({&view, place.index});
  if (place.storage == Storage::output) output_patches_.push_back({&view, place.index});
}

void Workspace::bind_steps() {
  size_t total = 0;
  for (const PlannedStep& step : plan_.steps) total += step.inputs.size() + step.outputs.size();
  operands_.resize(total);  // never again: contexts and patches point into it
  size_t next = 0;
  for (size_t k = 0; k < plan_.steps.size(); ++k) {
    const PlannedStep& step = plan_.steps[k];
    const StepPlace& place = shapes_->steps[k];
    if (!place.runs) continue;
    const std::span<TensorView> inputs(&operands_[0] + next, step.inputs.size());
    const std::span<TensorView> outputs(inputs.data() + inputs.size(), step.outputs.size());
    next += inputs.size() + outputs.size();
    for (size_t i = 0; i < inputs.size(); ++i) bind_view(inputs[i], step.inputs[i]);
    for (size_t i = 0; i < outputs.size(); ++i) bind_view(outputs[i], step.outputs[i]);
    // Nothing to compute; kernels need not think of empty results.
    if (!place.is_dynamic && std::all_of(outputs.begin(), outputs.end(), is_empty)) continue;
    auto context = std::make_unique<Context>();
    context->inputs = inputs;
    context->outputs = outputs;
    context->workspace = this;
    context->step = static_cast<int>(k);
    if (place.scratch_bytes > 0) {
      context->scratch = {arena_.data() + place.scratch_offset, place.scratch_bytes};
    }
    bound_.push_back({step.step.get(), context.get(), inputs, place.is_dynamic});
    contexts_.push_back(std::move(context));
  }
}

std::vector<Tensor> Workspace::run(std::span<const Tensor> inputs, const RunOptions& options,
                                   std::span<double> seconds) {
  // Borrowed memory may be unaligned and may end where a page ends.
  std::vector<Tensor> copies(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].writable()) copies[i] = inputs[i].clone();
  }
  for (const Patch& patch : input_patches_) {
    const Tensor& copy = copies[patch.index];
    patch.view->data = data_of(copy.defined() ? copy : inputs[patch.index]);
  }
  std::vector<Tensor> outputs(plan_.outputs.size());
  for (const auto& [i, slot] : direct_outputs_) {
    outputs[i] = Tensor(slots_[slot].dtype, slots_[slot].dims);
  }
  for (const Patch& patch : output_patches_) {
    patch.view->data = outputs[patch.index].mutable_raw();
  }
  execute(options, seconds);
  std::vector<bool> kept(outputs.size(), false);
  for (const StatePosition& state : plan_.states) {
    kept[static_cast<size_t>(state.output)] = updated_in_place(state);
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].defined() && !kept[i]) outputs[i] = copy_out(plan_.outputs[i]);
  }
  keep_states(inputs, outputs);
  return outputs;
}

bool Workspace::updated_in_place(const StatePosition& state) const {
  const SlotPlace& end = shapes_->slots[plan_.outputs[static_cast<size_t>(state.output)]];
  return end.storage == Storage::input && end.index == state.input;
}

/// What was computed elsewhere goes into the states' memory: last, as outputs may have been views
/// of it.
void Workspace::keep_states(std::span<const Tensor> inputs, std::vector<Tensor>& outputs) const {
  for (const StatePosition& state : plan_.states) {
    Tensor& result = outputs[static_cast<size_t>(state.output)];
    const Tensor& memory = inputs[static_cast<size_t>(state.input)];
    if (updated_in_place(state)) continue;
    if (result.dims() != memory.dims()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("a state of shape {} comes out with shape {}",
                              to_string(memory.dims()), to_string(result.dims())));
    }
    if (memory.bytes() > 0) std::memcpy(data_of(memory), result.raw(), memory.bytes());
    result = Tensor();
  }
}

void Workspace::execute(const RunOptions& options, std::span<double> seconds) {
  using Clock = std::chrono::steady_clock;
  const bool observing = options.observe && !plan_.observed.empty();
  size_t next_observed = 0;
  int current = -1;
  try {
    for (Bound& bound : bound_) {
      current = bound.context->step;
      if (observing) observe(next_observed, current - 1, options);
      const auto start = seconds.empty() ? Clock::time_point() : Clock::now();
      bound.context->run_options = &options;
      if (bound.is_dynamic) {
        run_dynamic(bound);
      } else {
        bound.step->run(*bound.context);
      }
      if (!seconds.empty()) {
        seconds[current] += std::chrono::duration<double>(Clock::now() - start).count();
      }
    }
    if (observing) observe(next_observed, static_cast<int>(plan_.steps.size()), options);
  } catch (Error& error) {
    if (current >= 0 && error.message().find(plan_.steps[current].name) == std::string::npos) {
      error.add_context(fmt::format("node '{}'", plan_.steps[current].name));
    }
    throw;
  }
}

/// Hands over what is there when `step` is done. Before anything later runs: its memory may be
/// somebody else's then.
void Workspace::observe(size_t& next, int step, const RunOptions& options) {
  for (; next < plan_.observed.size() && plan_.observed[next].step <= step; ++next) {
    const ObservedSlot& observed = plan_.observed[next];
    options.observe(observed.name, copy_out(observed.slot));
  }
}

Tensor Workspace::copy_out(int slot) const {
  const TensorView& view = slots_[slot];
  Tensor tensor(view.dtype, view.dims);
  reorder(view, {view.dtype, view.dims, Layout::plain, tensor.mutable_raw()});
  return tensor;
}

TensorView& Workspace::allocate(int slot, Dims dims) {
  TensorView& view = slots_[slot];
  const size_t bytes = activation_bytes(view.dtype, dims);
  AlignedMemory& memory = dynamic_[slot];
  if (memory.data() == nullptr || memory.size() < bytes) {
    memory = AlignedMemory();  // first, so that both are never there together
    memory = AlignedMemory(bytes);
  }
  view.dims = std::move(dims);
  view.data = memory.data();
  return view;
}

TensorView& Workspace::Context::allocate_output(size_t i, Dims dims) {
  const int slot = workspace->plan_.steps[step].outputs[i];
  if (slot < 0 || workspace->shapes_->slots[slot].storage != Storage::dynamic) {
    throw Error(ErrorCode::internal, fmt::format("output {} has its memory already", i));
  }
  outputs[i] = workspace->allocate(slot, std::move(dims));
  return outputs[i];
}

void Workspace::run_dynamic(Bound& bound) {
  Context& context = *bound.context;
  const PlannedStep& step = plan_.steps[context.step];
  const std::span<TensorView> inputs = bound.inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (step.inputs[i] >= 0) inputs[i] = slots_[step.inputs[i]];
  }
  const auto is_open = [&](int s) {
    return s >= 0 && shapes_->slots[s].storage == Storage::dynamic;
  };
  const bool allocates = bound.step->dynamic_outputs();
  if (!allocates && std::any_of(step.outputs.begin(), step.outputs.end(), is_open)) {
    const std::vector<Dims> dims =
        step.is_reorder() ? std::vector<Dims>{inputs[0].dims}
                          : infer_output_dims(plan_.graph, plan_.graph.node(step.node), inputs);
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      if (is_open(step.outputs[i])) context.outputs[i] = allocate(step.outputs[i], dims[i]);
    }
  }
  if (!allocates && std::all_of(context.outputs.begin(), context.outputs.end(), is_empty)) return;
  std::vector<Dims> input_dims;
  std::vector<Dims> output_dims;
  for (const TensorView& view : inputs) input_dims.push_back(view.dims);
  for (const TensorView& view : context.outputs) output_dims.push_back(view.dims);
  const size_t scratch = bound.step->scratch_bytes(input_dims, output_dims);
  if (scratch > dynamic_scratch_.size()) dynamic_scratch_ = AlignedMemory(scratch);
  context.scratch = {dynamic_scratch_.data(), scratch};
  if (allocates) {
    for (TensorView& view : context.outputs) view.data = nullptr;
  }
  bound.step->run(context);
  for (size_t i = 0; allocates && i < step.outputs.size(); ++i) {
    if (step.outputs[i] >= 0 && context.outputs[i].data == nullptr) {
      throw Error(ErrorCode::internal, fmt::format("output {} was not allocated", i));
    }
  }
}

}  // namespace narrow
