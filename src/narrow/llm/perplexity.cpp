// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/memory.h"
#include "narrow/core/parallel.h"

namespace narrow::llm {
namespace {

/// Tokens that run together, and which rows of the logits are scored against which tokens.
struct Window {
  int64_t begin = 0;  // in the text
  int64_t length = 0;
  int64_t first = 0;  // the first row that predicts a scored token
};

struct TokenScore {
  double nll = 0;
  double reference_nll = 0;
  double kl = 0;
  bool same_top = false;
};

std::vector<Window> windows_of(int64_t tokens, const PerplexityOptions& o) {
  std::vector<Window> windows;
  const auto full = [&] {
    return o.chunks > 0 && static_cast<int64_t>(windows.size()) >= o.chunks;
  };
  if (o.windows == Windows::halves) {
    for (int64_t at = 0; at + o.context <= tokens && !full(); at += o.context) {
      windows.push_back({at, o.context, o.context / 2});
    }
    return windows;
  }
  const int64_t stride = o.stride > 0 ? o.stride : o.context;
  int64_t scored = 1;  // tokens before this one are scored or have nothing before them
  for (int64_t at = 0; scored < tokens && !full(); at += stride) {
    const int64_t end = std::min(at + o.context, tokens);
    // With stride = context the first token of a window has nothing before it in it: not scored.
    const int64_t first = std::max<int64_t>(scored - at, 1) - 1;
    if (end - at > first + 1) windows.push_back({at, end - at, first});
    scored = end;
  }
  return windows;
}

/// ln of the sum of e^x, and where the largest stands.
struct LogSum {
  double value = 0;
  int64_t top = 0;
};

LogSum log_sum(const float* x, int64_t n) {
  int64_t top = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(x[i]);
    if (x[i] > x[top]) top = i;
  }
  if (!finite) {
    throw Error(ErrorCode::numeric_failure, "a logit is not finite: the model is broken");
  }
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(std::exp(x[i] - x[top]));
  return {static_cast<double>(x[top]) + std::log(sum), top};
}

/// One token: the row of the model, of the reference (or null), and what came.
TokenScore score(const float* x, const float* r, int64_t vocab, int64_t token) {
  TokenScore s;
  const LogSum own = log_sum(x, vocab);
  s.nll = own.value - static_cast<double>(x[token]);
  if (r == nullptr) return s;
  const LogSum other = log_sum(r, vocab);
  s.reference_nll = other.value - static_cast<double>(r[token]);
  s.same_top = own.top == other.top;
  // sum p_r (ln p_r - ln p) = sum p_r (r - x) + ln Z_x - ln Z_r.
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double p =
        static_cast<double>(std::exp(static_cast<float>(static_cast<double>(r[i]) - other.value)));
    sum += p * (static_cast<double>(r[i]) - static_cast<double>(x[i]));
  }
  s.kl = std::max(0.0, sum + own.value - other.value);
  return s;
}

template <class F>
Estimate estimate(const std::vector<TokenScore>& scores, F&& value) {
  const auto n = static_cast<double>(scores.size());
  double mean = 0;
  for (const TokenScore& s : scores) mean += value(s);
  mean /= n;
  double square = 0;
  for (const TokenScore& s : scores) square += (value(s) - mean) * (value(s) - mean);
  return {mean, n > 1 ? std::sqrt(square / n / (n - 1)) : 0};
}

Estimate as_perplexity(const Estimate& nll) {
  const double perplexity = std::exp(nll.mean);
  return {perplexity, perplexity * nll.error};
}

Divergence divergence_of(const std::vector<TokenScore>& scores) {
  Divergence d;
  d.kl = estimate(scores, [](const TokenScore& s) { return s.kl; });
  d.same_top = estimate(scores, [](const TokenScore& s) { return s.same_top ? 1.0 : 0.0; });
  d.log_ratio = estimate(scores, [](const TokenScore& s) { return s.nll - s.reference_nll; });
  d.reference_perplexity =
      as_perplexity(estimate(scores, [](const TokenScore& s) { return s.reference_nll; }));
  std::vector<double> kl;
  for (const TokenScore& s : scores) kl.push_back(s.kl);
  std::sort(kl.begin(), kl.end());
  const auto quantile = [&kl](double share) {
    const auto at = static_cast<size_t>(std::ceil(share * static_cast<double>(kl.size())));
    return kl[std::clamp<size_t>(at, 1, kl.size()) - 1];
  };
  d.kl_median = quantile(0.5);
  d.kl_99 = quantile(0.99);
  d.kl_999 = quantile(0.999);
  d.kl_max = kl.back();
  return d;
}

/// Runs windows of one length and one first row side by side.
class Runner {
 public:
  Runner(const LanguageModel& model, const LanguageModel* reference, std::span<const int32_t> ids,
         const PerplexityOptions& options, const Progress& progress)
      : model_(model), reference_(reference), ids_(ids), options_(options), progress_(progress) {}

  void run(std::span<const Window> windows, std::vector<TokenScore>& scores);

 private:
  void prepare(const Window& window);
  Tensor logits(const Session& session, const std::vector<Tensor>& inputs, int64_t batch) const;
  Tensor inputs_of(std::span<const Window> windows) const;

  const LanguageModel& model_;
  const LanguageModel* reference_;
  std::span<const int32_t> ids_;
  PerplexityOptions options_;
  const Progress& progress_;
  int64_t first_ = -1;  // of the sessions
  std::optional<Session> session_;
  std::optional<Session> reference_session_;
};

void Runner::prepare(const Window& window) {
  if (first_ == window.first) return;
  GraphOptions graph;
  graph.capacity = options_.context;
  graph.first_logit = window.first;
  graph.activations = options_.activations;
  graph.cache = options_.cache;
  const LoadOptions load{options_.threads, options_.repack, progress_};
  session_.emplace(model_.make_session(graph, load));
  graph.cache = CacheType::none;
  if (reference_) reference_session_.emplace(reference_->make_session(graph, load));
  first_ = window.first;
}

/// A cache begins empty: what is left of other windows stands behind the tokens of this one.
Tensor Runner::logits(const Session& session, const std::vector<Tensor>& inputs,
                      int64_t batch) const {
  if (options_.cache == CacheType::none) return session.run(inputs).front();
  State state = session.make_state({{"batch", batch}});
  return session.run(inputs, state).front();
}

Tensor Runner::inputs_of(std::span<const Window> windows) const {
  std::vector<int32_t> ids;
  for (const Window& w : windows) {
    const auto part = ids_.subspan(static_cast<size_t>(w.begin), static_cast<size_t>(w.length));
    ids.insert(ids.end(), part.begin(), part.end());
    const bool replace = options_.windows == Windows::halves && options_.bos >= 0;
    if (replace) ids[ids.size() - part.size()] = options_.bos;
  }
  return ids_tensor(ids, static_cast<int64_t>(windows.size()));
}

void Runner::run(std::span<const Window> windows, std::vector<TokenScore>& scores) {
  const Window& one = windows.front();
  prepare(one);
  const auto batch = static_cast<int64_t>(windows.size());
  const std::vector<Tensor> inputs{inputs_of(windows), Tensor(DType::int64, {batch})};
  const Tensor own = logits(*session_, inputs, batch);
  Tensor other;
  if (reference_) other = reference_session_->run(inputs).front();
  const int64_t vocab = own.dim(2);
  const int64_t rows = own.dim(1);
  const int64_t scored = one.length - one.first - 1;
  const size_t at = scores.size();
  scores.resize(at + static_cast<size_t>(batch * scored));
  const ThreadLimit limit(options_.threads);
  parallel_for(batch * scored, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t window = i / scored;
      const int64_t row = i % scored;
      const int64_t place = (window * rows + row) * vocab;
      const int64_t next = windows[static_cast<size_t>(window)].begin + one.first + row + 1;
      const float* r = reference_ ? other.data<float>().data() + place : nullptr;
      scores[at + static_cast<size_t>(i)] =
          score(own.data<float>().data() + place, r, vocab, ids_[static_cast<size_t>(next)]);
    }
  });
}

/// Windows that may run together: the same length and first row, logits of at most 256 MiB.
int64_t batch_size(const Window& window, int64_t vocab, const PerplexityOptions& options) {
  constexpr int64_t kMostLogits = int64_t{64} << 20;
  const int64_t rows = window.length - window.first;
  const int64_t by_memory = kMostLogits / std::max<int64_t>(1, rows * vocab);
  return std::max<int64_t>(1, std::min(options.batch_tokens / window.length, by_memory));
}

void check_memory(const LanguageModel& model, const LanguageModel* reference,
                  const PerplexityOptions& options) {
  const uint64_t available = available_memory();
  const auto need_of = [&](const LanguageModel& of) {
    return memory_need(of.checkpoint(), memory_plan(of.config(), options));
  };
  MemoryNeed need = need_of(model);
  if (reference) {
    const MemoryNeed other = need_of(*reference);
    need.packed_bytes += other.packed_bytes;
    need.work_bytes += other.work_bytes;
  }
  llm::check_memory(need, memory_plan(model.config(), options), available);
}

}  // namespace

MemoryPlan memory_plan(const ModelConfig& config, const PerplexityOptions& options) {
  const bool halves = options.windows == Windows::halves;
  const Window window{0, options.context, halves ? options.context / 2 : 0};
  MemoryPlan plan;
  plan.cache = options.cache;
  plan.capacity = options.context;
  plan.sequences = batch_size(window, config.vocab_size, options);
  plan.tokens = options.context;
  plan.logit_rows = window.length - window.first;
  plan.repack = options.repack;
  return plan;
}

int32_t chunk_bos(const Tokenizer& tokenizer) {
  const int32_t bos = tokenizer.special().bos;
  return bos >= 0 && !tokenizer.is_end(bos) ? bos : -1;
}

void check_perplexity(const LanguageModel& model, int64_t tokens, const PerplexityOptions& o,
                      const LanguageModel* reference) {
  const auto refuse = [](const std::string& message, const std::string& hint = {}) {
    throw Error(ErrorCode::invalid_argument, message, hint);
  };
  if (o.context < 4 || o.stride < 0 || o.stride > o.context || o.chunks < 0) {
    refuse(fmt::format("a context of {} and a stride of {}", o.context, o.stride),
           "the context is at least 4, the stride at most the context");
  }
  const int64_t needed = o.windows == Windows::halves ? o.context : 2;
  if (tokens < needed) {
    refuse(fmt::format("the text has {} tokens, a chunk takes {}", tokens, needed),
           "give a longer text or a shorter context");
  }
  if (reference && reference->config().vocab_size != model.config().vocab_size) {
    refuse(fmt::format("the reference has {} tokens in its vocabulary, the model {}",
                       reference->config().vocab_size, model.config().vocab_size),
           "compare models of one tokenizer");
  }
}

PerplexityResult perplexity(const LanguageModel& model, std::span<const int32_t> ids,
                            const PerplexityOptions& options, const LanguageModel* reference,
                            const Progress& progress) {
  const auto tokens = static_cast<int64_t>(ids.size());
  check_perplexity(model, tokens, options, reference);
  const std::vector<Window> windows = windows_of(tokens, options);
  check_memory(model, reference, options);
  Runner runner(model, reference, ids, options, progress);
  std::vector<TokenScore> scores;
  const auto count = static_cast<int64_t>(windows.size());
  for (int64_t done = 0; done < count;) {
    progress.check_cancelled();
    progress.report("perplexity", done, count);
    const Window& one = windows[static_cast<size_t>(done)];
    const int64_t most = batch_size(one, model.config().vocab_size, options);
    int64_t size = 1;
    while (size < most && done + size < count &&
           windows[static_cast<size_t>(done + size)].length == one.length &&
           windows[static_cast<size_t>(done + size)].first == one.first) {
      ++size;
    }
    runner.run(std::span(windows).subspan(static_cast<size_t>(done), static_cast<size_t>(size)),
               scores);
    done += size;
  }
  progress.report("perplexity", count, count);
  PerplexityResult result;
  result.tokens = static_cast<int64_t>(scores.size());
  result.chunks = count;
  result.perplexity = as_perplexity(estimate(scores, [](const TokenScore& s) { return s.nll; }));
  if (reference) result.divergence = divergence_of(scores);
  return result;
}

}  // namespace narrow::llm
