// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/conv.h"

#include <gtest/gtest.h>

#include "emulated_tiles.h"
#include "guard_buffer.h"
#include "kernel_inputs.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/ref/reference.h"

namespace narrow::kernels {
namespace {

using testing::Fill;
using testing::GuardBuffer;

struct Codes {
  bool is_signed = false;
  Fill x = Fill::noise;
  Fill w = Fill::noise;
  int32_t z_x = 0;
  int32_t z_w = 0;
};

void set_output(ConvProblem& p) {
  for (int i = 0; i < 3; ++i) {
    const int64_t reach = (p.kernel[i] - 1) * p.dilation[i] + 1;
    p.out[i] = (p.in[i] + p.pad_begin[i] + p.pad_end[i] - reach) / p.stride[i] + 1;
  }
}

ConvProblem make(int64_t batch, int64_t channels, int64_t filters, int64_t size, int64_t kernel,
                 int64_t stride = 1, int64_t pad = 0, int64_t dilation = 1, int64_t groups = 1) {
  ConvProblem p;
  p.batch = batch;
  p.channels = channels;
  p.filters = filters;
  p.groups = groups;
  p.in = {1, size, size + 1};
  p.kernel = {1, kernel, kernel};
  p.stride = {1, stride, stride};
  p.dilation = {1, dilation, dilation};
  p.pad_begin = {0, pad, pad};
  p.pad_end = {0, pad, pad};
  set_output(p);
  return p;
}

/// A convolution with the codes and constants of both runs.
class Convolution {
 public:
  Convolution(const ConvProblem& p, const Codes& codes)
      : p_(p), codes_(codes), x_(static_cast<size_t>(p.in_values())) {
    const int32_t qmin = codes.is_signed ? -128 : 0;
    testing::fill(x_.data(), x_.size(), codes.x, qmin, qmin + 255, 3);
    w_.resize(static_cast<size_t>(p.filters * p.group_channels() * p.window()));
    testing::fill(w_.data(), w_.size(), codes.w, -128, 127, 4);
    for (int64_t f = 0; f < p.filters; ++f) {
      zero_.push_back(f % 3 == 1 ? 0 : codes.z_w);
      bias_.push_back(static_cast<int32_t>(997 * f - 2000));
      multiplier_.push_back(0.3f /
                            static_cast<float>((f % 5 + 1) * p.group_channels() * p.window()));
    }
    reference();
  }

  void check(const KernelSet& kernels, bool depthwise) const {
    SCOPED_TRACE(::testing::Message()
                 << kernels.name << (depthwise ? " depthwise" : " igemm") << " channels "
                 << p_.channels << " filters " << p_.filters << " groups " << p_.groups
                 << " kernel " << p_.kernel[1] << "x" << p_.kernel[2] << " stride " << p_.stride[2]
                 << " pad " << p_.pad_begin[2] << " dilation " << p_.dilation[2] << " signed "
                 << codes_.is_signed << " z_x " << codes_.z_x << " z_w " << codes_.z_w);
    GuardBuffer<uint8_t> y(sums_.size());
    run(kernels, depthwise, Out::codes, y);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(int(y[i]), expected_[i])
          << "pixel " << i / p_.filters << ", filter " << i % p_.filters;
    }
  }

  /// Sums, and floats that are one product of them.
  void check_wide(const KernelSet& kernels, bool depthwise) const {
    SCOPED_TRACE(::testing::Message()
                 << kernels.name << " channels " << p_.channels << " kernel " << p_.kernel[1] << "x"
                 << p_.kernel[2] << " stride " << p_.stride[2]);
    GuardBuffer<int32_t> sums(sums_.size());
    run(kernels, depthwise, Out::s32, sums);
    GuardBuffer<float> floats(sums_.size());
    run(kernels, depthwise, Out::f32, floats);
    for (size_t i = 0; i < sums.size(); ++i) {
      ASSERT_EQ(sums[i], sums_[i]) << "pixel " << i / p_.filters << ", filter " << i % p_.filters;
      const float t = static_cast<float>(sums_[i]) * multiplier_[i % multiplier_.size()];
      ASSERT_EQ(floats[i], std::clamp(t, -float{kZero}, float{255 - kZero}));
    }
  }

  void check_all() const {
    for (const KernelSet* set : testing::product_kernels()) {
      check(*set, false);
      if (set == testing::emulated_tiles()) continue;
      if (refuse_depthwise(p_, zero_).empty()) {
        check(*set, true);
        check_wide(*set, true);
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
  }

 private:
  static constexpr int32_t kZero = 9;

  template <class T>
  void run(const KernelSet& kernels, bool depthwise, Out out, GuardBuffer<T>& y) const {
    const int32_t shift = codes_.is_signed ? 128 : 0;
    const int32_t z_x = codes_.z_x + shift;
    std::memset(y.data(), 0xa5, y.size() * sizeof(T));
    // Kernels may use scratch to its end, and no further.
    const size_t bytes = conv_scratch_bytes(p_);
    ASSERT_EQ(bytes % 64, 0u);
    GuardBuffer<std::byte> scratch(bytes);
    const ConvInput input{x_.data(), static_cast<uint8_t>(shift), static_cast<uint8_t>(z_x)};
    const ConvOutput output{y.data(), out, -kZero, 255 - kZero, kZero};
    const std::span<std::byte> space{scratch.data(), bytes};
    if (depthwise) {
      const PackedMatrix w = pack_depthwise_conv(p_, w_);
      const Columns columns = make_depthwise_columns(w, z_x, bias_, multiplier_);
      run_depthwise(kernels, p_, w, columns, input, output, space);
    } else {
      PackedConv w = pack_conv(p_, w_, zero_);
      for (int64_t g = 0; g < p_.groups; ++g) {
        const auto n = static_cast<size_t>(p_.group_filters());
        const size_t first = n * static_cast<size_t>(g);
        w.columns.push_back(make_columns(w.groups[g], z_x, std::span(bias_).subspan(first, n),
                                         std::span(multiplier_).subspan(first, n)));
      }
      run_conv(kernels, p_, w, input, output, space);
    }
  }

  void reference() {
    const int64_t area = p_.in[0] * p_.in[1] * p_.in[2];
    std::vector<int32_t> x(x_.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const int64_t c = static_cast<int64_t>(i) % p_.channels;
      const int64_t pixel = static_cast<int64_t>(i) / p_.channels % area;
      const int64_t image = static_cast<int64_t>(i) / (p_.channels * area);
      const int32_t code = codes_.is_signed ? static_cast<int8_t>(x_[i]) : x_[i];
      x[(image * p_.channels + c) * area + pixel] = code - codes_.z_x;
    }
    std::vector<int32_t> w(w_.begin(), w_.end());
    const size_t per_filter = w.size() / static_cast<size_t>(p_.filters);
    for (size_t i = 0; i < w.size(); ++i) w[i] -= zero_[i / per_filter];
    std::vector<int64_t> acc(static_cast<size_t>(p_.out_values()));
    ref::conv(p_, x, w, bias_, acc);
    const int64_t pixels = p_.out[0] * p_.out[1] * p_.out[2];
    expected_.resize(acc.size());
    sums_.resize(acc.size());
    for (size_t i = 0; i < acc.size(); ++i) {
      const int64_t pixel = static_cast<int64_t>(i) % pixels;
      const int64_t f = static_cast<int64_t>(i) / pixels % p_.filters;
      const int64_t image = static_cast<int64_t>(i) / (pixels * p_.filters);
      const int64_t at = (image * pixels + pixel) * p_.filters + f;
      expected_[at] = ref::to_code(acc[i], {multiplier_[f], kZero, 0, 255});
      sums_[at] = static_cast<int32_t>(acc[i]);
    }
  }

  ConvProblem p_;
  Codes codes_;
  GuardBuffer<uint8_t> x_;
  std::vector<int8_t> w_;
  std::vector<int32_t> zero_;
  std::vector<int32_t> bias_;
  std::vector<float> multiplier_;
  std::vector<int> expected_;
  std::vector<int32_t> sums_;
};

TEST(IntegerConv, Shapes) {
  for (const int64_t channels : {1, 2, 3, 4, 7, 16, 17}) {
    for (const int64_t filters : {1, 5, 16, 40}) {
      for (const int64_t kernel : {1, 2, 3, 5}) {
        for (const int64_t stride : {1, 2}) {
          Convolution(make(2, channels, filters, 7, kernel, stride, kernel / 2),
                      {.x = Fill::noise, .z_x = 3})
              .check_all();
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(IntegerConv, WithoutPaddingReadsInPlace) {
  for (const int64_t channels : {4, 8, 16, 20}) {
    for (const int64_t kernel : {1, 3}) {
      Convolution(make(1, channels, 24, 6, kernel), {.z_x = 200}).check_all();
      Convolution(make(3, channels, 24, 6, kernel, 2), {.is_signed = true, .z_x = -5}).check_all();
      if (HasFatalFailure()) return;
    }
  }
}

TEST(IntegerConv, EndsOfTheRanges) {
  for (const bool is_signed : {false, true}) {
    for (const Fill x : {Fill::highest, Fill::lowest, Fill::ends}) {
      for (const Fill w : {Fill::highest, Fill::lowest, Fill::ends}) {
        for (const int32_t z : {0, 1, 127, 128, 255}) {
          Codes codes{is_signed, x, w, is_signed ? z - 128 : z, 0};
          Convolution(make(1, 12, 17, 5, 3, 1, 1), codes).check_all();
          codes.z_w = z - 128;
          Convolution(make(1, 5, 17, 5, 3, 1, 1), codes).check_all();
          Convolution(make(1, 20, 20, 5, 3, 1, 1, 1, 20), codes).check_all();
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(IntegerConv, DilationsAndGroups) {
  for (const int64_t dilation : {1, 2, 3}) {
    Convolution(make(2, 6, 10, 9, 3, 1, 2, dilation), {.z_x = 11, .z_w = 4}).check_all();
    Convolution(make(1, 6, 10, 9, 3, 2, 1, dilation, 2), {.z_x = 11}).check_all();
    Convolution(make(1, 16, 32, 9, 3, 1, 1, dilation, 4), {.is_signed = true}).check_all();
    Convolution(make(1, 8, 24, 9, 3, 1, 1, dilation, 8), {.z_x = 128, .z_w = -3}).check_all();
    if (HasFatalFailure()) return;
  }
}

TEST(IntegerConv, Depthwise) {
  for (const int64_t channels : {2, 15, 16, 17, 63, 64, 65, 130}) {
    for (const int64_t kernel : {1, 2, 3, 5}) {
      for (const bool is_signed : {false, true}) {
        const ConvProblem p = make(2, channels, channels, 6, kernel, 1, kernel / 2, 1, channels);
        ASSERT_EQ(refuse_depthwise(p, {}), "");
        Convolution(p, {.is_signed = is_signed, .z_x = 7}).check_all();
        if (HasFatalFailure()) return;
      }
    }
  }
  Convolution(make(1, 20, 20, 9, 3, 2, 0, 2, 20), {.z_x = 250}).check_all();
  // More taps than kernels keep weights of.
  Convolution(make(1, 49, 49, 12, 9, 1, 4, 1, 49), {.is_signed = true, .z_x = 5}).check_all();
}

TEST(IntegerConv, DepthwiseRowsOfOutputs) {
  // Kernels with and without a kernel of their own for rows, outputs from one pixel on.
  for (const int64_t rows : {1, 2, 3, 4, 5, 8, 9}) {
    for (const int64_t columns : {1, 3, 4, 5}) {
      for (const int64_t stride : {1, 2, 3}) {
        for (const int64_t width : {columns, columns + 1, columns + 4, columns + 9}) {
          // 24: a row as one pixel where that pays.
          const int64_t channels = width % 2 == 0 ? 70 : 24;
          ConvProblem p = make(2, channels, channels, 1, 1, 1, 0, 1, channels);
          p.in = {1, rows + 2, width};
          p.kernel = {1, rows, columns};
          p.stride = {1, 2, stride};
          p.pad_begin = {0, 0, stride - 1};
          p.pad_end = {0, 1, 0};
          set_output(p);
          Convolution(p, {.x = Fill::ends, .w = Fill::ends, .z_x = 9}).check_all();
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(IntegerConv, DepthwisePixelsSideBySide) {
  for (const int64_t channels : {16, 32}) {
    for (const int64_t rows : {2, 3, 4}) {
      for (const int64_t stride : {1, 2}) {
        for (int64_t width = 3; width < 24; ++width) {
          ConvProblem p = make(2, channels, channels, 1, 1, 1, 0, 1, channels);
          p.in = {1, rows + 1, width};
          p.kernel = {1, rows, 3};
          p.stride = {1, 1, stride};
          p.pad_end = {0, 0, width % 2};
          set_output(p);
          Convolution(p, {.z_x = 9}).check_all();
          Convolution(p, {.is_signed = true, .x = Fill::ends, .w = Fill::ends}).check_all();
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(IntegerConv, OneAndThreeSpatialAxes) {
  ConvProblem p;
  p.batch = 2;
  p.channels = 6;
  p.filters = 9;
  p.in = {5, 6, 7};
  p.kernel = {2, 3, 3};
  p.stride = {2, 1, 2};
  p.dilation = {1, 2, 1};
  p.pad_begin = {1, 0, 2};
  p.pad_end = {0, 1, 1};
  set_output(p);
  Convolution(p, {.z_x = 31, .z_w = 2}).check_all();
  ConvProblem line;
  line.channels = 5;
  line.filters = 20;
  line.in = {1, 1, 40};
  line.kernel = {1, 1, 7};
  line.pad_begin = {0, 0, 3};
  line.pad_end = {0, 0, 2};
  set_output(line);
  Convolution(line, {.is_signed = true, .z_x = 31}).check_all();
}

TEST(IntegerConv, RefusesWhatDepthwiseCannot) {
  EXPECT_NE(refuse_depthwise(make(1, 4, 8, 5, 3, 1, 1, 1, 4), {}), "");
  EXPECT_NE(refuse_depthwise(make(1, 4, 4, 5, 3), {}), "");
  const std::vector<int32_t> zero{0, 1};
  EXPECT_NE(refuse_depthwise(make(1, 4, 4, 5, 3, 1, 1, 1, 4), zero), "");
}

TEST(IntegerConv, ThreadsAndPieces) {
  // More images than one padded piece holds, and more work than one thread keeps.
  const Convolution images(make(40, 16, 5, 32, 3, 1, 1), {.is_signed = true, .z_x = -4});
  const Convolution grouped(make(2, 64, 64, 40, 3, 1, 1, 1, 4), {.z_x = 4});
  const Convolution depthwise(make(2, 96, 96, 40, 3, 1, 1, 1, 96), {.z_x = 4});
  const Convolution narrow_rows(make(3, 24, 24, 60, 3, 1, 1, 1, 24), {.z_x = 4});
  const Convolution beside(make(3, 32, 32, 60, 3, 2, 1, 1, 32), {.z_x = 4});
  const KernelSet& set = best_kernels();
  for (const int threads : {1, 2, 3}) {
    const ThreadLimit limit(threads);
    images.check(set, false);
    grouped.check(set, false);
    depthwise.check(set, true);
    narrow_rows.check(set, true);
    beside.check(set, true);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace narrow::kernels
