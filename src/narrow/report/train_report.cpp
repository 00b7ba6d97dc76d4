// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/train_report.h"

#include <fmt/format.h>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {

std::string to_json(const TrainReport& r) {
  Json j = {{"model", r.model},         {"output", r.output},   {"qat", r.qat},
            {"torch", r.torch_version}, {"samples", r.samples}, {"parameters", r.parameters}};
  const auto put = [&](const char* key, const std::optional<double>& value) {
    if (value) j[key] = *value;
  };
  j["metric_name"] = r.metric_name;
  put("metric_before", r.metric_before);
  put("metric_thinned", r.metric_thinned);
  put("metric_ptq", r.metric_ptq);
  put("metric", r.metric);
  put("perplexity", r.perplexity);
  j["best_epoch"] = r.best_epoch;
  j["epochs"] = Json::array();
  for (const train::EpochRecord& e : r.epochs) j["epochs"].push_back(json_of(e));
  if (!r.notes.empty()) j["notes"] = r.notes;
  for (const ThinReport& thin : r.thinned) j["thinned"].push_back(json_of(thin));
  if (!r.prune.empty()) j["prune"] = json_of(r.prune);
  j["output_bytes"] = r.output_bytes;
  j["wall_seconds"] = r.seconds;
  j["peak_rss_bytes"] = r.peak_rss_bytes;
  return json_text(j);
}

std::string to_text(const TrainReport& r) {
  // Adapters alone are written elsewhere.
  std::string out = r.output.empty() ? r.model + "\n"
                                     : fmt::format("{} -> {} ({})\n", r.model, r.output,
                                                   format_bytes(r.output_bytes));
  out +=
      fmt::format("{} parameters, {} samples, {} epochs in {:.1f} s{}\n",
                  format_count(r.parameters), format_count(r.samples), r.epochs.size(), r.seconds,
                  r.torch_version.empty() ? "" : " (libtorch " + r.torch_version + ")");
  const auto shown = [&](double value) {
    return r.metric_name == "top1" ? fmt::format("{:.2f} %", value) : fmt::format("{:.5f}", value);
  };
  const std::string& name = r.metric_name;
  if (r.metric_before) out += fmt::format("{} before   {}\n", name, shown(*r.metric_before));
  if (r.metric_thinned) out += fmt::format("{} smaller  {}\n", name, shown(*r.metric_thinned));
  if (r.metric_ptq) out += fmt::format("{} {} untrained {}\n", name, r.qat, shown(*r.metric_ptq));
  if (r.metric) {
    out += fmt::format("{} of the file {}, epoch {} being the best\n", name, shown(*r.metric),
                       r.best_epoch);
  }
  if (r.perplexity) out += fmt::format("perplexity of the file {:.3f}\n", *r.perplexity);
  for (const std::string& note : r.notes) out += note + "\n";
  for (const ThinReport& thin : r.thinned) out += to_text(thin);
  return out + to_text(r.prune);
}

}  // namespace narrow
