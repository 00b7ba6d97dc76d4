// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/weights_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

Json json_of(const WeightReport& t) {
  return {{"name", t.name},
          {"dims", t.dims},
          {"source_type", t.source_type},
          {"type", t.type},
          {"wanted", t.wanted.empty() ? Json(nullptr) : Json(t.wanted)},
          {"reason", t.reason},
          {"bytes", t.bytes},
          {"importance", t.importance},
          {"relative_rmse", json_number(t.relative_rmse)}};
}

Json json_of(const WeightTypeTotal& t) {
  return {{"type", t.type}, {"tensors", t.tensors}, {"elements", t.elements}, {"bytes", t.bytes}};
}

Table totals(const WeightsReport& r) {
  Table table({{""}, {"source", Align::right}, {"result", Align::right}});
  const auto bits = [&](uint64_t bytes) {
    return r.elements > 0
               ? format_fixed(8.0 * static_cast<double>(bytes) / static_cast<double>(r.elements), 3)
               : std::string();
  };
  table.add_row({"file", format_bytes(r.source_bytes), format_bytes(r.output_bytes)});
  table.add_row({"bits per weight, stored", bits(r.source_bytes), format_fixed(r.stored_bits, 3)});
  table.add_row({"bits per weight, nominal", "", format_fixed(r.nominal_bits, 3)});
  if (!r.method.empty()) {
    table.add_row({"relative error (rmse)", "", fmt::format("{:.5f}", r.relative_rmse)});
  }
  return table;
}

std::string type_table(const WeightsReport& r) {
  Table table({{"type"},
               {"tensors", Align::right},
               {"weights", Align::right},
               {"bytes", Align::right},
               {"of the file", Align::right}});
  for (const WeightTypeTotal& t : r.types) {
    const double share = r.output_bytes > 0 ? 100.0 * static_cast<double>(t.bytes) /
                                                  static_cast<double>(r.output_bytes)
                                            : 0;
    table.add_row({t.type, format_count(t.tensors), format_count(t.elements), format_bytes(t.bytes),
                   fmt::format("{:.1f} %", share)});
  }
  return table.text();
}

std::string worst_table(const WeightsReport& r, size_t limit) {
  std::vector<const WeightReport*> worst;
  for (const WeightReport& t : r.tensors) {
    if (t.relative_rmse > 0) worst.push_back(&t);
  }
  std::stable_sort(worst.begin(), worst.end(), [](const auto* a, const auto* b) {
    return a->relative_rmse > b->relative_rmse;
  });
  if (worst.empty() || limit == 0) return {};
  Table table({{"largest errors"}, {"type"}, {"relative rmse", Align::right}});
  for (size_t i = 0; i < std::min(limit, worst.size()); ++i) {
    table.add_row({worst[i]->name, worst[i]->type, fmt::format("{:.5f}", worst[i]->relative_rmse)});
  }
  return "\n" + table.text();
}

/// All of them: nothing falls back in silence.
std::string fallback_table(const WeightsReport& r) {
  Table table({{"fell back"}, {"wanted"}, {"got"}, {"because"}});
  for (const WeightReport& t : r.tensors) {
    if (!t.wanted.empty()) table.add_row({t.name, t.wanted, t.type, t.reason});
  }
  return table.rows() > 0 ? "\n" + table.text() : std::string();
}

}  // namespace

std::string to_json(const WeightsReport& r) {
  Json j = {{"model", r.model},
            {"output", r.output},
            {"architecture", r.architecture},
            {"format", r.format},
            {"method", r.method.empty() ? Json(nullptr) : Json(r.method)},
            {"statistics", r.statistics.empty() ? Json(nullptr) : Json(r.statistics)},
            {"source_bytes", r.source_bytes},
            {"output_bytes", r.output_bytes},
            {"elements", r.elements},
            {"nominal_bits_per_weight", json_number(r.nominal_bits)},
            {"bits_per_weight", json_number(r.stored_bits)},
            {"relative_rmse", json_number(r.relative_rmse)}};
  j["types"] = Json::array();
  for (const WeightTypeTotal& t : r.types) j["types"].push_back(json_of(t));
  j["tensors"] = Json::array();
  for (const WeightReport& t : r.tensors) j["tensors"].push_back(json_of(t));
  j["fallbacks"] = Json::array();
  for (const WeightReport& t : r.tensors) {
    if (!t.wanted.empty()) j["fallbacks"].push_back(t.name);
  }
  j["evaluation"] = r.evaluation ? json_of(*r.evaluation) : Json(nullptr);
  j["refusal"] = r.refusal.empty() ? Json(nullptr) : Json{{"reason", r.refusal}};
  j["resumed_tensors"] = r.resumed;
  j["notes"] = r.notes;
  j["stages"] = Json::array();
  for (const StageTime& s : r.stages) {
    j["stages"].push_back({{"stage", s.stage}, {"seconds", json_number(s.seconds)}});
  }
  j["peak_rss_bytes"] = r.peak_rss_bytes;
  return json_text(j);
}

std::string to_text(const WeightsReport& r, int max_tensors) {
  const auto limit = static_cast<size_t>(std::max(0, max_tensors));
  std::string out =
      fmt::format("{} -> {}\n{}, {}{}\n\n", r.model, r.output.empty() ? "(no file)" : r.output,
                  r.architecture, r.format, r.method.empty() ? "" : ", method " + r.method);
  out += totals(r).text() + "\n" + type_table(r) + worst_table(r, limit) + fallback_table(r);
  if (r.evaluation) {
    out += fmt::format("\n{}, the source as reference\n{}", r.evaluation->data,
                       to_text(*r.evaluation));
  }
  if (!r.refusal.empty()) out += fmt::format("\nrefused: {}\n", r.refusal);
  for (const std::string& note : r.notes) out += "\nnote: " + note;
  if (!r.notes.empty()) out += "\n";
  double total = 0;
  for (const StageTime& s : r.stages) total += s.seconds;
  out += fmt::format("\n{:.2f} s, peak memory {}\n", total, format_bytes(r.peak_rss_bytes));
  return out;
}

}  // namespace narrow
