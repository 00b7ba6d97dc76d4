// SPDX-License-Identifier: Apache-2.0
// How well a language model predicts a text, and how far it is from another one.
//
// Conventions:
//   halves   llama.cpp's: the text is cut in chunks of `context` tokens, a rest is dropped. In each
//            the first token is replaced by the tokenizer's bos where it has one that ends no text,
//            and the tokens behind the first half are scored: context - context / 2 - 1 of them.
//   sliding  the papers': windows of `context` tokens begin every `stride` tokens, a last one may
//   be
//            short, and each token but the first is scored once, in the first window that has it.
//            stride = context is the usual evaluation of quantized models.
//
// With nll_i = -ln p(token i), n scored tokens and m their mean:
//   perplexity = exp(m),  its standard error = perplexity * sqrt((mean(nll^2) - m^2) / (n - 1))
// Against a reference, per scored token: KL = sum over the vocabulary of p_ref ln(p_ref / p).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "narrow/core/progress.h"
#include "narrow/llm/language_model.h"

namespace narrow::llm {

enum class Windows : uint8_t { halves, sliding };

struct PerplexityOptions {
  int64_t context = 512;
  int64_t chunks = 0;  // at most so many; 0: all
  Windows windows = Windows::halves;
  int64_t stride = 0;  // of sliding; 0: context
  /// Replaces the first token of chunks (halves); -1: none.
  int32_t bos = -1;
  /// Tokens that run together: chunks are put side by side up to about this many.
  int64_t batch_tokens = 2048;
  int threads = 0;
  Activations activations = Activations::quantized;
  /// Keys and values go through such a cache, whose rounding counts then; none: as they are.
  CacheType cache = CacheType::none;
  bool repack = true;  // as in LoadOptions
};

/// A mean and its standard error.
struct Estimate {
  double mean = 0;
  double error = 0;
};

/// Of a model against its reference.
struct Divergence {
  Estimate kl;
  double kl_median = 0;
  double kl_99 = 0;   // 99 % of the tokens are not above this
  double kl_999 = 0;  // 99.9 %
  double kl_max = 0;
  Estimate same_top;   // share of tokens where both have the same most likely token
  Estimate log_ratio;  // ln(perplexity / reference's); the error is that of paired differences
  Estimate reference_perplexity;
};

struct PerplexityResult {
  Estimate perplexity;
  int64_t tokens = 0;  // scored
  int64_t chunks = 0;
  std::optional<Divergence> divergence;
};

/// The bos that halves puts in front of chunks, as llama.cpp does: the tokenizer's, unless that
/// ends texts too (gpt2's), or -1.
int32_t chunk_bos(const Tokenizer& tokenizer);

/// Of the model alone, for memory_need().
MemoryPlan memory_plan(const ModelConfig& config, const PerplexityOptions& options);

/// Throws invalid_argument for fewer tokens than one chunk or options that make no sense, and where
/// reference and model have vocabularies of different sizes.
void check_perplexity(const LanguageModel& model, int64_t tokens, const PerplexityOptions& options,
                      const LanguageModel* reference = nullptr);

/// Throws as check_perplexity() does; resource_exhausted, before anything is loaded, where model
/// (and reference) cannot fit the memory; and numeric_failure for logits that are not finite.
PerplexityResult perplexity(const LanguageModel& model, std::span<const int32_t> ids,
                            const PerplexityOptions& options,
                            const LanguageModel* reference = nullptr,
                            const Progress& progress = {});

}  // namespace narrow::llm
