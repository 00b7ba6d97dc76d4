// SPDX-License-Identifier: Apache-2.0
// The way from int32 sums (corrections added) to what a product stores, in vectors of 16 columns.
// Included inside an anonymous namespace by files compiled for AVX-512 (F, BW, VL, DQ).
#pragma once

struct Tile {
  const IgemmArgs* g;
  int64_t row;     // first row
  int64_t column;  // first column
};

/// The constants of the way from sums to codes. Codes are made as bytes in [0, 255]: int8 codes
/// live there 128 higher until the last step. Saturating packs and a maximum of bytes do what the
/// lower bound asks; the upper one has to come before the conversion, whose overflow is negative.
struct Rounding {
  __m512 hi;
  __m512i zero;  // 16-bit
  __m512i lowest;
  __m512i flip;
  __m512i order;

  explicit inline __attribute__((always_inline)) Rounding(const Epilogue& e) {
    const int zero_byte = e.zero_point + e.flip;
    hi = _mm512_set1_ps(e.hi);
    zero = _mm512_set1_epi16(static_cast<short>(zero_byte));
    lowest = _mm512_set1_epi8(static_cast<char>(static_cast<int>(e.lo) + zero_byte));
    flip = _mm512_set1_epi8(static_cast<char>(e.flip));
    order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  }
};

inline __attribute__((always_inline)) __m512 bound(__m512 t, const Epilogue& e) {
  return _mm512_max_ps(_mm512_min_ps(t, _mm512_set1_ps(e.hi)), _mm512_set1_ps(e.lo));
}

inline __attribute__((always_inline)) __mmask16 columns_mask(int64_t left) {
  return left >= kPanel ? static_cast<__mmask16>(0xffff)
                        : static_cast<__mmask16>((1u << left) - 1u);
}

inline __attribute__((always_inline)) __m512i rounded(__m512i acc, __m512 multiplier,
                                                      const Rounding& r) {
  const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
  return _mm512_cvtps_epi32(_mm512_min_ps(t, r.hi));
}

/// Four vectors of 16 sums to 64 codes in order.
inline __attribute__((always_inline)) __m512i codes_of(const __m512i (&t)[4], const Rounding& r) {
  const __m512i a = _mm512_adds_epi16(_mm512_packs_epi32(t[0], t[1]), r.zero);
  const __m512i b = _mm512_adds_epi16(_mm512_packs_epi32(t[2], t[3]), r.zero);
  const __m512i bytes = _mm512_max_epu8(_mm512_packus_epi16(a, b), r.lowest);
  return _mm512_permutexvar_epi32(r.order, _mm512_xor_si512(bytes, r.flip));
}

inline __attribute__((always_inline)) __m128i part(__m512i codes, int q) {
  switch (q) {
    case 0:
      return _mm512_castsi512_si128(codes);
    case 1:
      return _mm512_extracti32x4_epi32(codes, 1);
    case 2:
      return _mm512_extracti32x4_epi32(codes, 2);
    default:
      return _mm512_extracti32x4_epi32(codes, 3);
  }
}

/// Every output kind, from sums in memory: the ways that are not worth a copy in each tile.
void store_any(const Tile& at, const int32_t* sums, int rows, int panels) {
  const Epilogue& e = at.g->epilogue;
  const Rounding rounding(e);
  for (int i = 0; i < rows; ++i) {
    const int64_t row = at.row + i;
    for (int p = 0; p < panels; ++p) {
      const int64_t c = at.column + p * kPanel;
      const __mmask16 mask = columns_mask(at.g->n - c);
      __m512i acc = _mm512_loadu_si512(sums + (i * panels + p) * kPanel);
      if (e.weight_zero != nullptr) {
        const __m512i zero = _mm512_loadu_si512(e.weight_zero + c);
        acc =
            _mm512_sub_epi32(acc, _mm512_mullo_epi32(zero, _mm512_set1_epi32(at.g->row_sums[row])));
      }
      const int64_t offset = row * at.g->ldc + c;
      if (e.out == Out::s32) {
        _mm512_mask_storeu_epi32(static_cast<int32_t*>(at.g->dst) + offset, mask, acc);
        continue;
      }
      const __m512 multiplier = _mm512_loadu_ps(e.multiplier + c);
      if (e.out == Out::codes) {
        const __m512i t = rounded(acc, multiplier, rounding);
        const __m512i codes = codes_of({t, t, t, t}, rounding);
        _mm_mask_storeu_epi8(static_cast<uint8_t*>(at.g->dst) + offset, mask, part(codes, 0));
        continue;
      }
      __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
      if (e.bias != nullptr) t = _mm512_add_ps(t, _mm512_loadu_ps(e.bias + c));
      _mm512_mask_storeu_ps(static_cast<float*>(at.g->dst) + offset, mask, bound(t, e));
    }
  }
}

/// The tile's sums to codes, four vectors at a time, whichever rows and panels they belong to.
template <int MR, int NP>
inline __attribute__((always_inline)) void store_codes(const Tile& at, __m512i (&acc)[MR][NP]) {
  const Rounding rounding(at.g->epilogue);
  const float* multiplier = at.g->epilogue.multiplier + at.column;
  uint8_t* dst = static_cast<uint8_t*>(at.g->dst) + at.row * at.g->ldc + at.column;
  const int64_t left = at.g->n - at.column;
  if constexpr (NP == 4) {
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      __m512i t[4];
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        t[p] = rounded(acc[i][p], _mm512_loadu_ps(multiplier + p * kPanel), rounding);
      }
      _mm512_mask_storeu_epi8(dst + i * at.g->ldc, mask, codes_of(t, rounding));
    }
    return;
  }
  const __mmask16 tail = columns_mask(left - (NP - 1) * kPanel);
  // Rows without gaps are stored behind each other.
  const bool dense = at.g->ldc == NP * kPanel && left == NP * kPanel;
#pragma GCC unroll 10
  for (int first = 0; first < MR * NP; first += 4) {
    __m512i t[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const int at_q = first + q < MR * NP ? first + q : first;
      t[q] = rounded(acc[at_q / NP][at_q % NP], _mm512_loadu_ps(multiplier + at_q % NP * kPanel),
                     rounding);
    }
    const __m512i codes = codes_of(t, rounding);
    if (dense) {
      const int vectors = MR * NP - first < 4 ? MR * NP - first : 4;
      const __mmask64 mask = ~__mmask64{0} >> (64 - vectors * kPanel);
      _mm512_mask_storeu_epi8(dst + first * kPanel, mask, codes);
      continue;
    }
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      if (first + q >= MR * NP) break;
      const int p = (first + q) % NP;
      uint8_t* to = dst + (first + q) / NP * at.g->ldc + p * kPanel;
      _mm_mask_storeu_epi8(to, p == NP - 1 ? tail : static_cast<__mmask16>(0xffff), part(codes, q));
    }
  }
}

template <int MR, int NP>
inline __attribute__((always_inline)) void finish(const Tile& at, __m512i (&acc)[MR][NP]) {
  const Epilogue& e = at.g->epilogue;
  if (e.out != Out::codes || e.weight_zero != nullptr) {
    alignas(64) int32_t sums[MR * NP * kPanel];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) _mm512_store_si512(sums + (i * NP + p) * kPanel, acc[i][p]);
    }
    store_any(at, sums, MR, NP);
    return;
  }
  store_codes<MR, NP>(at, acc);
}
