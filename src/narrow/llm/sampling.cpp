// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/quant/portable_math.h"

namespace narrow::llm {
namespace {

void check(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} is {}, not in {}..{}", name, value, low, high));
}

constexpr size_t kBlock = 64;
constexpr int32_t kInfinityBits = 0x7f800000;

/// Integers in the order of the floats; zeros of both signs are one.
int32_t order_of(float x) {
  const auto bits = std::bit_cast<int32_t>(x + 0.0F);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

/// The largest of each block of kBlock. Integers, for loops that compilers turn into vectors.
std::vector<int32_t> largest_of_blocks(std::span<const float> x) {
  std::vector<int32_t> largest;
  largest.reserve(x.size() / kBlock + 1);
  int32_t most = 0;  // of the magnitudes
  for (size_t begin = 0; begin < x.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, x.size() - begin);
    int32_t block = std::numeric_limits<int32_t>::min();
    for (size_t i = 0; i < count; ++i) {
      block = std::max(block, order_of(x[begin + i]));
      most = std::max(most, std::bit_cast<int32_t>(x[begin + i]) & 0x7fffffff);
    }
    largest.push_back(block);
  }
  if (most > kInfinityBits) {
    const auto at = std::find_if(x.begin(), x.end(), [](float v) { return std::isnan(v); });
    throw Error(ErrorCode::numeric_failure,
                fmt::format("the logit of token {} is NaN", at - x.begin()));
  }
  return largest;
}

}  // namespace

int32_t most_likely(std::span<const float> logits) {
  const std::vector<int32_t> largest = largest_of_blocks(logits);
  const auto block = std::max_element(largest.begin(), largest.end());
  if (block == largest.end()) return -1;
  size_t i = static_cast<size_t>(block - largest.begin()) * kBlock;
  while (order_of(logits[i]) != *block) ++i;
  return static_cast<int32_t>(i);
}

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

/// The logits with what the options say of tokens that were seen.
std::span<const float> Sampler::penalized(std::span<const float> logits,
                                          std::span<const int32_t> seen) {
  if (options_.repetition_penalty == 1) return logits;
  penalized_.assign(logits.begin(), logits.end());
  const size_t window = static_cast<size_t>(options_.repetition_window);
  seen = seen.last(std::min(window, seen.size()));
  std::vector<int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= penalized_.size()) continue;
    float& logit = penalized_[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  return penalized_;
}

/// The top_k best, in order; all where top_k is 0.
void Sampler::find_candidates(std::span<const float> logits) {
  const auto k = static_cast<size_t>(options_.temperature == 0 ? 1 : options_.top_k);
  std::vector<int32_t> largest = largest_of_blocks(logits);
  // k blocks have a value of at least this, so what is less is not among the k best.
  int32_t least = std::numeric_limits<int32_t>::min();
  if (k > 0 && k < largest.size()) {
    std::vector<int32_t> sorted = largest;
    const auto kth = sorted.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
    least = *kth;
  }
  candidates_.clear();
  for (size_t block = 0; block < largest.size(); ++block) {
    if (largest[block] < least) continue;
    const size_t end = std::min(logits.size(), (block + 1) * kBlock);
    for (size_t i = block * kBlock; i < end; ++i) {
      if (order_of(logits[i]) >= least) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
    }
  }
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
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
  find_candidates(penalized(logits, seen));
  if (candidates_.empty() || std::isinf(candidates_.front().logit)) {
    throw Error(ErrorCode::numeric_failure, "no token has a finite logit");
  }
  if (options_.temperature == 0) return candidates_.front().id;
  keep_probable();
  return draw();
}

}  // namespace narrow::llm
