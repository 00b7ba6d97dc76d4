// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_llm_thin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/language_model.h"
#include "narrow/llm/speed.h"
#include "narrow/pipeline/train_llm_grids.h"
#include "narrow/pipeline/train_thin.h"

namespace narrow {
namespace {

using llm::ModelConfig;
using llm::Size;
using llm::TensorRow;
using Kept = std::vector<int64_t>;  // indices, rising

/// Of a layer: sums over the weights of each part.
struct LayerScores {
  std::vector<double> heads;
  std::vector<double> kv_heads;  // of keys and values alone
  std::vector<double> neurons;
  double block = 0;
};

/// What stays of a layer.
struct LayerParts {
  Kept heads;
  Kept kv_heads;
  Kept neurons;
};

/// The `count` highest of scores; of equal ones those that come first go.
Kept highest(const std::vector<double>& scores, int64_t count) {
  Kept order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] < scores[static_cast<size_t>(b)];
  });
  order.erase(order.begin(), order.end() - count);
  std::ranges::sort(order);
  return order;
}

bool in_layer(const TensorRow& row) {
  return row.gguf.starts_with("blk.");
}

class LlmThinner {
 public:
  LlmThinner(const llm::Checkpoint& model, const train::ThinOptions& thin,
             const LlmThinSource& source)
      : model_(model), config_(model.config()), thin_(thin), source_(source) {}

  llm::Checkpoint run(ThinReport& report);

 private:
  int64_t group() const { return config_.heads / config_.kv_heads; }
  void check() const;
  ModelConfig smaller() const;
  void rank();
  void add_scores(const TensorRow& row, int64_t layer, const Tensor& w, const Tensor& factor);
  void choose(const ModelConfig& config);
  Kept lines(Size size, int64_t layer) const;
  template <class F>
  Tensor each_axis(const TensorRow& row, int64_t layer, const F& f) const;
  llm::Checkpoint thinned(const ModelConfig& config) const;
  llm::Checkpoint masked() const;
  std::vector<ThinnedLayers> describe(const ModelConfig& config) const;

  const llm::Checkpoint& model_;
  const ModelConfig& config_;
  const train::ThinOptions& thin_;
  const LlmThinSource& source_;
  std::vector<LayerScores> scores_;
  std::vector<LayerParts> parts_;
  Kept layers_;
};

void LlmThinner::check() const {
  const std::string& name = config_.architecture;
  if (!thin_.of_language_model()) {
    throw Error(ErrorCode::invalid_argument, "thin: a language model has no filters",
                "give heads=SHARE, kv_heads=SHARE, ff=SHARE or blocks=N");
  }
  if ((thin_.heads || thin_.kv_heads) && name == "gpt2") {
    throw Error(ErrorCode::unsupported,
                "thin: files of gpt2 have no place for another width of the heads together",
                "remove ff and blocks");
  }
  if (thin_.blocks > 0 && !config_.local_layers.empty()) {
    throw Error(ErrorCode::unsupported,
                fmt::format("thin: layers of {} see windows in turns, which programs count anew "
                            "where one is gone",
                            name),
                "remove heads and ff");
  }
  if (thin_.blocks >= config_.layers) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("thin: blocks={} of {} layers", thin_.blocks, config_.layers));
  }
  if (thin_.heads && thin_.kv_heads && group() == 1) {
    throw Error(ErrorCode::invalid_argument,
                "thin: each head has keys and values of its own: heads and kv_heads are one",
                "give one of them");
  }
}

/// The sizes that stay.
ModelConfig LlmThinner::smaller() const {
  ModelConfig c = config_;
  const auto reduce = [](const char* key, int64_t count, double share, int64_t align) {
    const int64_t kept = train::kept_count(count, share, align);
    if (kept < count) return kept;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("thin: {}={} of {} removes none", key, share, count),
                align > 1 ? "give a larger share, or a smaller align" : "give a larger share");
  };
  const bool pairs = group() == 1;
  if (thin_.kv_heads || (thin_.heads && pairs)) {
    const double share = thin_.kv_heads ? *thin_.kv_heads : *thin_.heads;
    c.kv_heads = reduce(thin_.kv_heads ? "kv_heads" : "heads", config_.kv_heads, share, 1);
  }
  int64_t together = group();
  if (thin_.heads && !pairs) together = reduce("heads", group(), *thin_.heads, 1);
  c.heads = c.kv_heads * together;
  if (thin_.ff)
    c.intermediate_size = reduce("ff", config_.intermediate_size, *thin_.ff, thin_.align);
  c.layers -= thin_.blocks;
  return c;
}

/// To each part the sum of f(w, factor) over its weights: |w| for l1, |factor| for gradient, w *
/// factor for taylor.
void LlmThinner::add_scores(const TensorRow& row, int64_t layer, const Tensor& w,
                            const Tensor& factor) {
  LayerScores& s = scores_[static_cast<size_t>(layer)];
  const int64_t columns = w.dims().back();
  const auto x = w.data<float>();
  const auto g = factor.data<float>();
  const bool taylor = thin_.method == train::RankMethod::taylor;
  const auto add = [&](Size size, int64_t line, double value) {
    if (size == Size::q) s.heads[static_cast<size_t>(line / config_.head_dim)] += value;
    if (size == Size::kv) s.kv_heads[static_cast<size_t>(line / config_.head_dim)] += value;
    if (size == Size::ffn) s.neurons[static_cast<size_t>(line)] += value;
  };
  const bool vector = row.columns == Size::none;
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = taylor ? static_cast<double>(x[i]) * g[i] : std::fabs(g[i]);
    const auto at = static_cast<int64_t>(i);
    add(row.rows, vector ? at : at / columns, value);
    if (!vector) add(row.columns, at % columns, value);
    s.block += value;
  }
}

void LlmThinner::rank() {
  LayerScores none;
  none.heads.resize(static_cast<size_t>(config_.heads));
  none.kv_heads.resize(static_cast<size_t>(config_.kv_heads));
  none.neurons.resize(static_cast<size_t>(config_.intermediate_size));
  scores_.assign(static_cast<size_t>(config_.layers), none);
  std::map<std::string, Tensor> gradients;
  if (thin_.method != train::RankMethod::l1) {
    const auto some = subset(
        source_.data, sample_indices(source_.data->size(), thin_.samples, source_.options.seed));
    gradients =
        mean_gradients(plan_of(model_, source_.context), *some, source_.plugin, source_.options);
  }
  for_each_tensor(config_, [&](const TensorRow& row, int64_t layer) {
    if (!in_layer(row)) return;
    const std::string name = llm::name_of(row.gguf, layer);
    const Tensor w = model_.read(name, llm::RowOrder::stored);
    add_scores(row, layer, w, gradients.empty() ? w : gradients.at(name));
  });
  if (thin_.method != train::RankMethod::taylor) return;
  for (LayerScores& s : scores_) {
    for (auto* list : {&s.heads, &s.kv_heads, &s.neurons}) {
      for (double& x : *list) x = std::fabs(x);
    }
    s.block = std::fabs(s.block);
  }
}

void LlmThinner::choose(const ModelConfig& config) {
  std::vector<double> blocks;
  for (const LayerScores& s : scores_) blocks.push_back(s.block);
  layers_ = highest(blocks, config.layers);
  const int64_t together = config.heads / config.kv_heads;
  for (const LayerScores& s : scores_) {
    LayerParts parts;
    std::vector<double> groups = s.kv_heads;
    for (size_t head = 0; head < s.heads.size(); ++head) {
      groups[head / static_cast<size_t>(group())] += s.heads[head];
    }
    parts.kv_heads = highest(groups, config.kv_heads);
    for (const int64_t kv : parts.kv_heads) {
      const auto first = s.heads.begin() + kv * group();
      for (const int64_t head : highest({first, first + group()}, together)) {
        parts.heads.push_back(kv * group() + head);
      }
    }
    parts.neurons = highest(s.neurons, config.intermediate_size);
    parts_.push_back(std::move(parts));
  }
}

/// The indices that stay of a dimension; empty where all do.
Kept LlmThinner::lines(Size size, int64_t layer) const {
  const LayerParts& parts = parts_[static_cast<size_t>(layer)];
  if (size == Size::ffn) return parts.neurons;
  Kept out;
  if (size != Size::q && size != Size::kv) return out;
  for (const int64_t head : size == Size::q ? parts.heads : parts.kv_heads) {
    for (int64_t i = 0; i < config_.head_dim; ++i) out.push_back(head * config_.head_dim + i);
  }
  return out;
}

/// A tensor of a layer, f(tensor, axis, kept indices) applied where not all stay.
template <class F>
Tensor LlmThinner::each_axis(const TensorRow& row, int64_t layer, const F& f) const {
  Tensor x = model_.read(llm::name_of(row.gguf, layer), llm::RowOrder::stored);
  for (int64_t axis = 0; axis < static_cast<int64_t>(x.rank()); ++axis) {
    const Kept kept = lines(axis == 0 ? row.rows : row.columns, layer);
    if (!kept.empty()) x = f(x, axis, kept);
  }
  return x;
}

llm::Checkpoint LlmThinner::thinned(const ModelConfig& config) const {
  std::map<std::string, llm::TensorInMemory> tensors;
  for_each_tensor(config, [&](const TensorRow& row, int64_t layer) {
    if (row.difference == llm::Difference::computed && !model_.is_gguf()) return;
    const std::string name = llm::name_of(row.gguf, layer);
    tensors[name] = {BlockType::f32,
                     in_layer(row)
                         ? each_axis(row, layers_[static_cast<size_t>(layer)], train::kept_lines)
                         : model_.read(name, llm::RowOrder::stored)};
  });
  return model_.reshaped(config, tensors);
}

/// The same model with zeros where parts go: a layer that goes adds nothing to what passes it.
llm::Checkpoint LlmThinner::masked() const {
  std::map<std::string, llm::TensorInMemory> tensors;
  for_each_tensor(config_, [&](const TensorRow& row, int64_t layer) {
    if (!in_layer(row)) return;
    Tensor x = each_axis(row, layer, train::only_lines);
    const bool ends = row.gguf.find("attn_output.") != row.gguf.npos ||
                      row.gguf.find("ffn_down.") != row.gguf.npos;
    if (ends && !std::ranges::binary_search(layers_, layer)) {
      std::ranges::fill(x.mutable_data<float>(), 0.0F);
    }
    tensors[llm::name_of(row.gguf, layer)] = {BlockType::f32, x};
  });
  return model_.with(tensors);
}

/// The largest difference of logits, relative to the largest logit.
double difference(const llm::Checkpoint& a, const llm::Checkpoint& b) {
  constexpr int64_t kTokens = 24;
  Rng rng(1);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < std::min(kTokens, a.config().context); ++i) {
    ids.push_back(static_cast<int32_t>(rng.next() % static_cast<uint64_t>(a.config().vocab_size)));
  }
  const Tensor x = llm::LanguageModel(a).logits(ids);
  const Tensor y = llm::LanguageModel(b).logits(ids);
  double most = 0;
  double size = 1e-30;
  for (size_t i = 0; i < x.data<float>().size(); ++i) {
    const auto one = static_cast<double>(x.data<float>()[i]);
    most = std::max(most, std::fabs(one - y.data<float>()[i]));
    size = std::max(size, std::fabs(one));
  }
  return most / size;
}

int64_t parameters_of(const llm::Checkpoint& model) {
  int64_t sum = 0;
  for (const llm::CheckpointTensor& t : model.tensors()) {
    if (t.difference != llm::Difference::computed) sum += t.rows() * t.columns();
  }
  return sum;
}

/// The better of a few, in turns: a machine with other work to do slows both.
void measure(const llm::Checkpoint& before, const llm::Checkpoint& after, ThinReport& report) {
  llm::SpeedOptions o;
  o.prompt_tokens = std::min<int64_t>(128, before.config().context / 2);
  o.new_tokens = std::min<int64_t>(16, before.config().context / 4);
  o.rounds = 1;
  o.decoder.capacity = o.prompt_tokens + o.new_tokens;
  o.decoder.threads = 1;
  o.decoder.activations = llm::Activations::real;
  report.model_before = {.parameters = parameters_of(before)};
  report.model_after = {.parameters = parameters_of(after)};
  const auto add = [&](const llm::Checkpoint& model, ModelSpeed& speed) {
    const llm::SpeedResult r = llm::measure_speed(llm::LanguageModel(model), o);
    speed.prompt_tokens_per_second =
        std::max(speed.prompt_tokens_per_second, r.prefill_tokens_per_second);
    speed.new_tokens_per_second = std::max(speed.new_tokens_per_second, r.decode_tokens_per_second);
  };
  constexpr int kRounds = 3;
  for (int round = 0; round < kRounds; ++round) {
    add(before, *report.model_before);
    add(after, *report.model_after);
  }
}

std::vector<ThinnedLayers> LlmThinner::describe(const ModelConfig& config) const {
  std::vector<ThinnedLayers> out;
  const auto add = [&](std::string what, int64_t before, int64_t after) {
    if (after < before) out.push_back({{std::move(what)}, before, after});
  };
  add("heads of a layer", config_.heads, config.heads);
  add("kv heads of a layer", config_.kv_heads, config.kv_heads);
  add("feed-forward neurons of a layer", config_.intermediate_size, config.intermediate_size);
  std::string gone = "layers, without";
  for (int64_t i = 0; i < config_.layers; ++i) {
    if (!std::ranges::binary_search(layers_, i)) gone += fmt::format(" blk.{}", i);
  }
  add(gone, config_.layers, config.layers);
  return out;
}

llm::Checkpoint LlmThinner::run(ThinReport& report) {
  check();
  const ModelConfig config = smaller();
  rank();
  choose(config);
  llm::Checkpoint out = thinned(config);
  report.how = to_text(thin_);
  report.difference = difference(masked(), out);
  constexpr double kRounding = 1e-4;  // of sums in another order
  if (!(report.difference <= kRounding)) {
    throw Error(
        ErrorCode::internal,
        fmt::format("the thinned model differs from the masked one by {:.3g}", report.difference));
  }
  report.groups = describe(config);
  measure(model_, out, report);
  return out;
}

}  // namespace

llm::Checkpoint thin_model(const llm::Checkpoint& model, const train::ThinOptions& thin,
                           const LlmThinSource& source, ThinReport& report) {
  return LlmThinner(model, thin, source).run(report);
}

}  // namespace narrow
