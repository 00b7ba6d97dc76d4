// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "narrow/calibrate/observer.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

Statistics example() {
  Rng rng(8);
  Statistics all;
  all.model_fingerprint = "0123456789abcdef";
  all.data_fingerprint = "fedcba9876543210";
  all.samples = 3;
  for (const char* name : {"conv1_out", "relu/\"quoted\"\n", "größe"}) {
    Statistic& s = all.values[name];
    for (int sample = 0; sample < 3; ++sample) {
      std::vector<float> x(2000);
      for (float& v : x) v = static_cast<float>(rng.normal() * 0.37);
      if (name[0] == 'r')
        std::replace_if(
            x.begin(), x.end(), [](float v) { return v < 0; }, 0.0f);
      s.observe(x);
      s.end_sample();
    }
  }
  Statistic range(Detail::range);
  range.observe(std::vector<float>{-0.1f, 1e-20f, 3.3333333f, std::nanf("")});
  range.end_sample();
  all.values["range_only"] = range;
  all.values["never_seen"] = Statistic();
  all.overrides["conv1_out"] = {-0.7f, 1.1f};
  all.overrides["by hand"] = {0, 6};
  return all;
}

void expect_equal(const Statistics& a, const Statistics& b) {
  EXPECT_EQ(a.values, b.values);
  EXPECT_EQ(a.overrides, b.overrides);
  EXPECT_EQ(a.model_fingerprint, b.model_fingerprint);
  EXPECT_EQ(a.data_fingerprint, b.data_fingerprint);
  EXPECT_EQ(a.samples, b.samples);
}

/// The example's text with one part replaced; the part must be there.
std::string edited(const std::string& from, const std::string& to) {
  std::string text = statistics_to_json(example());
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at == std::string::npos ? 0 : at, from.size(), to);
}

void expect_refused(const std::string& text, const std::string& message,
                    ErrorCode code = ErrorCode::corrupt_data) {
  try {
    statistics_from_json(text);
    ADD_FAILURE() << "accepted, expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
  }
}

TEST(StatisticsFile, round_trips_exactly) {
  const Statistics before = example();
  const std::string text = statistics_to_json(before);
  const Statistics after = statistics_from_json(text);
  expect_equal(after, before);
  EXPECT_EQ(statistics_to_json(after), text);
  expect_equal(statistics_from_json(statistics_to_json({})), {});
}

TEST(StatisticsFile, round_trips_extreme_numbers) {
  Statistics all;
  Statistic& s = all.values["x"];
  Rng rng(2);
  for (int i = 0; i < 50; ++i) {
    std::vector<float> x;
    for (int j = 0; j < 40; ++j) {
      const auto scale = std::ldexp(1.0, static_cast<int>(rng.below(270)) - 145);
      x.push_back(static_cast<float>((rng.uniform() - 0.5) * scale));
    }
    s.observe(x);
    s.end_sample();
    all.overrides["x"] = {s.min, s.max};
    expect_equal(statistics_from_json(statistics_to_json(all)), all);
  }
}

TEST(StatisticsFile, is_saved_and_loaded) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("narrow_statistics_" + std::to_string(::getpid()) + ".json");
  save_statistics(example(), path);
  expect_equal(load_statistics(path), example());
  write_text(path, "{}");
  try {
    load_statistics(path);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(path.string()), std::string::npos) << e.what();
  }
  std::filesystem::remove(path);
  EXPECT_THROW(load_statistics(path), Error);
}

TEST(StatisticsFile, a_person_can_set_a_range) {
  Statistics s = statistics_from_json(edited("\"range\": [-0.7, 1.1]", "\"range\": [-2, 3.5]"));
  EXPECT_EQ(s.overrides["conv1_out"], (Range{-2, 3.5f}));
  s = statistics_from_json(edited("\"range_only\": {", "\"range_only\": { \"range\": [-1, 1],"));
  EXPECT_EQ(s.overrides["range_only"], (Range{-1, 1}));
  EXPECT_EQ(s.range_of("range_only", {ObserverKind::mse}, {}), (Range{-1, 1}));
  EXPECT_EQ(s.range_of("by hand", {}, {}), (Range{0, 6}));
  expect_refused(edited("[-0.7, 1.1]", "[1.1, -0.7]"), "value 'conv1_out': 'range' [1.1, -0.7]");
  expect_refused(edited("[-0.7, 1.1]", "[1]"), "'range' is not [rmin, rmax]");
  expect_refused(edited("[-0.7, 1.1]", "[0, 1e39]"), "float32");
  expect_refused(edited("[-0.7, 1.1]", "[0, null]"), "float32");
  expect_refused(edited("\"range\": [-0.7", "\"rnage\": [-0.7"), "unknown key 'rnage'");
}

TEST(StatisticsFile, hints_at_the_known_key) {
  try {
    statistics_from_json(edited("\"range\": [-0.7", "\"rnage\": [-0.7"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.hint().find("range"), std::string::npos) << e.hint();
  }
}

TEST(StatisticsFile, refuses_what_is_no_statistics_file) {
  expect_refused("", "not JSON");
  expect_refused("{", "not JSON");
  expect_refused("[]", "no statistics file");
  expect_refused("{}", "no statistics file");
  expect_refused("{\"format\": 3}", "no statistics file");
  expect_refused("{\"format\": \"narrow statistics\"}", "'version' is missing");
  expect_refused(edited("\"version\": 1", "\"version\": 2"), "version 2", ErrorCode::unsupported);
  expect_refused(edited("\"version\": 1", "\"version\": 0"), "'version'");
  expect_refused(edited("\"version\": 1", "\"version\": \"1\""), "'version'");
  expect_refused(edited("\"samples\": 3,\n  \"values\"", "\"values\""), "'samples' is missing");
  expect_refused(std::string(100000, '['), "nested too deeply");
  expect_refused(edited("\"values\": {", "\"values\": {\"never_seen\": {\"range\": [0, 1]},"),
                 "'never_seen' stands twice");
  expect_refused(
      "{\"format\": \"narrow statistics\", \"version\": 1, \"model_fingerprint\": \"\","
      "\"data_fingerprint\": \"\", \"samples\": 0, \"values\": []}",
      "'values' is not an object");
  expect_refused(
      "{\"format\": \"narrow statistics\", \"version\": 1, \"model_fingerprint\": \"\","
      "\"data_fingerprint\": \"\", \"samples\": 0, \"values\": {\"x\": 5}}",
      "value 'x'");
}

TEST(StatisticsFile, refuses_numbers_that_contradict_each_other) {
  expect_refused(edited("\"count\": 6000", "\"count\": 6001"), "'count' is 6001");
  expect_refused(edited("\"count\": 6000", "\"count\": -1"), "'count'");
  expect_refused(edited("\"count\": 6000", "\"count\": 1e3"), "'count'");
  expect_refused(edited("\"count\": 6000", "\"count\": 99999999999999999999"), "'count'");
  expect_refused(edited("\"zeros\": 0", "\"zeros\": 1"), "'count' is 6000");
  expect_refused(edited("\"samples\": 3,\n      \"sum", "\"samples\": 6001,\n      \"sum"),
                 "'samples'");
  expect_refused(edited("\"max\": ", "\"max\": 5"), "does not end where the values do");
  expect_refused(edited("\"min\": -", "\"min\": -5"), "");
  expect_refused(edited("\"exponent\": 1", "\"exponent\": 2"), "");
  expect_refused(edited("\"exponent\": 1", "\"exponent\": 129"), "'exponent'");
  expect_refused(edited("\"exponent\": 1", "\"exponent\": -101"), "'exponent'");
  expect_refused(edited("\"sum_abs\": \"0x", "\"sum_abs\": \"-0x"), "contradict");
  expect_refused(edited("\"sum_squares\": \"0x", "\"sum_squares\": \"0y"), "'sum_squares'");
  expect_refused(edited("\"sum_of_minima\": \"-0x", "\"sum_of_minima\": \"-0xffffff"),
                 "'sum_of_minima'");
  expect_refused(edited("\"counts\": [", "\"counts\": [-1,"), "bad count");
  expect_refused(edited("\"counts\": [", "\"counts\": [9223372036854775807,"), "too large");
  expect_refused(edited("\"counts\": [", "\"first\": 0, \"counts\": ["), "twice");
  expect_refused(edited("{\"first\": 0,", "{\"first\": 2048,"), "'first'");
  expect_refused(edited("{\"first\": 0,", "{\"first\": 2047,"), "counts");
  expect_refused(edited("\"detail\": \"range\"", "\"detail\": \"histogram\""), "missing");
  expect_refused(edited("\"detail\": \"range\"", "\"detail\": \"full\""), "'full'");
}

TEST(StatisticsFile, survives_damage) {
  const std::string good = statistics_to_json(example());
  Rng rng(77);
  int accepted = 0;
  for (int i = 0; i < 600; ++i) {
    std::string text = good;
    const size_t edits = 1 + rng.below(3);
    for (size_t e = 0; e < edits; ++e) {
      const size_t at = rng.below(text.size());
      switch (rng.below(4)) {
        case 0:
          text[at] = static_cast<char>(rng.below(256));
          break;
        case 1:
          text.resize(at);
          break;
        case 2:
          text.erase(at, 1 + rng.below(40));
          break;
        default:
          text.insert(at, text.substr(rng.below(text.size()), rng.below(60)));
      }
      if (text.empty()) break;
    }
    try {
      const Statistics s = statistics_from_json(text);
      ++accepted;
      // Whatever is accepted can be used and written.
      for (const auto& [name, value] : s.values) {
        if (value.count == 0) continue;
        for (const ObserverKind kind : {ObserverKind::minmax, ObserverKind::percentile,
                                        ObserverKind::mse, ObserverKind::entropy}) {
          if (detail_for(kind) == Detail::histogram && value.detail == Detail::range) continue;
          const Range r = estimate_range(value, {kind}, {.bits = 4});
          EXPECT_TRUE(r.rmin <= 0 && r.rmax >= 0);
        }
      }
      expect_equal(statistics_from_json(statistics_to_json(s)), s);
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::corrupt_data || e.code() == ErrorCode::unsupported)
          << e.what();
    }
  }
  EXPECT_LT(accepted, 300);
}

TEST(Statistics, merge_adds_up_parts) {
  Statistics a = example();
  Statistics b = example();
  b.data_fingerprint = "00aa";
  b.overrides.erase("by hand");
  b.values.erase("never_seen");
  b.values["other"] = b.values["conv1_out"];
  Statistics c = b;
  c.merge(a);
  a.merge(b);
  expect_equal(a, c);
  EXPECT_EQ(a.samples, 6);
  EXPECT_EQ(a.data_fingerprint, "00aa+fedcba9876543210");
  EXPECT_EQ(a.values["conv1_out"].count, 12000);
  EXPECT_EQ(a.values["other"].count, 6000);
  EXPECT_EQ(a.overrides.size(), 2u);
  Statistics d;
  d.merge(a);
  expect_equal(d, a);
}

TEST(Statistics, merge_refuses_what_does_not_belong_together) {
  Statistics a = example();
  Statistics b = example();
  b.model_fingerprint = "another";
  EXPECT_THROW(a.merge(b), Error);
  b = example();
  b.overrides["by hand"] = {0, 5};
  EXPECT_THROW(a.merge(b), Error);
  expect_equal(a, example());
}

TEST(Statistics, range_of_names_the_value) {
  const Statistics s = example();
  for (const char* name : {"missing", "never_seen"}) {
    try {
      (void)s.range_of(name, {}, {});
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  }
  EXPECT_EQ(s.range_of("range_only", {}, {.symmetry = Symmetry::asymmetric}),
            (Range{-0.1f, 3.3333333f}));
}

}  // namespace
}  // namespace narrow
