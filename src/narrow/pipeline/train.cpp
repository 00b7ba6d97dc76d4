// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train.h"

#include <fmt/format.h>

#include <memory>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/core/version.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/evaluate.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/pipeline/calibrate.h"
#include "narrow/pipeline/moments.h"
#include "narrow/pipeline/ranks.h"
#include "narrow/pipeline/train_llm.h"
#include "narrow/pipeline/train_llm_arch.h"
#include "narrow/pipeline/train_prune.h"
#include "narrow/pipeline/train_qat.h"
#include "narrow/pipeline/train_quantized.h"
#include "narrow/pipeline/train_thin.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/plan.h"
#include "narrow/ptq/targets.h"
#include "narrow/report/train_curve.h"
#include "narrow/runtime/session.h"
#include "narrow/train/checkpoint.h"
#include "narrow/train/library.h"
#include "narrow/train/networks.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using train::TrainState;

constexpr int64_t kCalibrationSamples = 500;
constexpr int64_t kMeanSamples = 128;  // as `narrow quantize` takes

/// Some models are made for batches of one size.
void check_batch(const Graph& graph, int64_t batch) {
  for (const ValueId id : graph.inputs()) {
    const auto& shape = graph.value(id).shape;
    if (!shape || shape->empty() || !shape->at(0).known() || shape->at(0).value == batch) continue;
    const int64_t wanted = shape->at(0).value;
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("the model takes {} samples at a time, the batch has {}", wanted, batch),
        fmt::format("give --batch {} and --accumulate {}", wanted,
                    std::max<int64_t>(1, batch / std::max<int64_t>(1, wanted))));
  }
}

class TrainRun {
 public:
  /// What only removes weights needs no libtorch.
  explicit TrainRun(const TrainJob& job)
      : job_(job),
        options_(job.options),
        plugin_(job.options.epochs > 0 ? &train::load_plugin() : nullptr) {
    if (plugin_ != nullptr) ranks_ = join_ranks();
    if (ranks_ == nullptr) return;
    report_.rank = ranks_->rank();
    report_.ranks = ranks_->size();
  }
  TrainReport run();

 private:
  void read();
  void open_teacher(const Graph& came);
  void make_smaller();
  void plan_float();
  Statistics observe(const CalibrateOptions& options) const;
  void plan_grids();
  void plan_adapters();
  AdapterNames adapter_names() const;
  Graph exported(const TrainState& state) const;
  double measure(const Graph& graph) const;
  TrainState start() const;
  std::string fingerprint() const;
  train::TrainHooks hooks(const train::CheckpointPlace& place);
  void save(const TrainState& state);
  void save_at_once();
  void learn();

  const TrainJob& job_;
  train::TrainOptions options_;  // of the job, but for what its model decides
  const train::Plugin* plugin_;
  std::unique_ptr<train::Ranks> ranks_;
  Graph graph_;                        // float
  std::optional<LiftedModel> lifted_;  // the model is quantized, and trained on its own grids
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
  const bool changes = job_.options.prune.active() || job_.thin.active || job_.low_rank.active ||
                       !job_.adapters.input.empty();
  if (job_.options.epochs == 0 && !changes) {
    throw Error(ErrorCode::invalid_argument, "0 epochs train nothing",
                "give --epochs, or --prune, --thin, --low-rank or --lora-input");
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
  check_batch(graph_, job_.options.batch);
  const Graph came = graph_;
  if (is_quantized(graph_)) {
    lifted_ = open_quantized(graph_, job_);
    graph_ = lifted_->graph;
    if (!job_.qat.empty()) {  // other grids
      lifted_.reset();
      optimize(graph_, passes);
    }
    infer_shapes(graph_);
  }
  data_ = open_dataset(job_.data, data_hints(graph_));
  // With several processes the first measures and writes.
  if (job_.eval_data && report_.rank == 0)
    eval_ = open_dataset(*job_.eval_data, data_hints(graph_));
  report_.model = job_.arch.empty() ? job_.model.string() : job_.arch;
  report_.output = job_.output.string();
  report_.qat = job_.qat;
  if (plugin_ != nullptr) report_.torch_version = plugin_->torch_version;
  report_.samples = data_->size();
  if (eval_ && job_.arch.empty()) report_.metric_before = measure(came);
  open_teacher(came);
}

/// By default the model that came in.
void TrainRun::open_teacher(const Graph& came) {
  const train::MatchOptions& match = job_.options.match;
  if (!train::learns_from_teacher(job_.options)) return;
  Graph graph = job_.teacher.empty() ? came : read_onnx(job_.teacher);
  if (match.active()) infer_shapes(graph);
  for (const train::FeaturePair& pair : match.pairs) {
    plan_.matches.push_back({{}, train::add_feature(graph, pair.teacher)});
  }
  teacher_ = std::make_unique<Session>(std::move(graph));
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
  for (size_t i = 0; i < plan_.matches.size(); ++i) {
    train::FeatureMatch& match = plan_.matches[i];
    match.student = train::add_feature(plan_.graph, job_.options.match.pairs[i].student);
    check_match(match);
  }
  plan_.parameters = train::trainable_parameters(graph_);
  const bool prunes = job_.options.prune.active() || job_.options.regularize.active();
  if (prunes && (job_.adapters.active() || !job_.freeze.empty())) {
    throw Error(ErrorCode::unsupported, "pruning changes all weights",
                "leave --freeze and --lora out, or prune in a run of its own");
  }
  if (lifted_) add_file_grids(*lifted_, plan_);
  freeze(job_.freeze, plan_);
  plan_adapters();
  if (lifted_) fix_file_grids(plan_, options_.qat);
  for (const std::string& name : plan_.parameters) {
    report_.parameters += graph_.constant(*graph_.find_value(name))->elements();
  }
  for (const auto& [name, adapter] : plan_.adapters) {
    report_.parameters += adapter.a.elements() + adapter.b.elements();
  }
  plan_pruning(plan_, job_.options);
}

/// Over some samples; ranks look at a part of them each.
Statistics TrainRun::observe(const CalibrateOptions& options) const {
  std::vector<int64_t> indices =
      sample_indices(data_->size(), kCalibrationSamples, job_.options.seed);
  const std::vector<std::string> values = assignment_.observed();
  if (ranks_ == nullptr) return calibrate(graph_, values, *subset(data_, indices), options);
  std::vector<int64_t> own;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (static_cast<int>(i % static_cast<size_t>(ranks_->size())) == ranks_->rank()) {
      own.push_back(indices[i]);
    }
  }
  return merge_over_ranks(calibrate(graph_, values, *subset(data_, own), options), *ranks_);
}

/// Names in PEFT's files are those of the weights.
AdapterNames TrainRun::adapter_names() const {
  AdapterNames names;
  for (const auto& [weight, adapter] : plan_.adapters) {
    const bool ends = weight.ends_with(".weight");
    names[weight] = ends ? weight.substr(0, weight.rfind('.')) : weight;
  }
  return names;
}

void TrainRun::plan_adapters() {
  const AdapterOptions& o = job_.adapters;
  if (!o.active()) return;
  add_adapters(o, job_.options.seed, plan_);
  if (!o.input.empty()) read_adapters(o.input, adapter_names(), plan_);
}

/// The assignment of the bits that are asked for; its grids, and the biases, as `narrow quantize`
/// would choose them: what training begins with is no worse.
void TrainRun::plan_grids() {
  quantize_ = qat_quantization(graph_, job_);
  assignment_ = assign(graph_, quantize_);
  keep_ends_at_8_bits(graph_, assignment_);
  CalibrateOptions calibration;
  calibration.threads = job_.options.threads;
  calibration.progress = job_.progress;
  const Statistics statistics = observe(calibration);
  ObserverOptions observer;
  observer.kind = parse_qat(job_.qat).activations < 8 ? ObserverKind::mse : ObserverKind::minmax;
  const auto ranges = activation_ranges(assignment_, statistics, observer);
  // Every rank looks at the same samples here, and so has the same grids.
  const auto indices = sample_indices(data_->size(), kMeanSamples, job_.options.seed);
  PlanOptions options;
  options.moments = layer_moments(graph_, assignment_, *subset(data_, indices),
                                  {job_.options.threads, job_.progress});
  options.bias_correction = BiasCorrection::fast;
  options.bias_form = find_target(quantize_.target).bias;
  const QuantizationPlan begin = make_plan(graph_, assignment_, ranges, options);
  for (const auto& [name, grid] : begin.qdq.activations) {
    std::string group;
    for (const std::string& source : assignment_.activations.at(name).sources) {
      group += source + "\n";
    }
    plan_.activations[name] = {grid, group};
  }
  for (const auto& [name, weights] : begin.qdq.weights) plan_.weights[name] = weights.params;
}

Graph TrainRun::exported(const TrainState& state) const {
  if (lifted_) return beside_codes(on_file_grids(*lifted_, state), state.adapters);
  Graph graph = graph_;
  train::set_parameters(graph, state);
  train::turn_off_dropout(graph);
  if (job_.qat.empty()) {
    for (const auto& [name, adapter] : state.adapters) {
      const ValueId id = *graph.find_value(name);
      graph.set_constant(id, with_adapter(*graph.constant(id), adapter));
    }
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
  return beside_codes(std::move(graph), state.adapters);
}

/// The state before training.
TrainState TrainRun::start() const {
  TrainState state;
  state.weights = plan_.weights;
  for (const auto& [name, grid] : plan_.activations) state.activations[name] = grid.params;
  for (const auto& [name, adapter] : plan_.adapters) {
    if (adapter.merged) {
      const Tensor& w = *graph_.constant(*graph_.find_value(name));
      state.parameters[name] = with_adapter(w, adapter);
    } else {
      state.adapters[name] = adapter;
    }
  }
  return state;
}

std::string TrainRun::fingerprint() const {
  Hash64 hash;
  for (const ValueId id : graph_.live_values()) {
    const Value& value = graph_.value(id);
    hash.add_text(value.name);
    if (value.is_constant()) hash.add(value.constant.raw(), value.constant.bytes());
  }
  if (lifted_) {
    for (const auto& [name, a] : lifted_->activations)
      hash.add(a.params.scale.raw(), sizeof(float));
  }
  hash.add_text(data_->fingerprint());
  hash.add_text(options_text(job_, report_.ranks));
  hash.add_text(report_.torch_version);
  return hash.hex();
}

train::TrainHooks TrainRun::hooks(const train::CheckpointPlace& place) {
  train::TrainHooks hooks;
  hooks.ranks = ranks_.get();
  if (report_.rank == 0) hooks.progress = job_.progress;
  if (eval_) hooks.evaluate = [this](const TrainState& s) { return measure(exported(s)); };
  if (teacher_) {
    hooks.teacher = [this](const std::map<std::string, Tensor>& inputs) {
      std::vector<Tensor> ordered;
      const auto names = teacher_->input_names();
      for (const std::string& name : names) {
        // What a single input is called is nobody's business.
        const auto given =
            names.size() == 1 && inputs.size() == 1 ? inputs.begin() : inputs.find(name);
        if (given == inputs.end()) {
          throw Error(ErrorCode::invalid_argument,
                      fmt::format("the teacher has an input '{}', the data have none", name),
                      "take a teacher with the inputs of the model");
        }
        ordered.push_back(given->second);
      }
      return teacher_->run(ordered);
    };
  }
  if (report_.rank != 0) return hooks;
  hooks.epoch = epoch_log(job_, place.resume ? train::read_checkpoint(place).epochs
                                             : std::vector<train::EpochRecord>{});
  return hooks;
}

void TrainRun::save(const TrainState& state) {
  if (!state.adapters.empty()) {
    write_adapters(job_.adapters.output, job_.adapters, state.adapters, adapter_names(), graph_,
                   job_.model.string());
    report_.notes.push_back(
        fmt::format("adapters in {}; measured with them", job_.adapters.output.string()));
  }
  // The model that adapters belong to.
  TrainState alone = state;
  alone.adapters.clear();
  Graph graph = exported(alone);
  for (const auto& [key, text] : job_.metadata) graph.metadata[key] = text;
  graph.metadata["narrow.version"] = kVersion;
  graph.metadata["narrow.train"] = fmt::format(
      "qat={} prune={} epochs={} batch={} optimizer={} lr={} seed={} torch={}", job_.qat,
      to_text(job_.options.prune), job_.options.epochs, job_.options.batch,
      to_string(job_.options.optimizer), job_.options.lr, job_.options.seed, report_.torch_version);
  write_onnx(graph, job_.output);
  report_.output_bytes = fs::file_size(job_.output);
  // What counts is the file, as others will read it.
  if (eval_) {
    report_.metric = measure(state.adapters.empty() ? read_onnx(job_.output) : exported(state));
  }
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
  place.every_steps = job_.checkpoint_steps;
  train::TrainResult result = plugin_->train(plan_, *data_, options_, hooks(place), place);
  if (report_.rank == 0) {
    save(result.state);
    std::error_code ignored;
    if (job_.checkpoint.empty()) fs::remove(place.path, ignored);
  }
  report_.best_epoch = result.best_epoch;
  report_.epochs = std::move(result.epochs);
}

TrainReport TrainRun::run() {
  const auto begin = Clock::now();
  // The library has a limit of its own; teacher and evaluation run under this one.
  const ThreadLimit limit(job_.options.threads);
  read();
  make_smaller();
  if (!job_.qat.empty()) plan_grids();
  plan_float();
  if (lifted_) report_.notes.push_back(describe_grids(*lifted_));
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

}  // namespace

std::string options_text(const TrainJob& job, int ranks) {
  const train::TrainOptions& o = job.options;
  return fmt::format(
      "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} "
      "{} {} {} {} {} {}",
      kVersion, job.qat, o.epochs, o.batch * ranks, to_string(o.optimizer), o.lr, o.scale_lr,
      o.momentum, o.weight_decay, o.clip_norm, o.accumulate, to_string(o.schedule), o.warmup_steps,
      o.step_epochs, o.gamma, o.min_factor, to_string(o.loss), o.label_smoothing, o.temperature,
      o.distill_weight, o.ema, o.augment.shift, o.augment.flip, o.augment.crop, o.seed,
      to_text(o.prune), to_text(o.regularize), to_text(job.thin), to_text(job.low_rank),
      qat_fingerprint(job), to_text(job.adapters), fmt::join(job.freeze, ";"), to_text(o.match),
      o.norm_freeze, o.norm_batches, o.bfloat16);
}

std::function<void(const train::EpochRecord&)> epoch_log(const TrainJob& job,
                                                         std::vector<train::EpochRecord> before) {
  return [&job, epochs = std::move(before)](const train::EpochRecord& r) mutable {
    epochs.push_back(r);
    if (!job.log.empty()) {
      const bool json = job.log.extension() == ".json";
      write_text(job.log, json ? epochs_as_json(epochs) : epochs_as_csv(epochs));
    }
    if (!job.plot.empty()) {
      write_text(job.plot, epochs_as_svg(job.output.filename().string(), epochs));
    }
    if (job.epoch) job.epoch(r);
  };
}

fs::path checkpoint_of(const TrainJob& job) {
  return job.checkpoint.empty() ? fs::path(job.output.string() + ".training") : job.checkpoint;
}

TrainReport run_train(const TrainJob& given) {
  TrainJob job = given;
  resolve_adapters(job.adapters);
  if (!job.qat.empty() && (job.options.norm_freeze > 0 || job.options.norm_batches > 0)) {
    throw Error(ErrorCode::invalid_argument,
                "--norm-freeze and --norm-batches have no batch norms to work on with --qat, which "
                "folds them into the convolutions before the first step",
                "leave them out, or train in float with --keep-norms first");
  }
  if (!job.teacher.empty() && !train::learns_from_teacher(job.options)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("nothing is learned from the teacher '{}'", job.teacher.string()),
                train::kTeacherHint);
  }
  const bool scratch = is_language_arch(job.arch);
  if (scratch || (job.arch.empty() && is_language_model(job.model))) return run_llm_train(job);
  if (!job.statistics.empty()) {
    throw Error(ErrorCode::invalid_argument, "--statistics is for language models",
                "leave it out: this network's means are measured on its data");
  }
  return TrainRun(job).run();
}

}  // namespace narrow
