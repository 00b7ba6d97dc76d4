// SPDX-License-Identifier: Apache-2.0
// A plan with its cached shape plans and workspaces: what a Session, and each body of If, Loop and
// Scan, runs. Safe to use from several threads. Internal to the runtime.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "narrow/runtime/plan.h"
#include "narrow/runtime/session.h"
#include "narrow/runtime/shape_plan.h"
#include "narrow/runtime/workspace.h"

namespace narrow {

class Program {
 public:
  /// See make_plan().
  Program(Graph graph, const PlanOptions& options);

  /// Throws invalid_argument naming the input that does not fit, what it should be and what it is.
  std::vector<Tensor> run(std::span<const Tensor> inputs, const RunOptions& options) const;

  const Plan& plan() const { return *plan_; }
  std::shared_ptr<const ShapePlan> shape_plan(const std::vector<Dims>& input_dims) const;

  /// Of the shapes planned last; subgraphs' own arenas included.
  MemoryReport memory() const;
  void collect_profile(std::string_view prefix, std::vector<NodeProfile>& profile,
                       int depth = 0) const;
  void reset_profile() const;
  void collect_choices(std::string_view prefix, std::vector<KernelChoice>& choices) const;
  Session::MacCount count_macs(const std::vector<Dims>& input_dims) const;
  /// One step of the plan for shapes planned before; integer or not as the step says.
  Session::MacCount count_macs(const ShapePlan& shapes, size_t step) const;

 private:
  struct Cached {
    std::shared_ptr<const ShapePlan> shapes;
    std::vector<std::unique_ptr<Workspace>> idle;
  };
  struct Timing {
    std::vector<float> seconds;  // by step, kTimedRuns of each: a ring
    int64_t runs = 0;
  };

  /// Bytes that a step reads and writes for shapes planned before; 0 where they are not known.
  uint64_t count_bytes(const ShapePlan& shapes, size_t step) const;
  void keep_times(std::span<const double> seconds) const;
  /// With the mutex held; plans what is not there.
  Cached& find_cached(const std::vector<Dims>& dims) const;
  /// Of plans that were not used lately.
  void drop_memory() const;
  std::unique_ptr<Workspace> take_workspace(std::span<const Tensor> inputs) const;
  void return_workspace(std::unique_ptr<Workspace> workspace) const;

  std::unique_ptr<const Plan> plan_;
  bool profile_;
  mutable std::mutex mutex_;           // guards what follows
  mutable std::vector<Cached> cache_;  // the one used last is in front
  mutable Timing timing_;
  mutable int64_t plans_made_ = 0;
};

}  // namespace narrow
