// SPDX-License-Identifier: Apache-2.0
// Encoders of the super-blocks whose groups have a scale and an offset: q2_k, q4_k, q5_k. Included
// once by the file for each instruction set.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "narrow/quant/blocks/encoders.h"
#include "narrow/quant/blocks/layout.h"
#include "narrow/quant/blocks/search.h"

namespace narrow::blocks {
namespace {

/// x ~ d * s[g] * code - dmin * o[g], as stored.
template <int kGroups>
struct OffsetRecord {
  float d = 0;
  float dmin = 0;
  std::array<int, kGroups> s{};
  std::array<int, kGroups> o{};
};

/// What distinguishes the types.
struct Q2K {
  static constexpr int kVectors = 2;
  static constexpr float kMaxCode = 3;
  static constexpr int kMaxScale = 15;
};
struct Q4K {
  static constexpr int kVectors = 4;
  static constexpr float kMaxCode = 15;
  static constexpr int kMaxScale = 63;
};
struct Q5K {
  static constexpr int kVectors = 4;
  static constexpr float kMaxCode = 31;
  static constexpr int kMaxScale = 63;
};

template <class T>
class OffsetEncoder {
 public:
  static constexpr int kGroups = kSuper / (8 * T::kVectors);
  using Record = OffsetRecord<kGroups>;

  OffsetEncoder(const float* x, const float* importance, EncodeMethod method, Emphasis emphasis)
      : scaled_(x, kSuper, x_), method_(method), emphasis_(emphasis) {
    error_weights(method == EncodeMethod::rtn ? nullptr : importance, x_, kSuper,
                  method == EncodeMethod::rtn ? Emphasis::none : emphasis, w_);
    for (int g = 0; g < kGroups; ++g) {
      groups_[g].load(x_ + 8 * T::kVectors * g, w_ + 8 * T::kVectors * g);
    }
  }

  /// Codes, scales and offsets; `d` and `dmin` are what the file holds.
  void run(uint8_t* codes, uint8_t* s, uint8_t* o, Half& d, Half& dmin) {
    std::array<OffsetFit, kGroups> fits;
    for (int g = 0; g < kGroups; ++g) {
      fits[g] = method_ == EncodeMethod::rtn
                    ? offset_extremes(groups_[g], T::kMaxCode, MinimumSign::not_negative)
                    : search_offset(groups_[g], T::kMaxCode, MinimumSign::not_negative);
    }
    Record best = method_ == EncodeMethod::rtn ? nearest(fits) : refine(fits);
    d = scaled_.store(best.d);
    dmin = scaled_.store(best.dmin);
    for (int g = 0; g < kGroups; ++g) {
      s[g] = static_cast<uint8_t>(best.s[g]);
      o[g] = static_cast<uint8_t>(best.o[g]);
      codes_at(groups_[g], kGrid, best.d * static_cast<float>(best.s[g]),
               -best.dmin * static_cast<float>(best.o[g]), codes + 8 * T::kVectors * g);
    }
  }

 private:
  using G = Group<T::kVectors>;
  static constexpr LinearGrid kGrid{0, T::kMaxCode};
  static constexpr int kRounds = 3;  // of choosing scales and refitting d and dmin

  Record nearest(const std::array<OffsetFit, kGroups>& fits) const {
    Record r;
    for (const OffsetFit& f : fits) {
      r.d = std::max(r.d, f.scale);
      r.dmin = std::max(r.dmin, f.minimum);
    }
    r.d /= static_cast<float>(T::kMaxScale);
    r.dmin /= static_cast<float>(T::kMaxScale);
    scaled_.store(r.d);
    scaled_.store(r.dmin);
    for (int g = 0; g < kGroups; ++g) {
      r.s[g] = index(fits[g].scale * inverse(r.d));
      r.o[g] = index(fits[g].minimum * inverse(r.dmin));
    }
    return r;
  }

  static int index(float t) {
    return static_cast<int>(std::min(std::max(t, 0.0f), static_cast<float>(T::kMaxScale)) + 0.5f);
  }

  struct Choice {
    int s = 0;
    int o = 0;
    float error = 0;
    LevelSums sums;
  };

  /// The stored scale and offset of one group with the least true error, near a real-valued fit.
  Choice choose(const G& g, const OffsetFit& fit, const Record& r, int now_s, int now_o) const {
    Trials trials;
    int s_of[Trials::kCount];
    int o_of[Trials::kCount];
    int count = 0;
    const auto consider = [&](int s, int o) {
      s_of[count] = s;
      o_of[count] = o;
      trials.scale[count] = r.d * static_cast<float>(s);
      trials.offset[count] = -r.dmin * static_cast<float>(o);
      ++count;
    };
    if (now_s >= 0) consider(now_s, now_o);
    const int middle = index(fit.scale * inverse(r.d));
    const float mean = g.sum_wx / g.sum_w;
    const float inv_dmin = inverse(r.dmin);
    for (int s = std::max(middle - 1, 0); s <= std::min(middle + 1, T::kMaxScale); ++s) {
      // The codes' mean stays about the same, so the offset moves with the scale.
      const float ratio = fit.scale > 0 ? r.d * static_cast<float>(s) / fit.scale : 1.0f;
      const float minimum = ratio * (mean + fit.minimum) - mean;
      const float t = std::clamp(minimum * inv_dmin, 0.0f, static_cast<float>(T::kMaxScale));
      const int below = static_cast<int>(t);
      for (int o = below; o <= std::min(below + 1, T::kMaxScale); ++o) consider(s, o);
    }
    while (count < Trials::kCount) consider(s_of[0], o_of[0]);
    errors_of_trials(g, kGrid, trials);
    const int best = trials.best();
    return {s_of[best], o_of[best], trials.error[best], trials.sums(best)};
  }

  Record refine(const std::array<OffsetFit, kGroups>& first) const {
    std::array<OffsetFit, kGroups> fits = first;
    Record r = nearest(fits);
    Record best = r;
    float best_error = -1;
    r.s.fill(-1);
    for (int round = 0; round < kRounds; ++round) {
      float error = 0;
      std::array<LevelSums, kGroups> sums;
      for (int g = 0; g < kGroups; ++g) {
        const Choice c = choose(groups_[g], fits[g], r, r.s[g], r.o[g]);
        r.s[g] = c.s;
        r.o[g] = c.o;
        sums[g] = c.sums;
        error += c.error;
      }
      if (best_error >= 0 && !(error < best_error)) break;
      const bool little = best_error >= 0 && error > 0.999f * best_error;
      best = r;
      best_error = error;
      if (little || !refit(sums, r)) break;
    }
    widen(best, best_error);
    return best;
  }

  void widen(Record& r, float error) const {
    float squares = 0;
    for (const G& g : groups_) squares += g.sum_wxx;
    const float factor = direction_factor(emphasis_, error, squares);
    r.d *= factor;
    r.dmin *= factor;
    scaled_.store(r.d);
    scaled_.store(r.dmin);
  }

  /// d and dmin by least squares over the whole block, for the codes behind `sums`.
  bool refit(const std::array<LevelSums, kGroups>& sums, Record& r) const {
    float ss = 0;
    float so = 0;
    float oo = 0;
    float xs = 0;
    float xo = 0;
    for (int g = 0; g < kGroups; ++g) {
      const auto s = static_cast<float>(r.s[g]);
      const auto o = static_cast<float>(r.o[g]);
      ss += s * s * sums[g].ll;
      so += s * o * sums[g].l;
      oo += o * o * groups_[g].sum_w;
      xs += s * sums[g].xl;
      xo += o * groups_[g].sum_wx;
    }
    const float det = ss * oo - so * so;
    float d = 0;
    float dmin = 0;
    if (det > 1e-6f * ss * oo) {
      d = (xs * oo - xo * so) / det;
      dmin = (xs * so - xo * ss) / det;
    } else if (ss > 0) {
      d = xs / ss;
    }
    if (!(d > 0) || !(dmin >= 0)) return false;
    scaled_.store(d);
    scaled_.store(dmin);
    if (d == r.d && dmin == r.dmin) return false;
    r.d = d;
    r.dmin = dmin;
    return true;
  }

  alignas(16) float x_[kSuper];
  alignas(16) float w_[kSuper];
  ScaledBlock scaled_;
  EncodeMethod method_;
  Emphasis emphasis_;
  std::array<G, kGroups> groups_;
};

template <class T>
void encode_eight(const float* x, const float* importance, EncodeMethod method, Emphasis emphasis,
                  uint8_t* codes, uint8_t* out) {
  uint8_t s[8];
  uint8_t o[8];
  Half d;
  Half dmin;
  OffsetEncoder<T>(x, importance, method, emphasis).run(codes, s, o, d, dmin);
  store_half(out, d);
  store_half(out + 2, dmin);
  pack_scales_offsets8(s, o, out + 4);
}

}  // namespace

inline namespace NARROW_BLOCKS_ISA {

NARROW_BLOCK_ENCODER(q2_k) {
  uint8_t codes[kSuper];
  uint8_t s[16];
  uint8_t o[16];
  Half d;
  Half dmin;
  for (int64_t b = 0; b < blocks; ++b, x += kSuper, out += 84) {
    OffsetEncoder<Q2K>(x, importance, method, emphasis).run(codes, s, o, d, dmin);
    for (int g = 0; g < 16; ++g) out[g] = static_cast<uint8_t>(s[g] | o[g] << 4);
    pack_pairs(codes, 0, out + 16);
    store_half(out + 80, d);
    store_half(out + 82, dmin);
    if (importance != nullptr) importance += kSuper;
  }
}

NARROW_BLOCK_ENCODER(q4_k) {
  uint8_t codes[kSuper];
  for (int64_t b = 0; b < blocks; ++b, x += kSuper, out += 144) {
    encode_eight<Q4K>(x, importance, method, emphasis, codes, out);
    for (int k = 0; k < 4; ++k) pack_nibbles32(codes + 64 * k, out + 16 + 32 * k);
    if (importance != nullptr) importance += kSuper;
  }
}

NARROW_BLOCK_ENCODER(q5_k) {
  uint8_t codes[kSuper];
  for (int64_t b = 0; b < blocks; ++b, x += kSuper, out += 176) {
    encode_eight<Q5K>(x, importance, method, emphasis, codes, out);
    pack_bits(codes, 4, out + 16);
    for (int k = 0; k < 4; ++k) pack_nibbles32(codes + 64 * k, out + 48 + 32 * k);
    if (importance != nullptr) importance += kSuper;
  }
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
