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
#include "narrow/graph/op_table.h"
#include "narrow/llm/language_model.h"
#include "narrow/llm/perplexity.h"
#include "narrow/pipeline/llm_folder.h"
#include "narrow/pipeline/llm_onnx.h"
#include "narrow/pipeline/llm_quantize.h"
#include "narrow/pipeline/train_llm_grids.h"
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

class LlmTrainRun {
 public:
  explicit LlmTrainRun(const TrainJob& job)
      : job_(job),
        plugin_(train::load_plugin()),
        source_(llm::Checkpoint::open(job.model)),
        model_(in_float(source_)) {}
  TrainReport run();

 private:
  void check() const;
  void read_texts();
  void read_teacher();
  void plan();
  llm::Checkpoint exported(const TrainState& state) const;
  llm::PerplexityResult measure(const llm::Checkpoint& model) const;
  double metric_of(const llm::PerplexityResult& result) const;
  train::TrainHooks hooks();
  std::string fingerprint() const;
  TrainState start() const;
  void write(const llm::Checkpoint& trained) const;
  bool distills() const { return job_.options.loss != train::LossKind::cross_entropy; }

  const TrainJob& job_;
  const train::Plugin& plugin_;
  llm::Checkpoint source_;
  llm::Checkpoint model_;  // the same in float32
  LlmGrids grids_;
  int64_t context_ = 0;
  std::unique_ptr<Dataset> data_;
  std::vector<int32_t> eval_;
  llm::PerplexityOptions eval_options_;
  std::optional<llm::LanguageModel> teacher_model_;
  std::unique_ptr<Session> teacher_;
  train::TrainPlan plan_;
  TrainReport report_;
};

void LlmTrainRun::check() const {
  train::check_options(job_.options);
  if (!source_.config().causal) {
    throw Error(ErrorCode::unsupported, "an encoder predicts no next token",
                "train decoders, or export the model as ONNX and train that");
  }
  if (train::rank_place() || !to_text(job_.options.prune).empty() ||
      !to_text(job_.options.regularize).empty() || job_.options.epochs == 0) {
    throw Error(ErrorCode::unsupported,
                "language models are trained by one process, without --prune and --regularize",
                "start one process, and leave these out");
  }
  const std::string extension = job_.output.extension().string();
  if (!grids_.bits && !grids_.format) return;
  if (extension == ".onnx" || extension == ".gguf") return;
  throw Error(ErrorCode::invalid_argument,
              "a folder of safetensors holds float numbers, not the codes that are trained",
              "name the output .gguf, or .onnx for w4 and w8");
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
  if (!job_.eval_data) return;
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

void LlmTrainRun::plan() {
  llm::GraphOptions options;
  options.capacity = context_;
  options.activations = llm::Activations::real;
  plan_.graph = llm::build_graph(model_, options);
  infer_shapes(plan_.graph);
  plan_.sequences = true;
  plan_.output = "logits";
  add_grids(grids_, model_, plan_);
  for (const llm::CheckpointTensor& t : model_.tensors()) {
    if (t.difference == llm::Difference::computed || !plan_.graph.find_value(t.name)) continue;
    plan_.parameters.push_back(t.name);
    report_.parameters += t.rows() * t.columns();
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
  return model_.with(tensors);
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
  hash.add_text(data_->fingerprint());
  hash.add_text(options_text(job_));
  hash.add_text(job_.teacher.string());
  hash.add_text(plugin_.torch_version);
  return hash.hex();
}

train::TrainHooks LlmTrainRun::hooks() {
  train::TrainHooks hooks;
  hooks.progress = job_.progress;
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
  hooks.epoch = epoch_log(job_);
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
    job.threads = job_.options.threads;
    run_llm_onnx(job);
    return;
  }
  LlmFolderJob job{.model = job_.model, .weights = trained, .output = job_.output};
  job.threads = job_.options.threads;
  run_llm_folder(job);
}

TrainReport LlmTrainRun::run() {
  const auto begin = Clock::now();
  // The library has a limit of its own: without one here, the teacher's threads would spin beside
  // libtorch's.
  const ThreadLimit limit(job_.options.threads);
  if (!job_.qat.empty()) grids_ = parse_llm_grids(job_.qat);
  check();
  read_texts();
  read_teacher();
  plan();
  report_.model = job_.model.string();
  report_.output = job_.output.string();
  report_.qat = job_.qat;
  report_.torch_version = plugin_.torch_version;
  report_.samples = data_->size();
  report_.metric_name = distills() ? "kl" : "perplexity";
  if (!eval_.empty()) {
    if (!distills()) report_.metric_before = metric_of(measure(model_));
    if (!job_.qat.empty()) report_.metric_ptq = metric_of(measure(exported(start())));
  }
  train::CheckpointPlace place;
  place.path =
      job_.checkpoint.empty() ? job_.output.string() + ".training" : job_.checkpoint.string();
  place.fingerprint = fingerprint();
  place.resume = job_.resume;
  train::TrainResult result = plugin_.train(plan_, *data_, job_.options, hooks(), place);
  const llm::Checkpoint trained = exported(result.state);
  write(trained);
  report_.output_bytes = fs::is_directory(job_.output)
                             ? fs::file_size(job_.output / "model.safetensors")
                             : fs::file_size(job_.output);
  if (!eval_.empty()) {
    // What counts is the file, as others will read it; an ONNX file has the same values.
    const bool readable = job_.output.extension() != ".onnx";
    const llm::PerplexityResult r =
        measure(readable ? llm::Checkpoint::open(job_.output) : trained);
    report_.metric = metric_of(r);
    report_.perplexity = r.perplexity.mean;
  }
  std::error_code ignored;
  if (job_.checkpoint.empty()) fs::remove(place.path, ignored);
  report_.best_epoch = result.best_epoch;
  report_.epochs = std::move(result.epochs);
  report_.seconds = seconds_since(begin);
  report_.peak_rss_bytes = peak_rss_bytes();
  return std::move(report_);
}

}  // namespace

TrainReport run_llm_train(const TrainJob& job) {
  try {
    return LlmTrainRun(job).run();
  } catch (Error& e) {
    if (e.code() != ErrorCode::cancelled) e.add_context(job.model.string());
    throw;
  }
}

}  // namespace narrow
