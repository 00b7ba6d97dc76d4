// SPDX-License-Identifier: Apache-2.0
// The memory of one run and every operand's view into it, made once and used again by later runs:
// running is then a loop over steps without allocation or look-up. One workspace serves one run at
// a time. Internal to the runtime.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "narrow/runtime/op_impl.h"
#include "narrow/runtime/plan.h"
#include "narrow/runtime/session.h"
#include "narrow/runtime/shape_plan.h"

namespace narrow {

/// Uninitialised, aligned to kArenaAlignment, with a spare vector behind the end.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  /// Throws resource_exhausted.
  explicit AlignedMemory(size_t bytes);
  AlignedMemory(AlignedMemory&&) = default;  // one owner
  AlignedMemory& operator=(AlignedMemory&&) = default;
  std::byte* data() const { return reinterpret_cast<std::byte*>(data_.get()); }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<uint8_t> data_;
  size_t size_ = 0;
};

class Workspace {
 public:
  Workspace(const Plan& plan, std::shared_ptr<const ShapePlan> shapes);
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Inputs must have the dtypes and dims of the plan. If `seconds` is not empty, the time of each
  /// step is added to it. The inputs of states are written to; their outputs come back undefined.
  std::vector<Tensor> run(std::span<const Tensor> inputs, const RunOptions& options,
                          std::span<double> seconds);

  const ShapePlan& shapes() const { return *shapes_; }
  /// Overwrites the arena, so that a test sees what reads memory that nobody wrote.
  void poison();

 private:
  class Context final : public RunContext {
   public:
    TensorView& allocate_output(size_t i, Dims dims) override;
    Workspace* workspace = nullptr;
    int step = -1;
  };
  struct Bound {
    const Step* step = nullptr;
    Context* context = nullptr;
    std::span<TensorView> inputs;  // those of the context, to be written
    bool is_dynamic = false;
  };
  struct Patch {
    TensorView* view;
    int index;  // of the input or output
  };

  void bind_slots();
  void bind_steps();
  void bind_view(TensorView& view, int slot);
  void execute(const RunOptions& options, std::span<double> seconds);
  void observe(size_t& next, int step, const RunOptions& options);
  void run_dynamic(Bound& bound);
  TensorView& allocate(int slot, Dims dims);
  Tensor copy_out(int slot) const;
  void keep_states(std::span<const Tensor> inputs, std::vector<Tensor>& outputs) const;
  bool updated_in_place(const StatePosition& state) const;

  const Plan& plan_;
  std::shared_ptr<const ShapePlan> shapes_;
  AlignedMemory arena_;
  std::vector<TensorView> slots_;
  std::vector<TensorView> operands_;  // of all steps, one after the other
  std::vector<std::unique_ptr<Context>> contexts_;
  std::vector<Bound> bound_;  // only what runs
  std::vector<Patch> input_patches_;
  std::vector<Patch> output_patches_;
  std::vector<std::pair<int, int>> direct_outputs_;  // output, slot
  std::vector<AlignedMemory> dynamic_;               // by slot, grows
  AlignedMemory dynamic_scratch_;
};

}  // namespace narrow
