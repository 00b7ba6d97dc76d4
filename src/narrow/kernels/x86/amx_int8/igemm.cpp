// SPDX-License-Identifier: Apache-2.0
// u8 x s8 GEMM with tdpbusd. Its sums wrap as those of vpdpbusd do, so corrections are exact
// whenever the final value fits.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/amx_int8/kernels.h"

namespace narrow::kernels::amx_int8 {
namespace {

// The bodies follow.
#include "narrow/kernels/tile_gemm_body.h"
#include "narrow/kernels/x86/avx512_vnni/epilogue_body.h"

/// The tile registers. Assembly, because the intrinsics of GCC 12 do not say which memory they
/// read: what is written just before them may be dropped as never used.
struct AmxTiles {
  static void configure(int64_t rows, int64_t groups) {
    struct {
      uint8_t palette;
      uint8_t start_row;
      uint8_t reserved[14];
      uint16_t row_bytes[16];
      uint8_t rows[16];
    } config = {};
    static_assert(sizeof(config) == 64);
    config.palette = 1;
    for (int t = 0; t < 8; ++t) {
      config.rows[t] = static_cast<uint8_t>(t < 6 ? rows : groups);
      config.row_bytes[t] =
          static_cast<uint16_t>(t == 4 || t == 5 ? groups * kGroup : kPanel * kGroup);
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  static void release() { __asm__ volatile("tilerelease" ::: "memory"); }

  template <int T>
  static inline __attribute__((always_inline)) void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static inline __attribute__((always_inline)) void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  static inline __attribute__((always_inline)) void dot() {
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }

  static inline __attribute__((always_inline)) void gather(uint8_t* to, const uint8_t* row,
                                                           const Piece* pieces, int count) {
    __m512i x = _mm512_setzero_si512();
    for (int i = 0; i < count; ++i) {
      // Groups that are masked out are not read.
      x = _mm512_mask_loadu_epi32(x, static_cast<__mmask16>(pieces[i].mask), row + pieces[i].from);
    }
    _mm512_store_si512(to, x);
  }
};

struct StoreSums {
  template <int NP>
  static void rows(const IgemmArgs& g, int64_t row, int64_t rows, int64_t column,
                   const int32_t* sums) {
    if (g.epilogue.out != Out::codes || g.epilogue.weight_zero != nullptr) {
      store_any({&g, row, column}, sums, static_cast<int>(rows), NP);
      return;
    }
    // Four vectors become codes together.
    constexpr int kRows = NP == 3 ? 4 : 4 / NP;
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) codes<kRows, NP>({&g, row + i, column}, sums, i);
    for (; i < rows; ++i) codes<1, NP>({&g, row + i, column}, sums, i);
  }

 private:
  template <int MR, int NP>
  static inline __attribute__((always_inline)) void codes(const Tile& at, const int32_t* sums,
                                                          int64_t first) {
    __m512i acc[MR][NP];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) {
        acc[i][p] = _mm512_load_si512(sums + ((first + i) * NP + p) * kPanel);
      }
    }
    store_codes<MR, NP>(at, acc);
  }
};

/// Where tiles are the faster way; figures of a 4th generation Xeon, in cycles.
/// Rows: panels pass at the same pace for one row and two in vectors and tiles (777 and 856 : 689
/// for 64 columns and k 512), which configuring (180) and storing (17 a tile) uses up; with four
/// rows vectors take twice as long as with two, tiles no longer.
/// K: a step of a tile takes its time (16) however few its groups are; vectors take two cycles for
/// 16 columns, four k and four rows.
/// Work: 32768 multiply-adds are 306 cycles in vectors (107 each), 38 in tiles.
bool suits_tiles(const IgemmArgs& g) {
  const int64_t groups = g.num_taps * g.run;
  const int64_t panels = (g.n + kPanel - 1) / kPanel;
  return g.m >= 4 && groups > 4 && g.m * panels * groups * kPanel * kGroup >= 32768;
}

}  // namespace

void igemm(const IgemmArgs& args) noexcept {
  if (suits_tiles(args) && tile_igemm<AmxTiles, StoreSums>(args)) return;
  avx512_vnni::igemm(args);
}

void igemm4(const IgemmArgs& args) noexcept {
  // Tiles hold bytes; two of them share the cost of unpacking.
  constexpr int64_t kManyRows = 32;
  if (args.m >= kManyRows && avx512_vnni::igemm4_unpacked(args, igemm)) return;
  avx512_vnni::igemm4(args);
}

}  // namespace narrow::kernels::amx_int8
#endif
