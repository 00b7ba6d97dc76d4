// SPDX-License-Identifier: Apache-2.0
// A quantized language model beside the one that it was made of, on a text: both run side by side,
// nothing is stored. And a gate: how much may be lost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/report/perplexity_report.h"

namespace narrow {

struct LlmEvaluationJob {
  std::string text;
  std::string data;       // what the report calls it: "text:FILE"
  int64_t context = 512;  // tokens of a chunk
  int64_t chunks = 0;     // at most so many; 0: all
  /// The gate: nats of mean KL divergence, and percent of the tokens for which the most likely
  /// token may change.
  std::optional<double> max_kl;
  std::optional<double> max_drop;
};

class LlmEvaluation {
 public:
  /// Opens the model and cuts the text in tokens, so that what cannot be evaluated is known before
  /// long work. Throws as LanguageModel::open does, not_found without a tokenizer, unsupported for
  /// an encoder, invalid_argument for a text shorter than a chunk.
  LlmEvaluation(const std::filesystem::path& source, const LlmEvaluationJob& job, int threads);

  /// Of the model in `written`, the source as its reference.
  PerplexityReport measure(const std::filesystem::path& written, const Progress& progress) const;
  /// Why the gate does not let this pass; empty: it does.
  std::string gate_failure(const PerplexityReport& measured) const;

 private:
  llm::LanguageModel source_;
  std::vector<int32_t> ids_;
  PerplexityReport empty_;  // all but the result
  std::optional<double> max_kl_;
  std::optional<double> max_drop_;
};

}  // namespace narrow
