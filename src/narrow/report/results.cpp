// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/results.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/report/json.h"
#include "narrow/report/profile_report.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

std::string interval_text(const MetricResult& r) {
  if (!r.low || !r.high) return {};
  return fmt::format(" (95 % interval {:.2f} to {:.2f})", *r.low, *r.high);
}

void add_difference(Table& table, const ValueDifference& d) {
  table.add_row({d.value, d.op, d.node, format_fixed(d.sqnr_db, 1), format_fixed(d.cosine, 6),
                 fmt::format("{:.3g}", d.max_abs)});
}

Table difference_table(const char* title) {
  return Table({{title, Align::left},
                {"operator", Align::left},
                {"node", Align::left},
                {"SQNR dB", Align::right},
                {"cosine", Align::right},
                {"max abs", Align::right}});
}

Json json_of(const MemoryReport& memory) {
  return {{"arena_bytes", memory.arena_bytes},
          {"activation_bytes", memory.activation_bytes},
          {"packed_bytes", memory.packed_bytes},
          {"constant_bytes", memory.constant_bytes},
          {"reorders", memory.reorders}};
}

}  // namespace

Json json_of(const ValueDifference& d) {
  return {{"value", d.value},
          {"node", d.node},
          {"op", d.op},
          {"elements", d.elements},
          {"sqnr_db", json_number(d.sqnr_db)},
          {"cosine", json_number(d.cosine)},
          {"mse", json_number(d.mse)},
          {"max_abs", json_number(d.max_abs)}};
}

std::string to_json(const MetricResult& r) {
  Json j = {
      {"metric", to_string(r.metric)}, {"value", json_number(r.value)}, {"samples", r.samples}};
  if (r.low) j["low"] = *r.low;
  if (r.high) j["high"] = *r.high;
  j["seconds"] = json_number(r.seconds);
  return json_text(j);
}

std::string to_text(const MetricResult& r) {
  const std::string value =
      is_percent(r.metric) ? fmt::format("{:.2f} %", r.value) : fmt::format("{:.6g}", r.value);
  return fmt::format("{}  {}{}  {} samples, {:.2f} s\n", to_string(r.metric), value,
                     interval_text(r), format_count(r.samples), r.seconds);
}

std::string to_json(const Comparison& c) {
  Json j = {{"samples", c.samples}};
  j["agreement"] = c.agreement ? Json(*c.agreement) : Json(nullptr);
  j["cosine"] = json_number(c.cosine);
  j["sqnr_db"] = json_number(c.sqnr_db);
  j["max_abs"] = json_number(c.max_abs);
  j["identical"] = c.identical;
  j["outputs"] = Json::array();
  for (const auto& d : c.outputs) j["outputs"].push_back(json_of(d));
  j["layers"] = Json::array();
  for (const auto& d : c.layers) j["layers"].push_back(json_of(d));
  return json_text(j);
}

std::string to_text(const Comparison& c) {
  std::string out = fmt::format("{} samples", format_count(c.samples));
  if (c.agreement) out += fmt::format(", same answer on {:.2f} %", *c.agreement);
  out += fmt::format(", cosine {:.6f}, SQNR {} dB, max abs {:.3g}{}\n\n", c.cosine,
                     format_fixed(c.sqnr_db, 1), c.max_abs,
                     c.identical ? " (identical bit for bit)" : "");
  Table outputs = difference_table("output");
  for (const auto& d : c.outputs) add_difference(outputs, d);
  out += outputs.text();
  if (!c.layers.empty()) {
    Table layers = difference_table("value");
    for (const auto& d : c.layers) add_difference(layers, d);
    out += "\n" + layers.text();
  }
  return out;
}

std::string to_json(const BenchResult& r) {
  const double fraction =
      r.macs.total > 0 ? static_cast<double>(r.macs.integer) / static_cast<double>(r.macs.total)
                       : 0;
  Json j = {{"median_us", json_number(r.median_us)},
            {"p90_us", json_number(r.p90_us)},
            {"min_us", json_number(r.min_us)},
            {"mean_us", json_number(r.mean_us)},
            {"runs", r.runs},
            {"batch", r.batch},
            {"threads", r.threads},
            {"peak_rss_bytes", r.peak_rss_bytes},
            {"output_hash", r.output_hash},
            {"macs", r.macs.total},
            {"integer_mac_fraction", fraction}};
  j["memory"] = json_of(r.memory);
  if (!r.profile.empty()) add_profile(j, r);
  return json_text(j);
}

std::string to_text(const BenchResult& r) {
  Table table({{"batch", Align::right},
               {"threads", Align::right},
               {"median", Align::right},
               {"p90", Align::right},
               {"min", Align::right},
               {"per sample", Align::right},
               {"runs", Align::right}});
  table.add_row(
      {std::to_string(r.batch), std::to_string(r.threads), format_microseconds(r.median_us),
       format_microseconds(r.p90_us), format_microseconds(r.min_us),
       format_microseconds(r.median_us / static_cast<double>(std::max<int64_t>(1, r.batch))),
       format_count(r.runs)});
  std::string out = table.text();
  out += fmt::format("\npeak memory {}, activations {} (unshared {}), packed weights {}\n",
                     format_bytes(r.peak_rss_bytes), format_bytes(r.memory.arena_bytes),
                     format_bytes(r.memory.activation_bytes), format_bytes(r.memory.packed_bytes));
  out += fmt::format("output hash {}\n", r.output_hash);
  if (!r.profile.empty()) out += "\n" + profile_text(r);
  return out;
}

std::string to_json(const StreamsResult& r) {
  Json j = {{"samples_per_second", json_number(r.samples_per_second)}};
  j["streams"] = Json::array();
  for (const StreamTimes& s : r.streams) {
    j["streams"].push_back({{"runs", s.runs},
                            {"median_us", json_number(s.median_us)},
                            {"p99_us", json_number(s.p99_us)},
                            {"samples_per_second", json_number(s.samples_per_second)}});
  }
  j["threads_per_stream"] = r.threads_each;
  j["cpus"] = r.cpus;
  j["batch"] = r.batch;
  j["seconds"] = json_number(r.seconds);
  j["peak_rss_bytes"] = r.peak_rss_bytes;
  j["output_hash"] = r.output_hash;
  j["memory"] = json_of(r.memory);
  return json_text(j);
}

std::string to_text(const StreamsResult& r) {
  Table table({{"stream", Align::right},
               {"median", Align::right},
               {"p99", Align::right},
               {"samples/s", Align::right},
               {"runs", Align::right}});
  for (size_t i = 0; i < r.streams.size(); ++i) {
    const StreamTimes& s = r.streams[i];
    table.add_row({std::to_string(i + 1), format_microseconds(s.median_us),
                   format_microseconds(s.p99_us), format_fixed(s.samples_per_second, 1),
                   format_count(s.runs)});
  }
  const size_t count = r.streams.size();
  return fmt::format(
      "{}\n{:.1f} samples/s by {} stream{} of {} thread{} each, batch {}, {} CPU{}\n"
      "peak memory {}, activations {} a stream, packed weights {} for all\noutput hash {}\n",
      table.text(), r.samples_per_second, count, count == 1 ? "" : "s", r.threads_each,
      r.threads_each == 1 ? "" : "s", r.batch, r.cpus, r.cpus == 1 ? "" : "s",
      format_bytes(r.peak_rss_bytes), format_bytes(r.memory.arena_bytes),
      format_bytes(r.memory.packed_bytes), r.output_hash);
}

std::string to_json(const Error& error) {
  return json_text({{"error",
                     {{"code", to_string(error.code())},
                      {"message", error.message()},
                      {"context", error.context()},
                      {"hint", error.hint()}}}});
}

}  // namespace narrow
