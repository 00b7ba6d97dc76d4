// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <vector>

#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> normal_values(size_t count, uint64_t seed, float scale = 1) {
  Rng rng(seed);
  std::vector<float> x(count);
  for (float& v : x) v = scale * static_cast<float>(rng.normal());
  return x;
}

std::vector<std::byte> encoded(BlockType type, std::span<const float> row,
                               const EncodeOptions& options = {}) {
  std::vector<std::byte> bytes(row_bytes(type, static_cast<int64_t>(row.size())));
  encode(type, row, bytes, options);
  return bytes;
}

std::vector<float> decoded(BlockType type, std::span<const std::byte> bytes) {
  const BlockCodec& c = codec(type);
  std::vector<float> out(bytes.size() / static_cast<size_t>(c.block_bytes) *
                         static_cast<size_t>(c.block_values));
  decode(type, bytes, out);
  return out;
}

std::vector<float> round_trip(BlockType type, std::span<const float> row,
                              const EncodeOptions& options = {}) {
  return decoded(type, encoded(type, row, options));
}

double weighted_error(std::span<const float> x, std::span<const float> y,
                      std::span<const float> weights = {}) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double e = static_cast<double>(x[i]) - y[i];
    sum += e * e * (weights.empty() ? 1.0 : weights[i]);
  }
  return sum;
}

bool is_plain(BlockType type) {
  return codec(type).block_values == 1;
}

class Blocks : public ::testing::TestWithParam<BlockType> {};

std::vector<BlockType> all_types() {
  std::vector<BlockType> types;
  for (const BlockCodec& c : block_codecs()) types.push_back(c.type);
  return types;
}

INSTANTIATE_TEST_SUITE_P(All, Blocks, ::testing::ValuesIn(all_types()),
                         [](const auto& p) { return std::string(to_string(p.param)); });

TEST(BlockCodecs, AreFoundByTheirNames) {
  ASSERT_EQ(block_codecs().size(), 15u);
  for (const BlockCodec& c : block_codecs()) {
    EXPECT_EQ(&codec(c.type), &c);
    EXPECT_EQ(find_codec(c.name), &c);
    EXPECT_STREQ(to_string(c.type), c.name);
  }
  EXPECT_EQ(find_codec("q4_K"), nullptr);
  EXPECT_EQ(find_codec("iq4_xs")->block_bytes, 136);
  EXPECT_DOUBLE_EQ(find_codec("q4_k")->bits_per_weight(), 4.5);
  EXPECT_DOUBLE_EQ(find_codec("q6_k")->bits_per_weight(), 6.5625);
}

TEST(BlockCodecs, DecodeWhatTheGgufPackageDecodes) {
  std::ifstream file(NARROW_SOURCE_DIR "/tests/goldens/blocks.txt");
  std::string line;
  std::set<std::string> seen;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::string hex;
    words >> name >> hex;
    const BlockCodec* c = find_codec(name);
    ASSERT_NE(c, nullptr) << name;
    std::vector<std::byte> bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes.push_back(static_cast<std::byte>(std::stoul(hex.substr(i, 2), nullptr, 16)));
    }
    ASSERT_EQ(bytes.size(), static_cast<size_t>(c->block_bytes));
    const std::vector<float> values = decoded(c->type, bytes);
    for (size_t i = 0; i < values.size(); ++i) {
      std::string bits;
      ASSERT_TRUE(words >> bits) << name << " value " << i;
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::stoul(bits, nullptr, 16))
          << name << " value " << i;
    }
    seen.insert(name);
  }
  EXPECT_EQ(seen.size(), block_codecs().size());
}

TEST(BlockCodecs, ANonFiniteScaleIsNotHidden) {
  for (const char* name : {"q4_0", "q8_0", "iq4_nl", "q5_1"}) {
    const BlockCodec& c = *find_codec(name);
    std::vector<std::byte> bytes(static_cast<size_t>(c.block_bytes), std::byte{0x31});
    bytes[0] = std::byte{0x00};
    bytes[1] = std::byte{0x7c};  // infinity
    for (const float v : decoded(c.type, bytes)) EXPECT_FALSE(std::isfinite(v)) << name;
    bytes[0] = std::byte{0x01};  // NaN
    for (const float v : decoded(c.type, bytes)) EXPECT_TRUE(std::isnan(v)) << name;
  }
}

// Half a step of the widest group: what rounding to nearest promises, plus what the scale's own
// rounding takes (largest for types whose scales have few bits).
TEST_P(Blocks, ErrorsStayBelowHalfAStep) {
  struct Bound {
    const char* name;
    double steps;  // levels between the extremes of a block
    double slack;  // over half a step
  };
  static const Bound bounds[] = {
      {"f32", 1e12, 1},  {"f16", 2048, 1},    {"bf16", 256, 1},    {"q4_0", 15, 2.1},
      {"q4_1", 15, 1.1}, {"q5_0", 31, 2.1},   {"q5_1", 31, 1.1},   {"q8_0", 254, 1.3},
      {"q2_k", 3, 1.5},  {"q3_k", 7, 2.3},    {"q4_k", 15, 1.3},   {"q5_k", 31, 1.4},
      {"q6_k", 63, 2.1}, {"iq4_nl", 10, 2.2}, {"iq4_xs", 10, 2.3},
  };
  const BlockType type = GetParam();
  const std::vector<float> x = normal_values(1024, 1);
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double range = static_cast<double>(*high) - *low;
  const std::vector<float> y = round_trip(type, x, {.method = EncodeMethod::rtn});
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(double{x[i]} - y[i]));
  for (const Bound& b : bounds) {
    if (std::string_view(b.name) != to_string(type)) continue;
    EXPECT_LE(worst, b.slack * 0.5 * range / b.steps);
    if (!is_plain(type)) {
      EXPECT_GT(worst, 0.2 * 0.5 * range / b.steps) << "the bound says little";
    }
    return;
  }
  FAIL() << "no bound for " << to_string(type);
}

TEST_P(Blocks, ZeroIsExact) {
  const std::vector<float> zeros(256, 0.0f);
  for (const auto method : {EncodeMethod::rtn, EncodeMethod::mse}) {
    EXPECT_EQ(round_trip(GetParam(), zeros, {.method = method}), zeros);
  }
}

TEST_P(Blocks, AConstantIsNearlyExact) {
  // Worst where scales or offsets have few bits: four in q2_k, a subnormal d in q6_k and iq4_xs.
  const double relative = GetParam() == BlockType::q2_k ? 0.02 : 0.01;
  for (const float value : {0.37f, -0.37f, 1.0f, -6e-3f}) {
    const std::vector<float> x(256, value);
    for (const auto method : {EncodeMethod::rtn, EncodeMethod::mse}) {
      for (const float y : round_trip(GetParam(), x, {.method = method})) {
        EXPECT_NEAR(y, value, relative * std::fabs(value)) << to_string(method);
      }
    }
  }
}

TEST_P(Blocks, SearchIsNeverWorseThanRounding) {
  const BlockType type = GetParam();
  std::vector<float> x = normal_values(2048, 7, 0.02f);
  for (size_t i = 0; i < x.size(); i += 97) x[i] *= 4;  // outliers
  const double rtn = weighted_error(x, round_trip(type, x, {.method = EncodeMethod::rtn}));
  const double mse = weighted_error(x, round_trip(type, x));
  if (is_plain(type)) {
    EXPECT_EQ(mse, rtn);
  } else {
    EXPECT_LT(mse, 0.97 * rtn);
  }
}

TEST_P(Blocks, ImportanceMovesTheErrorElsewhere) {
  const BlockType type = GetParam();
  if (is_plain(type)) return;
  const std::vector<float> x = normal_values(2048, 8);
  std::vector<float> importance = normal_values(2048, 9);
  for (float& h : importance) h = h * h * h * h;
  const double with =
      weighted_error(x, round_trip(type, x, {.importance = importance}), importance);
  EXPECT_LT(with, 0.95 * weighted_error(x, round_trip(type, x), importance));
  // Only ratios matter, also far from 1.
  std::vector<float> scaled = importance;
  for (float& h : scaled) h *= 0x1p60f;
  EXPECT_EQ(encoded(type, x, {.importance = scaled}), encoded(type, x, {.importance = importance}));
  const std::vector<float> none(2048, 0.0f);
  EXPECT_EQ(encoded(type, x, {.importance = none}), encoded(type, x));
}

TEST_P(Blocks, EmphasisKeepsLargeValuesBetter) {
  const BlockType type = GetParam();
  if (is_plain(type)) return;
  const std::vector<float> x = normal_values(4096, 10);
  std::vector<float> squares(x.size());
  for (size_t i = 0; i < x.size(); ++i) squares[i] = std::sqrt(1 + x[i] * x[i]);
  const auto y = round_trip(type, x, {.emphasis = Emphasis::magnitude});
  EXPECT_LT(weighted_error(x, y, squares), weighted_error(x, round_trip(type, x), squares));
}

TEST_P(Blocks, ExtremeInputsStayFinite) {
  const std::vector<float> units = normal_values(256, 11);
  for (const float scale : {3e37f, 1e30f, 1e6f, 1e-8f, 1e-20f, 1e-38f, 1e-44f}) {
    std::vector<float> x = units;
    for (float& v : x) v *= scale;
    for (const auto method : {EncodeMethod::rtn, EncodeMethod::mse}) {
      const auto y = round_trip(GetParam(), x, {.method = method});
      for (size_t i = 0; i < y.size(); ++i) ASSERT_TRUE(std::isfinite(y[i])) << scale << " " << i;
    }
  }
  // One huge value beside tiny ones.
  std::vector<float> x(256, 1e-40f);
  x[77] = -std::numeric_limits<float>::max();
  for (const float v : round_trip(GetParam(), x)) ASSERT_TRUE(std::isfinite(v));
}

TEST_P(Blocks, ScalesByPowersOfTwoChangeNothingElse) {
  const BlockType type = GetParam();
  const std::vector<float> x = normal_values(512, 12, 0.5f);
  std::vector<float> doubled = x;
  for (float& v : doubled) v *= 4;
  std::vector<float> y = round_trip(type, x);
  for (float& v : y) v *= 4;
  EXPECT_EQ(round_trip(type, doubled), y);
}

TEST_P(Blocks, NonFiniteInputIsRefusedByIndex) {
  for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
    std::vector<float> x(512, 1.0f);
    x[300] = bad;
    try {
      encoded(GetParam(), x);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
      EXPECT_NE(e.message().find("300"), std::string::npos);
    }
    std::vector<std::byte> out(2 * row_bytes(GetParam(), 256));
    try {
      encode_rows(GetParam(), x, 256, out);
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("row 1: value 44"), std::string::npos) << e.what();
    }
  }
}

TEST_P(Blocks, MatricesAreRowsWhateverTheThreads) {
  const BlockType type = GetParam();
  const std::vector<float> x = normal_values(256 * 150, 13);
  std::vector<float> importance = normal_values(256, 14);
  for (float& h : importance) h = h * h;
  const EncodeOptions options{.importance = importance};
  const size_t row = row_bytes(type, 256);
  std::vector<std::byte> whole(150 * row);
  {
    const ThreadLimit one(1);
    encode_rows(type, x, 256, whole, options);
  }
  std::vector<std::byte> parallel(150 * row);
  const ThreadLimit three(3);
  encode_rows(type, x, 256, parallel, options);
  EXPECT_EQ(whole, parallel);
  const auto last = encoded(type, std::span(x).subspan(256 * 149), options);
  EXPECT_TRUE(
      std::equal(last.begin(), last.end(), whole.begin() + static_cast<int64_t>(149 * row)));
  std::vector<float> y(x.size());
  decode_rows(type, whole, 256, y);
  EXPECT_EQ(y, decoded(type, whole));
}

TEST_P(Blocks, WrongSizesAreRefused) {
  const BlockType type = GetParam();
  const std::vector<float> x(512, 1.0f);
  std::vector<std::byte> out(row_bytes(type, 512));
  out.pop_back();
  EXPECT_THROW(encode(type, x, out), Error);
  std::vector<float> y(512);
  EXPECT_THROW(decode(type, out, y), Error);
  out.push_back({});
  const std::vector<float> few(3, 1.0f);
  EXPECT_THROW(encode(type, x, out, {.importance = few}), Error);
  for (const float bad : {-1.0f, kInfinity, std::nanf("")}) {
    const std::vector<float> importance(512, bad);
    EXPECT_THROW(encode(type, x, out, {.importance = importance}), Error);
  }
  EXPECT_THROW(encode_rows(type, x, 500, out), Error);
  EXPECT_THROW(row_bytes(type, -256), Error);
  EXPECT_THROW(row_bytes(type, int64_t{1} << 60), Error);
  if (!is_plain(type)) {
    EXPECT_THROW(row_bytes(type, 16), Error);
  }
}

TEST(BlockCodecs, ReferenceErrors) {
  // Relative square errors of Gaussian rows: what the search reaches today, with 2 % room. Anyone
  // who changes an encoder sees here whether it got worse.
  struct Row {
    const char* name;
    double mse;
  };
  const Row rows[] = {{"q4_0", 6.5e-3},  {"q4_1", 4.75e-3},   {"q5_0", 1.61e-3},
                      {"q5_1", 1.10e-3}, {"q8_0", 2.46e-5},   {"q2_k", 6.68e-2},
                      {"q3_k", 2.05e-2}, {"q4_k", 4.83e-3},   {"q5_k", 1.18e-3},
                      {"q6_k", 2.86e-4}, {"iq4_nl", 5.37e-3}, {"iq4_xs", 5.47e-3}};
  const std::vector<float> x = normal_values(256 * 400, 15, 0.03f);
  const std::vector<float> nothing(x.size(), 0.0f);
  const double power = weighted_error(x, nothing);
  for (const Row& r : rows) {
    const double error = weighted_error(x, round_trip(find_codec(r.name)->type, x)) / power;
    EXPECT_LT(error, 1.02 * r.mse) << r.name;
    EXPECT_GT(error, 0.9 * r.mse) << r.name << ": the table wants a better figure";
  }
}

TEST_P(Blocks, EveryInstructionSetWritesTheSameBytes) {
  struct Restore {
    Isa isa = active_isa();
    ~Restore() { set_isa(isa); }
  } const restore;
  const BlockType type = GetParam();
  std::vector<float> x = normal_values(4096, 21, 0.02f);
  std::fill(x.begin(), x.begin() + 300, 0.0f);
  for (size_t i = 300; i < 600; ++i) x[i] *= 1e-37f;
  for (size_t i = 700; i < 800; ++i) x[i] *= 1e20f;
  std::vector<float> importance = normal_values(x.size(), 22);
  for (float& v : importance) v *= v;
  for (const EncodeMethod method : {EncodeMethod::rtn, EncodeMethod::mse}) {
    for (const Emphasis e :
         {Emphasis::none, Emphasis::magnitude, Emphasis::direction, Emphasis::both}) {
      const EncodeOptions options{.method = method, .emphasis = e, .importance = importance};
      set_isa(Isa::scalar);
      const auto plain = encoded(type, x, options);
      for (const Isa isa : supported_isas()) {
        set_isa(isa);
        EXPECT_TRUE(encoded(type, x, options) == plain) << to_string(isa) << " " << to_string(e);
      }
    }
  }
}

/// What Emphasis::direction minimises, summed over blocks.
double directed_error(std::span<const float> x, std::span<const float> y, size_t block) {
  double total = 0;
  for (size_t b = 0; b < x.size(); b += block) {
    double errors = 0;
    double along = 0;
    double squares = 0;
    for (size_t i = b; i < b + block; ++i) {
      const double e = static_cast<double>(y[i]) - x[i];
      errors += e * e;
      along += x[i] * e;
      squares += static_cast<double>(x[i]) * x[i];
    }
    total += errors + along * along / squares;
  }
  return total;
}

TEST(BlockEmphasis, DirectionKeepsTheSizeOfTheWeights) {
  const std::vector<float> x = normal_values(1 << 14, 11, 0.02f);
  const auto along = [&](std::span<const float> y) {
    double xy = 0;
    double xx = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      xy += static_cast<double>(x[i]) * y[i];
      xx += static_cast<double>(x[i]) * x[i];
    }
    return 1 - xy / xx;  // how much smaller they became
  };
  for (const char* name : {"q2_k", "q3_k", "q4_k", "q4_0", "q4_1", "iq4_xs"}) {
    const BlockCodec& c = *find_codec(name);
    const auto plain = round_trip(c.type, x);
    const auto directed = round_trip(c.type, x, {.emphasis = Emphasis::direction});
    const auto block = static_cast<size_t>(c.block_values);
    EXPECT_LT(directed_error(x, directed, block), directed_error(x, plain, block)) << name;
    EXPECT_GT(weighted_error(x, directed), weighted_error(x, plain)) << name;
    EXPECT_LT(std::fabs(along(directed)), 0.75 * std::fabs(along(plain))) << name;
  }
  EXPECT_STREQ(to_string(Emphasis::direction), "direction");
  EXPECT_STREQ(to_string(Emphasis::both), "both");
  EXPECT_EQ(best_emphasis(BlockType::q3_k, true), Emphasis::both);
  EXPECT_EQ(best_emphasis(BlockType::q3_k, false), Emphasis::direction);
  EXPECT_EQ(best_emphasis(BlockType::q2_k, true), Emphasis::direction);
}

}  // namespace
}  // namespace narrow
