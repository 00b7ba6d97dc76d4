// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/profile_report.h"

#include <fmt/format.h>

#include "narrow/evaluate/profile.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

/// What is not known or does not apply is null.
Json number_or_null(double value) {
  return value > 0 ? json_number(value) : Json(nullptr);
}

void add_cost(Json& json, const NodeCost& cost) {
  json["microseconds"] = json_number(cost.microseconds);
  json["share"] = json_number(cost.share);
  json["macs"] = cost.macs;
  json["gops"] = number_or_null(cost.gops);
  json["bytes"] = cost.bytes;
  json["gb_per_s"] = number_or_null(cost.gb_per_s);
  json["peak_fraction"] = number_or_null(cost.peak_fraction);
}

Json json_of(const NodeProfile& node, const NodeCost& cost) {
  Json json = {{"node", node.node}, {"op", node.op}, {"implementation", node.implementation}};
  json["depth"] = node.depth;
  add_cost(json, cost);
  json["integer"] = node.integer_macs;
  json["bound"] = cost.bound == Bound::none ? Json(nullptr) : Json(to_string(cost.bound));
  return json;
}

std::string fixed_or_empty(double value, int decimals) {
  return value > 0 ? format_fixed(value, decimals) : std::string();
}

std::string peak_cell(const NodeCost& cost) {
  if (cost.peak_fraction <= 0) return {};
  const std::string percent = fmt::format("{:.1f} %", 100 * cost.peak_fraction);
  return cost.bound == Bound::none ? percent : fmt::format("{} {}", percent, to_string(cost.bound));
}

void add_row(Table& table, const NodeProfile& node, const NodeCost& cost) {
  const char* kind = cost.macs == 0 ? "" : node.integer_macs ? " int" : " float";
  table.add_row({node.node, node.op, node.implementation, format_microseconds(cost.microseconds),
                 format_fixed(100 * cost.share, 1), fixed_or_empty(cost.gops, 1) + kind,
                 fixed_or_empty(cost.gb_per_s, 1), peak_cell(cost)});
}

std::string reorders_text(const CostSummary& summary) {
  if (summary.reorders == 0) return "no reorders between layouts\n";
  return fmt::format("{} reorder{} between layouts, {:.1f} % of the time\n", summary.reorders,
                     summary.reorders == 1 ? "" : "s", 100 * summary.reorder_share);
}

std::string peaks_text(const kernels::MachinePeaks& peaks) {
  std::string text =
      fmt::format("peaks of {} thread{}: ", peaks.threads, peaks.threads == 1 ? "" : "s");
  if (!peaks.isa.empty()) {
    text += fmt::format("int8 {:.1f} GOPS ({}), float32 {:.1f} GOPS, ", peaks.integer_gops,
                        peaks.isa, peaks.float_gops);
  }
  return text +
         fmt::format("{:.1f} GB/s from {}\n", peaks.read_gb_per_s, format_bytes(peaks.read_bytes));
}

}  // namespace

void add_profile(Json& json, const BenchResult& result) {
  const CostSummary summary = summarize_costs(result.profile, result.runs, result.peaks);
  json["profile"] = Json::array();
  for (size_t i = 0; i < result.profile.size(); ++i) {
    json["profile"].push_back(json_of(result.profile[i], summary.nodes[i]));
  }
  add_cost(json["profile_total"], summary.total);
  json["reorders"] = {{"count", summary.reorders},
                      {"microseconds", json_number(summary.reorder_microseconds)},
                      {"share", json_number(summary.reorder_share)}};
  const kernels::MachinePeaks& peaks = result.peaks;
  json["peaks"] = {{"threads", peaks.threads},
                   {"isa", peaks.isa.empty() ? Json(nullptr) : Json(peaks.isa)},
                   {"int8_gops", number_or_null(peaks.integer_gops)},
                   {"float32_gops", number_or_null(peaks.float_gops)},
                   {"read_gb_per_s", number_or_null(peaks.read_gb_per_s)},
                   {"read_bytes", peaks.read_bytes}};
}

std::string profile_text(const BenchResult& result) {
  const CostSummary summary = summarize_costs(result.profile, result.runs, result.peaks);
  Table table({{"node", Align::left},
               {"operator", Align::left},
               {"implementation", Align::left},
               {"time", Align::right},
               {"%", Align::right},
               {"GOPS", Align::right},
               {"GB/s", Align::right},
               {"of peak", Align::right}});
  for (size_t i = 0; i < result.profile.size(); ++i) {
    add_row(table, result.profile[i], summary.nodes[i]);
  }
  const NodeCost& total = summary.total;
  table.add_row({"total", "", "", format_microseconds(total.microseconds),
                 format_fixed(100 * total.share, 1), fixed_or_empty(total.gops, 1),
                 fixed_or_empty(total.gb_per_s, 1), peak_cell(total)});
  return table.text() + "\n" + reorders_text(summary) + peaks_text(result.peaks);
}

}  // namespace narrow
