// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/overflow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/quant/packing.h"

namespace narrow {
namespace {

/// All extremes of one row by trying every combination of range ends and the zero_point.
AccumulatorBound brute_force(const std::vector<int32_t>& w, int32_t z_w, const CodeRange& x,
                             int32_t bias) {
  AccumulatorBound b{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  size_t combinations = 1;
  for (size_t i = 0; i < w.size(); ++i) combinations *= 3;
  for (size_t c = 0; c < combinations; ++c) {
    int64_t acc = bias;
    size_t rest = c;
    for (const int32_t v : w) {
      const int32_t choices[] = {x.qmin, x.qmax, x.zero_point};
      acc += int64_t{choices[rest % 3] - x.zero_point} * (v - z_w);
      rest /= 3;
    }
    b.min = std::min(b.min, acc);
    b.max = std::max(b.max, acc);
  }
  return b;
}

TEST(Overflow, is_exact_on_small_rows) {
  Rng rng(1);
  for (int trial = 0; trial < 60; ++trial) {
    const bool is_signed = trial % 2 == 0;
    const CodeRange x = is_signed ? CodeRange{-128, 127, static_cast<int32_t>(rng.below(256)) - 128}
                                  : CodeRange{0, 255, static_cast<int32_t>(rng.below(256))};
    std::vector<int32_t> codes;
    for (int i = 0; i < 12; ++i) codes.push_back(static_cast<int32_t>(rng.below(256)) - 128);
    const std::vector<int32_t> zeros = {static_cast<int32_t>(rng.below(20)) - 10, 0, 3};
    const std::vector<int32_t> bias = {1000, -70000, 0};
    const Tensor by_row = pack_codes(codes, DType::int8, {3, 2, 2});
    std::vector<int32_t> turned(12);
    for (size_t i = 0; i < 12; ++i) turned[i % 4 * 3 + i / 4] = codes[i];
    const Tensor by_column = pack_codes(turned, DType::int8, {4, 3});
    const OverflowProof rows = prove_accumulators(by_row, zeros, x, bias);
    const OverflowProof columns = prove_accumulators(by_column, zeros, x, bias, 1);
    for (size_t r = 0; r < 3; ++r) {
      const AccumulatorBound expected =
          brute_force({codes.begin() + static_cast<std::ptrdiff_t>(4 * r),
                       codes.begin() + static_cast<std::ptrdiff_t>(4 * r + 4)},
                      zeros[r], x, bias[r]);
      EXPECT_EQ(rows.rows[r].min, expected.min);
      EXPECT_EQ(rows.rows[r].max, expected.max);
      EXPECT_EQ(columns.rows[r].min, expected.min);
      EXPECT_EQ(columns.rows[r].max, expected.max);
    }
  }
}

TEST(Overflow, finds_the_length_at_which_int32_overflows) {
  // 255 * 127 * 66311 <= 2^31 - 1 < 255 * 127 * 66312.
  for (const int64_t length : {66311, 66312}) {
    const std::vector<int32_t> codes(static_cast<size_t>(length), 127);
    const OverflowProof p =
        prove_accumulators(pack_codes(codes, DType::int8, {1, length}), {}, {0, 255, 0}, {});
    EXPECT_EQ(p.max, 255 * 127 * length);
    EXPECT_EQ(p.min, 0);
    EXPECT_EQ(p.fits_int32(), length == 66311);
    EXPECT_EQ(p.headroom_bits() >= 0, length == 66311);
  }
}

TEST(Overflow, the_bias_counts) {
  const Tensor w = pack_codes(std::vector<int32_t>{1}, DType::int8, {1, 1});
  const std::vector<int32_t> bias = {std::numeric_limits<int32_t>::max() - 254};
  EXPECT_FALSE(prove_accumulators(w, {}, {0, 255, 0}, bias).fits_int32());
  EXPECT_TRUE(prove_accumulators(w, {}, {0, 254, 0}, bias).fits_int32());
  const std::vector<int32_t> low = {std::numeric_limits<int32_t>::min()};
  EXPECT_TRUE(prove_accumulators(w, {}, {0, 255, 0}, low).fits_int32());
  EXPECT_FALSE(prove_accumulators(w, {}, {0, 255, 1}, low).fits_int32());
}

TEST(Overflow, padding_counts_where_the_zero_point_is_outside_the_codes) {
  const Tensor w = pack_codes(std::vector<int32_t>{2, -3}, DType::int8, {1, 2});
  // Codes 10..20 with zero_point 0: without padding the differences would start at 10.
  const OverflowProof p = prove_accumulators(w, {}, {10, 20, 0}, {});
  EXPECT_EQ(p.min, -60);
  EXPECT_EQ(p.max, 40);
}

TEST(Overflow, names_the_worst_row_and_the_headroom) {
  const Tensor w = pack_codes(std::vector<int32_t>{1, 1, -8, -8, 7, 7}, DType::int4, {3, 2});
  const OverflowProof p = prove_accumulators(w, {}, {0, 255, 0}, {});
  EXPECT_EQ(p.worst_row, 1);
  EXPECT_EQ(p.min, -16 * 255);
  EXPECT_EQ(p.max, 14 * 255);
  EXPECT_NEAR(p.headroom_bits(), 31 - 11.9943, 1e-4);
  const OverflowProof nothing = prove_accumulators(Tensor(DType::int8, {0, 4}), {}, {}, {});
  EXPECT_TRUE(nothing.fits_int32());
  EXPECT_EQ(nothing.headroom_bits(), 31);
}

TEST(Overflow, refuses_parts_that_do_not_fit_together) {
  const Tensor w(DType::int8, {3, 2});
  const std::vector<int32_t> two = {0, 0};
  const std::vector<int32_t> huge = {1 << 20};
  EXPECT_THROW(prove_accumulators(w, two, {}, {}), Error);
  EXPECT_THROW(prove_accumulators(w, {}, {}, two), Error);
  EXPECT_THROW(prove_accumulators(w, huge, {}, {}), Error);
  EXPECT_THROW(prove_accumulators(w, {}, {5, 4, 0}, {}), Error);
  EXPECT_THROW(prove_accumulators(w, {}, {0, 1 << 20, 0}, {}), Error);
  EXPECT_THROW(prove_accumulators(w, {}, {}, {}, 2), Error);
  EXPECT_THROW(prove_accumulators(Tensor(DType::float32, {3, 2}), {}, {}, {}), Error);
}

}  // namespace
}  // namespace narrow
