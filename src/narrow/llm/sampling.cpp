// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/quant/portable_math.h"

namespace narrow::llm {
namespace {

void check(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} is {}, not in {}..{}", name, value, low, high));
}

}  // namespace

void check_sampling(const SamplingOptions& o) {
  check("temperature", o.temperature, 0, 100);
  check("top_p", o.top_p, 0, 1);
  check("min_p", o.min_p, 0, 1);
  check("repetition_penalty", o.repetition_penalty, 0.01, 100);
  if (o.top_k < 0 || o.repetition_window < 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("top_k is {}, repetition_window {}: not below 0", o.top_k,
                            o.repetition_window));
  }
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), rng_(options.seed) {
  check_sampling(options);
}

/// Candidates are in the order of their ids here.
void Sampler::penalize(std::span<const int32_t> seen) {
  if (options_.repetition_penalty == 1) return;
  const size_t window = static_cast<size_t>(options_.repetition_window);
  seen = seen.last(std::min(window, seen.size()));
  std::vector<int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= candidates_.size()) continue;
    float& logit = candidates_[static_cast<size_t>(id)].logit;
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

/// The top_k best, in order; all where top_k is 0.
void Sampler::keep_best() {
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const auto k = static_cast<size_t>(options_.temperature == 0 ? 1 : options_.top_k);
  if (k > 0 && k < candidates_.size()) {
    const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(k);
    std::nth_element(candidates_.begin(), end - 1, candidates_.end(), better);
    candidates_.erase(end, candidates_.end());
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
}

/// Not normalized; the first, best candidate has 1.
std::vector<double> Sampler::weights(double temperature) const {
  std::vector<double> w;
  w.reserve(candidates_.size());
  const auto best = static_cast<double>(candidates_.front().logit);
  for (const Candidate& c : candidates_) {
    w.push_back(portable_exp((static_cast<double>(c.logit) - best) / temperature));
  }
  return w;
}

void Sampler::keep_probable() {
  if (options_.top_p >= 1 && options_.min_p <= 0) return;
  const std::vector<double> w = weights(1);
  size_t count = w.size();
  if (options_.top_p < 1) {
    double total = 0;
    for (const double x : w) total += x;
    double sum = 0;
    count = 0;
    while (count < w.size() && (count == 0 || sum < options_.top_p * total)) sum += w[count++];
  }
  // The best has weight 1, so weights are shares of the largest probability.
  while (count > 1 && w[count - 1] < options_.min_p) --count;
  candidates_.resize(count);
}

int32_t Sampler::draw() {
  const std::vector<double> w = weights(options_.temperature);
  double total = 0;
  for (const double x : w) total += x;
  double at = rng_.uniform() * total;
  for (size_t i = 0; i < w.size(); ++i) {
    at -= w[i];
    if (at < 0) return candidates_[i].id;
  }
  return candidates_.back().id;  // rounding
}

int32_t Sampler::pick(std::span<const float> logits, std::span<const int32_t> seen) {
  candidates_.clear();
  candidates_.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      throw Error(ErrorCode::numeric_failure, fmt::format("the logit of token {} is NaN", i));
    }
    candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  }
  penalize(seen);
  keep_best();
  if (candidates_.empty() || std::isinf(candidates_.front().logit)) {
    throw Error(ErrorCode::numeric_failure, "no token has a finite logit");
  }
  if (options_.temperature == 0) return candidates_.front().id;
  keep_probable();
  return draw();
}

}  // namespace narrow::llm
