// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train.h"

#include <fmt/format.h>

#include <memory>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/core/rng.h"
#include "narrow/core/version.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/evaluate.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/pipeline/calibrate.h"
#include "narrow/pipeline/train_prune.h"
#include "narrow/pipeline/train_thin.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/plan.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/ptq/targets.h"
#include "narrow/runtime/session.h"
#include "narrow/train/library.h"
#include "narrow/train/networks.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using train::TrainState;

constexpr int64_t kCalibrationSamples = 500;

std::shared_ptr<const Dataset> some_of(const std::shared_ptr<const Dataset>& data, int64_t count,
                                       uint64_t seed) {
  return subset(data, sample_indices(data->size(), count, seed));
}

class TrainRun {
 public:
  /// What only removes weights needs no libtorch.
  explicit TrainRun(const TrainJob& job)
      : job_(job), plugin_(job.options.epochs > 0 ? &train::load_plugin() : nullptr) {}
  TrainReport run();

 private:
  void read();
  void make_smaller();
  void plan_float();
  void plan_grids();
  Graph exported(const TrainState& state) const;
  double measure(const Graph& graph) const;
  TrainState start() const;
  std::string fingerprint() const;
  train::TrainHooks hooks();
  void save(const TrainState& state);
  void save_at_once();
  void learn();

  const TrainJob& job_;
  const train::Plugin* plugin_;
  Graph graph_;
  std::shared_ptr<const Dataset> data_;
  std::shared_ptr<const Dataset> eval_;
  QuantizeOptions quantize_;
  Assignment assignment_;
  train::TrainPlan plan_;
  std::unique_ptr<Session> teacher_;
  TrainReport report_;
};

void TrainRun::read() {
  // Networks are also made smaller without training.
  const bool removes = job_.options.prune.active() || job_.thin.active || job_.low_rank.active;
  if (job_.options.epochs == 0 && !removes) {
    throw Error(ErrorCode::invalid_argument, "0 epochs train nothing",
                "give --epochs, or --prune, --thin or --low-rank");
  }
  train::check_options(job_.options);
  if (!job_.arch.empty()) {
    graph_ = train::make_network(job_.arch, job_.options.seed);
  } else {
    graph_ = read_onnx(job_.model);
  }
  infer_shapes(graph_);
  // Batch norms are folded into grids; while a float network learns, they stay.
  PassOptions passes;
  passes.context.evaluate = evaluate_constant;
  if (job_.qat.empty()) passes.disabled = {"fold_batch_norm"};
  optimize(graph_, passes);
  infer_shapes(graph_);
  data_ = open_dataset(job_.data, data_hints(graph_));
  if (job_.eval_data) eval_ = open_dataset(*job_.eval_data, data_hints(graph_));
  report_.model = job_.arch.empty() ? job_.model.string() : job_.arch;
  report_.output = job_.output.string();
  report_.qat = job_.qat;
  if (plugin_ != nullptr) report_.torch_version = plugin_->torch_version;
  report_.samples = data_->size();
  if (eval_ && job_.arch.empty()) report_.metric_before = measure(graph_);
  if (job_.options.loss != train::LossKind::cross_entropy) {
    teacher_ = std::make_unique<Session>(job_.teacher.empty() ? graph_ : read_onnx(job_.teacher));
  }
}

double TrainRun::measure(const Graph& graph) const {
  const Session session(graph);
  EvaluateOptions options;
  options.threads = job_.options.threads;
  return evaluate(session, *eval_, options).value;
}

void TrainRun::make_smaller() {
  if (job_.thin.active) {
    report_.thinned.push_back(thin_graph(graph_, job_.thin, {data_, plugin_, job_.options}));
  }
  if (job_.low_rank.active) report_.thinned.push_back(factor_graph(graph_, job_.low_rank));
}

void TrainRun::plan_float() {
  plan_.graph = graph_;
  plan_.parameters = train::trainable_parameters(graph_);
  for (const std::string& name : plan_.parameters) {
    report_.parameters += graph_.constant(*graph_.find_value(name))->elements();
  }
  plan_pruning(plan_, job_.options);
}

/// The assignment of the bits that are asked for, its grids as calibration and weights give them.
void TrainRun::plan_grids() {
  const QatBits bits = parse_qat(job_.qat);
  quantize_.weights = NumberType{false, true, bits.weights};
  quantize_.activations = NumberType{false, false, bits.activations};
  quantize_ = resolve(quantize_);
  assignment_ = assign(graph_, quantize_);
  for (auto& [name, activation] : assignment_.activations) {
    // What comes in and the scores that go out keep 8 bits.
    const Value& value = graph_.value(*graph_.find_value(name));
    if (value.is_input || value.is_output) activation.scheme.bits = 8;
  }
  CalibrateOptions calibration;
  calibration.threads = job_.options.threads;
  calibration.progress = job_.progress;
  const auto some = some_of(data_, kCalibrationSamples, job_.options.seed);
  const Statistics statistics = calibrate(graph_, assignment_.observed(), *some, calibration);
  ObserverOptions observer;
  observer.kind = bits.activations < 8 ? ObserverKind::mse : ObserverKind::minmax;
  const auto ranges = activation_ranges(assignment_, statistics, observer);
  for (const auto& [name, grid] : activation_grids(assignment_, ranges)) {
    std::string group;
    for (const std::string& source : assignment_.activations.at(name).sources) {
      group += source + "\n";
    }
    plan_.activations[name] = {grid, group};
  }
  for (const AssignedLayer& layer : assignment_.layers) {
    if (!layer.weight_scheme) continue;
    const Tensor& w = *graph_.constant(*graph_.find_value(layer.weights));
    plan_.weights[layer.weights] = weight_params(w, *layer.weight_scheme);
  }
}

Graph TrainRun::exported(const TrainState& state) const {
  Graph graph = graph_;
  train::set_parameters(graph, state);
  if (job_.qat.empty()) {
    PassOptions passes;
    passes.context.evaluate = evaluate_constant;
    if (!job_.keep_norms) optimize(graph, passes);
    return graph;
  }
  Assignment assignment = assignment_;
  PlanOptions options;
  options.bias_form = find_target(quantize_.target).bias;
  options.activation_grids = state.activations;
  options.weight_grids = state.weights;
  const QuantizationPlan plan = make_plan(graph, assignment, {}, options);
  apply_plan(graph, assignment, plan);
  infer_shapes(graph);
  return graph;
}

/// The state before training.
TrainState TrainRun::start() const {
  TrainState state;
  state.weights = plan_.weights;
  for (const auto& [name, grid] : plan_.activations) state.activations[name] = grid.params;
  return state;
}

std::string TrainRun::fingerprint() const {
  const train::TrainOptions& o = job_.options;
  Hash64 hash;
  for (const ValueId id : graph_.live_values()) {
    const Value& value = graph_.value(id);
    hash.add_text(value.name);
    if (value.is_constant()) hash.add(value.constant.raw(), value.constant.bytes());
  }
  hash.add_text(data_->fingerprint());
  hash.add_text(fmt::format(
      "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}",
      kVersion, report_.torch_version, job_.qat, o.epochs, o.batch, to_string(o.optimizer), o.lr,
      o.momentum, o.weight_decay, o.clip_norm, o.accumulate, to_string(o.schedule), o.warmup_steps,
      o.step_epochs, o.gamma, o.min_factor, to_string(o.loss), o.label_smoothing, o.temperature,
      o.distill_weight, to_string(o.ranges), o.ema, o.shift, o.flip, o.seed, to_text(o.prune),
      to_text(o.regularize), to_text(job_.thin), to_text(job_.low_rank)));
  return hash.hex();
}

train::TrainHooks TrainRun::hooks() {
  train::TrainHooks hooks;
  hooks.progress = job_.progress;
  if (eval_) hooks.evaluate = [this](const TrainState& s) { return measure(exported(s)); };
  if (teacher_) {
    hooks.teacher = [this](const std::map<std::string, Tensor>& inputs) {
      std::vector<Tensor> ordered;
      for (const std::string& name : teacher_->input_names()) ordered.push_back(inputs.at(name));
      return teacher_->run(ordered);
    };
  }
  std::string lines = "epoch,loss,lr,metric,seconds,samples_per_second\n";
  hooks.epoch = [this, lines](const train::EpochRecord& r) mutable {
    lines += fmt::format("{},{:.6f},{:.6g},{},{:.2f},{:.1f}\n", r.epoch, r.loss, r.lr,
                         r.metric ? fmt::format("{:.4f}", *r.metric) : "", r.seconds,
                         r.samples_per_second);
    if (!job_.log.empty()) write_text(job_.log, lines);
    if (job_.epoch) job_.epoch(r);
  };
  return hooks;
}

void TrainRun::save(const TrainState& state) {
  Graph graph = exported(state);
  for (const auto& [key, text] : job_.metadata) graph.metadata[key] = text;
  graph.metadata["narrow.version"] = kVersion;
  graph.metadata["narrow.train"] = fmt::format(
      "qat={} prune={} epochs={} batch={} optimizer={} lr={} seed={} torch={}", job_.qat,
      to_text(job_.options.prune), job_.options.epochs, job_.options.batch,
      to_string(job_.options.optimizer), job_.options.lr, job_.options.seed, report_.torch_version);
  write_onnx(graph, job_.output);
  report_.output_bytes = fs::file_size(job_.output);
  // What counts is the file, as others will read it.
  if (eval_) report_.metric = measure(read_onnx(job_.output));
  if (job_.options.prune.active()) {
    report_.prune = measure_pruned({job_.model, job_.output}, graph_, exported(start()),
                                   to_text(job_.options.prune));
  }
}

/// A run of 0 epochs: what comes in, pruned.
void TrainRun::save_at_once() {
  TrainState state = start();
  prune_at_once(plan_, job_.options, state);
  save(state);
}

void TrainRun::learn() {
  train::CheckpointPlace place;
  place.path = checkpoint_of(job_).string();
  place.fingerprint = fingerprint();
  place.resume = job_.resume;
  train::TrainResult result = plugin_->train(plan_, *data_, job_.options, hooks(), place);
  save(result.state);
  std::error_code ignored;
  if (job_.checkpoint.empty()) fs::remove(place.path, ignored);
  report_.best_epoch = result.best_epoch;
  report_.epochs = std::move(result.epochs);
}

TrainReport TrainRun::run() {
  const auto begin = Clock::now();
  read();
  make_smaller();
  if (!job_.qat.empty()) plan_grids();
  plan_float();
  if (eval_ && !job_.qat.empty()) report_.metric_ptq = measure(exported(start()));
  if (job_.options.epochs > 0) {
    learn();
  } else {
    save_at_once();
  }
  report_.seconds = seconds_since(begin);
  report_.peak_rss_bytes = peak_rss_bytes();
  return std::move(report_);
}

int bits_from(std::string_view text, std::string_view whole) {
  if (text.size() == 1 && text[0] >= '2' && text[0] <= '8') return text[0] - '0';
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' names no bits to train on", whole),
              "write the bits of weights and activations, 2 to 8 each, as in w4a4");
}

}  // namespace

fs::path checkpoint_of(const TrainJob& job) {
  return job.checkpoint.empty() ? fs::path(job.output.string() + ".training") : job.checkpoint;
}

QatBits parse_qat(std::string_view text) {
  const size_t a = text.find('a');
  if (text.empty() || text[0] != 'w' || a == std::string_view::npos) return {bits_from("", text)};
  return {bits_from(text.substr(1, a - 1), text), bits_from(text.substr(a + 1), text)};
}

TrainReport run_train(const TrainJob& job) {
  return TrainRun(job).run();
}

}  // namespace narrow
