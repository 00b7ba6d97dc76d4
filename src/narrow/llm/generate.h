// SPDX-License-Identifier: Apache-2.0
// Continues a text, token by token.
//
//   Sequence sequence = decoder.start();
//   GenerateResult r = generate(decoder, sequence, tokenizer, tokenizer.encode("Once upon"), {});
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/llm/language_model.h"
#include "narrow/llm/sampling.h"
#include "narrow/llm/tokenizer/tokenizer.h"

namespace narrow::llm {

struct GenerateOptions {
  int64_t tokens = 128;
  SamplingOptions sampling;
  /// Texts that end the generation; they are no part of the result. They may span tokens.
  std::vector<std::string> stop;
  /// Besides the tokenizer's own: ids that end the generation.
  std::vector<int32_t> ends;
  bool ignore_ends = false;  // a token that ends texts is one like any other
};

/// Why a generation ended: a token that ends texts, a stop text, as many tokens as wanted, the
/// decoder's capacity, or its receiver's wish.
enum class Finish : uint8_t { end, stop, length, capacity, cancelled };

const char* to_string(Finish finish);

struct GenerateResult {
  std::vector<int32_t> ids;  // generated, the one that ended it included
  std::string text;          // well-formed UTF-8
  Finish finish = Finish::length;
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0;    // until the first token was known
  double generate_seconds = 0;  // for all after it

  /// After the first; 0 where there is no other.
  double tokens_per_second() const {
    return ids.size() > 1 ? static_cast<double>(ids.size() - 1) / generate_seconds : 0;
  }
};

/// Gets pieces of the text as they are certain; false ends the generation.
using OnText = std::function<bool(std::string_view)>;

/// Reads `prompt` (at least one token; what the sequence holds stands before it) and continues.
/// Afterwards the sequence holds the prompt and all generated tokens but the last. Throws
/// invalid_argument where the prompt does not fit.
GenerateResult generate(const CachedDecoder& decoder, Sequence& sequence,
                        const Tokenizer& tokenizer, std::span<const int32_t> prompt,
                        const GenerateOptions& options, const OnText& on_text = {},
                        const Progress& progress = {});

/// Passes a text on in pieces, but holds back what may be the beginning of a stop text.
class StopFilter {
 public:
  /// Empty stop texts are ignored.
  explicit StopFilter(std::vector<std::string> stops);

  /// What is certain now. Once a stop text is complete, what stood before it, and nothing after.
  std::string push(std::string_view text);
  /// What was held back.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace narrow::llm
