// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace narrow {
namespace {

TEST(Table, AlignsByCharactersNotBytes) {
  Table t({{"name", Align::left}, {"dB", Align::right}});
  t.add_row({"größe", "7"});
  t.add_row({"x", "-12.5", "surplus"});
  t.add_row({"short"});
  EXPECT_EQ(t.text(),
            "name      dB\n"
            "-----  -----\n"
            "größe      7\n"
            "x      -12.5\n"
            "short\n");
  EXPECT_EQ(t.rows(), 3u);
}

TEST(Table, FormatsNumbers) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1000), "1.0 kB");
  EXPECT_EQ(format_bytes(999950), "1.0 MB");
  EXPECT_EQ(format_bytes(4799212), "4.8 MB");
  EXPECT_EQ(format_bytes(std::numeric_limits<uint64_t>::max()), "18.4 EB");
  EXPECT_EQ(format_microseconds(0.04), "0.0 us");
  EXPECT_EQ(format_microseconds(999.4), "999.4 us");
  EXPECT_EQ(format_microseconds(1234), "1.23 ms");
  EXPECT_EQ(format_microseconds(2.5e6), "2.50 s");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_count(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
  EXPECT_EQ(format_fixed(1.005, 1), "1.0");
  EXPECT_EQ(format_fixed(std::nan(""), 1), "nan");
  EXPECT_EQ(format_fixed(-std::numeric_limits<double>::infinity(), 1), "-inf");
}

}  // namespace
}  // namespace narrow
