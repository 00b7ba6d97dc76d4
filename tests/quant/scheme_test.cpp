// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/scheme.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"

namespace narrow {
namespace {

TEST(Scheme, limits_of_codes) {
  Scheme s;
  EXPECT_EQ(s.qmin(), -128);
  EXPECT_EQ(s.qmax(), 127);
  s.narrow_range = true;
  EXPECT_EQ(s.qmin(), -127);
  s = Scheme{.bits = 2, .is_signed = true};
  EXPECT_EQ(s.qmin(), -2);
  EXPECT_EQ(s.qmax(), 1);
  s = Scheme{.bits = 5, .is_signed = false};
  EXPECT_EQ(s.qmin(), 0);
  EXPECT_EQ(s.qmax(), 31);
  s = Scheme{.bits = 16, .is_signed = false};
  EXPECT_EQ(s.qmax(), 65535);
  s.is_signed = true;
  EXPECT_EQ(s.qmin(), -32768);
  EXPECT_EQ(s.qmax(), 32767);
}

TEST(Scheme, storage_is_the_narrowest_type) {
  const auto storage = [](int bits, bool is_signed) {
    return Scheme{.bits = bits, .is_signed = is_signed}.storage();
  };
  EXPECT_EQ(storage(2, true), DType::int2);
  EXPECT_EQ(storage(2, false), DType::uint2);
  EXPECT_EQ(storage(3, true), DType::int4);
  EXPECT_EQ(storage(4, false), DType::uint4);
  EXPECT_EQ(storage(5, true), DType::int8);
  EXPECT_EQ(storage(8, false), DType::uint8);
  EXPECT_EQ(storage(16, true), DType::int16);
  EXPECT_EQ(storage(16, false), DType::uint16);
}

TEST(Scheme, describes_itself) {
  EXPECT_EQ((Scheme{.bits = 4, .granularity = Granularity::per_group, .axis = 1, .group_size = 32}
                 .describe()),
            "int4 symmetric per_group(axis 1, 32)");
  EXPECT_EQ((Scheme{.is_signed = false, .symmetry = Symmetry::asymmetric}.describe()),
            "uint8 asymmetric per_tensor");
  EXPECT_EQ((Scheme{.narrow_range = true,
                    .granularity = Granularity::per_axis,
                    .scale_type = ScaleType::power_of_two}
                 .describe()),
            "int8 narrow symmetric per_axis(axis 0), scale power_of_two");
}

TEST(Scheme, refuses_what_no_grid_has) {
  for (const int bits : {-1, 0, 1, 9, 12, 15, 17, 32}) {
    EXPECT_THROW((Scheme{.bits = bits}.validate()), Error) << bits;
  }
  for (const int bits : {2, 3, 4, 5, 6, 7, 8, 16}) {
    EXPECT_NO_THROW((Scheme{.bits = bits}.validate())) << bits;
  }
  EXPECT_THROW((Scheme{.is_signed = false, .narrow_range = true}.validate()), Error);
  EXPECT_THROW((Scheme{.granularity = Granularity::per_group}.validate()), Error);
  EXPECT_THROW((Scheme{.granularity = Granularity::per_group, .group_size = -4}.validate()), Error);
}

}  // namespace
}  // namespace narrow
