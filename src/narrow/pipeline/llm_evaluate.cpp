// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_evaluate.h"

#include <fmt/format.h>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"

namespace narrow {

LlmEvaluation::LlmEvaluation(const std::filesystem::path& source, const LlmEvaluationJob& job,
                             int threads)
    : source_(llm::LanguageModel::open(source)), max_kl_(job.max_kl), max_drop_(job.max_drop) {
  if (!source_.config().causal) {
    throw Error(ErrorCode::unsupported, "an encoder predicts no next token",
                "leave the evaluation out");
  }
  const llm::Tokenizer tokenizer = source_.checkpoint().tokenizer();
  empty_.data = job.data;
  empty_.options.context = job.context;
  empty_.options.chunks = job.chunks;
  empty_.options.bos = llm::chunk_bos(tokenizer);
  empty_.options.threads = threads;
  ids_ = tokenizer.encode(job.text);
  llm::check_perplexity(source_, static_cast<int64_t>(ids_.size()), empty_.options);
}

PerplexityReport LlmEvaluation::measure(const std::filesystem::path& written,
                                        const Progress& progress) const {
  const auto start = Clock::now();
  PerplexityReport report = empty_;
  const llm::LanguageModel model = llm::LanguageModel::open(written);
  report.result = llm::perplexity(model, ids_, report.options, &source_, progress);
  report.seconds = seconds_since(start);
  return report;
}

std::string LlmEvaluation::gate_failure(const PerplexityReport& measured) const {
  const llm::Divergence& d = measured.result.divergence.value();
  if (max_kl_ && !(d.kl.mean <= *max_kl_)) {
    return fmt::format("the mean KL divergence is {:.6f} +- {:.6f}, at most {} is allowed",
                       d.kl.mean, d.kl.error, *max_kl_);
  }
  // Percentages are no binary fractions: what is allowed exactly must not fail by their rounding.
  constexpr double kRounding = 1e-9;
  const double drop = 100 * (1 - d.same_top.mean);
  if (max_drop_ && !(drop <= *max_drop_ + kRounding)) {
    return fmt::format(
        "the most likely token changed for {:.3f} % +- {:.3f} % of the tokens, {} % "
        "are allowed",
        drop, 100 * d.same_top.error, *max_drop_);
  }
  return {};
}

}  // namespace narrow
