// SPDX-License-Identifier: Apache-2.0
// Products on tile registers at their borders: where rows lie, what is copied, what is read. Every
// set runs them; the emulated tiles do so whatever the size.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "emulated_tiles.h"
#include "guard_buffer.h"
#include "narrow/kernels/igemm.h"

namespace narrow::kernels {
namespace {

using testing::Fill;
using testing::Guard;
using testing::GuardBuffer;

/// How row pointers follow each other.
enum class Rows { steady, gaps, backwards, shuffled, same };

struct Case {
  int64_t m, n, taps, run;  // run: groups of four bytes
  Rows rows = Rows::steady;
  Fill a = Fill::noise;
  Fill w = Fill::noise;
  bool asymmetric = false;
  Guard guard = Guard::behind;
  int32_t bias = -500;
};

/// Sums of one product: rows and taps anywhere in a buffer that ends (begins) at a guard page, and
/// so do the weights.
class TileProduct {
 public:
  explicit TileProduct(const Case& c)
      : c_(c),
        shape_{c.n, c.taps, c.run * kGroup},
        tap_pitch_(c.run * kGroup + (c.taps > 1 ? 4 : 0)),
        row_pitch_((c.taps - 1) * tap_pitch_ + c.run * kGroup),
        a_(static_cast<size_t>(c.m * row_pitch_), c.guard),
        codes_(static_cast<size_t>(c.n * shape_.k())) {
    testing::fill(a_.data(), a_.size(), c.a, 0, 255, 3);
    testing::fill(codes_.data(), codes_.size(), c.w, -128, 127, 4);
    for (int64_t i = 0; i < c.m; ++i) rows_.push_back(a_.data() + place(i) * row_pitch_);
    // Taps need not rise.
    for (int64_t t = 0; t < c.taps; ++t) taps_.push_back((c.taps - 1 - t) * tap_pitch_);
    for (int64_t i = 0; i < c.n; ++i) {
      bias_.push_back(static_cast<int32_t>(c.bias + i * 77));
      zero_.push_back(c.asymmetric ? static_cast<int32_t>(i % 3 * 127 - 127) : 0);
    }
    expect();
  }

  void check(const KernelSet& set) const {
    SCOPED_TRACE(::testing::Message() << set.name << " m " << c_.m << " n " << c_.n << " taps "
                                      << c_.taps << " run " << c_.run << " rows " << int(c_.rows));
    const PackedMatrix w = pack_matrix(codes_, shape_, zero_);
    GuardBuffer<int8_t> panels(w.weights.bytes(), c_.guard);
    std::memcpy(panels.data(), w.weights.raw(), panels.size());
    const Columns columns = make_columns(w, kZero, bias_, std::vector<float>{1.0f});
    const int64_t ldc = c_.n + 3;
    GuardBuffer<int32_t> dst(static_cast<size_t>((c_.m - 1) * ldc + c_.n), c_.guard);
    std::fill(dst.begin(), dst.end(), kUntouched);
    std::vector<int32_t> sums(static_cast<size_t>(c_.m));
    set.row_sums(rows_.data(), c_.m, taps_.data(), c_.taps, shape_.run_bytes, sums.data());
    IgemmArgs args{};
    args.rows = rows_.data();
    args.m = c_.m;
    args.taps = taps_.data();
    args.num_taps = c_.taps;
    args.run = c_.run;
    args.weights = panels.data();
    args.n = c_.n;
    args.row_sums = sums.data();
    args.epilogue.corr = columns.corr.data();
    args.epilogue.weight_zero = w.weight_zero.empty() ? nullptr : w.weight_zero.data();
    args.epilogue.out = Out::s32;
    args.dst = dst.data();
    args.ldc = ldc;
    set.igemm(args);
    for (int64_t r = 0; r < c_.m; ++r) {
      for (int64_t col = 0; col < c_.n; ++col) {
        ASSERT_EQ(dst[r * ldc + col], expected_[r * c_.n + col]) << r << ", " << col;
      }
      if (r + 1 == c_.m) break;
      for (int64_t i = r * ldc + c_.n; i < (r + 1) * ldc; ++i) ASSERT_EQ(dst[i], kUntouched);
    }
  }

 private:
  static constexpr int32_t kZero = 19;  // of the activations
  static constexpr int32_t kUntouched = 0x5a5a5a5a;

  int64_t place(int64_t i) const {
    switch (c_.rows) {
      case Rows::steady:
        return i;
      case Rows::gaps:  // as at the ends of image rows
        return std::min(c_.m - 1, i + i / 7);
      case Rows::backwards:
        return c_.m - 1 - i;
      case Rows::shuffled:
        return i * 7919 % c_.m;
      case Rows::same:
        return 0;
    }
    return 0;
  }

  void expect() {
    for (int64_t r = 0; r < c_.m; ++r) {
      for (int64_t col = 0; col < c_.n; ++col) {
        int64_t acc = bias_[col];
        for (int64_t t = 0; t < c_.taps; ++t) {
          for (int64_t k = 0; k < shape_.run_bytes; ++k) {
            const int64_t w = codes_[(col * c_.taps + t) * shape_.run_bytes + k];
            acc += (rows_[r][taps_[t] + k] - kZero) * (w - zero_[col]);
          }
        }
        expected_.push_back(static_cast<int32_t>(acc));
      }
    }
  }

  Case c_;
  MatrixShape shape_;
  int64_t tap_pitch_;
  int64_t row_pitch_;
  GuardBuffer<uint8_t> a_;
  std::vector<int8_t> codes_;
  std::vector<const uint8_t*> rows_;
  std::vector<int64_t> taps_;
  std::vector<int32_t> bias_;
  std::vector<int32_t> zero_;
  std::vector<int32_t> expected_;
};

void check(const Case& c) {
  const TileProduct product(c);
  for (const KernelSet* set : testing::product_kernels()) product.check(*set);
}

TEST(TileGemm, EveryNumberOfRows) {
  for (int64_t m = 1; m <= 70; ++m) {
    for (const int64_t n : {16, 33, 64, 70}) {
      check({m, n, 1, 24});
      check({m, n, 1, 18, Rows::gaps});
      if (HasFatalFailure()) return;
    }
  }
}

TEST(TileGemm, EveryNumberOfGroups) {
  for (const Guard guard : {Guard::behind, Guard::before}) {
    for (int64_t run = 1; run <= 50; ++run) {
      for (const int64_t taps : {1, 2, 3, 9}) {
        for (const Rows rows : {Rows::steady, Rows::gaps}) {
          Case c{19, 20, taps, run, rows};
          c.guard = guard;
          check(c);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(TileGemm, RowsAnywhere) {
  for (const Rows rows : {Rows::backwards, Rows::shuffled, Rows::same}) {
    for (const int64_t m : {4, 16, 17, 31, 48, 53}) {
      for (const int64_t run : {4, 16, 21, 32}) {
        for (const int64_t taps : {1, 9}) {
          for (const bool asymmetric : {false, true}) {
            Case c{m, 40, taps, run, rows};
            c.asymmetric = asymmetric;
            check(c);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(TileGemm, EndsOfTheRanges) {
  for (const Fill a : {Fill::highest, Fill::lowest, Fill::ends, Fill::alternating}) {
    for (const Fill w : {Fill::highest, Fill::lowest, Fill::ends, Fill::alternating}) {
      for (const bool asymmetric : {false, true}) {
        for (const int64_t run : {65, 128}) {
          Case c{20, 36, 1, run};
          c.a = a;
          c.w = w;
          c.asymmetric = asymmetric;
          check(c);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(TileGemm, MoreStripsThanOnePass) {
  // More tiles of rows than pass together, and copies that fill the scratch after four, two, one
  // and none.
  check({600, 20, 1, 16});
  check({600, 20, 1, 17, Rows::gaps});
  for (const int64_t steps : {60, 90, 200, 257}) {
    check({40, 50, 1, steps * 16, Rows::gaps});
    check({40, 50, 1, steps * 16 - 5, Rows::gaps});
    check({40, 50, 1, steps * 16});
  }
}

TEST(TileGemm, SumsWrap) {
  // Products that just fit int32 on top of corrections that do, too.
  Case c{5, 17, 1, kMaxK / kGroup};
  c.a = Fill::highest;
  c.w = Fill::lowest;
  c.bias = std::numeric_limits<int32_t>::min();
  check(c);
}

}  // namespace
}  // namespace narrow::kernels
