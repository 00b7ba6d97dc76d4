// SPDX-License-Identifier: Apache-2.0
// Weights in blocks: every kernel against the specification, bit for bit, and the specification
// against the product of decoded floats.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/block_inputs.h"
#include "kernels/guard_buffer.h"
#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/block_gemm.h"
#include "narrow/kernels/ref/block_gemm.h"

namespace narrow::kernels {
namespace {

using testing::activations;
using testing::Fill;
using testing::GuardBuffer;
using testing::runnable_kernels;
using testing::weights;

std::vector<float> run(const KernelSet& set, const PackedBlocks& w, const std::vector<float>& x,
                       int64_t m) {
  std::vector<float> y(static_cast<size_t>(m * w.n), -777.0F);
  const Tensor scratch(DType::uint8, {static_cast<int64_t>(block_gemm_scratch_bytes(set, w, m))});
  run_block_gemm(set, w, x.data(), m, y.data(),
                 {const_cast<std::byte*>(scratch.raw()), scratch.bytes()});
  return y;
}

void expect_same_bits(const std::vector<float>& y, const std::vector<float>& expected,
                      const std::string& what) {
  ASSERT_EQ(y.size(), expected.size());
  for (size_t i = 0; i < y.size(); ++i) {
    if (std::isnan(y[i]) && std::isnan(expected[i])) continue;  // which NaN is left open
    ASSERT_EQ(std::bit_cast<uint32_t>(y[i]), std::bit_cast<uint32_t>(expected[i]))
        << what << ", element " << i << ": " << y[i] << " for " << expected[i];
  }
}

struct Size {
  int64_t m, n, k;  // k in blocks
};

void expect_specified(BlockType type, const Size& size, Fill fill_w, Fill fill_x) {
  const int64_t k = size.k * codec(type).block_values;
  const auto w = weights(type, size.n, k, fill_w, static_cast<uint64_t>(size.m * 31 + size.n));
  const auto x = activations(size.m * k, fill_x, static_cast<uint64_t>(size.n + 5 * size.k));
  std::vector<float> expected(static_cast<size_t>(size.m * size.n));
  ref::block_gemm(type, w, x, size.m, size.n, k, expected);
  const PackedBlocks packed = pack_blocks(type, w, size.n, k);
  for (const KernelSet* set : runnable_kernels()) {
    expect_same_bits(run(*set, packed, x, size.m), expected,
                     std::string(set->name) + " " + to_string(type) + " " + std::to_string(size.m) +
                         "x" + std::to_string(size.n) + "x" + std::to_string(k));
  }
}

TEST(BlockGemm, EveryKernelIsTheSpecification) {
  for (const BlockForm& form : block_forms()) {
    for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 25}) {
      expect_specified(form.type, {m, 19, 3}, Fill::noise, Fill::noise);
    }
    for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 47, 49, 65}) {
      expect_specified(form.type, {1, n, 2}, Fill::noise, Fill::noise);
      expect_specified(form.type, {7, n, 2}, Fill::noise, Fill::noise);
    }
    for (const int64_t k : {1, 4, 15, 16, 17, 33}) {
      expect_specified(form.type, {1, 18, k}, Fill::noise, Fill::noise);
      expect_specified(form.type, {5, 34, k}, Fill::noise, Fill::noise);
    }
  }
}

TEST(BlockGemm, ExtremeCodes) {
  const Fill fills[] = {Fill::highest, Fill::lowest, Fill::alternating, Fill::ends};
  for (const BlockForm& form : block_forms()) {
    for (const Fill w : fills) {
      for (const Fill x : fills) {
        expect_specified(form.type, {1, 17, 2}, w, x);
        expect_specified(form.type, {7, 33, 2}, w, x);
      }
    }
  }
}

TEST(BlockGemm, NothingIsReadOrWrittenOutside) {
  for (const BlockForm& form : block_forms()) {
    const int64_t n = 19;
    const int64_t k = 2 * form.values;
    PackedBlocks packed = pack_blocks(form.type, weights(form.type, n, k, Fill::noise, 3), n, k);
    GuardBuffer<uint8_t> w(packed.weights.bytes());
    std::memcpy(w.data(), packed.weights.raw(), packed.weights.bytes());
    packed.weights =
        Tensor::view(nullptr, w.data(), w.size(), DType::uint8, {static_cast<int64_t>(w.size())});
    for (const int64_t m : {1, 7}) {
      const auto values = activations(m * k, Fill::noise, 9);
      GuardBuffer<float> x(values.size());
      std::copy(values.begin(), values.end(), x.begin());
      GuardBuffer<float> y(static_cast<size_t>(m * n));
      for (const KernelSet* set : runnable_kernels()) {
        GuardBuffer<std::byte> scratch(block_gemm_scratch_bytes(*set, packed, m));
        run_block_gemm(*set, packed, x.data(), m, y.data(), {scratch.data(), scratch.size()});
        expect_same_bits({y.begin(), y.end()}, run(*set, packed, values, m), set->name);
      }
    }
  }
}

TEST(BlockGemm, ARowIsTheSameAloneAndAmongOthersAndForAnyThreads) {
  for (const BlockForm& form : block_forms()) {
    const int64_t n = 200;
    const int64_t k = 1024;
    const int64_t m = 23;
    const PackedBlocks packed =
        pack_blocks(form.type, weights(form.type, n, k, Fill::noise, 4), n, k);
    const auto x = activations(m * k, Fill::noise, 11);
    for (const KernelSet* set : runnable_kernels()) {
      const auto together = run(*set, packed, x, m);
      const ThreadLimit one(1);
      for (const int64_t r : {0, 5, 22}) {
        const std::vector<float> row(x.begin() + r * k, x.begin() + (r + 1) * k);
        expect_same_bits(run(*set, packed, row, 1),
                         {together.begin() + r * n, together.begin() + (r + 1) * n}, set->name);
      }
    }
  }
}

/// The result may differ from the product of the decoded floats and the activations by half a step
/// of each activation, and by the rounding of the sums: for each term 3 roundings of its own and
/// one for each addition after it.
TEST(BlockGemm, IsTheProductOfTheDecodedFloats) {
  for (const BlockForm& form : block_forms()) {
    const int64_t n = 9;
    const int64_t k = 1024;
    const auto w = weights(form.type, n, k, Fill::noise, 21);
    std::vector<float> decoded(static_cast<size_t>(n * k));
    decode_rows(form.type, w, k, decoded);
    const auto x = activations(k, Fill::noise, 22);
    std::vector<float> y(static_cast<size_t>(n));
    ref::block_gemm(form.type, w, x, 1, n, k, y);
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0;
      double bound = 0;
      for (int64_t at = 0; at < k; at += 32) {
        double amax = 0;
        for (int64_t i = at; i < at + 32; ++i) {
          amax = std::max(amax, std::fabs(static_cast<double>(x[static_cast<size_t>(i)])));
        }
        for (int64_t i = at; i < at + 32; ++i) {
          const double value = decoded[static_cast<size_t>(c * k + i)];
          sum += value * static_cast<double>(x[static_cast<size_t>(i)]);
          const double half_step = amax / 127 / 2;
          // Offsets and codes are summed apart: each may be larger than the value they make.
          bound += std::fabs(value) * half_step * 1.001;
        }
      }
      BlockParts parts;
      double magnitude = 0;
      for (int64_t b = 0; b < k / form.values; ++b) {
        take_apart(form.type,
                   reinterpret_cast<const uint8_t*>(w.data()) +
                       (c * (k / form.values) + b) * codec(form.type).block_bytes,
                   parts);
        for (int i = 0; i < form.values; ++i) {
          const int g = i / form.group;
          const double code = std::abs(integer_of(form, parts.codes[i]));
          double part = code * std::fabs(static_cast<double>(scale_of(parts, g)));
          if (form.offset) part += std::fabs(static_cast<double>(offset_of(form, parts, g)));
          magnitude += part *
                       std::fabs(static_cast<double>(x[static_cast<size_t>(b * form.values + i)])) *
                       1.01;
        }
      }
      bound += magnitude * (static_cast<double>(k) / 32 + 6) *
               static_cast<double>(std::numeric_limits<float>::epsilon());
      const double error = std::fabs(static_cast<double>(y[static_cast<size_t>(c)]) - sum);
      EXPECT_LE(error, bound) << to_string(form.type);
      EXPECT_GT(bound, 0);
      EXPECT_LT(bound, magnitude * 0.02) << "a bound that cannot fail";
    }
  }
}

/// Two or four sums of products, each rounded with every addition after it: k / 2 at most.
TEST(BlockFloat, IsTheProductOfTheDecodedFloats) {
  for (const BlockForm& form : block_forms()) {
    const int64_t n = 35;
    for (const int64_t m : {1, 2, 7, 13}) {
      for (const int64_t blocks : {1, 3, 17}) {
        const int64_t k = blocks * form.values;
        const auto w = weights(form.type, n, k, Fill::noise, 31);
        std::vector<float> decoded(static_cast<size_t>(n * k));
        decode_rows(form.type, w, k, decoded);
        const auto x = activations(m * k, Fill::noise, 32);
        const PackedBlocks packed = pack_blocks(form.type, w, n, k);
        for (const KernelSet* set : runnable_kernels()) {
          GuardBuffer<float> guarded(x.size());
          std::copy(x.begin(), x.end(), guarded.begin());
          GuardBuffer<float> y(static_cast<size_t>(m * n));
          run_block_float(*set, packed, guarded.data(), m, y.data());
          std::vector<float> alone(static_cast<size_t>(n));
          run_block_float(*set, packed, x.data() + (m - 1) * k, 1, alone.data());
          for (int64_t i = 0; i < m * n; ++i) {
            double sum = 0;
            double magnitude = 0;
            for (int64_t p = 0; p < k; ++p) {
              const double term = static_cast<double>(x[static_cast<size_t>(i / n * k + p)]) *
                                  static_cast<double>(decoded[static_cast<size_t>(i % n * k + p)]);
              sum += term;
              magnitude += std::fabs(term);
            }
            const double bound = (static_cast<double>(k) / 2 + 4) * magnitude *
                                 static_cast<double>(std::numeric_limits<float>::epsilon());
            const float got = y[static_cast<size_t>(i)];
            ASSERT_LE(std::fabs(static_cast<double>(got) - sum), bound)
                << set->name << " " << to_string(form.type) << " k " << k;
            if (i >= (m - 1) * n) {
              ASSERT_EQ(got, alone[static_cast<size_t>(i % n)]) << set->name << " row " << m - 1;
            }
          }
        }
      }
    }
  }
}

TEST(BlockGemm, NumbersThatAreNone) {
  const int64_t k = 64;
  const int64_t n = 17;
  const auto w = weights(BlockType::q8_0, n, k, Fill::noise, 5);
  const PackedBlocks packed = pack_blocks(BlockType::q8_0, w, n, k);
  const float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
    auto x = activations(k, Fill::noise, 6);
    x[40] = bad;
    for (const KernelSet* set : runnable_kernels()) {
      for (const float y : run(*set, packed, x, 1)) EXPECT_TRUE(std::isnan(y)) << set->name;
    }
  }
}

TEST(BlockGemm, WrongSizesAreRefused) {
  const std::vector<std::byte> w(68);
  EXPECT_THROW(pack_blocks(BlockType::q8_0, w, 3, 32), Error);
  EXPECT_THROW(pack_blocks(BlockType::q8_0, w, 2, 33), Error);
  EXPECT_THROW(pack_blocks(BlockType::f16, w, 1, 34), Error);
  EXPECT_NO_THROW(pack_blocks(BlockType::q8_0, w, 2, 32));
}

TEST(QuantizeBlocks, EveryKernelIsTheSpecification) {
  std::vector<float> x = activations(32 * 40, Fill::noise, 77);
  const auto block = [&](size_t b) { return x.begin() + static_cast<int64_t>(32 * b); };
  std::fill(block(1), block(2), 0.0F);
  std::fill(block(2), block(3), -0.0F);
  std::fill(block(3), block(4), 190 * std::numeric_limits<float>::denorm_min());
  std::fill(block(4), block(5), std::numeric_limits<float>::denorm_min());
  block(5)[7] = std::numeric_limits<float>::infinity();
  block(6)[31] = -std::nanf("");
  std::fill(block(7), block(8), -std::numeric_limits<float>::max());
  for (int i = 0; i < 32; ++i) block(8)[i] = static_cast<float>(i - 16) + 0.5F;  // ties
  block(8)[0] = 127.0F;
  for (int i = 0; i < 32; ++i) block(9)[i] = i == 3 ? -1.0F : 1.0F / 127 * 0.5F;
  const auto runs = static_cast<int64_t>(x.size()) / 32;
  std::vector<int8_t> codes(x.size());
  std::vector<float> scales(static_cast<size_t>(runs));
  for (size_t b = 0; b < scales.size(); ++b) {
    scales[b] =
        ref::quantize_block(std::span(x).subspan(32 * b, 32), std::span(codes).subspan(32 * b, 32));
  }
  EXPECT_EQ(scales[1], 0.0F);
  EXPECT_EQ(codes[32 * 3], 127);
  EXPECT_EQ(codes[32 * 5], 0);
  for (const KernelSet* set : runnable_kernels()) {
    for (const int32_t group : {16, 32}) {
      const auto groups = x.size() / static_cast<size_t>(group);
      GuardBuffer<int8_t> q(x.size());
      GuardBuffer<float> s(scales.size());
      GuardBuffer<int32_t> start(groups);
      GuardBuffer<float> sums(groups);
      QuantizeBlocksArgs args{x.data(), 0, 1, static_cast<int64_t>(x.size()), group, 3, {}};
      args.rows = {q.data(), s.data(), start.data(), sums.data(), 1, 1};
      set->quantize_blocks(args);
      EXPECT_TRUE(std::equal(q.begin(), q.end(), codes.begin())) << set->name;
      expect_same_bits({s.begin(), s.end()}, scales, set->name);
      for (size_t g = 0; g < groups; ++g) {
        int32_t sum = 0;
        for (int i = 0; i < group; ++i) sum += codes[g * static_cast<size_t>(group) + i];
        ASSERT_EQ(start[g], -3 * sum) << set->name;
        ASSERT_EQ(sums[g], static_cast<float>(sum)) << set->name;
      }
    }
  }
}

}  // namespace
}  // namespace narrow::kernels
