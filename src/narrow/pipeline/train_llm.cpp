// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_llm.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/core/parallel.h"
#include "narrow/evaluate/bench.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/language_model.h"
#include "narrow/llm/perplexity.h"
#include "narrow/pipeline/llm_folder.h"
#include "narrow/pipeline/llm_onnx.h"
#include "narrow/pipeline/llm_quantize.h"
#include "narrow/pipeline/ranks.h"
#include "narrow/pipeline/train_adapters.h"
#include "narrow/pipeline/train_llm_arch.h"
#include "narrow/pipeline/train_llm_blocks.h"
#include "narrow/pipeline/train_llm_grids.h"
#include "narrow/pipeline/train_llm_thin.h"
#include "narrow/pipeline/train_prune.h"
#include "narrow/pipeline/train_text.h"
#include "narrow/train/library.h"
#include "narrow/train/ranks.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using train::TrainState;

constexpr int64_t kContext = 512;

/// Every weight as float32, so that the graph computes with them as they are.
llm::Checkpoint in_float(const llm::Checkpoint& model) {
  std::map<std::string, llm::TensorInMemory> tensors;
  for (const llm::CheckpointTensor& t : model.tensors()) {
    if (t.difference == llm::Difference::computed) continue;
    tensors[t.name] = {BlockType::f32, model.read(t.name, llm::RowOrder::stored)};
  }
  return model.with(tensors);
}

llm::Checkpoint source_of(const TrainJob& job) {
  if (job.arch.empty()) return llm::Checkpoint::open(job.model);
  return new_language_model(job.arch, job.tokenizer, job.options.seed);
}

class LlmTrainRun {
 public:
  /// What only removes weights needs no libtorch.
  explicit LlmTrainRun(const TrainJob& job)
      : job_(job),
        plugin_(job.options.epochs > 0 ? &train::load_plugin() : nullptr),
        ranks_(plugin_ != nullptr ? join_ranks() : nullptr),
        source_(source_of(job)),
        model_(in_float(source_)) {
    if (ranks_ == nullptr) return;
    report_.rank = ranks_->rank();
    report_.ranks = ranks_->size();
  }
  TrainReport run();

 private:
  void check() const;
  void read_texts();
  void read_teacher();
  void make_smaller();
  void plan();
  void plan_masks();
  void plan_adapters();
  void hold_weights();
  AdapterNames adapter_names() const;
  llm::Checkpoint exported(const TrainState& state) const;
  llm::PerplexityResult measure(const llm::Checkpoint& model) const;
  double metric_of(const llm::PerplexityResult& result) const;
  train::TrainHooks hooks();
  std::string fingerprint() const;
  TrainState start() const;
  void write(const llm::Checkpoint& trained) const;
  void learn();
  void save(TrainState state);
  bool distills() const { return job_.options.loss != train::LossKind::cross_entropy; }

  const TrainJob& job_;
  const train::Plugin* plugin_;
  std::unique_ptr<train::Ranks> ranks_;
  llm::Checkpoint source_;
  llm::Checkpoint model_;  // the same in float32; without what was removed
  LlmGrids grids_;
  int64_t context_ = 0;
  std::shared_ptr<const Dataset> data_;
  std::vector<int32_t> eval_;
  llm::PerplexityOptions eval_options_;
  std::optional<llm::LanguageModel> teacher_model_;
  std::unique_ptr<Session> teacher_;
  train::TrainPlan plan_;
  HeldBlocks held_;  // weights that do not change, or that adapters stand beside
  TrainReport report_;
};

void LlmTrainRun::check() const {
  train::check_options(job_.options);
  if (!source_.config().causal) {
    throw Error(ErrorCode::unsupported, "an encoder predicts no next token",
                "train decoders, or export the model as ONNX and train that");
  }
  if (job_.low_rank.active) {
    throw Error(ErrorCode::unsupported, "files of language models have no place for factors",
                "leave --low-rank out, or train low-rank adapters with --lora");
  }
  if (job_.options.epochs == 0 && !job_.options.prune.active() && !job_.thin.active) {
    throw Error(ErrorCode::invalid_argument, "0 epochs train nothing",
                "give --epochs, or --prune or --thin");
  }
  if (!job_.statistics.empty() && grids_.bits == 0) {
    throw Error(ErrorCode::invalid_argument, "--statistics is for the grids w2 to w8",
                "leave it out, or give one of them to --qat");
  }
  if (job_.options.match.active()) {
    throw Error(ErrorCode::unsupported, "--match is for ONNX models",
                "--loss distill learns the outputs of the float model");
  }
  const std::string extension = job_.output.extension().string();
  if ((!grids_.bits && !grids_.format) || job_.output.empty()) return;
  if (extension == ".gguf" || (extension == ".onnx" && grids_.bits > 0)) return;
  if (extension == ".onnx") {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("an ONNX file has no blocks of {}", grids_.format->name),
                "name the output .gguf, or train on w2 to w8");
  }
  throw Error(ErrorCode::invalid_argument,
              "a folder of safetensors holds float numbers, not the codes that are trained",
              "name the output .gguf, or .onnx for w2 to w8");
}

void LlmTrainRun::read_texts() {
  const llm::Tokenizer tokenizer = source_.tokenizer();
  context_ = number_of(job_.data, "context", std::min(kContext, source_.config().context));
  const auto vocabulary = source_.config().vocab_size;
  const auto read = [&](const DataSpec& spec) {
    std::vector<int32_t> ids = tokenizer.encode(read_text_of(spec));
    const auto most = static_cast<size_t>(number_of(spec, "tokens", INT64_MAX >> 24));
    if (ids.size() > most) ids.resize(most);
    const bool known =
        std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return id >= 0 && id < vocabulary; });
    if (!known) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: the tokenizer gives tokens that the model's vocabulary of {} "
                              "does not have",
                              spec.path, vocabulary));
    }
    return ids;
  };
  data_ = packed_text(read(job_.data), context_);
  // With several processes the first measures and writes.
  if (!job_.eval_data || report_.rank != 0) return;
  const DataSpec& spec = *job_.eval_data;
  eval_ = read(spec);
  eval_options_.context = number_of(spec, "context", context_);
  eval_options_.chunks = number_of(spec, "chunks", 0);
  eval_options_.bos = llm::chunk_bos(tokenizer);
  eval_options_.threads = job_.options.threads;
  if (!grids_.a8) eval_options_.activations = llm::Activations::real;
  if (grids_.kv8) eval_options_.cache = llm::CacheType::int8;
}

void LlmTrainRun::read_teacher() {
  if (!distills()) return;
  teacher_model_.emplace(job_.teacher.empty() ? model_ : llm::Checkpoint::open(job_.teacher));
  const int64_t theirs = teacher_model_->config().vocab_size;
  const int64_t ours = model_.config().vocab_size;
  if (theirs != ours) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("the teacher has a vocabulary of {} tokens, the model of {}", theirs, ours),
        "a teacher must share the model's tokenizer");
  }
  llm::GraphOptions graph;
  graph.capacity = context_;
  graph.activations = llm::Activations::real;
  llm::LoadOptions load;
  load.threads = job_.options.threads;
  teacher_ = std::make_unique<Session>(teacher_model_->make_session(graph, load));
}

void LlmTrainRun::make_smaller() {
  if (!job_.thin.active) return;
  ThinReport report;
  model_ = thin_model(model_, job_.thin, {data_, plugin_, job_.options, context_}, report);
  report_.thinned.push_back(std::move(report));
  if (!eval_.empty()) report_.metric_thinned = metric_of(measure(model_));
}

/// Layers that lose weights: their zeros are codes of the grids.
void LlmTrainRun::plan_masks() {
  if (!job_.options.prune.active() && !job_.options.regularize.active()) return;
  if (job_.adapters.active() || !job_.freeze.empty()) {
    throw Error(ErrorCode::unsupported, "pruning changes all weights",
                "leave --freeze and --lora out, or prune in a run of its own");
  }
  if (grids_.format != nullptr) {
    throw Error(ErrorCode::unsupported,
                fmt::format("not all blocks of {} hold zeros", grids_.format->name),
                "prune on w2 to w8, or in float");
  }
  plan_pruning(plan_, job_.options);
}

void LlmTrainRun::plan() {
  plan_ = plan_of(model_, context_);
  ImportanceFile statistics;
  if (!job_.statistics.empty()) statistics = read_importance(job_.statistics);
  add_grids(grids_, model_, plan_, statistics);
  if (const int64_t taken = take_file_grids(source_, job_.options.qat, plan_); taken > 0) {
    if (distills() && job_.teacher.empty()) {
      throw Error(ErrorCode::invalid_argument,
                  "what begins with the file's codes has nothing to learn from the file",
                  "name the float model: --teacher MODEL, or learn the text: --loss cross_entropy");
    }
    report_.notes.push_back(fmt::format("{} matrices begin with the file's codes", taken));
  }
  plan_masks();
  freeze(job_.freeze, plan_);
  plan_adapters();
  hold_file_blocks(source_, plan_, held_);
  if (!job_.adapters.output.empty()) hold_weights();
  for (const std::string& name : plan_.parameters) {
    report_.parameters += plan_.graph.constant(*plan_.graph.find_value(name))->elements();
  }
  for (const auto& [name, adapter] : plan_.adapters) {
    report_.parameters += adapter.a.elements() + adapter.b.elements();
  }
}

/// As PEFT names the modules of Hugging Face's model.
AdapterNames LlmTrainRun::adapter_names() const {
  AdapterNames names;
  const llm::Architecture& row = *llm::find_architecture(model_.config().architecture);
  const std::string_view prefix = row.prefixes.front();
  for (const auto& [weight, adapter] : plan_.adapters) {
    std::string name = model_.at(weight).hf_name;
    const bool whole = name.starts_with(prefix) || weight == "output.weight";
    if (!whole) name = std::string(prefix) + name;
    names[weight] = name.substr(0, name.rfind(".weight"));
  }
  return names;
}

void LlmTrainRun::plan_adapters() {
  const AdapterOptions& o = job_.adapters;
  if (!o.active()) return;
  const bool files = !o.output.empty() || !o.input.empty();
  if (files && source_.is_gguf()) {
    throw Error(ErrorCode::unsupported,
                "adapter files have the order of rows of Hugging Face's models, a GGUF file has "
                "another",
                "narrow convert MODEL -o FOLDER makes such a model; train on that");
  }
  add_adapters(o, job_.options.seed, plan_);
  if (!o.input.empty()) read_adapters(o.input, adapter_names(), plan_);
}

/// Weights on grids become constants with these values: adapters learn beside them.
void LlmTrainRun::hold_weights() {
  for (const auto& [name, params] : plan_.weights) {
    held_[name] = as_blocks(model_.read(name, llm::RowOrder::stored), params);
  }
  for (const auto& [name, type] : plan_.blocks) {
    held_[name] = as_blocks(model_.read(name, llm::RowOrder::stored), type);
  }
  plan_.weights.clear();
  plan_.blocks.clear();
  const llm::Checkpoint held = model_.with(held_);
  for (const auto& [name, blocks] : held_) {
    plan_.graph.set_constant(*plan_.graph.find_value(name), held.read(name, llm::RowOrder::stored));
  }
}

/// The state before training.
TrainState LlmTrainRun::start() const {
  TrainState state;
  for (const std::string& name : plan_.parameters) {
    state.parameters[name] = *plan_.graph.constant(*plan_.graph.find_value(name));
  }
  state.weights = plan_.weights;
  return state;
}

/// The model with the values of this state; weights on grids as blocks that hold just these values.
llm::Checkpoint LlmTrainRun::exported(const TrainState& state) const {
  std::map<std::string, llm::TensorInMemory> tensors;
  for (const auto& [name, value] : state.parameters) tensors[name] = {BlockType::f32, value};
  const auto value_of = [&](const std::string& name) {
    const auto found = state.parameters.find(name);
    return found != state.parameters.end() ? found->second
                                           : model_.read(name, llm::RowOrder::stored);
  };
  for (const auto& [name, params] : state.weights) {
    tensors[name] = as_blocks(value_of(name), params);
  }
  for (const auto& [name, type] : plan_.blocks) tensors[name] = as_blocks(value_of(name), type);
  for (const auto& [name, blocks] : held_) tensors.emplace(name, blocks);
  const llm::Checkpoint base = model_.with(tensors);
  if (state.adapters.empty()) return base;
  std::map<std::string, llm::TensorInMemory> sums;
  for (const auto& [name, adapter] : state.adapters) {
    sums[name] = {BlockType::f32, with_adapter(base.read(name, llm::RowOrder::stored), adapter)};
  }
  return base.with(sums);
}

llm::PerplexityResult LlmTrainRun::measure(const llm::Checkpoint& model) const {
  return llm::perplexity(llm::LanguageModel(model), eval_, eval_options_,
                         distills() ? &*teacher_model_ : nullptr);
}

double LlmTrainRun::metric_of(const llm::PerplexityResult& result) const {
  return distills() ? result.divergence.value().kl.mean : result.perplexity.mean;
}

std::string LlmTrainRun::fingerprint() const {
  Hash64 hash;
  for (const llm::CheckpointTensor& t : model_.tensors()) {
    const Tensor x = model_.raw(t.name);
    hash.add_text(t.name);
    hash.add(x.raw(), x.bytes());
  }
  for (const auto& [name, grid] : plan_.weights) hash.add(grid.scale.raw(), grid.scale.bytes());
  hash.add_text(data_->fingerprint());
  hash.add_text(options_text(job_, report_.ranks));
  hash.add_text(job_.teacher.string());
  hash.add_text(job_.arch);
  hash.add_text(report_.torch_version);
  return hash.hex();
}

train::TrainHooks LlmTrainRun::hooks() {
  train::TrainHooks hooks;
  hooks.ranks = ranks_.get();
  if (report_.rank == 0) hooks.progress = job_.progress;
  hooks.smaller_is_better = true;
  if (!eval_.empty()) {
    hooks.evaluate = [this](const TrainState& s) { return metric_of(measure(exported(s))); };
  }
  if (teacher_) {
    hooks.teacher = [this](const std::map<std::string, Tensor>& inputs) {
      std::vector<Tensor> ordered;
      for (const std::string& name : teacher_->input_names()) ordered.push_back(inputs.at(name));
      return teacher_->run(ordered);
    };
  }
  if (report_.rank == 0) hooks.epoch = epoch_log(job_);
  return hooks;
}

/// A rule for each tensor: the type that it has.
std::vector<TensorTypeRule> types_of(const llm::Checkpoint& model) {
  std::vector<TensorTypeRule> rules;
  for (const llm::CheckpointTensor& t : model.tensors()) {
    if (t.dims.size() == 2) rules.push_back({t.name, t.type});
  }
  return rules;
}

void LlmTrainRun::write(const llm::Checkpoint& trained) const {
  const std::string extension = job_.output.extension().string();
  if (extension == ".gguf") {
    LlmQuantizeJob job{.model = job_.model, .weights = trained, .output = job_.output};
    if (grids_.format != nullptr) job.format = grids_.format->name;
    if (grids_.bits > 0) job.format = grids_.bits <= 4 ? "q4_0" : "q8_0";
    if (job.format.empty()) job.format = "f32";
    job.method = WeightMethod::rtn;
    job.rules = types_of(trained);
    job.requantize = true;
    job.threads = job_.options.threads;
    run_llm_quantize(job);
    return;
  }
  if (extension == ".onnx") {
    LlmOnnxJob job{.model = job_.model, .weights = trained, .output = job_.output};
    if (grids_.bits > 0) job.format = fmt::format("w{}g{}", grids_.bits <= 4 ? 4 : 8, grids_.group);
    job.requantize = true;
    job.threads = job_.options.threads;
    run_llm_onnx(job);
    return;
  }
  LlmFolderJob job{.model = job_.model, .weights = trained, .output = job_.output};
  job.threads = job_.options.threads;
  run_llm_folder(job);
}

/// With adapters of their own file, what is written beside it is the model that they belong to.
void LlmTrainRun::save(TrainState state) {
  llm::Checkpoint trained = exported(state);
  const bool apart = !state.adapters.empty();
  if (apart) {
    write_adapters(job_.adapters.output, job_.adapters, state.adapters, adapter_names(),
                   plan_.graph, job_.model.string());
    report_.notes.push_back(
        fmt::format("adapters in {}; measured with them", job_.adapters.output.string()));
  }
  if (!job_.output.empty()) {
    if (apart) state.adapters.clear();
    write(apart ? exported(state) : trained);
    const bool folder = fs::is_directory(job_.output);
    report_.output_bytes = fs::file_size(folder ? job_.output / "model.safetensors" : job_.output);
    // What counts is the file, as others will read it; an ONNX file has the same values.
    const bool readable = !apart && job_.output.extension() != ".onnx";
    if (readable && !eval_.empty()) trained = llm::Checkpoint::open(job_.output);
    if (job_.options.prune.active()) {
      report_.prune = measure_pruned({in_float(source_), exported(start()), trained}, job_.output,
                                     plan_.prune, to_text(job_.options.prune));
    }
  }
  if (eval_.empty()) return;
  const llm::PerplexityResult r = measure(trained);
  report_.metric = metric_of(r);
  report_.perplexity = r.perplexity.mean;
}

void LlmTrainRun::learn() {
  train::CheckpointPlace place;
  const fs::path& beside = job_.output.empty() ? job_.adapters.output : job_.output;
  place.path = job_.checkpoint.empty() ? beside.string() + ".training" : job_.checkpoint.string();
  place.fingerprint = fingerprint();
  place.resume = job_.resume;
  place.every_steps = job_.checkpoint_steps;
  train::TrainResult result = plugin_->train(plan_, *data_, job_.options, hooks(), place);
  if (report_.rank == 0) {
    save(std::move(result.state));
    std::error_code ignored;
    if (job_.checkpoint.empty()) fs::remove(place.path, ignored);
  }
  report_.best_epoch = result.best_epoch;
  report_.epochs = std::move(result.epochs);
}

TrainReport LlmTrainRun::run() {
  const auto begin = Clock::now();
  // The library has a limit of its own: without one here, the teacher's threads would spin beside
  // libtorch's.
  const ThreadLimit limit(job_.options.threads);
  if (!job_.qat.empty()) grids_ = parse_llm_grids(job_.qat);
  check();
  read_texts();
  report_.model = job_.arch.empty() ? job_.model.string() : job_.arch;
  report_.output = job_.output.string();
  report_.qat = job_.qat;
  if (plugin_ != nullptr) report_.torch_version = plugin_->torch_version;
  report_.samples = data_->size();
  report_.metric_name = distills() ? "kl" : "perplexity";
  // What a teacher's metric is before anything is done to the model is known: 0.
  if (!eval_.empty() && !distills() && job_.arch.empty()) {
    report_.metric_before = metric_of(measure(model_));
  }
  read_teacher();
  make_smaller();
  plan();
  if (!eval_.empty() && !job_.qat.empty()) {
    report_.metric_ptq = metric_of(measure(exported(start())));
  }
  if (job_.options.epochs > 0) {
    learn();
  } else {
    TrainState state = start();
    prune_at_once(plan_, job_.options, state);
    save(std::move(state));
  }
  report_.seconds = seconds_since(begin);
  report_.peak_rss_bytes = peak_rss_bytes();
  return std::move(report_);
}

}  // namespace

TrainReport run_llm_train(const TrainJob& job) {
  try {
    return LlmTrainRun(job).run();
  } catch (Error& e) {
    if (e.code() != ErrorCode::cancelled) {
      e.add_context(job.arch.empty() ? job.model.string() : job.arch);
    }
    throw;
  }
}

}  // namespace narrow
