// SPDX-License-Identifier: Apache-2.0
// The next token of a generated text. Logits are first changed for tokens seen lately, then tokens
// are left out in the order top_k, top_p, min_p, and one of the rest is drawn by the probabilities
// at the temperature. Probabilities for the two last filters are those at temperature 1 among what
// the filter before left.
//
// The same logits, options and seed give the same token on every machine: exponentials are those of
// quant/portable_math.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/core/rng.h"

namespace narrow::llm {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the most likely token
  int64_t top_k = 40;        // so many most likely tokens; 0: all
  double top_p = 0.95;       // the fewest most likely ones with so much probability together
  double min_p = 0.05;       // those with at least this share of the largest probability
  /// Logits of the last `repetition_window` tokens: positive ones are divided by this, negative
  /// ones multiplied (Keskar et al., CTRL, 2019). 1: off.
  double repetition_penalty = 1;
  int64_t repetition_window = 64;
  uint64_t seed = 1;
};

/// Throws invalid_argument naming the option that makes no sense.
void check_sampling(const SamplingOptions& options);

/// The id of the largest logit, the smallest such id; -1 where there are none. Throws
/// numeric_failure where a logit is NaN.
int32_t most_likely(std::span<const float> logits);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  /// `seen` are all tokens so far, the last one last. Equal logits: the smaller id counts as more
  /// likely. Throws numeric_failure where a logit is NaN or all are -infinity.
  int32_t pick(std::span<const float> logits, std::span<const int32_t> seen);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  std::span<const float> penalized(std::span<const float> logits, std::span<const int32_t> seen);
  void find_candidates(std::span<const float> logits);
  std::vector<double> weights(double temperature) const;
  void keep_probable();
  int32_t draw();

  SamplingOptions options_;
  Rng rng_;
  std::vector<float> penalized_;
  std::vector<Candidate> candidates_;
};

}  // namespace narrow::llm
