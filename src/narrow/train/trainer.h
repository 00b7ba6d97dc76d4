// SPDX-License-Identifier: Apache-2.0
// Training of a graph: what goes in and what comes out, free of libtorch. The work is done by
// libnarrow_train.so (plugin.h), which runs the same graph with gradients.
//
//   TrainPlan plan{.graph = graph, .parameters = trainable_parameters(graph)};
//   TrainResult r = library.train(plan, *data, options, hooks);
//   set_parameters(graph, r.state);
//
// With grids in the plan this is quantization-aware training (Jacob et al., Quantization and
// Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018): forward,
// values and weights are rounded to their grids as the exported model rounds them; backward, the
// rounding passes gradients through inside the grid (straight-through) and stops them outside;
// what is updated is float.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"
#include "narrow/quant/blocks/block_codec.h"
#include "narrow/quant/scheme.h"
#include "narrow/train/augment.h"
#include "narrow/train/match.h"
#include "narrow/train/prune/masks.h"
#include "narrow/train/prune/prune_options.h"
#include "narrow/train/qat.h"
#include "narrow/train/ranks.h"
#include "narrow/train/weights.h"

namespace narrow::train {

enum class OptimizerKind : uint8_t { sgd, adam, adamw };
const char* to_string(OptimizerKind kind);
std::optional<OptimizerKind> optimizer_from_string(std::string_view name);

/// The learning rate over the steps, after a linear warm-up.
///   constant; step: times `gamma` every `step_epochs`; cosine: half a wave down to lr *
///   min_factor.
enum class ScheduleKind : uint8_t { constant, step, cosine };
const char* to_string(ScheduleKind kind);
std::optional<ScheduleKind> schedule_from_string(std::string_view name);

/// cross_entropy to the labels; mse and distill to the outputs of a teacher: distill is the
/// Kullback-Leibler divergence of softmaxes at a temperature, times its square (Hinton et al.,
/// Distilling the Knowledge in a Neural Network, 2015).
enum class LossKind : uint8_t { cross_entropy, mse, distill };
const char* to_string(LossKind kind);
std::optional<LossKind> loss_from_string(std::string_view name);

struct TrainOptions {
  int64_t epochs = 10;
  int64_t batch = 100;
  OptimizerKind optimizer = OptimizerKind::adam;
  double lr = 1e-3;
  double scale_lr = 1;      // of scales, times lr
  double momentum = 0.9;    // sgd
  double weight_decay = 0;  // of matrices and kernels, not of biases, norms and scales
  double clip_norm = 0;     // of all gradients together; 0: off
  int64_t accumulate = 1;   // batches of a step
  ScheduleKind schedule = ScheduleKind::constant;
  int64_t warmup_steps = 0;
  int64_t step_epochs = 30;
  double gamma = 0.1;
  double min_factor = 0;
  LossKind loss = LossKind::cross_entropy;
  double label_smoothing = 0;
  double temperature = 4;     // distill
  double distill_weight = 1;  // the rest is cross_entropy, where there are labels
  QatOptions qat;
  int64_t norm_freeze =
      0;  // batch norms keep their running statistics after so many epochs; 0: never
  int64_t norm_batches =
      0;                 // batches that their statistics are estimated on again after each epoch
  double ema = 0;        // decay of averaged parameters, which are what comes out; 0: off
  int64_t patience = 0;  // epochs without a better metric before it stops; 0: off
  Augmentation augment;
  MatchOptions match;
  PruneOptions prune;
  RegularizeOptions regularize;
  bool bfloat16 = false;       // operands of convolutions and matrix products; all else is float32
  std::string device = "cpu";  // or "cuda", "cuda:N"
  /// Rounds and pools with libtorch's functions, as on other devices, instead of the engine's.
  bool portable = false;
  uint64_t seed = 1;
  int threads = 0;  // 0: all CPUs of the affinity mask
};

/// Throws invalid_argument naming the option that makes no sense.
void check_options(const TrainOptions& options);
/// Whether the loss has a part that a teacher's outputs or features give.
bool learns_from_teacher(const TrainOptions& options);
/// What to do about a teacher that nothing is learned from.
inline constexpr const char* kTeacherHint = "give --loss distill, --loss mse or --match";

/// The learning rate of a step (from 0 on) of `steps_per_epoch` * epochs.
double learning_rate(const TrainOptions& options, int64_t step, int64_t steps_per_epoch);

/// Values of equal `group` share one grid.
struct ActivationGrid {
  QuantParams params;  // per_tensor
  std::string group;
};

struct TrainPlan {
  Graph graph;                          // float, shapes inferred
  std::vector<std::string> parameters;  // initializers that are updated
  /// Values that are rounded, and those that are computed from weights: by name.
  std::map<std::string, ActivationGrid> activations;
  std::map<std::string, QuantParams> weights;  // initializers
  std::set<std::string> fixed_grids;           // of `weights`: those that stay, whatever learns
  std::string output;                          // judged by the loss; empty: the first
  /// Weights on the grid of a block codec, which sees rows of their last axis.
  std::map<std::string, BlockType> blocks;
  std::map<std::string, DynamicGrid> dynamic;  // values
  std::map<std::string, Adapter> adapters;     // of weights
  bool sequences = false;  // the output is [batch, length, classes], with a label for each position
  /// Values of options.match: outputs of the graph, and of the teacher.
  std::vector<FeatureMatch> matches;
  std::vector<PruneTarget> prune;       // layers of options.prune
  std::vector<PruneTarget> regularize;  // layers of options.regularize
};

/// float32 initializers that layers multiply with or add: kernels, matrices, biases, norms.
std::vector<std::string> trainable_parameters(const Graph& graph);

/// What training changes.
struct TrainState {
  std::map<std::string, Tensor> parameters;
  std::map<std::string, QuantParams> activations;
  std::map<std::string, QuantParams> weights;
  std::map<std::string, Adapter> adapters;
};
void set_parameters(Graph& graph, const TrainState& state);

struct EpochRecord {
  int64_t epoch = 0;  // from 1 on
  double loss = 0;    // mean over the epoch's samples
  double lr = 0;      // of its last step
  std::optional<double> metric;
  double seconds = 0;  // of training alone
  double samples_per_second = 0;
};

/// Called on the training thread.
struct TrainHooks {
  /// The metric of a state; empty: none.
  std::function<double(const TrainState&)> evaluate;
  bool smaller_is_better = false;
  /// Outputs of the teacher, for mse, distill and the matches of the plan. Where the loss takes
  /// one, it has the place that the graph's own has.
  std::function<std::vector<Tensor>(const std::map<std::string, Tensor>& inputs)> teacher;
  std::function<void(const EpochRecord&)> epoch;
  /// Who trains along: each takes a part of every batch of `batch` * size samples, and only the
  /// first measures, reports and writes checkpoints (which all read). nullptr: nobody.
  Ranks* ranks = nullptr;
  Progress progress;
};

struct TrainResult {
  TrainState state;  // of the best epoch where there is a metric, else of the last
  int64_t best_epoch = 0;
  std::vector<EpochRecord> epochs;
};

/// Where a run can be taken up again; read and written by the training library.
struct CheckpointPlace {
  std::string path;         // empty: none
  std::string fingerprint;  // of model, data and options
  bool resume = false;
  int64_t every_steps = 0;  // besides after each epoch; 0: not
};

}  // namespace narrow::train
