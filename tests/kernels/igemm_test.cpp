// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/igemm.h"

#include <gtest/gtest.h>

#include <limits>

#include "emulated_tiles.h"
#include "guard_buffer.h"
#include "kernel_inputs.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/requantize.h"
#if defined(__x86_64__)
#include "narrow/kernels/x86/avx512_vnni/kernels.h"
#endif

namespace narrow::kernels {
namespace {

using testing::Fill;
using testing::Guard;
using testing::GuardBuffer;

struct Case {
  int64_t m, n, taps, run_bytes;
  Fill a = Fill::noise;
  Fill w = Fill::noise;
  int32_t z_x = 0;
  int32_t z_w = 0;  // 0: symmetric; otherwise columns alternate between it and 0
  Out out = Out::codes;
  uint8_t flip = 0;  // int8 codes
  int32_t bits = 8;
  int32_t shift = 0;  // of 4 bits: codes lie in [-8, 7] + shift
};

/// One product run by a kernel set on guarded buffers, and its specification.
class Product {
 public:
  explicit Product(const Case& c)
      : c_(c),
        shape_{c.n, c.taps, c.run_bytes},
        pitch_(c.taps * shape_.read_bytes()),
        a_(static_cast<size_t>(c.m * pitch_)),
        w_(static_cast<size_t>(c.n * shape_.k())) {
    testing::fill(a_.data(), a_.size(), c.a, 0, 255, 1);
    const int lowest = c.bits == 4 ? -8 + c.shift : -128;
    testing::fill(w_.data(), w_.size(), c.w, lowest, c.bits == 4 ? lowest + 15 : 127, 2);
    for (int64_t i = 0; i < c.n; ++i) {
      zero_.push_back(i % 2 == 0 ? c.z_w : 0);
      bias_.push_back(static_cast<int32_t>(i * 1001 - 5000));
      bias_float_.push_back(static_cast<float>(i) * 0.37f - 3.0f);
      multiplier_.push_back(0.4f / static_cast<float>(1 + i % 7) / static_cast<float>(shape_.k()));
    }
    for (int64_t t = 0; t < c.taps; ++t) taps_.push_back(t * shape_.read_bytes());
  }

  int64_t expected_sum(int64_t r, int64_t col) const {
    int64_t acc = bias_[col];
    for (int64_t t = 0; t < c_.taps; ++t) {
      for (int64_t k = 0; k < c_.run_bytes; ++k) {
        const int64_t a = a_[r * pitch_ + taps_[t] + k];
        const int64_t w = w_[(col * c_.taps + t) * c_.run_bytes + k];
        acc += (a - c_.z_x) * (w - zero_[col]);
      }
    }
    return acc;
  }

  void check(const KernelSet& kernels) {
    while (static_cast<int64_t>(sums_.size()) < c_.m * c_.n) {
      const auto i = static_cast<int64_t>(sums_.size());
      sums_.push_back(static_cast<int32_t>(expected_sum(i / c_.n, i % c_.n)));
    }
    SCOPED_TRACE(::testing::Message()
                 << kernels.name << " m " << c_.m << " n " << c_.n << " taps " << c_.taps << " run "
                 << c_.run_bytes << " z_x " << c_.z_x << " z_w " << c_.z_w << " out " << int(c_.out)
                 << " bits " << c_.bits << " shift " << c_.shift);
    const std::span<const int8_t> codes{w_.data(), w_.size()};
    const PackedMatrix w = c_.bits == 4 ? pack_nibbles(codes, shape_, zero_).value()
                                        : pack_matrix(codes, shape_, zero_);
    Columns columns = make_columns(w, c_.z_x, bias_, multiplier_);
    columns.bias = bias_float_;
    columns.bias.resize(columns.corr.size());
    const int64_t ldc = c_.n + 5;
    const size_t element = c_.out == Out::codes ? 1 : 4;
    const size_t bytes = static_cast<size_t>((c_.m - 1) * ldc + c_.n) * element;
    GuardBuffer<uint8_t> dst(bytes);
    std::memset(dst.data(), 0xa5, bytes);
    IgemmProblem p;
    p.m = c_.m;
    p.w = w.view();
    p.rows = [&](int64_t first, int64_t count, const uint8_t** rows) {
      for (int64_t i = 0; i < count; ++i) rows[i] = a_.data() + (first + i) * pitch_;
    };
    p.tap_offsets = taps_;
    p.epilogue = {columns.corr.data(),
                  columns.multiplier.data(),
                  nullptr,
                  columns.bias.data(),
                  lo(),
                  hi(),
                  zero(),
                  c_.flip,
                  c_.out};
    p.dst = dst.data();
    p.ldc = ldc;
    run_igemm(kernels, p);
    compare(dst.data(), ldc);
  }

 private:
  int32_t zero() const { return c_.flip != 0 ? -28 : 100; }
  int32_t qmin() const { return c_.flip != 0 ? -125 : 3; }
  int32_t qmax() const { return c_.flip != 0 ? 123 : 251; }
  float lo() const { return c_.out == Out::codes ? float(qmin() - zero()) : -200.0f; }
  float hi() const { return c_.out == Out::codes ? float(qmax() - zero()) : 150.0f; }

  void compare(const uint8_t* dst, int64_t ldc) const {
    for (int64_t r = 0; r < c_.m; ++r) {
      for (int64_t col = 0; col < c_.n; ++col) {
        const int32_t acc = sums_[r * c_.n + col];
        const int64_t at = r * ldc + col;
        if (c_.out == Out::s32) {
          ASSERT_EQ(reinterpret_cast<const int32_t*>(dst)[at], acc) << r << ", " << col;
        } else if (c_.out == Out::f32) {
          float t = static_cast<float>(acc) * multiplier_[col];
          t = t + bias_float_[col];
          t = std::max(std::min(t, hi()), lo());
          ASSERT_EQ(reinterpret_cast<const float*>(dst)[at], t) << r << ", " << col;
        } else {
          const int32_t code = requantize(acc, multiplier_[col], zero(), qmin(), qmax());
          ASSERT_EQ(dst[at], static_cast<uint8_t>(code)) << r << ", " << col;
        }
      }
      if (r + 1 == c_.m) break;
      const size_t element = c_.out == Out::codes ? 1 : 4;
      for (size_t i = static_cast<size_t>(r * ldc + c_.n) * element;
           i < static_cast<size_t>((r + 1) * ldc) * element; ++i) {
        ASSERT_EQ(dst[i], 0xa5) << "written between rows";
      }
    }
  }

  Case c_;
  MatrixShape shape_;
  int64_t pitch_;
  GuardBuffer<uint8_t> a_;
  GuardBuffer<int8_t> w_;
  std::vector<int32_t> zero_;
  std::vector<int32_t> bias_;
  std::vector<float> bias_float_;
  std::vector<float> multiplier_;
  std::vector<int64_t> taps_;
  std::vector<int32_t> sums_;  // the specification, computed once
};

void check_all(const Case& c) {
  Product product(c);
  for (const KernelSet* set : testing::product_kernels()) product.check(*set);
}

TEST(Igemm, EveryTileEdge) {
  for (int64_t m = 1; m <= 21; ++m) {
    for (const int64_t n : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 97}) {
      check_all({m, n, 1, 8});
      Case c{m, n, 1, 8};
      c.flip = 0x80;
      check_all(c);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Igemm, EveryKTail) {
  for (int64_t k = 1; k <= 70; ++k) {
    for (const int64_t m : {1, 3, 7}) {
      check_all({m, 20, 1, k});
      check_all({m, 20, 3, k});
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Igemm, NothingSaturates) {
  for (const Fill a : {Fill::highest, Fill::lowest, Fill::ends, Fill::alternating}) {
    for (const Fill w : {Fill::highest, Fill::lowest, Fill::ends, Fill::alternating}) {
      for (const int32_t z_x : {0, 1, 127, 128, 255}) {
        Case c{6, 33, 1, 260};
        c.a = a;
        c.w = w;
        c.z_x = z_x;
        c.out = Out::s32;
        check_all(c);
        c.z_w = -128;
        check_all(c);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(Igemm, OutputKindsAndZeroPoints) {
  for (const Out out : {Out::codes, Out::f32, Out::s32}) {
    for (const int32_t z_w : {0, -128, 5, 127}) {
      for (const int64_t m : {1, 5, 11}) {
        for (const int64_t n : {3, 16, 50, 70}) {
          Case c{m, n, 2, 37};
          c.z_x = 77;
          c.z_w = z_w;
          c.out = out;
          check_all(c);
          c.flip = 0x80;
          check_all(c);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Igemm, LongestK) {
  Case c{2, 17, 1, kMaxK};
  c.a = Fill::highest;
  c.w = Fill::ends;
  c.out = Out::s32;
  check_all(c);
}

TEST(Nibbles, EveryTileEdge) {
  for (int64_t m = 1; m <= 21; ++m) {
    for (const int64_t n : {1, 7, 15, 16, 17, 32, 33, 48, 63, 64, 65, 80, 97, 130}) {
      Case c{m, n, 1, 8};
      c.bits = 4;
      check_all(c);
      c.flip = 0x80;
      c.shift = 5;
      check_all(c);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Nibbles, EveryKTail) {
  for (int64_t k = 1; k <= 140; ++k) {
    for (const int64_t m : {1, 3, 7, 17}) {
      Case c{m, 20, 1, k};
      c.bits = 4;
      check_all(c);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Nibbles, NothingSaturates) {
  for (const Fill a : {Fill::highest, Fill::lowest, Fill::ends, Fill::alternating}) {
    for (const Fill w : {Fill::highest, Fill::lowest, Fill::ends, Fill::alternating}) {
      for (const int64_t m : {1, 6, 18}) {
        Case c{m, 33, 1, 260};
        c.bits = 4;
        c.a = a;
        c.w = w;
        c.out = Out::s32;
        check_all(c);
        c.z_x = 200;
        c.z_w = 3;
        c.shift = -120;
        check_all(c);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(Nibbles, LongestK) {
  for (const int64_t m : {1, 2, 16}) {
    for (const Fill w : {Fill::lowest, Fill::highest}) {
      Case c{m, 17, 1, kMaxK};
      c.bits = 4;
      c.a = Fill::highest;
      c.w = w;
      c.out = Out::s32;
      check_all(c);
    }
  }
}

#if defined(__x86_64__)
TEST(Nibbles, UnpackedForKernelsOfBytes) {
  if (!refuse_isa(Isa::avx512_vnni).empty()) GTEST_SKIP() << "needs AVX-512 VNNI";
  KernelSet set = *find_kernels(Isa::avx512_vnni);
  set.igemm4 = [](const IgemmArgs& args) noexcept {
    ASSERT_TRUE(avx512_vnni::igemm4_unpacked(args, avx512_vnni::igemm));
  };
  for (const int64_t k : {1, 5, 8, 37, 600, 8190}) {
    for (const int64_t n : {1, 16, 70, 140}) {
      for (const Out out : {Out::codes, Out::f32, Out::s32}) {
        Case c{5, n, 1, k};
        c.bits = 4;
        c.shift = 3;
        c.z_x = 9;
        c.out = out;
        Product(c).check(set);
        if (HasFatalFailure()) return;
      }
    }
  }
  const IgemmArgs longest{.run = kMaxK / kGroup};
  EXPECT_FALSE(avx512_vnni::igemm4_unpacked(longest, avx512_vnni::igemm));
}
#endif

TEST(Nibbles, OnlyWhereCodesFit) {
  std::vector<int8_t> codes = {-128, -113, 127, 112};
  const MatrixShape shape{2, 1, 2};
  EXPECT_TRUE(pack_nibbles(codes, shape, {}).has_value());
  codes[3] = 111;
  EXPECT_FALSE(pack_nibbles(codes, shape, {}).has_value());
  EXPECT_FALSE(pack_nibbles({}, {2, 1, 0}, {}).has_value());
}

TEST(Igemm, BordersDoNotDependOnThreads) {
  // Above kOneThreadMacs in the three ways of cutting: by rows, by columns, both ragged.
  Case nibbles{3, 700, 1, 2100};
  nibbles.bits = 4;
  for (const Case& c :
       {Case{607, 40, 1, 300}, Case{3, 700, 1, 2100}, Case{130, 130, 1, 300}, nibbles}) {
    Product product(c);
    for (const KernelSet* set : testing::runnable_kernels()) {
      if (set->isa == Isa::scalar) continue;
      for (const int threads : {1, 2, 3}) {
        const ThreadLimit limit(threads);
        product.check(*set);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(Igemm, MultiplierWithoutFiniteProduct) {
  // 0 * inf is NaN, which takes the upper bound on every instruction set.
  const std::vector<int8_t> codes(16, 0);
  const PackedMatrix w = pack_matrix(codes, {4, 1, 4}, {});
  const std::vector<float> multiplier{std::numeric_limits<float>::infinity()};
  const Columns columns = make_columns(w, 0, {}, multiplier);
  const uint8_t a[4] = {1, 2, 3, 4};
  const int64_t tap = 0;
  for (const KernelSet* set : testing::product_kernels()) {
    uint8_t dst[4] = {};
    IgemmProblem p;
    p.m = 1;
    p.w = w.view();
    p.rows = [&](int64_t, int64_t, const uint8_t** rows) { rows[0] = a; };
    p.tap_offsets = {&tap, 1};
    p.epilogue = {columns.corr.data(), columns.multiplier.data(), nullptr, nullptr, -10, 245, 10, 0,
                  Out::codes};
    p.dst = dst;
    p.ldc = 4;
    run_igemm(*set, p);
    for (const uint8_t v : dst) EXPECT_EQ(v, 255) << set->name;
  }
}

TEST(KernelSets, BestFirstAndForced) {
  const auto sets = kernel_sets();
  ASSERT_FALSE(sets.empty());
  EXPECT_EQ(sets.back().isa, Isa::scalar);
  const Isa before = active_isa();
  for (const KernelSet* set : testing::runnable_kernels()) {
    set_isa(set->isa);
    EXPECT_EQ(&best_kernels(), set);
    EXPECT_EQ(refuse_isa(set->isa), "");
    EXPECT_EQ(find_kernels(set->isa), set);
  }
  set_isa(Isa::scalar);
  if (cpu_supports(Isa::avx2)) {
    EXPECT_EQ(refuse_isa(Isa::avx2), "capped at scalar");
  }
  set_isa(before);
}

}  // namespace
}  // namespace narrow::kernels
