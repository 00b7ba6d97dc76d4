// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/schedule_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {

std::string to_json(const SchedulePlan& plan) {
  Json j = {{"model", plan.model}, {"output", plan.output}, {"phases", Json::array()}};
  for (const PlannedPhase& p : plan.phases) {
    j["phases"].push_back({{"name", p.name},
                           {"epochs", p.epochs},
                           {"lr", p.lr},
                           {"loss", p.loss},
                           {"what", p.what},
                           {"layers", p.layers}});
  }
  return json_text(j);
}

std::string to_text(const SchedulePlan& plan) {
  Table table(
      {{"phase"}, {"epochs", Align::right}, {"lr", Align::right}, {"loss"}, {"what"}, {"layers"}});
  constexpr size_t kNamed = 3;  // more are counted
  for (const PlannedPhase& p : plan.phases) {
    const std::string layers = p.layers.size() > kNamed
                                   ? fmt::format("{}, ... ({})", p.layers[0], p.layers.size())
                                   : fmt::format("{}", fmt::join(p.layers, ", "));
    table.add_row(
        {p.name, std::to_string(p.epochs), fmt::format("{:g}", p.lr), p.loss, p.what, layers});
  }
  return fmt::format("{} -> {}\n\n{}", plan.model, plan.output, table.text());
}

std::string to_json(const ScheduleReport& report) {
  Json j = {{"phases", Json::array()}};
  for (const PhaseReport& p : report.phases) {
    Json phase = {{"name", p.name}, {"resumed", p.resumed}};
    if (!p.resumed) phase["report"] = Json::parse(to_json(p.report));
    j["phases"].push_back(std::move(phase));
  }
  return json_text(j);
}

std::string to_text(const ScheduleReport& report) {
  std::string out;
  for (const PhaseReport& p : report.phases) {
    out += fmt::format("{}== {} ==\n{}", out.empty() ? "" : "\n", p.name,
                       p.resumed ? "done by an earlier run\n" : to_text(p.report));
  }
  return out;
}

}  // namespace narrow
