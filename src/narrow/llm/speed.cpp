// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/speed.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/llm/sampling.h"

namespace narrow::llm {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

void check(const SpeedOptions& options, int64_t capacity) {
  if (options.prompt_tokens < 1 || options.new_tokens < 1 || options.rounds < 1) {
    throw Error(ErrorCode::invalid_argument, "a prompt, new tokens and rounds are at least one");
  }
  if (options.prompt_tokens > capacity - options.new_tokens) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} tokens of prompt and {} new ones exceed the context of {}",
                            options.prompt_tokens, options.new_tokens, capacity),
                "ask for fewer tokens");
  }
}

}  // namespace

uint64_t weight_bytes_per_token(const Checkpoint& checkpoint) {
  uint64_t bytes = 0;
  for (const CheckpointTensor& t : checkpoint.tensors()) {
    const bool looked_up = t.name == "position_embd.weight" ||
                           (t.name == "token_embd.weight" && !checkpoint.config().tied_embedding);
    if (!looked_up) bytes += t.bytes();
  }
  return bytes;
}

SpeedResult measure_speed(const LanguageModel& model, const SpeedOptions& options) {
  DecoderOptions decoder_options = options.decoder;
  if (decoder_options.capacity == 0) decoder_options.capacity = model.config().context;
  check(options, decoder_options.capacity);
  SpeedResult result;
  result.prompt_tokens = options.prompt_tokens;
  result.new_tokens = options.new_tokens;
  result.threads = decoder_options.threads > 0 ? decoder_options.threads : available_threads();
  auto start = Clock::now();
  const CachedDecoder decoder(model, decoder_options);
  result.load_seconds = seconds_since(start);

  Rng rng(options.seed);
  std::vector<int32_t> prompt(static_cast<size_t>(options.prompt_tokens));
  const auto vocabulary = static_cast<uint64_t>(model.config().vocab_size);
  for (int32_t& id : prompt) id = static_cast<int32_t>(rng.below(vocabulary));

  std::vector<double> prefill;
  std::vector<double> decode;
  Sequence sequence = decoder.start();
  decoder.feed(sequence, prompt);  // plans are made, pages are in memory
  for (int64_t round = 0; round < options.rounds; ++round) {
    options.progress.check_cancelled();
    sequence.truncate(0);
    result.ids.clear();
    start = Clock::now();
    Tensor logits = decoder.feed(sequence, prompt);
    prefill.push_back(seconds_since(start));
    int32_t next = most_likely(logits.data<float>());
    if (round == 0) {  // the plan of a single token
      decoder.feed(sequence, {&next, 1});
      sequence.truncate(options.prompt_tokens);
    }
    start = Clock::now();
    for (int64_t i = 0; i < options.new_tokens; ++i) {
      result.ids.push_back(next);
      next = most_likely(decoder.feed(sequence, {&next, 1}).data<float>());
    }
    decode.push_back(seconds_since(start));
  }
  result.prefill_tokens_per_second = static_cast<double>(options.prompt_tokens) / median(prefill);
  result.decode_tokens_per_second = static_cast<double>(options.new_tokens) / median(decode);
  const int64_t cached = options.prompt_tokens + options.new_tokens / 2;
  result.bytes_per_token = weight_bytes_per_token(model.checkpoint()) +
                           cache_bytes(model.config(), decoder_options.cache, cached);
  result.achieved_gb_per_s =
      static_cast<double>(result.bytes_per_token) * 1e-9 * result.decode_tokens_per_second;
  return result;
}

}  // namespace narrow::llm
