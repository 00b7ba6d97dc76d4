// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "narrow/kernels/portable/kernels.h"

namespace narrow::kernels::portable {
namespace {

/// The code of row k of a panel, column j.
int32_t code_at(const WgemmArgs& g, const uint8_t* panel, int64_t k, int64_t j) {
  if (g.bits == 8) return static_cast<int8_t>(panel[k * kPanel + j]);
  const uint8_t pair = panel[k * (kPanel / 2) + j % (kPanel / 2)];
  return j < kPanel / 2 ? pair & 15 : pair >> 4;
}

}  // namespace

void wgemm(const WgemmArgs& g) noexcept {
  const int64_t total = g.num_taps * g.run;
  const int64_t panel_bytes = total * kPanel * g.bits / 8;
  for (int64_t first = 0; first < g.n; first += kPanel) {
    const uint8_t* panel = g.weights + first / kPanel * panel_bytes;
    const float* scale = g.scale + first * g.groups;
    const float* zero = g.zero + first * g.groups;
    float acc[kWgemmRows][kPanel];
    for (int64_t r = 0; r < g.m; ++r) {
      for (int64_t j = 0; j < kPanel; ++j) acc[r][j] = 0;
    }
    for (int64_t k = 0; k < total; ++k) {
      const int64_t group = g.group == nullptr ? 0 : g.group[k];
      float w[kPanel];
      for (int64_t j = 0; j < kPanel; ++j) {
        const int64_t at = group * kPanel + j;
        w[j] = (static_cast<float>(code_at(g, panel, k, j)) - zero[at]) * scale[at];
      }
      for (int64_t r = 0; r < g.m; ++r) {
        const float x = g.rows[r][g.taps[k / g.run] + k % g.run];
        for (int64_t j = 0; j < kPanel; ++j) acc[r][j] += x * w[j];
      }
    }
    const int64_t columns = std::min(kPanel, g.n - first);
    for (int64_t r = 0; r < g.m; ++r) {
      for (int64_t j = 0; j < columns; ++j) {
        g.dst[r * g.ldc + first + j] = acc[r][j] + g.bias[first + j];
      }
    }
  }
}

}  // namespace narrow::kernels::portable
