// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/portable/kernels.h"
#include "narrow/quant/round.h"

namespace narrow::kernels::portable {
namespace {

uint8_t code(float t, float lo, float hi, int32_t zero_point) {
  t = t < hi ? t : hi;
  t = t > lo ? t : lo;
  return static_cast<uint8_t>(round_half_even_int(t) + zero_point);
}

float real(const BinaryArgs& g, int32_t x, int32_t y) {
  const auto fx = static_cast<float>(x);
  const auto fy = static_cast<float>(y);
  switch (g.op) {
    case Binary::add:
      return fx * g.scale_a + fy * g.scale_b;
    case Binary::sub:
      return fx * g.scale_a - fy * g.scale_b;
    case Binary::mul:
      return static_cast<float>(x * y) * g.scale_a;
    case Binary::div:
      break;
  }
  const float t = fx / fy * g.scale_a;
  return t == t ? t : 0.0f;
}

}  // namespace

void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept {
  for (int64_t i = 0; i < count; ++i) dst[i] = static_cast<uint8_t>(src[i] ^ mask);
}

void quantize(uint8_t* dst, const float* src, int64_t count, const QuantizeArgs& args) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const float t = src[i] / args.scale;
    dst[i] = code(t == t ? t : 0.0f, args.lo, args.hi, args.zero_point);
  }
}

void interleave(uint8_t* dst, const uint8_t* src, int64_t pitch, int64_t planes,
                int64_t pixels) noexcept {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t j = 0; j < planes; ++j) dst[planes * p + j] = src[j * pitch + p];
  }
}

void dequantize(float* dst, const uint8_t* src, int64_t count,
                const DequantizeArgs& args) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    dst[i] = static_cast<float>((src[i] ^ args.flip) - args.zero_point) * args.scale;
  }
}

void binary(uint8_t* dst, const uint8_t* a, int64_t step_a, const uint8_t* b, int64_t step_b,
            int64_t count, const BinaryArgs& args) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t x = (a[i * step_a] ^ args.flip_a) - args.zero_a;
    const int32_t y = (b[i * step_b] ^ args.flip_b) - args.zero_b;
    dst[i] = code(real(args, x, y), args.lo, args.hi, args.zero_point);
  }
}

void lookup(uint8_t* dst, const uint8_t* src, int64_t count, const uint8_t* table) noexcept {
  for (int64_t i = 0; i < count; ++i) dst[i] = table[src[i]];
}

void max_pool(const WindowArgs& args) noexcept {
  for (int64_t r = 0; r < args.m; ++r) {
    for (int64_t c = 0; c < args.channels; ++c) {
      int32_t best = 0;
      for (int64_t t = 0; t < args.num_taps; ++t) {
        const int32_t x = args.rows[r][args.taps[t] + c] ^ args.flip;
        best = x > best ? x : best;
      }
      args.dst[r * args.ldc + c] = static_cast<uint8_t>(best ^ args.flip);
    }
  }
}

void average_pool(const WindowArgs& args, const AverageArgs& average) noexcept {
  for (int64_t r = 0; r < args.m; ++r) {
    for (int64_t c = 0; c < args.channels; ++c) {
      int32_t acc = average.corr;
      for (int64_t t = 0; t < args.num_taps; ++t) {
        acc += args.rows[r][args.taps[t] + c] ^ args.flip;
      }
      args.dst[r * args.ldc + c] = code(static_cast<float>(acc) * average.multiplier, average.lo,
                                        average.hi, average.zero_point);
    }
  }
}

void range(const float* src, int64_t count, float* lo, float* hi) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    *lo = src[i] < *lo ? src[i] : *lo;
    *hi = src[i] > *hi ? src[i] : *hi;
  }
}

void scale_row(float* dst, const int32_t* src, int64_t n, const ScaleRowArgs& args) noexcept {
  const double scale = static_cast<double>(args.scale);
  for (int64_t c = 0; c < n; ++c) {
    // Unsigned: the sum and its correction may wrap on the way to a value that fits.
    const uint32_t shift =
        static_cast<uint32_t>(args.zero_point) * static_cast<uint32_t>(args.column[c]);
    const auto acc = static_cast<int32_t>(static_cast<uint32_t>(src[c]) - shift);
    const auto multiplier = static_cast<float>(scale * static_cast<double>(args.scale_w[c]));
    const float t = static_cast<float>(acc) * multiplier;
    dst[c] = args.bias == nullptr ? t : t + args.bias[c];
  }
}

}  // namespace narrow::kernels::portable
