// SPDX-License-Identifier: Apache-2.0
// The float kernels of language models against sums in double, within bounds that follow from their
// sums: products of 16-bit weights, and attention.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "guard_buffer.h"
#include "kernel_inputs.h"
#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/attention.h"

namespace narrow::kernels {
namespace {

using testing::GuardBuffer;
using testing::Noise;

constexpr double kEpsilon = 0x1p-24;  // of one rounding
constexpr double kExpError = 0x1p-21;

void fill_reals(float* data, size_t count, uint64_t seed, float scale = 1) {
  Noise noise(seed);
  for (size_t i = 0; i < count; ++i) {
    data[i] = scale * static_cast<float>(noise.in(-1000, 1000)) / 1000.0F;
  }
}

/// 16-bit codes of reals, and what they are worth.
void fill_halves(uint16_t* data, size_t count, uint64_t seed, bool brain,
                 std::vector<double>& values) {
  std::vector<float> reals(count);
  fill_reals(reals.data(), count, seed);
  values.resize(count);
  for (size_t i = 0; i < count; ++i) {
    data[i] = brain ? to_bfloat16(reals[i]).bits : to_half(reals[i]).bits;
    values[i] = static_cast<double>(brain ? to_float(BFloat16{data[i]}) : to_float(Half{data[i]}));
  }
}

TEST(Activate, IsTheFormulaInDouble) {
  const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
  // As x / 2 (1 + tanh u) it cancels.
  const auto gelu = [](double x) {
    return x / (1 + std::exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)));
  };
  for (const KernelSet* set : testing::runnable_kernels()) {
    for (const int64_t n : {0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 100}) {
      for (const float scale : {0.01F, 1.0F, 10.0F, 300.0F}) {
        SCOPED_TRACE(std::string(set->name) + " n " + std::to_string(n));
        GuardBuffer<float> x(static_cast<size_t>(n));
        GuardBuffer<float> y(static_cast<size_t>(n));
        fill_reals(x.data(), x.size(), 5, scale);
        for (const SmoothUnit unit : {SmoothUnit::silu, SmoothUnit::gelu_tanh, SmoothUnit::gelu}) {
          set->activate(unit, x.data(), y.data(), n);
          for (int64_t i = 0; i < n; ++i) {
            const double in = static_cast<double>(x[i]);
            if (unit == SmoothUnit::gelu) {
              // erfc / 2 is known to 7.5e-8 and some roundings.
              const double exact = in / 2 * std::erfc(-in / std::sqrt(2.0));
              ASSERT_NEAR(static_cast<double>(y[i]), exact, std::abs(in) * 3e-7) << in;
              continue;
            }
            const double wanted = unit == SmoothUnit::silu ? silu(in) : gelu(in);
            // The argument of the exponential has a relative error of some roundings.
            const double argument = std::abs(in) * (1 + 0.0357 * in * in) * 2;
            const double bound =
                std::abs(wanted) * (kExpError + std::min(argument, 88.0) * 4 * kEpsilon) + 1e-35;
            ASSERT_NEAR(static_cast<double>(y[i]), wanted, bound) << in;
          }
          std::vector<float> same(x.data(), x.data() + n);
          set->activate(unit, same.data(), same.data(), n);
          EXPECT_TRUE(std::equal(same.begin(), same.end(), y.data()));
        }
      }
    }
    const float special[] = {std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity(), -0.0F, 0.0F};
    float y[4];
    set->activate(SmoothUnit::silu, special, y, 4);
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], special[1]);
    EXPECT_EQ(y[2], 0.0F);
    set->activate(SmoothUnit::gelu, special, y, 4);
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], special[1]);
    EXPECT_EQ(y[2], 0.0F);
    const float low[] = {-std::numeric_limits<float>::infinity(), -1e30F, -40, 40};
    set->activate(SmoothUnit::gelu, low, y, 4);
    EXPECT_EQ(y[0], 0.0F);
    EXPECT_EQ(y[1], 0.0F);
    EXPECT_EQ(y[2], 0.0F);
    EXPECT_EQ(y[3], 40.0F);
  }
}

TEST(HalfGemm, IsTheSumOfProducts) {
  for (const KernelSet* set : testing::runnable_kernels()) {
    for (const bool brain : {false, true}) {
      for (const int64_t k : {1, 3, 4, 8, 15, 16, 33, 64, 100}) {
        for (const auto& [m, n] : {std::pair{1, 1}, {1, 5}, {3, 4}, {4, 7}, {9, 8}}) {
          SCOPED_TRACE(std::string(set->name) + " k " + std::to_string(k) + " m " +
                       std::to_string(m) + " n " + std::to_string(n));
          GuardBuffer<float> a(static_cast<size_t>(m * k));
          GuardBuffer<uint16_t> b(static_cast<size_t>(n * k));
          GuardBuffer<float> bias(static_cast<size_t>(n));
          GuardBuffer<float> y(static_cast<size_t>(m * n));
          std::vector<double> w;
          fill_reals(a.data(), a.size(), 1);
          fill_reals(bias.data(), bias.size(), 2);
          fill_halves(b.data(), b.size(), 3, brain, w);
          HalfGemmArgs args{a.data(), k, m, b.data(), k, n, k, brain, bias.data(), y.data(), n};
          set->half_gemm(args);
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t j = 0; j < n; ++j) {
              double sum = static_cast<double>(bias[j]);
              double size = std::abs(sum);
              for (int64_t p = 0; p < k; ++p) {
                const double product = static_cast<double>(a[i * k + p]) * w[j * k + p];
                sum += product;
                size += std::abs(product);
              }
              const double bound = static_cast<double>(k + 2) * kEpsilon * size;
              ASSERT_NEAR(static_cast<double>(y[i * n + j]), sum, bound) << i << ", " << j;
            }
          }
          // One row alone gives the same bits.
          std::vector<float> row(static_cast<size_t>(n));
          args.a = a.data() + (m - 1) * k;
          args.m = 1;
          args.dst = row.data();
          set->half_gemm(args);
          for (int64_t j = 0; j < n; ++j) ASSERT_EQ(row[j], y[(m - 1) * n + j]);
        }
      }
    }
  }
}

// --- attention ----------------------------------------------------------------------------------

struct Case {
  int64_t batch, heads, kv_heads, queries, keys, width, value_width;
  KeyStore store;
  bool causal;
  int64_t window;  // 0: none
  float softcap;
  bool biased;
  int64_t scale_block = 0;
};

constexpr KeyStore f32 = KeyStore::f32;
constexpr KeyStore f16 = KeyStore::f16;
constexpr KeyStore int8 = KeyStore::int8;

struct Rig {
  explicit Rig(const Case& shape) : c(shape) {
    const auto count = [](int64_t n) { return static_cast<size_t>(n); };
    q.resize(count(c.batch * c.heads * c.queries * c.width));
    k.resize(count(c.batch * c.kv_heads * c.keys * c.width));
    v.resize(count(c.batch * c.kv_heads * c.keys * c.value_width));
    y.resize(count(c.batch * c.heads * c.queries * c.value_width), 7);
    fill_reals(q.data(), q.size(), 1, 2);
    fill_reals(k.data(), k.size(), 2, 2);
    fill_reals(v.data(), v.size(), 3);
    keep(k, c.width, k_stored);
    keep(v, c.value_width, v_stored);
    p.batch = c.batch;
    p.heads = c.heads;
    p.kv_heads = c.kv_heads;
    p.queries = c.queries;
    p.keys = c.keys;
    p.width = c.width;
    p.value_width = c.value_width;
    p.q_strides = {c.heads * c.queries * c.width, c.queries * c.width, c.width};
    p.k_strides = {c.kv_heads * c.keys * c.width, c.keys * c.width, c.width};
    p.v_strides = {c.kv_heads * c.keys * c.value_width, c.keys * c.value_width, c.value_width};
    p.y_strides = {c.heads * c.queries * c.value_width, c.queries * c.value_width, c.value_width};
    p.q = q.data();
    p.k = k_stored.data();
    p.v = v_stored.data();
    p.store = c.store;
    if (c.store == KeyStore::int8) {
      p.k_scales = k_stored.scales.data();
      p.v_scales = v_stored.scales.data();
      p.k_scale_strides = scale_strides(c.width);
      p.v_scale_strides = scale_strides(c.value_width);
      p.scale_block = c.scale_block;
    }
    p.y = y.data();
    p.scale = 0.5F;
    p.softcap = c.softcap;
    p.visible = [this](int64_t b, int64_t i) { return range(b, i); };
    if (c.biased) {
      p.bias = [](int64_t, int64_t h, int64_t i, int64_t first, int64_t n, float* out) {
        for (int64_t j = 0; j < n; ++j) out[j] = bias(h, i, first + j);
      };
    }
  }
  /// Numbers as they are kept; x becomes what that stands for.
  struct Stored {
    std::vector<float> floats;
    std::vector<uint16_t> bits;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    const void* data() const {
      if (!codes.empty()) return codes.data();
      return bits.empty() ? static_cast<const void*>(floats.data()) : bits.data();
    }
  };
  void keep(std::vector<float>& x, int64_t width, Stored& stored) const {
    if (c.store == KeyStore::int8) {
      const int64_t blocks = blocks_of(width);
      const auto rows = static_cast<int64_t>(x.size()) / width;
      for (int64_t i = 0; i < rows * blocks; ++i) {
        stored.scales.push_back(0.003F * static_cast<float>(i % 11) + 0.001F);
      }
      for (size_t i = 0; i < x.size(); ++i) {
        const int64_t row = static_cast<int64_t>(i) / width;
        const int64_t block = static_cast<int64_t>(i) % width / c.scale_block;
        stored.codes.push_back(static_cast<int8_t>(std::clamp(x[i] * 127, -128.0F, 127.0F)));
        x[i] = static_cast<float>(stored.codes.back()) *
               stored.scales[static_cast<size_t>(row * blocks + block)];
      }
    } else if (c.store == KeyStore::f16) {
      for (float& number : x) {
        stored.bits.push_back(to_half(number).bits);
        number = to_float(Half{stored.bits.back()});
      }
    } else {
      stored.floats = x;
    }
  }
  int64_t blocks_of(int64_t width) const { return (width + c.scale_block - 1) / c.scale_block; }
  AttentionStrides scale_strides(int64_t width) const {
    const int64_t blocks = blocks_of(width);
    return {c.kv_heads * c.keys * blocks, c.keys * blocks, blocks};
  }
  static float bias(int64_t h, int64_t i, int64_t key) {
    if ((key + i) % 3 == 0) return -std::numeric_limits<float>::infinity();
    return static_cast<float>((h + 2 * i + 3 * key) % 7) * 0.25F;
  }
  /// Batch item b holds keys - 3 b tokens.
  AttentionProblem::Range range(int64_t b, int64_t i) const {
    const int64_t valid = std::max<int64_t>(0, c.keys - 3 * b);
    const int64_t position = i + valid - c.queries;
    AttentionProblem::Range r{0, c.causal ? std::min(valid, position + 1) : valid};
    if (c.window > 0) r.begin = std::max<int64_t>(0, position + 1 - c.window);
    return r;
  }
  void run(const KernelSet& set) {
    std::vector<std::byte> scratch(
        attention_scratch_bytes(c.batch, c.heads, c.kv_heads, c.queries, c.keys, c.value_width) +
        64);
    run_attention(set, p, scratch);
  }

  /// Largest error over its bound.
  void expect_right() const {
    for (int64_t row = 0; row < c.batch * c.heads * c.queries; ++row) {
      const int64_t b = row / (c.heads * c.queries);
      const int64_t h = row / c.queries % c.heads;
      const int64_t i = row % c.queries;
      const int64_t kv = b * c.kv_heads + h / (c.heads / c.kv_heads);
      const AttentionProblem::Range r = range(b, i);
      std::vector<double> scores;
      std::vector<int64_t> seen;
      double score_error = 0;
      for (int64_t t = r.begin; t < r.end; ++t) {
        double dot = 0;
        double size = 0;
        for (int64_t d = 0; d < c.width; ++d) {
          const double x = static_cast<double>(q[row * c.width + d]) *
                           static_cast<double>(k[(kv * c.keys + t) * c.width + d]);
          dot += x;
          size += std::abs(x);
        }
        double s = 0.5 * dot;
        double error = static_cast<double>(c.width + 3) * kEpsilon * 0.5 * size;
        const auto cap = static_cast<double>(c.softcap);
        if (cap > 0) {
          s = cap * std::tanh(s / cap);
          error += cap * (kExpError + 4 * kEpsilon);
        }
        if (c.biased) s += static_cast<double>(bias(h, i, t));
        if (std::isinf(s)) continue;
        error += 2 * kEpsilon * std::abs(s);
        score_error = std::max(score_error, error);
        scores.push_back(s);
        seen.push_back(t);
      }
      const double top = scores.empty() ? 0 : *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& s : scores) sum += s = std::exp(s - top);
      // Errors of scores and exponentials go into weights, those of summing into both sums.
      const double bound = 2 * (std::expm1(2 * score_error + kExpError) +
                                static_cast<double>(c.keys + 8) * kEpsilon);
      for (int64_t d = 0; d < c.value_width; ++d) {
        double expected = 0;
        for (size_t t = 0; t < seen.size(); ++t) {
          expected +=
              scores[t] / sum * static_cast<double>(v[(kv * c.keys + seen[t]) * c.value_width + d]);
        }
        ASSERT_NEAR(static_cast<double>(y[row * c.value_width + d]), expected, bound)
            << "row " << row << " number " << d;
        if (seen.empty()) {
          ASSERT_EQ(y[row * c.value_width + d], 0.0F);
        }
      }
    }
  }

  Case c;
  std::vector<float> q, k, v, y;
  Stored k_stored, v_stored;
  AttentionProblem p;
};

constexpr Case kCases[] = {
    // batch, heads, kv heads, queries, keys, width, value width, store, causal, window, cap, bias,
    // block
    {1, 1, 1, 1, 1, 1, 1, f32, false, 0, 0, false},
    {2, 4, 2, 5, 5, 8, 8, f32, true, 0, 0, false},
    {2, 6, 2, 1, 63, 16, 16, f32, true, 0, 0, false},
    {1, 8, 1, 1, 64, 20, 33, f16, true, 0, 0, false},
    {1, 3, 3, 1, 65, 64, 64, f32, true, 0, 0, false},
    {2, 4, 2, 1, 700, 12, 80, f32, true, 0, 0, false},
    {2, 4, 2, 1, 700, 12, 80, f16, true, 100, 0, true},
    {1, 4, 2, 7, 513, 32, 32, f16, true, 0, 5, false},
    {1, 4, 2, 70, 70, 24, 40, f32, true, 0, 0, false},
    {1, 2, 1, 150, 150, 17, 5, f32, true, 33, 0, false},
    {1, 2, 1, 150, 150, 17, 5, f16, false, 0, 2, true},
    {2, 2, 2, 40, 20, 8, 8, f32, true, 0, 0, false},  // the first queries see nothing
    {1, 5, 1, 9, 130, 256, 256, f32, true, 0, 0, true},
    {2, 4, 2, 5, 5, 8, 8, int8, true, 0, 0, false, 32},
    {2, 6, 2, 1, 65, 64, 64, int8, true, 0, 0, false, 32},
    {1, 8, 1, 1, 700, 80, 33, int8, true, 0, 0, false, 16},
    {2, 4, 2, 1, 700, 20, 48, int8, true, 100, 0, true, 32},
    {1, 4, 2, 70, 513, 100, 100, int8, true, 0, 5, false, 100},
    {1, 5, 1, 9, 130, 256, 256, int8, true, 0, 0, true, 64},
};

TEST(AttentionKernel, IsSoftmaxOfScores) {
  for (const KernelSet* set : testing::runnable_kernels()) {
    for (size_t i = 0; i < std::size(kCases); ++i) {
      SCOPED_TRACE(std::string(set->name) + " case " + std::to_string(i));
      Rig rig(kCases[i]);
      rig.run(*set);
      rig.expect_right();
    }
  }
}

TEST(AttentionKernel, BlocksOfScalesAreVectorsOrWhole) {
  EXPECT_EQ(refuse_scale_block(32, 64, 64), "");
  EXPECT_EQ(refuse_scale_block(16, 40, 8), "");
  EXPECT_EQ(refuse_scale_block(8, 8, 7), "");
  EXPECT_NE(refuse_scale_block(8, 8, 9), "");
  EXPECT_NE(refuse_scale_block(48, 64, 64), "");
  EXPECT_NE(refuse_scale_block(0, 64, 64), "");
}

TEST(AttentionKernel, ThreadsDoNotChangeABit) {
  for (const Case& c : kCases) {
    Rig one(c);
    Rig many(c);
    {
      const ThreadLimit limit(1);
      one.run(best_kernels());
    }
    const ThreadLimit limit(4);
    many.run(best_kernels());
    EXPECT_EQ(one.y, many.y);
  }
}

TEST(AttentionKernel, WhatIsNotSeenIsNotRead) {
  for (const KernelSet* set : testing::runnable_kernels()) {
    Rig clean(kCases[5]);
    clean.run(*set);
    Rig dirty(kCases[5]);
    auto& keys = dirty.k_stored.floats;
    auto& values = dirty.v_stored.floats;
    for (int64_t kv = 0; kv < dirty.c.batch * dirty.c.kv_heads; ++kv) {
      const int64_t end = dirty.range(kv / dirty.c.kv_heads, 0).end;
      for (int64_t t = end; t < dirty.c.keys; ++t) {
        std::fill_n(keys.data() + (kv * dirty.c.keys + t) * dirty.c.width, dirty.c.width,
                    std::numeric_limits<float>::quiet_NaN());
        std::fill_n(values.data() + (kv * dirty.c.keys + t) * dirty.c.value_width,
                    dirty.c.value_width, std::numeric_limits<float>::quiet_NaN());
      }
    }
    dirty.run(*set);
    EXPECT_EQ(clean.y, dirty.y) << set->name;
  }
}

TEST(AttentionKernel, NotANumberIsHandedOn) {
  for (const KernelSet* set : testing::runnable_kernels()) {
    for (const size_t i : {4, 5, 8}) {  // whole tiles, split ones, many queries
      Rig rig(kCases[i]);
      std::fill(rig.q.begin(), rig.q.end(), std::numeric_limits<float>::quiet_NaN());
      rig.run(*set);
      for (const float y : rig.y) ASSERT_TRUE(y != y) << set->name;
    }
  }
}

}  // namespace
}  // namespace narrow::kernels
