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
  put("metric_before", r.metric_before);
  put("metric_ptq", r.metric_ptq);
  put("metric", r.metric);
  j["best_epoch"] = r.best_epoch;
  j["epochs"] = Json::array();
  for (const train::EpochRecord& e : r.epochs) j["epochs"].push_back(json_of(e));
  if (!r.prune.empty()) j["prune"] = json_of(r.prune);
  j["output_bytes"] = r.output_bytes;
  j["wall_seconds"] = r.seconds;
  j["peak_rss_bytes"] = r.peak_rss_bytes;
  return json_text(j);
}

std::string to_text(const TrainReport& r) {
  std::string out = fmt::format("{} -> {} ({})\n", r.model, r.output, format_bytes(r.output_bytes));
  out +=
      fmt::format("{} parameters, {} samples, {} epochs in {:.1f} s{}\n",
                  format_count(r.parameters), format_count(r.samples), r.epochs.size(), r.seconds,
                  r.torch_version.empty() ? "" : " (libtorch " + r.torch_version + ")");
  if (r.metric_before) out += fmt::format("top1 before   {:.2f} %\n", *r.metric_before);
  if (r.metric_ptq) out += fmt::format("top1 {} untrained {:.2f} %\n", r.qat, *r.metric_ptq);
  if (r.metric) {
    out += fmt::format("top1 of the file {:.2f} %, epoch {} being the best\n", *r.metric,
                       r.best_epoch);
  }
  return out + to_text(r.prune);
}

}  // namespace narrow
