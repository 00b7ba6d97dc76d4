// SPDX-License-Identifier: Apache-2.0
// A plan for one set of input shapes: every known shape, which steps run, and where each slot's
// memory is. Made once per set of shapes and cached. Internal to the runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "narrow/runtime/plan.h"
#include "narrow/runtime/session.h"

namespace narrow {

enum class Storage : uint8_t {
  unused,    // nothing that runs needs it
  input,     // the caller's tensor
  constant,  // an initializer, or a result that shape arithmetic already knows
  output,    // the tensor that run() returns
  arena,
  dynamic,  // shape known only at run time: memory is found then
};

struct SlotPlace {
  Storage storage = Storage::unused;
  Dims dims;          // unless dynamic
  size_t offset = 0;  // in the arena
  int index = -1;     // of the input or output
  Tensor constant;
};

struct StepPlace {
  bool runs = false;        // neither a view nor known nor unused
  bool is_dynamic = false;  // some operand is dynamic
  size_t scratch_bytes = 0;
  size_t scratch_offset = 0;
};

struct ShapePlan {
  std::vector<Dims> input_dims;
  std::vector<SlotPlace> slots;
  std::vector<StepPlace> steps;
  size_t arena_bytes = 0;
  size_t state_copy_bytes = 0;  // of states that no step could update in place
  size_t activation_bytes = 0;  // had every value and scratch of the arena its own memory

  /// The dims of a slot where they are known before running.
  const Dims* dims(int slot) const {
    if (slot < 0 || slots[slot].storage == Storage::dynamic) return nullptr;
    return slots[slot].storage == Storage::unused ? nullptr : &slots[slot].dims;
  }
};

/// Throws resource_exhausted where no machine could hold the value.
size_t activation_bytes(DType dtype, const Dims& dims);

ShapePlan make_shape_plan(const Plan& plan, const std::vector<Dims>& input_dims);

}  // namespace narrow
