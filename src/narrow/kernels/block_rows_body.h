// SPDX-License-Identifier: Apache-2.0
// Blocked activations times weights in blocks as the file has them (BlockRowsArgs): 16 rows of w at
// a time are taken apart, and their results are the lanes of a vector, summed as those of panels
// are. Plain loops that compilers make vectors of. Included inside an anonymous namespace behind a
// block_vec.h.
#pragma once

/// One block of each of 16 rows of w.
struct TakenBlocks {
  alignas(64) int16_t integers[kPanel][blocks::kSuper];
  alignas(64) uint8_t d[2 * kPanel];  // binary16
  alignas(64) uint8_t m[2 * kPanel];
  alignas(64) uint8_t scales[16][kPanel];
  alignas(64) uint8_t offsets[16][kPanel];
};

template <size_t Index>
inline void take_row(const uint8_t* block, int64_t row, TakenBlocks& to) {
  constexpr BlockForm kForm = blocks::kForms[Index];
  BlockParts parts;
  blocks::take_apart_as(kForm, block, parts);
  int16_t* integers = to.integers[row];
  for (int i = 0; i < kForm.values; ++i) {
    if constexpr (kForm.table) {
      integers[i] = blocks::kNonlinear[parts.codes[i] & 15];
    } else {
      integers[i] = static_cast<int16_t>(parts.codes[i] - kForm.zero);
    }
  }
  to.d[2 * row] = static_cast<uint8_t>(parts.d & 0xff);
  to.d[2 * row + 1] = static_cast<uint8_t>(parts.d >> 8);
  to.m[2 * row] = static_cast<uint8_t>(parts.m & 0xff);
  to.m[2 * row + 1] = static_cast<uint8_t>(parts.m >> 8);
  if constexpr (kForm.values == blocks::kSmall) return;
  for (int g = 0; g < kForm.values / kForm.group; ++g) {
    to.scales[g][row] = static_cast<uint8_t>(parts.scales[g]);
    if constexpr (kForm.offset) to.offsets[g][row] = parts.offsets[g];
  }
}

/// The scales of group g, rounded as scale_of() and offset_of() are.
template <size_t Index>
inline Floats scale_at(const TakenBlocks& w, int g) {
  const Floats d = load_halves(w.d);
  if constexpr (blocks::kForms[Index].values == blocks::kSmall) return d;
  return multiply(d, from_int8(w.scales[g]));
}
template <size_t Index>
inline Floats offset_at(const TakenBlocks& w, int g) {
  const Floats m = load_halves(w.m);
  if constexpr (blocks::kForms[Index].values == blocks::kSmall) return m;
  return multiply(negated(m), from_uint8(w.offsets[g]));
}

/// 16 sums of `Count` products, exact.
template <int Count>
inline Floats dots(const TakenBlocks& w, int64_t first, const int16_t* x) {
  alignas(64) float sums[kPanel];
  for (int64_t row = 0; row < kPanel; ++row) {
    const int16_t* integers = w.integers[row] + first;
    int32_t sum = 0;
    for (int i = 0; i < Count; ++i) sum += int32_t{integers[i]} * int32_t{x[i]};
    sums[row] = static_cast<float>(sum);
  }
  return load_floats(sums, kPanel);
}

/// y of one row of x plus what a block adds; codes, scales and sums are those of the block's runs.
template <size_t Index>
inline Floats with_blocks(const TakenBlocks& w, const int8_t* codes, const float* scales,
                          const float* sums, Floats y) {
  constexpr BlockForm kForm = blocks::kForms[Index];
  constexpr int kParts = blocks::kSmall / kForm.group;
  for (int run = 0; run < kForm.values / blocks::kSmall; ++run) {
    alignas(64) int16_t x[blocks::kSmall];
    for (int i = 0; i < blocks::kSmall; ++i) x[i] = codes[run * blocks::kSmall + i];
    Floats t = zero_floats();
    for (int part = 0; part < kParts; ++part) {
      const int at = part * kForm.group;
      const Floats s = dots<kForm.group>(w, run * blocks::kSmall + at, x + at);
      const Floats scale = scale_at<Index>(w, run * kParts + part);
      t = part == 0 ? multiply(s, scale) : multiply_add(s, scale, t);
    }
    if constexpr (kForm.offset) {
      for (int g = run * kParts; g < (run + 1) * kParts; ++g) {
        t = multiply_add(set_all(sums[g]), offset_at<Index>(w, g), t);
      }
    }
    y = multiply_add(t, set_all(scales[run]), y);
  }
  return y;
}

/// Everything in one function: loops over bytes become vectors only where compilers see that
/// nothing else points there.
template <size_t Index>
__attribute__((flatten)) inline void block_rows(const BlockRowsArgs& a) {
  constexpr BlockForm kForm = blocks::kForms[Index];
  constexpr int64_t kRuns = kForm.values / blocks::kSmall;
  constexpr int64_t kGroups = kForm.values / kForm.group;
  TakenBlocks w = {};
  for (int64_t column = 0; column < a.n; column += kPanel) {
    const int64_t columns = a.n - column < kPanel ? a.n - column : kPanel;
    Floats y[kMostBlockRows];
    for (int64_t r = 0; r < a.m; ++r) y[r] = zero_floats();
    for (int64_t b = 0; b < a.k / kForm.values; ++b) {
      for (int64_t row = 0; row < columns; ++row) {
        take_row<Index>(a.weights + (column + row) * a.row_bytes + b * a.block_bytes, row, w);
      }
      for (int64_t r = 0; r < a.m; ++r) {
        const int64_t run = r * (a.k / blocks::kSmall) + b * kRuns;
        const float* sums = a.sums + r * (a.k / kForm.group) + b * kGroups;
        y[r] = with_blocks<Index>(w, a.codes + run * blocks::kSmall, a.scales + run, sums, y[r]);
      }
    }
    for (int64_t r = 0; r < a.m; ++r) store_floats(a.dst + r * a.ldc + column, y[r], columns);
  }
}

template <size_t... Index>
inline void block_rows_of(const BlockRowsArgs& a, std::index_sequence<Index...>) {
  ((a.form == static_cast<int32_t>(Index) ? block_rows<Index>(a) : void()), ...);
}

inline void block_rows_body(const BlockRowsArgs& a) {
  block_rows_of(a, std::make_index_sequence<sizeof(blocks::kForms) / sizeof(BlockForm)>{});
}
