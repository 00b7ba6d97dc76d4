// SPDX-License-Identifier: Apache-2.0
// How fast a language model reads a prompt and makes tokens, beside what the memory allows:
// decoding one sequence reads every weight once a token.
#pragma once

#include <cstdint>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/llm/language_model.h"

namespace narrow::llm {

struct SpeedOptions {
  int64_t prompt_tokens = 256;
  int64_t new_tokens = 64;
  int64_t rounds = 3;  // each reads the prompt anew; medians count
  uint64_t seed = 1;   // of the random prompt
  DecoderOptions decoder;
  Progress progress;
};

struct SpeedResult {
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;
  int threads = 0;
  double load_seconds = 0;  // plan, and weights brought into the kernels' layouts
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  uint64_t bytes_per_token = 0;  // weights and cache that one decoded token reads
  double achieved_gb_per_s = 0;  // of them, 10^9 bytes
  std::vector<int32_t> ids;      // what was decoded, always the most likely token
};

/// Throws invalid_argument where prompt and new tokens exceed the decoder's capacity.
SpeedResult measure_speed(const LanguageModel& model, const SpeedOptions& options);

/// Bytes of weights that one decoded token reads.
uint64_t weight_bytes_per_token(const Checkpoint& checkpoint);

}  // namespace narrow::llm
