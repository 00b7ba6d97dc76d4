// SPDX-License-Identifier: Apache-2.0
// Every elementwise kernel of every instruction set against the portable one, on buffers that end
// (and begin) at pages which may not be touched.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "guard_buffer.h"
#include "kernel_inputs.h"
#include "narrow/quant/requantize.h"

namespace narrow::kernels {
namespace {

using testing::Fill;
using testing::Guard;
using testing::GuardBuffer;

constexpr std::array<int64_t, 17> kCounts = {0,  1,  2,  7,  8,  9,  15, 16, 17,
                                             31, 32, 33, 63, 64, 65, 97, 200};

const KernelSet& portable() {
  return kernel_sets().back();
}

/// Calls body(kernels, guard) for every set but the portable one, guarded on either side.
template <class Body>
void for_kernels(const Body& body) {
  for (const KernelSet* set : testing::runnable_kernels()) {
    for (const Guard guard : {Guard::behind, Guard::before}) {
      SCOPED_TRACE(set->name);
      body(*set, guard);
    }
  }
}

template <class T>
void expect_same(const GuardBuffer<T>& got, const GuardBuffer<T>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &expected[i], sizeof(T)), 0)
        << "element " << i << " is " << +got[i] << ", not " << +expected[i];
  }
}

TEST(Elementwise, XorCopy) {
  for_kernels([](const KernelSet& set, Guard guard) {
    for (const int64_t n : kCounts) {
      GuardBuffer<uint8_t> src(n, guard);
      GuardBuffer<uint8_t> dst(n, guard);
      testing::fill(src.data(), src.size(), Fill::noise, 0, 255, n);
      set.xor_copy(dst.data(), src.data(), n, 0x80);
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(dst[i], src[i] ^ 0x80);
    }
  });
}

TEST(Elementwise, Interleave) {
  for_kernels([](const KernelSet& set, Guard guard) {
    for (const int64_t planes : {2, 3, 4}) {
      for (const int64_t n : kCounts) {
        GuardBuffer<uint8_t> src(planes * n, guard);
        GuardBuffer<uint8_t> dst(planes * n, guard);
        testing::fill(src.data(), src.size(), Fill::noise, 0, 255, n);
        set.interleave(dst.data(), src.data(), n, planes, n);
        for (int64_t i = 0; i < planes * n; ++i) {
          ASSERT_EQ(dst[i], src[i % planes * n + i / planes]) << planes << " " << i;
        }
      }
    }
  });
}

TEST(Elementwise, QuantizeAndBack) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> odd = {0.0f,  -0.0f,  0.05f, 0.15f, 0.25f, -0.05f, -0.15f, -0.25f,
                                  1e30f, -1e30f, inf,   -inf,  NAN,   1e-42f, 12.75f, -12.85f};
  for_kernels([&](const KernelSet& set, Guard guard) {
    for (const int64_t n : kCounts) {
      GuardBuffer<float> x(n, guard);
      for (int64_t i = 0; i < n; ++i) x[i] = odd[(i * 7) % odd.size()] * (i > 60 ? 1.01f : 1.0f);
      for (const int32_t zero : {-128, 0, 3, 127, 255}) {
        const QuantizeArgs args = {0.1f, static_cast<float>(-128 - zero / 2),
                                   static_cast<float>(127 - zero / 2), zero};
        GuardBuffer<uint8_t> got(n, guard);
        GuardBuffer<uint8_t> expected(n);
        set.quantize(got.data(), x.data(), n, args);
        portable().quantize(expected.data(), x.data(), n, args);
        expect_same(got, expected);
        GuardBuffer<float> back(n, guard);
        GuardBuffer<float> expected_back(n);
        const DequantizeArgs real = {0.1f, zero, static_cast<uint8_t>(zero < 0 ? 0x80 : 0)};
        set.dequantize(back.data(), got.data(), n, real);
        portable().dequantize(expected_back.data(), got.data(), n, real);
        expect_same(back, expected_back);
      }
    }
  });
}

TEST(Elementwise, QuantizeRoundsHalfToEven) {
  // 0.5, 1.5, 2.5 and their negatives at scale 1.
  const std::array<float, 6> x = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f};
  const std::array<int, 6> expected = {10, 12, 12, 10, 8, 8};
  for (const KernelSet* set : testing::runnable_kernels()) {
    std::array<uint8_t, 6> y{};
    set->quantize(y.data(), x.data(), 6, {1.0f, -10, 245, 10});
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], expected[i]) << set->name;
  }
}

TEST(Elementwise, Binary) {
  for_kernels([](const KernelSet& set, Guard guard) {
    for (const int64_t n : kCounts) {
      GuardBuffer<uint8_t> a(n, guard);
      GuardBuffer<uint8_t> b(n, guard);
      testing::fill(a.data(), a.size(), Fill::noise, 0, 255, 1);
      testing::fill(b.data(), b.size(), Fill::ends, 0, 255, 2);
      for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div}) {
        for (const auto& [step_a, step_b] : {std::pair{1, 1}, std::pair{1, 0}, std::pair{0, 1}}) {
          if (n == 0) continue;
          const BinaryArgs args = {op,   0x80, 0,   255, 0, op == Binary::div ? 20.0f : 0.013f,
                                   0.7f, -100, 150, -20};
          GuardBuffer<uint8_t> got(n, guard);
          GuardBuffer<uint8_t> expected(n);
          set.binary(got.data(), a.data(), step_a, b.data(), step_b, n, args);
          portable().binary(expected.data(), a.data(), step_a, b.data(), step_b, n, args);
          expect_same(got, expected);
        }
      }
    }
  });
}

TEST(Elementwise, LookupOfEveryByte) {
  std::array<uint8_t, 256> table{};
  testing::fill(table.data(), table.size(), Fill::noise, 0, 255, 9);
  for_kernels([&](const KernelSet& set, Guard guard) {
    for (const int64_t n : {1, 31, 32, 33, 63, 64, 65, 256}) {
      GuardBuffer<uint8_t> x(n, guard);
      for (int64_t i = 0; i < n; ++i) x[i] = static_cast<uint8_t>(i * 11);
      GuardBuffer<uint8_t> y(n, guard);
      set.lookup(y.data(), x.data(), n, table.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(y[i], table[x[i]]);
      set.lookup(x.data(), x.data(), n, table.data());  // in place
      expect_same(x, y);
    }
  });
}

TEST(Elementwise, Windows) {
  for_kernels([](const KernelSet& set, Guard guard) {
    for (const int64_t channels : {1, 7, 8, 16, 31, 33, 64, 65, 130}) {
      const int64_t pixels = 9;
      GuardBuffer<uint8_t> x(pixels * channels, guard);
      testing::fill(x.data(), x.size(), Fill::noise, 0, 255, channels);
      const std::array<const uint8_t*, 3> rows = {x.data(), x.data() + channels,
                                                  x.data() + 4 * channels};
      const std::array<int64_t, 4> taps = {0, channels, 3 * channels, 4 * channels};
      for (const uint8_t flip : {uint8_t{0}, uint8_t{0x80}}) {
        for (const int64_t num_taps : {1, 3, 4}) {
          GuardBuffer<uint8_t> got(3 * channels, guard);
          GuardBuffer<uint8_t> expected(3 * channels);
          WindowArgs args = {rows.data(), 3,    taps.data(), num_taps,
                             channels,    flip, got.data(),  channels};
          WindowArgs plain = args;
          plain.dst = expected.data();
          set.max_pool(args);
          portable().max_pool(plain);
          expect_same(got, expected);
          const AverageArgs average = {-500, 0.21f, -40, 200, 40};
          set.average_pool(args, average);
          portable().average_pool(plain, average);
          expect_same(got, expected);
        }
      }
    }
  });
}

TEST(Elementwise, Range) {
  const float inf = std::numeric_limits<float>::infinity();
  for_kernels([&](const KernelSet& set, Guard guard) {
    for (const int64_t n : kCounts) {
      for (const float special : {0.5f, NAN, inf, -inf, -0.0f}) {
        GuardBuffer<float> x(n, guard);
        for (int64_t i = 0; i < n; ++i) x[i] = std::sin(static_cast<float>(i * n)) - 0.5f;
        if (n > 0) x[n - 1] = special;
        float lo = 0, hi = 0, lo2 = 0, hi2 = 0;
        set.range(x.data(), n, &lo, &hi);
        portable().range(x.data(), n, &lo2, &hi2);
        EXPECT_EQ(lo, lo2);
        EXPECT_EQ(hi, hi2);
      }
    }
  });
}

TEST(Elementwise, ScaleRow) {
  for_kernels([](const KernelSet& set, Guard guard) {
    for (const int64_t n : kCounts) {
      GuardBuffer<int32_t> sums(n, guard);
      GuardBuffer<int32_t> column(n, guard);
      GuardBuffer<float> scale(n, guard);
      GuardBuffer<float> bias(n, guard);
      for (int64_t i = 0; i < n; ++i) {
        sums[i] = static_cast<int32_t>(i * 16777259 - 30000001);
        column[i] = static_cast<int32_t>(5000 - i * 77);
        scale[i] = 0.001f * static_cast<float>(i + 1);
        bias[i] = static_cast<float>(i) - 3.3f;
      }
      for (const float* b :
           {static_cast<const float*>(nullptr), static_cast<const float*>(bias.data())}) {
        const ScaleRowArgs args = {77, 0.0123f, column.data(), scale.data(), b};
        GuardBuffer<float> got(n, guard);
        GuardBuffer<float> expected(n);
        set.scale_row(got.data(), sums.data(), n, args);
        portable().scale_row(expected.data(), sums.data(), n, args);
        expect_same(got, expected);
      }
    }
  });
}

TEST(Elementwise, PackEqualsThePortableOrder) {
  for_kernels([](const KernelSet& set, Guard guard) {
    for (const int64_t k : {1, 3, 4, 5, 17}) {
      for (const int64_t n : {1, 15, 16, 17, 40}) {
        const int64_t ldb = n + 3;
        GuardBuffer<uint8_t> b((k - 1) * ldb + n, guard);
        testing::fill(b.data(), b.size(), Fill::ends, 0, 255, k * n);
        const int64_t columns = (n + 15) / 16 * 16;
        GuardBuffer<int8_t> got((k + 3) / 4 * 4 * columns, guard);
        GuardBuffer<int8_t> expected(got.size());
        GuardBuffer<int32_t> sums(columns, guard);
        GuardBuffer<int32_t> expected_sums(columns);
        set.pack(b.data(), ldb, k, n, 0x80, got.data(), sums.data());
        portable().pack(b.data(), ldb, k, n, 0x80, expected.data(), expected_sums.data());
        expect_same(got, expected);
        expect_same(sums, expected_sums);
      }
    }
  });
}

}  // namespace
}  // namespace narrow::kernels
