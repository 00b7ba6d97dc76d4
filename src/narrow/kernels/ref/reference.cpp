// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/ref/reference.h"

#include "narrow/quant/requantize.h"

namespace narrow::kernels::ref {
namespace {

/// Row-major index of (image, channel) and a position in its space.
int64_t index_of(int64_t plane, const Extents& extents, const Extents& at) {
  return ((plane * extents[0] + at[0]) * extents[1] + at[1]) * extents[2] + at[2];
}

/// Calls body(position) for every position of the extents in row-major order.
template <class Body>
void for_each(const Extents& extents, const Body& body) {
  Extents at;
  for (at[0] = 0; at[0] < extents[0]; ++at[0]) {
    for (at[1] = 0; at[1] < extents[1]; ++at[1]) {
      for (at[2] = 0; at[2] < extents[2]; ++at[2]) body(at);
    }
  }
}

/// Whether kernel position k of output position o lies inside the image, and where.
bool source(const ConvProblem& p, const Extents& o, const Extents& k, Extents& in) {
  for (int i = 0; i < 3; ++i) {
    in[i] = o[i] * p.stride[i] + k[i] * p.dilation[i] - p.pad_begin[i];
    if (in[i] < 0 || in[i] >= p.in[i]) return false;
  }
  return true;
}

}  // namespace

int32_t to_code(int64_t acc, const Requantize& r) {
  return round_to_code(static_cast<float>(acc) * r.multiplier, r.zero_point, r.qmin, r.qmax);
}

float to_real(int64_t acc, float multiplier, const float* bias, float lo, float hi) {
  float t = static_cast<float>(acc) * multiplier;
  if (bias != nullptr) t = t + *bias;
  t = t < hi ? t : hi;
  return t > lo ? t : lo;
}

void conv(const ConvProblem& p, std::span<const int32_t> x, std::span<const int32_t> w,
          std::span<const int32_t> bias, std::span<int64_t> acc) {
  const int64_t channels = p.group_channels();
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t f = 0; f < p.filters; ++f) {
      const int64_t first_channel = f / p.group_filters() * channels;
      for_each(p.out, [&](const Extents& o) {
        int64_t sum = bias.empty() ? 0 : bias[f];
        for (int64_t c = 0; c < channels; ++c) {
          for_each(p.kernel, [&](const Extents& k) {
            Extents in;
            if (!source(p, o, k, in)) return;
            const int64_t plane = n * p.channels + first_channel + c;
            sum +=
                int64_t{x[index_of(plane, p.in, in)]} * w[index_of(f * channels + c, p.kernel, k)];
          });
        }
        acc[index_of(n * p.filters + f, p.out, o)] = sum;
      });
    }
  }
}

void gemm(const GemmProblem& p, std::span<const int32_t> a, std::span<const int32_t> b,
          std::span<const int32_t> bias, std::span<int64_t> acc) {
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      int64_t sum = bias.empty() ? 0 : bias[j];
      for (int64_t k = 0; k < p.k; ++k) {
        sum += int64_t{a[i * p.k + k]} * b[p.trans_b ? j * p.k + k : k * p.n + j];
      }
      acc[i * p.n + j] = sum;
    }
  }
}

}  // namespace narrow::kernels::ref
