// SPDX-License-Identifier: Apache-2.0
// Tile registers in plain C++: what runs on AMX (tile_gemm_body.h) with every access to memory made
// as the instructions make it, for machines without them. Products wrap as tdpbusd does.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "kernel_inputs.h"
#include "narrow/kernels/ref/reference.h"

namespace narrow::testing::emulated {
namespace {

using namespace narrow::kernels;

#include "narrow/kernels/tile_gemm_body.h"

struct Tiles {
  static void configure(int64_t rows, int64_t groups) {
    ASSERT_GE(rows, 1);
    ASSERT_LE(rows, kTileRows);
    ASSERT_GE(groups, 1);
    ASSERT_LE(groups, kTileGroups);
    t_rows = rows;
    t_groups = groups;
    for (auto& tile : t_tiles) tile.fill(0);
  }
  static void release() { t_rows = t_groups = 0; }

  template <int T>
  static void load(const void* from, int64_t stride) {
    for (int64_t r = 0; r < rows_of(T); ++r) {
      std::memcpy(&t_tiles[T][r * 64], static_cast<const uint8_t*>(from) + r * stride, bytes_of(T));
    }
  }
  template <int T>
  static void store(void* to, int64_t stride) {
    for (int64_t r = 0; r < rows_of(T); ++r) {
      std::memcpy(static_cast<uint8_t*>(to) + r * stride, &t_tiles[T][r * 64], bytes_of(T));
    }
  }
  template <int C, int A, int B>
  static void dot() {
    static_assert(C < 4 && (A == 4 || A == 5) && (B == 6 || B == 7));
    EXPECT_GT(t_rows, 0) << "not configured";
    const auto* b = reinterpret_cast<const int8_t*>(t_tiles[B].data());
    for (int64_t r = 0; r < t_rows; ++r) {
      for (int64_t c = 0; c < kPanel; ++c) {
        uint32_t sum;
        uint8_t* at = &t_tiles[C][r * 64 + c * 4];
        std::memcpy(&sum, at, 4);
        for (int64_t k = 0; k < t_groups * kGroup; ++k) {
          const int32_t product =
              t_tiles[A][r * 64 + k] * b[(k / kGroup * kPanel + c) * kGroup + k % kGroup];
          sum += static_cast<uint32_t>(product);
        }
        std::memcpy(at, &sum, 4);
      }
    }
  }
  static void gather(uint8_t* to, const uint8_t* row, const Piece* pieces, int count) {
    std::memset(to, 0, kTileGroups * kGroup);
    for (int i = 0; i < count; ++i) {
      for (int64_t group = 0; group < kTileGroups; ++group) {
        if ((pieces[i].mask >> group & 1u) == 0) continue;
        std::memcpy(to + group * kGroup, row + (pieces[i].from + group * kGroup), kGroup);
      }
    }
  }

 private:
  static int64_t rows_of(int tile) { return tile < 6 ? t_rows : t_groups; }
  static size_t bytes_of(int tile) {
    return static_cast<size_t>((tile == 4 || tile == 5 ? t_groups : kPanel) * kGroup);
  }
  static inline thread_local int64_t t_rows = 0;
  static inline thread_local int64_t t_groups = 0;
  static inline thread_local std::array<std::array<uint8_t, kTileBytes>, 8> t_tiles{};
};

/// The epilogue as kernel_types.h words it.
struct Finish {
  template <int NP>
  static void rows(const IgemmArgs& g, int64_t row, int64_t rows, int64_t column,
                   const int32_t* sums) {
    const Epilogue& e = g.epilogue;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < NP * kPanel && column + j < g.n; ++j) {
        const int64_t c = column + j;
        const int64_t at = (row + i) * g.ldc + c;
        auto acc = static_cast<uint32_t>(sums[i * NP * kPanel + j]);
        if (e.weight_zero != nullptr) {
          acc -=
              static_cast<uint32_t>(g.row_sums[row + i]) * static_cast<uint32_t>(e.weight_zero[c]);
        }
        const auto sum = static_cast<int32_t>(acc);
        switch (e.out) {
          case Out::s32:
            static_cast<int32_t*>(g.dst)[at] = sum;
            break;
          case Out::f32:
            static_cast<float*>(g.dst)[at] = ref::to_real(
                sum, e.multiplier[c], e.bias == nullptr ? nullptr : e.bias + c, e.lo, e.hi);
            break;
          case Out::codes: {
            const ref::Requantize r{e.multiplier[c], e.zero_point,
                                    static_cast<int32_t>(e.lo) + e.zero_point,
                                    static_cast<int32_t>(e.hi) + e.zero_point};
            static_cast<uint8_t*>(g.dst)[at] = static_cast<uint8_t>(ref::to_code(sum, r));
            break;
          }
        }
      }
    }
  }
};

/// Every size goes through the tiles but for rows that they refuse.
inline void igemm(const IgemmArgs& args) noexcept {
  if (!tile_igemm<Tiles, Finish>(args)) kernel_sets().back().igemm(args);
}

}  // namespace
}  // namespace narrow::testing::emulated

namespace narrow::testing {

/// The portable set with integer products on emulated tiles.
inline const kernels::KernelSet* emulated_tiles() {
  static const kernels::KernelSet kSet = [] {
    kernels::KernelSet set = kernels::kernel_sets().back();
    set.name = "emulated tiles";
    set.igemm = emulated::igemm;
    return set;
  }();
  return &kSet;
}

/// What products and convolutions are tested on.
inline std::vector<const kernels::KernelSet*> product_kernels() {
  auto out = runnable_kernels();
  out.push_back(emulated_tiles());
  return out;
}

}  // namespace narrow::testing
