// SPDX-License-Identifier: Apache-2.0
// Runs a graph on libtorch, with gradients: one function for each node, chosen once from the tables
// in ops/, values in slots.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/train/engine/fake_quant.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/engine/weight_grids.h"
#include "narrow/train/ranks.h"
#include "narrow/train/trainer.h"

namespace narrow::train {

using Tensors = std::vector<torch::Tensor>;  // undefined where an optional one is absent

/// What a node's function may depend on besides its inputs.
struct RunMode {
  bool training = false;  // dropout, and what watches values
  /// Batch norms take the statistics of the batch instead of the running ones, which move.
  bool batch_statistics = false;
  /// The batch's share in what the running ones become; below 0: that of the node.
  double statistics_share = -1;
  bool bfloat16 = false;   // operands of products; sums and all else stay float32
  bool portable = false;   // rounds and pools with libtorch's functions, as on other devices
  Ranks* ranks = nullptr;  // with whom statistics of a batch are shared; nullptr: nobody
};

/// Made once for a node: attributes are read here. The inputs that come are those of the node.
using Forward = std::function<Tensors(const Tensors& inputs, const RunMode& mode)>;

struct OpRule {
  const char* op;
  Forward (*make)(const Graph& graph, const Node& node);
  const char* domain = "";
};

/// Where a value is rounded, and what may be spared.
struct Rounding {
  Grid* grid = nullptr;  // nullptr: nowhere
  bool into = false;     // nobody else needs the unrounded value: its memory may be reused
};

/// The tables of ops/.
std::span<const OpRule> math_rules();
std::span<const OpRule> layer_rules();
std::span<const OpRule> shape_rules();
std::array<std::span<const OpRule>, 3> all_rules();

class Executor {
 public:
  /// Throws unsupported naming every node without a rule.
  explicit Executor(const TrainPlan& plan, const QatOptions& qat = {},
                    torch::Device device = torch::kCPU);
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Outputs of the graph. Throws Error with the node named.
  Tensors run(const std::map<std::string, torch::Tensor>& inputs, const RunMode& mode) const;
  /// What is not finite, first in order: a parameter or a node's output; "" if nothing is. Runs
  /// again.
  std::string first_non_finite(const std::map<std::string, torch::Tensor>& inputs) const;

  std::map<std::string, torch::Tensor>& parameters() { return parameters_; }
  const std::map<std::string, torch::Tensor>& parameters() const { return parameters_; }
  /// Running statistics, which training updates without gradients.
  std::map<std::string, torch::Tensor>& buffers() { return buffers_; }
  const std::map<std::string, torch::Tensor>& buffers() const { return buffers_; }
  std::map<std::string, Grid>& weight_grids() { return weight_grids_; }
  const std::map<std::string, Grid>& weight_grids() const { return weight_grids_; }
  std::map<std::string, Grid>& activation_grids() { return activation_grids_; }  // by group
  const std::map<std::string, Grid>& activation_grids() const { return activation_grids_; }
  /// 1 where a weight stays, 0 where it is pruned; by parameter, filled by whoever prunes.
  std::map<std::string, torch::Tensor>& masks() { return masks_; }
  const std::map<std::string, torch::Tensor>& masks() const { return masks_; }
  /// What a parameter counts for in the network, before it is rounded: mask * w. The gradient goes
  /// to all of w, so that what is pruned goes on learning and may come back.
  torch::Tensor used(const std::string& name, const torch::Tensor& w) const;
  const std::map<std::string, std::string>& groups() const { return groups_; }  // by value
  /// Told of each value in training before it is rounded to the grid of its group.
  std::function<void(const std::string& group, Grid& grid, const torch::Tensor& x, Ranks* ranks)>
      observe;
  std::map<std::string, LowRank>& adapters() { return adapters_; }  // by weight
  const std::map<std::string, LowRank>& adapters() const { return adapters_; }

 private:
  struct Step {
    NodeId node;
    Forward forward;
    std::vector<int32_t> last_uses;  // values that no later step reads
  };
  /// Told of each output of each node, before it is rounded to its grid; false ends the run.
  using Look = std::function<bool(const Node& node, const torch::Tensor& output)>;
  Tensors values_of(const std::map<std::string, torch::Tensor>& inputs, const RunMode& mode) const;
  torch::Tensor weight(ValueId id, const RunMode& mode) const;
  void move_constants();
  void put(Tensors& values, ValueId id, torch::Tensor value, const RunMode& mode) const;
  void spare_work();
  bool run_steps(Tensors& values, const RunMode& mode, const Look& look = {}) const;

  Graph graph_;
  torch::Device device_;  // of activations; parameters stay on the CPU
  std::vector<Step> steps_;
  std::map<std::string, torch::Tensor> parameters_;
  std::map<std::string, torch::Tensor> buffers_;
  std::map<std::string, torch::Tensor> masks_;
  std::map<std::string, Grid> weight_grids_;
  std::map<std::string, Grid> activation_grids_;
  std::map<std::string, std::string> groups_;
  Tensors constants_;                    // by value
  std::vector<Rounding> rounding_;       // by value
  std::vector<torch::Tensor*> trained_;  // by value; nullptr: none
  std::map<std::string, LowRank> adapters_;
  std::vector<const LowRank*> adapter_of_;           // by value; nullptr: none
  std::vector<std::optional<BlockType>> blocks_of_;  // by value
  std::vector<std::optional<DynamicGrid>> dynamic_;  // by value
};

}  // namespace narrow::train
