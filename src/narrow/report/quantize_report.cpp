// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/quantize_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

double ratio(uint64_t part, uint64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

Json json_of(const Verification& v) {
  Json j = {{"data", v.data},
            {"samples", v.samples},
            {"labelled", v.labelled},
            {"metric", to_string(v.metric)},
            {"float", json_number(v.float_value)},
            {"quantized", json_number(v.quantized_value)},
            {"drop", json_number(v.drop())}};
  j["agreement"] = v.agreement ? Json(*v.agreement) : Json(nullptr);
  j["cosine"] = json_number(v.cosine);
  j["sqnr_db"] = json_number(v.sqnr_db);
  j["max_abs"] = json_number(v.max_abs);
  return j;
}

Json json_of(const QuantizedLayer& l) {
  return {{"node", l.node},
          {"op", l.op},
          {"weights", l.weights},
          {"activations", l.activations},
          {"weight_elements", l.weight_elements},
          {"weight_sqnr_db", json_number(l.weight_sqnr_db)},
          {"output_sqnr_db", json_number(l.output_sqnr_db)}};
}

Json json_of(const GateRefusal& r) {
  Json j = {{"reason", r.reason}, {"keep_float", r.keep_float}, {"command", r.command}};
  j["measured"] = r.measured ? json_of(*r.measured) : Json(nullptr);
  return j;
}

std::string metric_text(const Verification& v, double value) {
  return is_percent(v.metric) ? fmt::format("{:.2f} %", value) : fmt::format("{:.6f}", value);
}

std::string change_text(const Verification& v) {
  const double change = 0 - v.drop();  // a zero has no minus
  return is_percent(v.metric) ? fmt::format("{:+.2f} points", change)
                              : fmt::format("{:+.6f}", change);
}

Table summary_table(const QuantizeReport& r) {
  Table t({{"", Align::left},
           {"float", Align::right},
           {"quantized", Align::right},
           {"change", Align::right}});
  const Verification& v = r.verification;
  if (v.samples > 0) {
    t.add_row({to_string(v.metric), metric_text(v, v.float_value),
               metric_text(v, v.quantized_value), change_text(v)});
    if (v.agreement && v.metric != Metric::agreement) {
      t.add_row({"same answer", "", fmt::format("{:.2f} %", *v.agreement), ""});
    }
    if (v.metric != Metric::cosine) {
      t.add_row({"output cosine", "", fmt::format("{:.6f}", v.cosine), ""});
    }
  }
  if (r.quantized_bytes > 0) {
    t.add_row({"file size", format_bytes(r.float_bytes), format_bytes(r.quantized_bytes),
               fmt::format("x {:.3f}", ratio(r.quantized_bytes, r.float_bytes))});
  }
  if (r.latency) {
    const LatencyChange& l = *r.latency;
    t.add_row({fmt::format("latency, batch {}, threads {}", l.batch, l.threads),
               format_microseconds(l.float_us), format_microseconds(l.quantized_us),
               fmt::format("x {:.3f}", l.float_us > 0 ? l.quantized_us / l.float_us : 0)});
  }
  t.add_row(
      {"integer multiply-adds", "", fmt::format("{:.2f} %", 100 * r.integer_mac_fraction), ""});
  return t;
}

/// Quantized layers with a known output error, worst first.
std::vector<const QuantizedLayer*> worst_layers(const QuantizeReport& r) {
  std::vector<const QuantizedLayer*> layers;
  for (const QuantizedLayer& l : r.layers) {
    if (!std::isnan(l.output_sqnr_db)) layers.push_back(&l);
  }
  std::stable_sort(layers.begin(), layers.end(), [](const auto* a, const auto* b) {
    return a->output_sqnr_db < b->output_sqnr_db;
  });
  return layers;
}

std::string more_text(size_t all, size_t shown) {
  return all > shown ? fmt::format("  ... and {} more\n", all - shown) : std::string();
}

}  // namespace

std::string to_json(const QuantizeReport& r) {
  Json j = {{"model", r.model}, {"output", r.output}, {"recipe", r.recipe}};
  j["verification"] = json_of(r.verification);
  j["reloaded_identical"] = r.reloaded_identical;
  if (r.latency) {
    j["latency"] = {{"batch", r.latency->batch},
                    {"threads", r.latency->threads},
                    {"float_us", json_number(r.latency->float_us)},
                    {"quantized_us", json_number(r.latency->quantized_us)}};
  }
  j["float_bytes"] = r.float_bytes;
  j["quantized_bytes"] = r.quantized_bytes;
  j["size_ratio"] = ratio(r.quantized_bytes, r.float_bytes);
  j["opset"] = r.opset;
  j["integer_mac_fraction"] = json_number(r.integer_mac_fraction);
  j["integer_macs"] = r.integer_macs;
  j["total_macs"] = r.total_macs;
  j["calibration_samples"] = r.calibration_samples;
  j["data_fingerprint"] = r.data_fingerprint;
  j["layers"] = Json::array();
  for (const auto& l : r.layers) j["layers"].push_back(json_of(l));
  j["kept_float"] = Json::array();
  for (const auto& l : r.kept_float) {
    j["kept_float"].push_back({{"node", l.node}, {"op", l.op}, {"reason", l.reason}});
  }
  j["passes"] = Json::array();
  for (const auto& p : r.passes) j["passes"].push_back({{"name", p.name}, {"changes", p.changes}});
  j["notes"] = r.notes;
  j["stages"] = Json::array();
  for (const auto& s : r.stages) {
    j["stages"].push_back({{"stage", s.stage}, {"seconds", json_number(s.seconds)}});
  }
  j["peak_rss_bytes"] = r.peak_rss_bytes;
  j["refusal"] = r.refusal ? json_of(*r.refusal) : Json(nullptr);
  return json_text(j);
}

std::string to_text(const QuantizeReport& r, int max_layers) {
  const auto limit = static_cast<size_t>(std::max(0, max_layers));
  std::string out = fmt::format("{} -> {}\n", r.model, r.output.empty() ? "(no file)" : r.output);
  out += "\n" + summary_table(r).text();
  if (r.verification.samples > 0) {
    out += fmt::format("measured on {}, {} samples{}\n", r.verification.data,
                       format_count(r.verification.samples),
                       r.reloaded_identical ? "; the file read back gives the same bits" : "");
  }
  const auto worst = worst_layers(r);
  if (!worst.empty() && limit > 0) {
    Table t({{"worst layers", Align::left},
             {"operator", Align::left},
             {"weights", Align::left},
             {"activations", Align::left},
             {"output SQNR dB", Align::right}});
    const size_t shown = std::min(limit, worst.size());
    for (size_t i = 0; i < shown; ++i) {
      const QuantizedLayer& l = *worst[i];
      t.add_row({l.node, l.op, l.weights.empty() ? "float" : l.weights,
                 l.activations.empty() ? "float" : l.activations,
                 format_fixed(l.output_sqnr_db, 1)});
    }
    out += "\n" + t.text() + more_text(worst.size(), shown);
  }
  if (!r.kept_float.empty() && limit > 0) {
    Table t({{"stays float", Align::left}, {"operator", Align::left}, {"because", Align::left}});
    const size_t shown = std::min(limit, r.kept_float.size());
    for (size_t i = 0; i < shown; ++i) {
      t.add_row({r.kept_float[i].node, r.kept_float[i].op, r.kept_float[i].reason});
    }
    out += "\n" + t.text() + more_text(r.kept_float.size(), shown);
  }
  for (const std::string& note : r.notes) out += "\nnote: " + note;
  if (!r.notes.empty()) out += "\n";
  out += "\n";
  double total = 0;
  std::string stages;
  for (const StageTime& s : r.stages) {
    total += s.seconds;
    stages += fmt::format("{}{} {:.2f}", stages.empty() ? "" : ", ", s.stage, s.seconds);
  }
  out +=
      fmt::format("{:.2f} s ({}), peak memory {}\n", total, stages, format_bytes(r.peak_rss_bytes));
  return out;
}

}  // namespace narrow
