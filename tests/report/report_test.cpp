// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "narrow/report/quantize_report.h"
#include "narrow/report/results.h"

namespace narrow {
namespace {

using nlohmann::json;

QuantizeReport sample_report() {
  QuantizeReport r;
  r.model = "m.onnx";
  r.output = "q.onnx";
  r.recipe = "weights: int8\n";
  r.verification = {"mnist:d", 1000, true, Metric::top1, 92.5, 92.25, 99.5, 0.9995, 33, 0.125};
  r.reloaded_identical = true;
  r.float_bytes = 4000;
  r.quantized_bytes = 1000;
  r.opset = 13;
  r.integer_mac_fraction = 1;
  r.layers = {{"conv1", "Conv", "int8", "uint8", 288, 42, 30},
              {"fc", "Gemm", "int8", "uint8", 1000, 41, std::numeric_limits<double>::quiet_NaN()},
              {"conv2", "Conv", "int8", "uint8", 9, 40, 25}};
  r.kept_float = {{"soft", "LogSoftmax", "there is no integer form of LogSoftmax"}};
  r.notes = {"a note"};
  r.stages = {{"read", 0.5}, {"calibrate", 1.25}};
  r.peak_rss_bytes = 123000000;
  return r;
}

TEST(QuantizeReport, JsonHoldsEverything) {
  const json j = json::parse(to_json(sample_report()));
  EXPECT_EQ(j["verification"]["metric"], "top1");
  EXPECT_EQ(j["verification"]["drop"], 0.25);
  EXPECT_EQ(j["size_ratio"], 0.25);
  EXPECT_TRUE(j["layers"][1]["output_sqnr_db"].is_null());
  EXPECT_EQ(j["kept_float"][0]["reason"], "there is no integer form of LogSoftmax");
  EXPECT_TRUE(j["refusal"].is_null());
  EXPECT_EQ(j["stages"][1]["seconds"], 1.25);
}

TEST(QuantizeReport, TextShowsCostGainAndWorstFirst) {
  const std::string text = to_text(sample_report());
  for (const char* part :
       {"92.50 %", "92.25 %", "-0.25 points", "x 0.250", "100.00 %", "LogSoftmax", "note: a note",
        "1.75 s", "123.0 MB", "the file read back gives the same bits"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_LT(text.find("conv2"), text.find("conv1"));
  EXPECT_EQ(text.find("fc "), std::string::npos);  // its error is not known
}

TEST(QuantizeReport, NoChangeHasNoMinus) {
  QuantizeReport r = sample_report();
  r.verification.quantized_value = r.verification.float_value;
  EXPECT_NE(to_text(r).find("+0.00 points"), std::string::npos) << to_text(r);
}

TEST(QuantizeReport, ListsAreCut) {
  const std::string text = to_text(sample_report(), 1);
  EXPECT_NE(text.find("... and 1 more"), std::string::npos) << text;
}

TEST(QuantizeReport, RefusalIsInTheJson) {
  QuantizeReport r = sample_report();
  r.refusal = GateRefusal{"too bad", {"conv2"}, r.verification, "narrow quantize"};
  const json j = json::parse(to_json(r));
  EXPECT_EQ(j["refusal"]["keep_float"][0], "conv2");
  EXPECT_EQ(j["refusal"]["measured"]["quantized"], 92.25);
}

TEST(Results, MetricAsTheContractSays) {
  MetricResult r{Metric::top1, 92.32, 10000, 91.78, 92.83, 1.5};
  const json j = json::parse(to_json(r));
  EXPECT_EQ(j["metric"], "top1");
  EXPECT_EQ(j["value"], 92.32);
  EXPECT_EQ(j["samples"], 10000);
  EXPECT_NE(to_text(r).find("92.32 %"), std::string::npos);
  EXPECT_NE(to_text(r).find("10,000 samples"), std::string::npos);
}

TEST(Results, InfinitiesAreNull) {
  Comparison c;
  c.samples = 3;
  c.sqnr_db = std::numeric_limits<double>::infinity();
  c.layers = {{"v", "n", "Conv", 5, std::numeric_limits<double>::infinity(), 1, 0, 0}};
  const json j = json::parse(to_json(c));
  EXPECT_TRUE(j["sqnr_db"].is_null());
  EXPECT_TRUE(j["agreement"].is_null());
  EXPECT_EQ(j["layers"][0]["value"], "v");
  EXPECT_NE(to_text(c).find("identical bit for bit"), std::string::npos);
}

TEST(Results, BenchHasTheContractsKeys) {
  BenchResult r;
  r.median_us = 90.5;
  r.macs = {99, 100};
  r.output_hash = "0123456789abcdef";
  NodeProfile conv{"conv1", "QConv", "avx512_vnni:igemm", 10, 50000};
  conv.integer_macs = true;
  conv.bytes = 3000;
  NodeProfile reorder{"reorder x to plain", "Reorder", "reorder", 30};
  reorder.is_reorder = true;
  reorder.bytes = 200;
  conv.runs = reorder.runs = r.runs = 3;
  r.profile = {conv, reorder};
  r.peaks = {.threads = 2, .isa = "avx512_vnni", .integer_gops = 40, .read_gb_per_s = 5};
  const json j = json::parse(to_json(r));
  for (const char* key : {"median_us", "p90_us", "peak_rss_bytes", "output_hash"}) {
    EXPECT_TRUE(j.contains(key)) << key;
  }
  EXPECT_EQ(j["integer_mac_fraction"], 0.99);
  EXPECT_EQ(j["profile"][0]["share"], 0.25);
  EXPECT_EQ(j["profile"][0]["gops"], 10.0);
  EXPECT_EQ(j["profile"][0]["integer"], true);
  EXPECT_EQ(j["profile"][0]["gb_per_s"], 0.3);
  EXPECT_EQ(j["profile"][0]["peak_fraction"], 0.25);
  EXPECT_EQ(j["profile"][0]["bound"], "int8");
  EXPECT_TRUE(j["profile"][1]["gops"].is_null());
  EXPECT_EQ(j["profile"][1]["bound"], "memory");
  EXPECT_EQ(j["profile_total"]["microseconds"], 40.0);
  EXPECT_EQ(j["reorders"]["count"], 1);
  EXPECT_EQ(j["reorders"]["share"], 0.75);
  EXPECT_EQ(j["peaks"]["int8_gops"], 40.0);
  EXPECT_TRUE(j["peaks"]["float32_gops"].is_null());
  const std::string text = to_text(r);
  for (const char* piece : {"avx512_vnni:igemm", "10.0 int", "25.0 % int8",
                            "1 reorder between layouts, 75.0 % of the time", "total"}) {
    EXPECT_NE(text.find(piece), std::string::npos) << piece;
  }
}

TEST(Results, HostileNamesGiveValidJson) {
  const Error e(ErrorCode::corrupt_data, "node '\xff\"\n'", "hint");
  const json j = json::parse(to_json(e));
  EXPECT_EQ(j["error"]["code"], "corrupt_data");
}

}  // namespace
}  // namespace narrow
