// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_prune.h"

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/data/deflate.h"
#include "narrow/evaluate/bench.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/llm/speed.h"

namespace narrow {
namespace {

std::vector<train::PruneTarget> trained_targets(const train::TrainPlan& plan,
                                                const std::vector<std::string>& layers,
                                                const std::vector<std::string>& except) {
  std::vector<train::PruneTarget> targets = train::find_targets(plan.graph, layers, except);
  std::erase_if(targets, [&](const train::PruneTarget& target) {
    return std::ranges::find(plan.parameters, target.weights) == plan.parameters.end();
  });
  if (targets.empty()) {
    throw Error(ErrorCode::invalid_argument, "no layer that is to be pruned is trained");
  }
  return targets;
}

struct Sizes {
  uint64_t bytes = 0;
  uint64_t deflated = 0;
};

Sizes sizes_of(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return {file->bytes().size(), deflated_bytes(file->bytes())};
}

/// Of a network that was never a file: its constants.
Sizes sizes_of(const Graph& graph) {
  std::vector<std::byte> all;
  for (const ValueId id : graph.live_values()) {
    const Tensor& x = graph.value(id).constant;
    if (x.defined()) all.insert(all.end(), x.raw(), x.raw() + x.bytes());
  }
  return {all.size(), deflated_bytes(all)};
}

/// Of a model that was never a file of this form: its weights as float32.
Sizes sizes_of(const llm::Checkpoint& model) {
  Sizes sizes;
  for (const llm::CheckpointTensor& t : model.tensors()) {
    const Tensor x = model.read(t.name, llm::RowOrder::stored);
    sizes.bytes += x.bytes();
    sizes.deflated += deflated_bytes({x.raw(), x.bytes()});
  }
  return sizes;
}

/// Of a new token.
double microseconds(const llm::Checkpoint& model) {
  llm::SpeedOptions o;
  o.prompt_tokens = std::min<int64_t>(16, model.config().context / 2);
  o.new_tokens = std::min<int64_t>(16, model.config().context / 2);
  o.decoder.capacity = o.prompt_tokens + o.new_tokens;
  o.decoder.threads = 1;
  constexpr double kMicro = 1e6;
  return kMicro / llm::measure_speed(llm::LanguageModel(model), o).decode_tokens_per_second;
}

double microseconds(const Graph& graph) {
  BenchOptions options;
  options.threads = 1;
  options.seconds = 0.3;
  return bench(graph, options).median_us;
}

}  // namespace

void plan_pruning(train::TrainPlan& plan, const train::TrainOptions& options) {
  if (options.prune.active()) {
    plan.prune = trained_targets(plan, options.prune.layers, options.prune.except);
  }
  if (options.regularize.active()) {
    plan.regularize = trained_targets(plan, options.regularize.layers, {});
  }
}

void prune_at_once(const train::TrainPlan& plan, const train::TrainOptions& options,
                   train::TrainState& state) {
  if (!options.prune.active()) return;
  const train::Masks masks = train::masks_at_once(plan.graph, plan.prune, options.prune);
  for (const auto& [name, mask] : masks) {
    const Tensor& w = *plan.graph.constant(*plan.graph.find_value(name));
    state.parameters[name] = train::masked(w, mask);
  }
}

PruneReport measure_pruned(const PruneFiles& files, const Graph& original, const Graph& before,
                           const std::string& what) {
  PruneReport report;
  report.prune = what;
  const Graph after = read_onnx(files.output);
  report.layers = train::count_zeros(after);
  const Sizes source = files.source.empty() ? sizes_of(original) : sizes_of(files.source);
  const Sizes output = sizes_of(files.output);
  report.float_bytes = source.bytes;
  report.float_deflated = source.deflated;
  report.bytes = output.bytes;
  report.deflated = output.deflated;
  report.float_us = microseconds(original);
  report.before_us = microseconds(before);
  report.after_us = microseconds(after);
  return report;
}

PruneReport measure_pruned(const PrunedModels& models, const std::filesystem::path& output,
                           const std::vector<train::PruneTarget>& targets,
                           const std::string& what) {
  PruneReport report;
  report.prune = what;
  report.sample = "a new token";
  for (const train::PruneTarget& target : targets) {
    const Tensor x = models.after.read(target.weights, llm::RowOrder::stored);
    report.layers.push_back(
        {target.node, "MatMul", x.elements(), std::ranges::count(x.data<float>(), 0.0F)});
  }
  const bool folder = std::filesystem::is_directory(output);
  const Sizes source = sizes_of(models.original);
  const Sizes written = sizes_of(folder ? output / "model.safetensors" : output);
  report.float_bytes = source.bytes;
  report.float_deflated = source.deflated;
  report.bytes = written.bytes;
  report.deflated = written.deflated;
  report.float_us = microseconds(models.original);
  report.before_us = microseconds(models.before);
  report.after_us = microseconds(models.after);
  return report;
}

}  // namespace narrow
