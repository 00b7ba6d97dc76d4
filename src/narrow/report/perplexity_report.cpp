// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/perplexity_report.h"

#include <fmt/format.h>

namespace narrow {

Json json_of(const PerplexityReport& report) {
  const llm::PerplexityResult& r = report.result;
  const llm::PerplexityOptions& o = report.options;
  Json j;
  j["data"] = report.data;
  j["perplexity"] = json_number(r.perplexity.mean);
  j["stderr"] = json_number(r.perplexity.error);
  j["tokens"] = r.tokens;
  j["chunks"] = r.chunks;
  j["context"] = o.context;
  j["windows"] = o.windows == llm::Windows::halves ? "halves" : "sliding";
  if (o.windows == llm::Windows::sliding) j["stride"] = o.stride;
  j["bos"] = o.bos >= 0 ? Json(o.bos) : Json(nullptr);
  if (r.divergence) {
    const llm::Divergence& d = *r.divergence;
    j["reference_perplexity"] = json_number(d.reference_perplexity.mean);
    j["reference_stderr"] = json_number(d.reference_perplexity.error);
    j["log_ratio"] = json_number(d.log_ratio.mean);
    j["log_ratio_stderr"] = json_number(d.log_ratio.error);
    j["kl_mean"] = json_number(d.kl.mean);
    j["kl_mean_stderr"] = json_number(d.kl.error);
    j["kl_median"] = json_number(d.kl_median);
    j["kl_99"] = json_number(d.kl_99);
    j["kl_99_9"] = json_number(d.kl_999);
    j["kl_max"] = json_number(d.kl_max);
    j["same_top_token"] = json_number(d.same_top.mean);
    j["same_top_token_stderr"] = json_number(d.same_top.error);
  }
  j["seconds"] = json_number(report.seconds);
  return j;
}

std::string to_text(const PerplexityReport& report) {
  const llm::PerplexityResult& r = report.result;
  const int64_t read = r.chunks * report.options.context;
  std::string text = fmt::format(
      "perplexity  {:.4f} +- {:.4f}  {} tokens scored in {} chunks of {}, {:.1f} s, {:.0f} "
      "tokens/s\n",
      r.perplexity.mean, r.perplexity.error, r.tokens, r.chunks, report.options.context,
      report.seconds, static_cast<double>(read) / report.seconds);
  if (!r.divergence) return text;
  const llm::Divergence& d = *r.divergence;
  text += fmt::format("reference   {:.4f} +- {:.4f}  ln ratio {:.5f} +- {:.5f}\n",
                      d.reference_perplexity.mean, d.reference_perplexity.error, d.log_ratio.mean,
                      d.log_ratio.error);
  text += fmt::format(
      "KL          {:.6f} +- {:.6f}  median {:.6f}, 99 % {:.6f}, 99.9 % {:.6f}, largest {:.6f}\n",
      d.kl.mean, d.kl.error, d.kl_median, d.kl_99, d.kl_999, d.kl_max);
  text += fmt::format("same top    {:.3f} % +- {:.3f} %\n", 100 * d.same_top.mean,
                      100 * d.same_top.error);
  return text;
}

}  // namespace narrow
