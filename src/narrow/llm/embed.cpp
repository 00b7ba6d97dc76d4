// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/embed.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <numeric>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/llm/hf_files.h"
#include "narrow/llm/language_model.h"
#include "narrow/llm/sentence_settings.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {

namespace fs = std::filesystem;

namespace {

/// Multiply-adds of a text, some 2 ms of work, from which several threads may share it: with less,
/// waiting for each other costs more than it brings.
constexpr double kSharedMacs = 2e8;
// What runs as one piece: weights are read once for it, its activations stay in a cache.
constexpr int64_t kGroupTexts = 8;
constexpr int64_t kGroupTokens = 512;
constexpr int64_t kTextsAtOnce = 16;  // of tokenizing

using Ids = std::vector<int32_t>;

/// Texts of one length.
struct Group {
  std::vector<size_t> texts;
  int64_t length = 0;
};

/// By length, the longest first: threads end at about the same time.
std::vector<Group> groups_of(std::span<const Ids> texts, int64_t most) {
  std::vector<size_t> order(texts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return texts[a].size() > texts[b].size(); });
  std::vector<Group> groups;
  for (const size_t i : order) {
    const auto length = static_cast<int64_t>(texts[i].size());
    const bool joins = !groups.empty() && groups.back().length == length &&
                       static_cast<int64_t>(groups.back().texts.size()) <
                           std::min(most, std::max<int64_t>(1, kGroupTokens / length));
    if (!joins) groups.push_back({{}, length});
    groups.back().texts.push_back(i);
  }
  return groups;
}

/// [batch, length] of an input by its name.
Tensor input_of(const std::string& name, const Group& group, std::span<const Ids> texts) {
  const auto batch = static_cast<int64_t>(group.texts.size());
  if (name == "valid_length" || name == "position") {
    Tensor t(DType::int64, {batch});
    const int64_t value = name == "position" ? 0 : group.length;
    std::ranges::fill(t.mutable_data<int64_t>(), value);
    return t;
  }
  Tensor t(DType::int64, {batch, group.length});
  const std::span<int64_t> out = t.mutable_data<int64_t>();
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t at = i % static_cast<size_t>(group.length);
    const size_t text = group.texts[i / static_cast<size_t>(group.length)];
    if (name == "input_ids") {
      out[i] = texts[text][at];
    } else if (name == "attention_mask") {
      out[i] = 1;
    } else {
      out[i] = name == "position_ids" ? static_cast<int64_t>(at) : 0;
    }
  }
  return t;
}

std::vector<Tensor> inputs_of(const Session& session, const Group& group,
                              std::span<const Ids> texts) {
  std::vector<Tensor> inputs;
  for (const std::string& name : session.input_names()) {
    inputs.push_back(input_of(name, group, texts));
  }
  return inputs;
}

constexpr const char* kInputs[] = {"input_ids",   "attention_mask", "token_type_ids",
                                   "token_types", "position_ids",   "position",
                                   "valid_length"};

void check_inputs(const Session& session) {
  const std::vector<std::string>& names = session.input_names();
  for (const std::string& name : names) {
    if (std::ranges::find(kInputs, name) == std::end(kInputs)) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("the model has an input '{}', which no text encoder has", name),
                  "known are input_ids, attention_mask, token_type_ids and position_ids");
    }
  }
  if (std::ranges::find(names, "input_ids") == names.end()) {
    throw Error(ErrorCode::unsupported, "the model has no input 'input_ids': it reads no text");
  }
}

/// One vector of the hidden states [length, width] of a text.
void pool(Pooling pooling, const float* hidden, int64_t length, int64_t width, float* y) {
  if (pooling != Pooling::mean) {
    const int64_t row = pooling == Pooling::cls ? 0 : length - 1;
    std::copy_n(hidden + row * width, width, y);
    return;
  }
  std::vector<double> sums(static_cast<size_t>(width));
  for (int64_t r = 0; r < length; ++r) {
    for (int64_t c = 0; c < width; ++c) sums[c] += static_cast<double>(hidden[r * width + c]);
  }
  for (int64_t c = 0; c < width; ++c) {
    y[c] = static_cast<float>(sums[c] / static_cast<double>(length));
  }
}

void normalize(std::span<float> y) {
  double square = 0;
  for (const float v : y) square += static_cast<double>(v) * static_cast<double>(v);
  const double length = std::max(std::sqrt(square), 1e-12);  // as torch.nn.functional.normalize
  for (float& v : y) v = static_cast<float>(static_cast<double>(v) / length);
}

/// Where an ONNX file has its tokenizer and settings: in its metadata, in its folder, or one folder
/// up (model/onnx/model.onnx).
HfTexts texts_of(const Graph& graph, const fs::path& file) {
  const std::string prefix(kHfPrefix);
  if (graph.metadata.contains(prefix + "tokenizer.json")) {
    return [metadata = graph.metadata, prefix](const std::string& path) {
      const auto found = metadata.find(prefix + path);
      return found == metadata.end() ? std::nullopt : std::optional(found->second);
    };
  }
  const fs::path own = file.has_parent_path() ? file.parent_path() : fs::path(".");
  for (const fs::path& folder : {own, own / ".."}) {
    if (fs::exists(folder / "tokenizer.json")) return texts_in_folder(folder);
  }
  throw Error(ErrorCode::not_found,
              "no tokenizer: neither in the file nor as tokenizer.json beside it",
              "copy the files of the model's tokenizer there");
}

Tokenizer tokenizer_of(const HfTexts& texts) {
  TokenizerData data = tokenizer_data_from_json(texts("tokenizer.json").value());
  if (const auto text = texts("tokenizer_config.json")) apply_tokenizer_config(data, *text);
  return Tokenizer(std::move(data));
}

/// 0 where no file says it.
int64_t positions_of(const HfTexts& texts) {
  const std::optional<std::string> text = texts("config.json");
  return text ? config_from_hf(*text).context : 0;
}

/// Hidden states instead of logits.
Graph hidden_graph(const Checkpoint& checkpoint, const GraphOptions& options) {
  Graph graph = build_graph(checkpoint, options);
  if (!checkpoint.config().causal) return graph;
  const std::optional<ValueId> hidden = graph.find_value("output_norm");
  if (!hidden) throw Error(ErrorCode::internal, "the decoder's graph has no 'output_norm'");
  graph.replace_output(graph.outputs().front(), *hidden);
  graph.remove_dead();
  return graph;
}

/// Products of weights in blocks, of 16 bits and of dynamically quantized rows give a row the same
/// bits whatever rows stand beside it; others do not promise that.
bool rows_stand_alone(const Session& session) {
  constexpr std::string_view kOthers[] = {"MatMul", "Gemm", "FusedGemm", "WGemm",
                                          "DynamicQuantizeLinear"};
  return std::ranges::none_of(session.kernel_choices(), [&](const KernelChoice& c) {
    return std::ranges::find(kOthers, c.op.substr(c.op.rfind(':') + 1)) != std::end(kOthers);
  });
}

/// Our own kernels give the same bits for any number of threads; a library's promise nothing.
bool threads_change_nothing(const Session& session) {
  return std::ranges::none_of(session.kernel_choices(),
                              [](const KernelChoice& c) { return c.chosen == "onednn"; });
}

}  // namespace

struct Embedder::Impl {
  EmbedOptions options;
  std::optional<Session> session;
  std::optional<Tokenizer> tokenizer;
  std::string prompt;
  size_t output = 0;
  int64_t width = 0;
  double token_macs = 0;  // multiply-adds of a token
  bool joins = false;     // texts of one length may run together
  bool spreads = false;   // threads may share one text

  void open_checkpoint(const fs::path& path);
  void open_onnx(const fs::path& path);
  void use_settings(const SentenceSettings& settings, Pooling fallback);
  Tensor run_probe();
  void limit_tokens(int64_t own, int64_t positions);
  void run_group(const Group& group, std::span<const Ids> texts, float* y) const;
  void run_groups(const std::vector<Group>& groups, std::span<const Ids> texts, float* y,
                  const Progress& progress, int64_t done, int64_t total) const;
  Ids encode(std::string_view text, bool* truncated) const;
  Tensor run(std::span<const Ids> texts, const Progress& progress, int64_t done,
             int64_t total) const;
};

void Embedder::Impl::use_settings(const SentenceSettings& settings, Pooling fallback) {
  prompt = settings.prompt;
  if (!options.pooling) options.pooling = settings.pooling.value_or(fallback);
  if (*options.pooling == Pooling::none) {
    throw Error(ErrorCode::invalid_argument, "the model does not say how its vectors are pooled",
                "say which: mean, cls or last");
  }
}

void Embedder::Impl::limit_tokens(int64_t own, int64_t positions) {
  if (options.max_tokens > positions && positions > 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("texts of {} tokens do not fit the model's {} positions",
                            options.max_tokens, positions));
  }
  if (options.max_tokens == 0) options.max_tokens = own > 0 ? own : positions;
  if (positions > 0) options.max_tokens = std::min(options.max_tokens, positions);
  const TokenizerData& data = tokenizer->data();
  const auto special = static_cast<int64_t>(data.prefix_ids.size() + data.suffix_ids.size());
  if (options.max_tokens <= special) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} tokens leave nothing of a text: {} are special", options.max_tokens,
                            special));
  }
}

void Embedder::Impl::open_checkpoint(const fs::path& path) {
  const LanguageModel model = LanguageModel::open(path);
  const ModelConfig& config = model.config();
  tokenizer.emplace(model.checkpoint().tokenizer());
  SentenceSettings settings;
  if (!model.checkpoint().is_gguf()) {
    settings = read_sentence_settings(texts_in_folder(model.checkpoint().folder()));
  }
  if (!settings.pooling && config.pooling != Pooling::none) settings.pooling = config.pooling;
  use_settings(settings, config.causal ? Pooling::none : Pooling::mean);
  limit_tokens(settings.max_tokens, config.context);
  GraphOptions graph;
  graph.capacity = options.max_tokens;
  graph.activations = options.activations;
  session.emplace(hidden_graph(model.checkpoint(), graph));
  width = config.hidden_size;
  joins = rows_stand_alone(*session);
  spreads = threads_change_nothing(*session);
  (void)run_probe();
}

void Embedder::Impl::open_onnx(const fs::path& path) {
  Graph graph = read_onnx(path);
  const HfTexts texts = texts_of(graph, path);
  tokenizer.emplace(tokenizer_of(texts));
  const SentenceSettings settings = read_sentence_settings(texts);
  use_settings(settings, Pooling::mean);
  constexpr int64_t kUsual = 512;  // BERT's positions
  const int64_t positions = positions_of(texts);
  limit_tokens(settings.max_tokens > 0 || positions > 0 ? settings.max_tokens : kUsual, positions);
  SessionOptions session_options;
  session_options.sample_ranges = true;
  const bool own = graph.producer_name == "narrow";  // others may mix the texts of a batch
  session.emplace(std::move(graph), std::move(session_options));
  check_inputs(*session);
  joins = own && rows_stand_alone(*session);
  spreads = threads_change_nothing(*session);
  const std::vector<std::string>& names = session->output_names();
  const auto named = std::ranges::find(names, "last_hidden_state");
  output = named == names.end() ? 0 : static_cast<size_t>(named - names.begin());
  const Tensor hidden = run_probe();
  if (hidden.dtype() != DType::float32 || hidden.rank() != 3) {
    throw Error(ErrorCode::unsupported,
                fmt::format("output '{}' is {}, no hidden states [batch, length, width]",
                            names[output], hidden.describe()));
  }
  width = hidden.dim(2);
}

/// An empty text: is the model one that reads texts, and how much work is a token?
Tensor Embedder::Impl::run_probe() {
  std::vector<Ids> probe{encode("", nullptr)};
  if (probe.front().empty()) probe.front().push_back(0);
  const ThreadLimit one(1);
  const Group group{{0}, static_cast<int64_t>(probe.front().size())};
  const std::vector<Tensor> inputs = inputs_of(*session, group, probe);
  std::vector<Dims> dims;
  for (const Tensor& t : inputs) dims.push_back(t.dims());
  token_macs =
      static_cast<double>(session->count_macs(dims).total) / static_cast<double>(group.length);
  return session->run(inputs)[output];
}

Ids Embedder::Impl::encode(std::string_view text, bool* truncated) const {
  const TokenizerData& data = tokenizer->data();
  Ids body = prompt.empty() ? tokenizer->encode(text, {.add_special = false})
                            : tokenizer->encode(prompt + std::string(text), {.add_special = false});
  const auto room =
      static_cast<size_t>(options.max_tokens) - data.prefix_ids.size() - data.suffix_ids.size();
  if (truncated) *truncated = body.size() > room;
  if (body.size() > room) body.resize(room);
  body.insert(body.begin(), data.prefix_ids.begin(), data.prefix_ids.end());
  body.insert(body.end(), data.suffix_ids.begin(), data.suffix_ids.end());
  return body;
}

void Embedder::Impl::run_group(const Group& group, std::span<const Ids> texts, float* y) const {
  const Tensor hidden = session->run(inputs_of(*session, group, texts))[output];
  const float* rows = hidden.data<float>().data();
  for (size_t i = 0; i < group.texts.size(); ++i) {
    const std::span<float> vector(y + static_cast<int64_t>(group.texts[i]) * width,
                                  static_cast<size_t>(width));
    pool(*options.pooling, rows + static_cast<int64_t>(i) * group.length * width, group.length,
         width, vector.data());
    if (options.normalize) normalize(vector);
    if (!std::ranges::all_of(vector, [](float v) { return std::isfinite(v); })) {
      throw Error(ErrorCode::numeric_failure, "a vector is not finite: the model is broken");
    }
  }
}

void Embedder::Impl::run_groups(const std::vector<Group>& groups, std::span<const Ids> texts,
                                float* y, const Progress& progress, int64_t done,
                                int64_t total) const {
  std::mutex mutex;
  const auto run_one = [&](int64_t i) {
    progress.check_cancelled();
    const Group& group = groups[static_cast<size_t>(i)];
    run_group(group, texts, y);
    const std::lock_guard lock(mutex);
    done += static_cast<int64_t>(group.texts.size());
    progress.report("embed", done, total);
  };
  const auto count = static_cast<int64_t>(groups.size());
  const ThreadLimit limit(options.threads);
  const double macs = groups.empty() ? 0 : token_macs * static_cast<double>(groups[0].length);
  if (count >= current_threads() || !spreads || macs < kSharedMacs) {
    const ThreadLimit one(std::min<int>(current_threads(), static_cast<int>(count)));
    return parallel_blocks(count, run_one);
  }
  for (int64_t i = 0; i < count; ++i) run_one(i);
}

Tensor Embedder::Impl::run(std::span<const Ids> texts, const Progress& progress, int64_t done,
                           int64_t total) const {
  Tensor y(DType::float32, {static_cast<int64_t>(texts.size()), width});
  run_groups(groups_of(texts, joins ? kGroupTexts : 1), texts, y.mutable_data<float>().data(),
             progress, done, total);
  return y;
}

Embedder Embedder::open(const fs::path& path, const EmbedOptions& options) {
  if (options.max_tokens < 0 || options.batch < 1) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("max_tokens {}, batch {}", options.max_tokens, options.batch));
  }
  auto impl = std::make_shared<Impl>();
  impl->options = options;
  try {
    if (path.extension() == ".onnx") {
      impl->open_onnx(path);
    } else {
      impl->open_checkpoint(path);
    }
  } catch (Error& e) {
    if (std::string(e.what()).find(path.string()) == std::string::npos)
      e.add_context(path.string());
    throw;
  }
  Embedder embedder;
  embedder.impl_ = std::move(impl);
  return embedder;
}

int64_t Embedder::width() const {
  return impl_->width;
}
int64_t Embedder::max_tokens() const {
  return impl_->options.max_tokens;
}
Pooling Embedder::pooling() const {
  return *impl_->options.pooling;
}

Ids Embedder::encode(std::string_view text, bool* truncated) const {
  return impl_->encode(text, truncated);
}

Tensor Embedder::embed_ids(std::span<const Ids> texts, const Progress& progress) const {
  for (const Ids& ids : texts) {
    const auto length = static_cast<int64_t>(ids.size());
    if (length < 1 || length > max_tokens()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("a text of {} tokens; 1 to {} are possible", length, max_tokens()));
    }
  }
  return impl_->run(texts, progress, 0, static_cast<int64_t>(texts.size()));
}

EmbedCounts Embedder::embed(std::span<const std::string_view> texts, const Sink& sink,
                            const Progress& progress) const {
  EmbedCounts counts;
  counts.texts = static_cast<int64_t>(texts.size());
  for (int64_t done = 0; done < counts.texts; done += impl_->options.batch) {
    const int64_t size = std::min(impl_->options.batch, counts.texts - done);
    std::vector<Ids> ids(static_cast<size_t>(size));
    std::atomic<int64_t> truncated{0};
    std::atomic<int64_t> ill_formed{0};
    auto start = Clock::now();
    {
      const ThreadLimit limit(impl_->options.threads);
      parallel_for(size, kTextsAtOnce, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          progress.check_cancelled();
          const std::string_view text = texts[static_cast<size_t>(done + i)];
          bool cut = false;
          ids[static_cast<size_t>(i)] = impl_->encode(text, &cut);
          truncated += cut ? 1 : 0;
          ill_formed += is_valid_utf8(text) ? 0 : 1;
        }
      });
    }
    counts.tokenize_seconds += seconds_since(start);
    counts.truncated += truncated;
    counts.ill_formed += ill_formed;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i].empty()) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("text {} has no token, so it has no vector",
                                done + static_cast<int64_t>(i) + 1),
                    "leave empty lines out; the tokenizer puts nothing around a text");
      }
      counts.tokens += static_cast<int64_t>(ids[i].size());
    }
    start = Clock::now();
    const Tensor rows = impl_->run(ids, progress, done, counts.texts);
    counts.model_seconds += seconds_since(start);
    sink(rows);
  }
  return counts;
}

}  // namespace narrow::llm
