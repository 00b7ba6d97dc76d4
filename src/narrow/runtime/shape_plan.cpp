// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/shape_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "narrow/graph/op_table.h"
#include "narrow/runtime/memory_plan.h"
#include "narrow/runtime/reorder.h"

namespace narrow {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 44;  // keeps sums of sizes far from overflow
constexpr int kForever = std::numeric_limits<int>::max();

/// Slots that share memory: a value, its views, and what is computed in place; all of equal size.
struct Buffer {
  Storage storage = Storage::arena;
  int index = -1;  // of the input or output
  size_t bytes = 0;
  int first = 0;
  int last = 0;
};

class ShapePlanner {
 public:
  ShapePlanner(const Plan& plan, const std::vector<Dims>& input_dims) : plan_(plan) {
    result_.input_dims = input_dims;
    result_.slots.resize(plan.slots.size());
    result_.steps.resize(plan.steps.size());
    dims_.resize(plan.slots.size());
    folded_.resize(plan.steps.size(), false);
    state_of_.resize(plan.slots.size(), -1);
    buffer_of_.resize(plan.slots.size(), -1);
    last_use_.resize(plan.slots.size(), -1);
  }

  ShapePlan make() {
    infer();
    find_needed();
    find_dynamic();
    find_last_uses();
    find_states();
    for (size_t k = 0; k < plan_.steps.size(); ++k) {
      if (result_.steps[k].runs) assign_buffers(static_cast<int>(k));
    }
    place_outputs();
    count_state_copies();
    place();
    return std::move(result_);
  }

 private:
  size_t bytes_of(int slot) const {
    return activation_bytes(plan_.slots[slot].dtype, *dims_[slot]);
  }

  /// Shapes, and the results that need no computing.
  void infer() {
    Graph graph = plan_.graph;
    const std::vector<std::optional<Dims>> inputs(result_.input_dims.begin(),
                                                  result_.input_dims.end());
    const std::vector<Tensor> known = infer_shapes(graph, inputs);
    for (size_t s = 0; s < plan_.slots.size(); ++s) {
      const auto& shape = graph.value(plan_.slots[s].value).shape;
      if (shape) dims_[s] = concrete(*shape);
      SlotPlace& place = result_.slots[s];
      if (plan_.slots[s].constant.defined()) {
        place.storage = Storage::constant;
        place.constant = plan_.slots[s].constant;
      } else if (plan_.slots[s].input >= 0) {
        place.storage = Storage::input;
        place.index = plan_.slots[s].input;
      }
    }
    for (size_t k = 0; k < plan_.steps.size(); ++k) fold(k, known);
  }

  /// Shape arithmetic is done here, once. Only integers: a float result is the step's to compute.
  void fold(size_t k, const std::vector<Tensor>& known) {
    const PlannedStep& step = plan_.steps[k];
    if (step.is_reorder()) return;
    const auto is_known = [&](int s) {
      if (s < 0) return true;
      const Slot& slot = plan_.slots[s];
      if (static_cast<size_t>(slot.value) >= known.size()) return false;
      const Tensor& value = known[slot.value];
      return value.defined() && value.dtype() == slot.dtype && !is_float(value.dtype()) &&
             dims_[s] && value.dims() == *dims_[s] &&
             (slot.layout == Layout::plain || same_memory_order(value.dims()));
    };
    if (!std::all_of(step.outputs.begin(), step.outputs.end(), is_known)) return;
    folded_[k] = true;
    for (const int s : step.outputs) {
      if (s < 0) continue;
      result_.slots[s].storage = Storage::constant;
      result_.slots[s].constant = known[plan_.slots[s].value];
    }
  }

  void find_needed() {
    std::vector<bool> needed(plan_.slots.size(), false);
    for (const int s : plan_.outputs) needed[s] = true;
    for (const ObservedSlot& o : plan_.observed) needed[o.slot] = true;
    for (size_t k = plan_.steps.size(); k-- > 0;) {
      const PlannedStep& step = plan_.steps[k];
      const auto wanted = [&](int s) { return s >= 0 && needed[s]; };
      if (folded_[k] || !std::any_of(step.outputs.begin(), step.outputs.end(), wanted)) continue;
      result_.steps[k].runs = true;
      for (const int s : step.inputs) {
        if (s >= 0) needed[s] = true;
      }
    }
  }

  void find_dynamic() {
    for (size_t k = 0; k < plan_.steps.size(); ++k) {
      StepPlace& place = result_.steps[k];
      if (!place.runs) continue;
      const PlannedStep& step = plan_.steps[k];
      const bool allocates = step.step->dynamic_outputs();
      place.is_dynamic = allocates;
      for (const int s : step.inputs) {
        if (s >= 0 && result_.slots[s].storage == Storage::dynamic) place.is_dynamic = true;
      }
      for (const int s : step.outputs) {
        if (s < 0) continue;
        if (!allocates && dims_[s]) continue;
        result_.slots[s].storage = Storage::dynamic;
        place.is_dynamic = true;
      }
    }
  }

  void find_last_uses() {
    for (size_t k = 0; k < plan_.steps.size(); ++k) {
      if (!result_.steps[k].runs) continue;
      for (const int s : plan_.steps[k].inputs) {
        if (s >= 0) last_use_[s] = static_cast<int>(k);
      }
    }
    for (const int s : plan_.outputs) last_use_[s] = kForever;
  }

  /// Marks the values through which each state passes from its input to its output, each computed
  /// from the one before by a step that may work in place: they may take the state's memory.
  void find_states() {
    std::vector<int> producer(plan_.slots.size(), -1);
    for (size_t k = 0; k < plan_.steps.size(); ++k) {
      if (!result_.steps[k].runs) continue;
      for (const int s : plan_.steps[k].outputs) {
        if (s >= 0) producer[s] = static_cast<int>(k);
      }
    }
    for (size_t i = 0; i < plan_.states.size(); ++i) {
      const int begin = plan_.inputs[static_cast<size_t>(plan_.states[i].input)];
      const int end = plan_.outputs[static_cast<size_t>(plan_.states[i].output)];
      check_state(begin, end);
      std::vector<int> path;
      for (int s = end; s >= 0 && path.size() <= plan_.slots.size();) {
        path.push_back(s);
        if (s == begin) break;
        s = producer[s] < 0 ? -1 : source_of(plan_.steps[producer[s]], s);
      }
      if (path.empty() || path.back() != begin) continue;
      for (const int s : path) state_of_[s] = static_cast<int>(i);
      if (result_.slots[begin].storage == Storage::input) buffer_of(begin);
    }
  }

  void check_state(int begin, int end) const {
    if (!dims_[begin] || !dims_[end] || *dims_[begin] == *dims_[end]) return;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the state '{}' goes in with shape {} and comes out with {}",
                            plan_.graph.value(plan_.slots[begin].value).name,
                            to_string(*dims_[begin]), to_string(*dims_[end])));
  }

  /// The input whose memory the step may take for the output that is slot `s`; -1: none.
  int source_of(const PlannedStep& step, int s) const {
    if (step.is_view || step.is_reorder()) return step.inputs[0];
    const auto at = std::find(step.outputs.begin(), step.outputs.end(), s);
    const int input = step.step->aliases(static_cast<size_t>(at - step.outputs.begin()));
    const bool there = input >= 0 && static_cast<size_t>(input) < step.inputs.size();
    return there ? step.inputs[static_cast<size_t>(input)] : -1;
  }

  void count_state_copies() {
    for (const StatePosition& state : plan_.states) {
      const int begin = plan_.inputs[static_cast<size_t>(state.input)];
      const int end = plan_.outputs[static_cast<size_t>(state.output)];
      const bool in_place =
          begin == end || (buffer_of_[end] >= 0 && buffer_of_[end] == buffer_of_[begin]);
      if (!in_place && dims_[begin]) result_.state_copy_bytes += bytes_of(begin);
    }
  }

  int buffer_of(int slot) {
    int& buffer = buffer_of_[slot];
    const SlotPlace& place = result_.slots[slot];
    if (buffer < 0 && (place.storage == Storage::input || place.storage == Storage::constant)) {
      const int last = state_of_[slot] >= 0 ? last_use_[slot] : kForever;
      buffer = add_buffer({place.storage, place.index, bytes_of(slot), 0, last});
      if (place.storage == Storage::constant) buffers_[buffer].index = slot;
    }
    return buffer;
  }

  int add_buffer(Buffer buffer) {
    buffers_.push_back(buffer);
    return static_cast<int>(buffers_.size()) - 1;
  }

  void join(int slot, int buffer) {
    buffer_of_[slot] = buffer;
    buffers_[buffer].last = std::max(buffers_[buffer].last, last_use_[slot]);
  }

  void assign_buffers(int k) {
    const PlannedStep& step = plan_.steps[k];
    StepPlace& place = result_.steps[k];
    if (place.is_dynamic) {
      for (const int s : step.outputs) {
        if (s >= 0 && result_.slots[s].storage != Storage::dynamic) own_buffer(s, k);
      }
      return;
    }
    if (shares_memory(step)) {
      place.runs = false;
      join(step.outputs[0], buffer_of(step.inputs[0]));
      result_.activation_bytes += bytes_of(step.outputs[0]);
      return;
    }
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      const int s = step.outputs[i];
      if (s < 0) continue;
      const int target = in_place_target(step, i, k);
      if (target >= 0) {
        join(s, target);
        result_.activation_bytes += bytes_of(s);
      } else {
        own_buffer(s, k);
      }
    }
    place.scratch_bytes = scratch_bytes(step);
    if (place.scratch_bytes > 0) {
      result_.activation_bytes += place.scratch_bytes;
      scratch_.emplace_back(k, add_buffer({Storage::arena, -1, place.scratch_bytes, k, k}));
    }
  }

  void own_buffer(int slot, int k) {
    const size_t bytes = bytes_of(slot);
    buffer_of_[slot] = add_buffer({Storage::arena, -1, bytes, k, std::max(k, last_use_[slot])});
    result_.activation_bytes += bytes;
  }

  bool shares_memory(const PlannedStep& step) const {
    if (!plan_.reuse_memory) return false;
    return step.is_view || (step.is_reorder() && same_memory_order(*dims_[step.inputs[0]]));
  }

  /// The buffer that output i may overwrite, or -1. Its slots must be read for the last time here,
  /// and through this one input.
  int in_place_target(const PlannedStep& step, size_t i, int k) const {
    const int input = step.step->aliases(i);
    if (!plan_.reuse_memory || input < 0) return -1;
    const auto j = static_cast<size_t>(input);
    if (j >= step.inputs.size() || step.inputs[j] < 0) return -1;
    const int source = step.inputs[j];
    const int target = step.outputs[i];
    const int buffer = buffer_of_[source];
    if (buffer < 0) return -1;
    const bool is_state = state_of_[source] >= 0 && state_of_[source] == state_of_[target];
    const Storage storage = buffers_[buffer].storage;
    if (storage != Storage::arena && !(storage == Storage::input && is_state)) return -1;
    if (buffers_[buffer].last > k || bytes_of(source) != bytes_of(target)) return -1;
    if (bits(plan_.slots[source].dtype) != bits(plan_.slots[target].dtype)) return -1;
    for (size_t other = 0; other < step.inputs.size(); ++other) {
      const int s = step.inputs[other];
      if (other != j && s >= 0 && buffer_of_[s] == buffer) return -1;
    }
    for (size_t other = 0; other < i; ++other) {
      const int s = step.outputs[other];
      if (s >= 0 && buffer_of_[s] == buffer) return -1;
    }
    return buffer;
  }

  size_t scratch_bytes(const PlannedStep& step) const {
    const auto collect = [&](const std::vector<int>& slots) {
      std::vector<Dims> dims;
      for (const int s : slots) dims.push_back(s < 0 ? Dims{} : *dims_[s]);
      return dims;
    };
    return step.step->scratch_bytes(collect(step.inputs), collect(step.outputs));
  }

  /// Results are written where the caller gets them, if one buffer is one output.
  void place_outputs() {
    for (size_t i = 0; i < plan_.outputs.size(); ++i) {
      const int s = plan_.outputs[i];
      const int buffer = buffer_of_[s];
      if (buffer < 0 || buffers_[buffer].storage != Storage::arena) continue;
      buffers_[buffer].storage = Storage::output;
      buffers_[buffer].index = static_cast<int>(i);
    }
  }

  void place() {
    std::vector<BufferLife> lives;
    std::vector<int> position(buffers_.size(), -1);
    for (size_t b = 0; b < buffers_.size(); ++b) {
      if (buffers_[b].storage != Storage::arena) continue;
      position[b] = static_cast<int>(lives.size());
      const bool reuse = plan_.reuse_memory;
      lives.push_back(
          {buffers_[b].bytes, reuse ? buffers_[b].first : 0, reuse ? buffers_[b].last : kForever});
    }
    const MemoryPlan memory = plan_memory(lives);
    result_.arena_bytes = memory.arena_bytes;
    for (size_t s = 0; s < plan_.slots.size(); ++s) {
      SlotPlace& place = result_.slots[s];
      if (dims_[s]) place.dims = *dims_[s];
      if (buffer_of_[s] < 0) continue;
      const Buffer& buffer = buffers_[buffer_of_[s]];
      place.storage = buffer.storage;
      place.index = buffer.index;
      if (buffer.storage == Storage::arena) {
        place.offset = memory.offsets[position[buffer_of_[s]]];
      } else if (buffer.storage == Storage::constant) {
        place.constant = result_.slots[buffer.index].constant;
      }
    }
    for (const auto& [k, b] : scratch_) {
      result_.steps[k].scratch_offset = memory.offsets[position[b]];
    }
  }

  const Plan& plan_;
  ShapePlan result_;
  std::vector<std::optional<Dims>> dims_;
  std::vector<bool> folded_;
  std::vector<int> last_use_;
  std::vector<int> state_of_;  // which state's way the slot is on; -1: none
  std::vector<int> buffer_of_;
  std::vector<Buffer> buffers_;
  std::vector<std::pair<int, int>> scratch_;  // step, buffer
};

}  // namespace

size_t activation_bytes(DType dtype, const Dims& dims) {
  const int64_t elements = num_elements(dims);
  if (elements > kMaxElements) {
    throw Error(ErrorCode::resource_exhausted,
                fmt::format("a value of shape {} does not fit any memory", to_string(dims)));
  }
  return packed_bytes(dtype, elements);
}

ShapePlan make_shape_plan(const Plan& plan, const std::vector<Dims>& input_dims) {
  return ShapePlanner(plan, input_dims).make();
}

}  // namespace narrow
