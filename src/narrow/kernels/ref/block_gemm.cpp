// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/ref/block_gemm.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/quant/blocks/block_parts.h"
#include "narrow/quant/round.h"

namespace narrow::kernels::ref {
namespace {

constexpr int64_t kRun = 32;  // activations with one scale

struct Activations {
  std::vector<int8_t> codes;
  std::vector<float> scales;
};

Activations quantized(std::span<const float> row) {
  Activations out;
  out.codes.resize(row.size());
  for (size_t at = 0; at < row.size(); at += kRun) {
    out.scales.push_back(
        quantize_block(row.subspan(at, kRun), std::span(out.codes).subspan(at, kRun)));
  }
  return out;
}

/// y plus what one block of the weight adds.
float with_block(const BlockForm& form, const BlockParts& parts, const int8_t* codes,
                 const float* scales, float y) {
  const int per_run = static_cast<int>(kRun) / form.group;
  for (int run = 0; run < form.values / kRun; ++run) {
    float t = 0;
    std::vector<float> sums;
    for (int g = run * per_run; g < (run + 1) * per_run; ++g) {
      int32_t products = 0;
      int32_t sum = 0;
      for (int i = g * form.group; i < (g + 1) * form.group; ++i) {
        products += integer_of(form, parts.codes[i]) * codes[i];
        sum += codes[i];
      }
      sums.push_back(static_cast<float>(sum));
      const auto s = static_cast<float>(products);
      t = g == run * per_run ? s * scale_of(parts, g) : std::fma(s, scale_of(parts, g), t);
    }
    for (int g = 0; form.offset && g < per_run; ++g) {
      t = std::fma(sums[static_cast<size_t>(g)], offset_of(form, parts, run * per_run + g), t);
    }
    y = std::fma(t, scales[run], y);
  }
  return y;
}

}  // namespace

float quantize_block(std::span<const float> x, std::span<int8_t> codes) {
  uint32_t largest = 0;
  for (const float v : x) largest = std::max(largest, std::bit_cast<uint32_t>(v) & 0x7fffffffU);
  const float scale = std::bit_cast<float>(largest) / 127.0F;
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = 0;
    if (!(scale > 0) || std::isinf(scale)) continue;
    codes[i] = static_cast<int8_t>(round_half_even_int(std::clamp(x[i] / scale, -127.0F, 127.0F)));
  }
  return scale;
}

void block_gemm(BlockType type, std::span<const std::byte> w, std::span<const float> x, int64_t m,
                int64_t n, int64_t k, std::span<float> y) {
  const BlockForm* form = find_form(type);
  if (form == nullptr) {
    throw Error(ErrorCode::invalid_argument, std::string(to_string(type)) + " has no codes");
  }
  const int64_t block_bytes = codec(type).block_bytes;
  const auto* bytes = reinterpret_cast<const uint8_t*>(w.data());
  BlockParts parts;
  for (int64_t r = 0; r < m; ++r) {
    const Activations a = quantized(x.subspan(static_cast<size_t>(r * k), static_cast<size_t>(k)));
    for (int64_t c = 0; c < n; ++c) {
      float sum = 0;
      for (int64_t at = 0; at < k; at += form->values) {
        take_apart(type, bytes + (c * (k / form->values) + at / form->values) * block_bytes, parts);
        sum = with_block(*form, parts, a.codes.data() + at, a.scales.data() + at / kRun, sum);
      }
      y[static_cast<size_t>(r * n + c)] = sum;
    }
  }
}

}  // namespace narrow::kernels::ref
