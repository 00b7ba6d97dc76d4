// SPDX-License-Identifier: Apache-2.0
// Runs a graph: a plan made once (implementations chosen, weights packed, layouts assigned), memory
// planned once per set of input shapes, then run() as often as wanted, also from several threads.
//
//   Session session(graph);
//   std::vector<Tensor> y = session.run({x});          // by position
//   auto named = session.run_named({{"image", x}});    // by name
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/graph/graph.h"
#include "narrow/graph/qdq.h"
#include "narrow/runtime/op_impl.h"
#include "narrow/runtime/state.h"

namespace narrow {

struct SessionOptions {
  int threads = 0;  // 0: all CPUs of the affinity mask
  /// Lower QDQ patterns to integer kernels. Off: every node runs in float as written ("--compute
  /// float").
  bool lower = true;
  /// Float clean-up passes (constant folding, batch norm, ...) before planning.
  bool optimize = true;
  /// Dynamically quantized layers measure the range of each sample (of a row, for a product)
  /// instead of the whole batch's: a result does not depend on what runs beside it.
  bool sample_ranges = false;
  /// Only reference implementations: the specification, slow.
  bool reference = false;
  /// Convolutions and matrix products in float round their operands to bfloat16; sums stay float32.
  /// Throws unsupported where the CPU (or NARROW_ISA) has no such products.
  bool bfloat16 = false;
  bool profile = false;
  /// Bring weights in blocks into the kernels' layout: faster, but a copy in memory. Off: they are
  /// read where they are (a mapped file).
  bool repack = true;
  /// Told of the bytes of large weights that are ready ("load").
  Progress progress;
  /// Values (by name) to hand to RunOptions::observe; they are kept from being fused away.
  std::vector<std::string> observed;
  /// Inputs that are outputs of the run before: see state.h. They are no inputs and outputs of
  /// run().
  std::vector<StatePair> states;
};

struct RunOptions {
  /// Called with each observed value (row-major, logical dims) when it is there. May be called from
  /// the thread that runs the session only.
  std::function<void(const std::string& name, const Tensor& value)> observe;
};

struct NodeProfile {
  std::string node;
  std::string op;
  std::string implementation;
  double microseconds = 0;  // of one execution: the median of the last ones (512 at most)
  int64_t macs = 0;         // of one execution
  bool integer_macs = false;
  bool is_reorder = false;  // between layouts, put in by the plan
  uint64_t bytes = 0;       // inputs and weights read, outputs written; 0: none, or not known
  int64_t runs = 0;         // executions: of a node in a body as many as its node gave it
  int depth = 0;            // bodies around it; the time of their node holds that of this one
};

struct MemoryReport {
  size_t arena_bytes = 0;       // planned peak of activations and scratch
  size_t activation_bytes = 0;  // their sum, had no memory been reused
  size_t packed_bytes = 0;      // weights in kernel layout
  size_t constant_bytes = 0;    // initializers as stored
  int64_t reorders = 0;         // layout changes the plan inserts
  int64_t shape_plans = 0;      // sets of input shapes planned so far, kept or not
  size_t state_copy_bytes = 0;  // of states that a run has to copy; 0: all updated in place
};

class Session {
 public:
  /// Throws unsupported listing every node that no implementation accepts.
  explicit Session(Graph graph, SessionOptions options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  std::vector<Tensor> run(const std::vector<Tensor>& inputs, const RunOptions& options = {}) const;
  std::map<std::string, Tensor> run_named(const std::map<std::string, Tensor>& inputs,
                                          const RunOptions& options = {}) const;

  /// For sessions with states. `sizes` gives the named dimensions of states that the graph leaves
  /// open. Throws invalid_argument for one that is missing, resource_exhausted.
  State make_state(const std::map<std::string, int64_t>& sizes = {}) const;
  /// Inputs and outputs are those that are no states. Throws invalid_argument for a state of
  /// another session or one that another run is using. A run that throws may leave the state half
  /// updated: reset() it.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs, State& state,
                          const RunOptions& options = {}) const;
  std::map<std::string, Tensor> run_named(const std::map<std::string, Tensor>& inputs, State& state,
                                          const RunOptions& options = {}) const;

  /// The graph as executed: optimised and lowered.
  const Graph& graph() const;
  const std::vector<std::string>& input_names() const;
  const std::vector<std::string>& output_names() const;
  const LoweringReport& lowering() const;

  std::vector<KernelChoice> kernel_choices() const;
  /// Of the last memory plan; run once (or plan()) before.
  MemoryReport memory() const;
  std::vector<NodeProfile> profile() const;
  void reset_profile();

  /// Plans for these input shapes without running. States must have known shapes.
  void plan(const std::vector<Dims>& input_dims) const;
  struct MacCount {
    int64_t integer = 0;  // integer weights and integer activations
    int64_t total = 0;
  };
  /// From the executed plan, for these input shapes.
  MacCount count_macs(const std::vector<Dims>& input_dims) const;

 private:
  struct Impl;
  std::vector<Tensor> run_with(const std::vector<Tensor>& inputs, State::Impl* state,
                               const RunOptions& options) const;
  std::map<std::string, Tensor> run_named_with(const std::map<std::string, Tensor>& inputs,
                                               State::Impl* state, const RunOptions& options) const;
  std::unique_ptr<Impl> impl_;
};

/// Evaluates one node on constants, for the fold_constants pass.
std::vector<Tensor> evaluate_constant(const Graph& graph, const Node& node,
                                      std::span<const Tensor> inputs);

}  // namespace narrow
