// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "narrow/kernels/portable/kernels.h"
#include "narrow/quant/round.h"

namespace narrow::kernels::portable {
namespace {

constexpr int64_t kRecord = kPanel * kGroup;  // one group of a panel

// Sums wrap: corrections may pass int32 on the way to a value that fits.
int32_t add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
int32_t multiply(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

float bound(float t, const Epilogue& e) {
  t = t < e.hi ? t : e.hi;
  return t > e.lo ? t : e.lo;
}

/// One output; `column` indexes the epilogue's arrays, `offset` the destination.
void store(const Epilogue& e, void* dst, int64_t column, int64_t offset, int32_t acc) {
  if (e.out == Out::s32) {
    static_cast<int32_t*>(dst)[offset] = acc;
    return;
  }
  float t = static_cast<float>(acc) * e.multiplier[column];
  if (e.out == Out::f32) {
    if (e.bias != nullptr) t += e.bias[column];
    static_cast<float*>(dst)[offset] = bound(t, e);
    return;
  }
  const int32_t code = round_half_even_int(bound(t, e)) + e.zero_point;
  static_cast<uint8_t*>(dst)[offset] = static_cast<uint8_t>(code);
}

void finish(const IgemmArgs& args, int64_t row, int64_t first, const int32_t* sums) {
  const Epilogue& e = args.epilogue;
  for (int64_t c = 0; c < std::min(kPanel, args.n - first); ++c) {
    int32_t sum = add(sums[c], e.corr[first + c]);
    if (e.weight_zero != nullptr) {
      sum = add(sum, -multiply(args.row_sums[row], e.weight_zero[first + c]));
    }
    store(e, args.dst, first + c, row * args.ldc + first + c, sum);
  }
}

/// acc[c] += four products of each column.
inline void add_group(const uint8_t* a, const int8_t* w, int32_t* acc) {
  for (int64_t c = 0; c < kPanel; ++c, w += kGroup) {
    acc[c] = add(acc[c], a[0] * w[0] + a[1] * w[1] + a[2] * w[2] + a[3] * w[3]);
  }
}

}  // namespace

void igemm(const IgemmArgs& args) noexcept {
  const int64_t panel_bytes = args.num_taps * args.run * kRecord;
  for (int64_t first = 0; first < args.n; first += kPanel) {
    const int8_t* panel = args.weights + first / kPanel * panel_bytes;
    for (int64_t r = 0; r < args.m; ++r) {
      int32_t acc[kPanel] = {};
      const int8_t* w = panel;
      for (int64_t t = 0; t < args.num_taps; ++t) {
        const uint8_t* a = args.rows[r] + args.taps[t];
        for (int64_t k = 0; k < args.run; ++k, w += kRecord) add_group(a + k * kGroup, w, acc);
      }
      finish(args, r, first, acc);
    }
  }
}

void igemm4(const IgemmArgs& args) noexcept {
  const int64_t panel_bytes = (args.run + 1) / 2 * kRecord;
  for (int64_t first = 0; first < args.n; first += kPanel) {
    const int8_t* panel = args.weights + first / kPanel * panel_bytes;
    for (int64_t r = 0; r < args.m; ++r) {
      const uint8_t* a = args.rows[r] + args.taps[0];
      int32_t acc[kPanel] = {};
      for (int64_t k = 0; k < args.run; ++k, a += kGroup) {
        int8_t w[kRecord];
        const int8_t* nibbles = panel + k / 2 * kRecord;
        const int left = k % 2 == 0 ? 4 : 0;
        for (int64_t i = 0; i < kRecord; ++i) {
          w[i] = static_cast<int8_t>(static_cast<int8_t>(nibbles[i] << left) >> 4);
        }
        add_group(a, w, acc);
      }
      finish(args, r, first, acc);
    }
  }
}

void row_sums(const uint8_t* const* rows, int64_t m, const int64_t* taps, int64_t num_taps,
              int64_t run_bytes, int32_t* sums) noexcept {
  for (int64_t r = 0; r < m; ++r) {
    int32_t sum = 0;
    for (int64_t t = 0; t < num_taps; ++t) {
      const uint8_t* a = rows[r] + taps[t];
      for (int64_t k = 0; k < run_bytes; ++k) sum += a[k];
    }
    sums[r] = sum;
  }
}

void pack(const uint8_t* b, int64_t ldb, int64_t k, int64_t n, uint8_t flip, int8_t* weights,
          int32_t* sums) noexcept {
  const int64_t groups = (k + kGroup - 1) / kGroup;
  const int64_t columns = (n + kPanel - 1) / kPanel * kPanel;
  for (int64_t c = 0; c < columns; ++c) {
    sums[c] = 0;
    for (int64_t i = 0; i < groups * kGroup; ++i) {
      const bool inside = c < n && i < k;
      const auto w = static_cast<int8_t>(inside ? b[i * ldb + c] ^ flip : 0);
      const int64_t group = c / kPanel * groups + i / kGroup;
      weights[(group * kPanel + c % kPanel) * kGroup + i % kGroup] = w;
      sums[c] += w;
    }
  }
}

void depthwise(const DepthwiseArgs& args) noexcept {
  const int64_t block_bytes = args.num_taps * kDepthBlock;
  for (int64_t r = 0; r < args.m; ++r) {
    for (int64_t c = 0; c < args.channels; ++c) {
      const int64_t at = c % args.period;
      const int64_t in_block = at % kDepthBlock;
      // Channel 16 * lane + 4 * j + i stands at (j, lane, i).
      const int64_t place = in_block / 4 % 4 * 16 + in_block / 16 * 4 + in_block % 4;
      const int64_t column = at - in_block + place;
      const int8_t* w = args.weights + at / kDepthBlock * block_bytes + place * kGroup;
      int32_t acc = args.epilogue.corr[column];
      for (int64_t t = 0; t < args.num_taps; ++t) {
        const int32_t x = args.rows[r][args.taps[t] + c];
        acc = add(acc, x * w[t / kGroup * (kDepthBlock * kGroup) + t % kGroup]);
      }
      store(args.epilogue, args.dst, column, r * args.ldc + c, acc);
    }
  }
}

}  // namespace narrow::kernels::portable
