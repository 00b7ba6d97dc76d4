// SPDX-License-Identifier: Apache-2.0
// u8 x s8 GEMM on two-dimensional tile registers: 16 rows of A by 64 bytes of k, times 16 groups of
// k by 16 columns of B, which are 16 groups of a packed panel as they lie. Blocks of two by two
// tiles of sums, or one by up to four.
//
// Each call has one shape of tiles. Rows: as even as they go, the last tile begins earlier where
// they do not divide, so that it computes some rows again rather than fewer. Columns: always a
// panel. K: steps of up to 16 groups through all taps, whose weights lie behind each other; where
// they do not divide, the last step begins earlier and its A has zeros for what has been
// multiplied. So B is read in place, and nothing outside the panel.
//
// A is read in place where the rows of a tile are at a constant stride and no step crosses a tap;
// otherwise it is copied, every step once for all columns.
//
// Included inside an anonymous namespace. Tiles are
//   configure(rows, groups)    shapes: sums rows x 16, A rows x 4 * groups bytes, B groups x 16
//   load<T>(address, stride)   tiles 0 to 3 are sums, 4 and 5 A, 6 and 7 B
//   store<T>(address, stride)
//   dot<C, A, B>()             C += A * B, wrapping
//   gather(to, row, pieces, count)  64 bytes: the pieces of a row, zeros elsewhere
//   release()
// and Finish::rows<NP>(args, row, rows, column, sums) stores [rows][NP * 16] sums with corrections.
#pragma once

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileGroups = 16;
constexpr int64_t kTileBytes = kTileRows * kTileGroups * kGroup;
// Tiles of A that pass over all columns together, and the most copies among them: 256 KiB, which
// leaves most of an L2 to the weights.
constexpr int64_t kStripTiles = 16;
constexpr int64_t kScratchTiles = 256;

/// Bytes of one tap in a row of an A tile: the groups in `mask`, group i at row + from + 4 * i.
struct Piece {
  int64_t from;
  uint32_t mask;
};

struct TilePlan {
  int64_t groups;  // of all taps
  int64_t steps;
  int64_t depth;   // groups of a step
  bool in_place;   // no step crosses a tap
  int64_t height;  // rows of a tile
  int64_t tiles;   // of rows
};

inline TilePlan plan_tiles(const IgemmArgs& g) {
  TilePlan p;
  p.groups = g.num_taps * g.run;
  p.steps = (p.groups + kTileGroups - 1) / kTileGroups;
  // A step costs the same whatever its depth.
  const bool even = p.groups % p.steps == 0;
  p.depth = even ? p.groups / p.steps : kTileGroups;
  p.in_place = even && g.run % p.depth == 0;
  p.tiles = (g.m + kTileRows - 1) / kTileRows;
  p.height = (g.m + p.tiles - 1) / p.tiles;
  return p;
}

/// The rows of a tile of A: the bytes that the first tap offset is added to, or a copy.
struct Strip {
  int64_t row;
  const uint8_t* at;
  int64_t stride;
  bool copied;
};

inline Strip strip_of(const IgemmArgs& g, const TilePlan& p, int64_t tile) {
  const int64_t even = tile * p.height;
  const int64_t row = even + p.height <= g.m ? even : g.m - p.height;
  const auto address = [&](int64_t i) { return reinterpret_cast<uintptr_t>(g.rows[row + i]); };
  const uintptr_t stride = p.height > 1 ? address(1) - address(0) : 0;
  bool constant = p.in_place;
  for (int64_t i = 2; i < p.height && constant; ++i) {
    constant = address(i) - address(i - 1) == stride;
  }
  return {row, g.rows[row], static_cast<int64_t>(stride), !constant};
}

/// What step `step` takes from each row; at most one piece for each group.
inline int pieces_of(const IgemmArgs& g, const TilePlan& p, int64_t step, Piece* pieces) {
  int64_t group = step * p.depth;
  const int64_t end = group + p.depth < p.groups ? group + p.depth : p.groups;
  const int64_t first = end - p.depth;
  int count = 0;
  while (group < end) {
    const int64_t in_tap = group % g.run;
    const int64_t left = end - group;
    const int64_t length = g.run - in_tap < left ? g.run - in_tap : left;
    const int64_t place = group - first;
    pieces[count++] = {g.taps[group / g.run] + (in_tap - place) * kGroup, ((1u << length) - 1u)
                                                                              << place};
    group += length;
  }
  return count;
}

/// One copy per strip that needs one, behind each other.
template <class Tiles>
void copy_strips(const IgemmArgs& g, const TilePlan& p, const Strip* strips, int64_t count,
                 uint8_t* scratch) {
  Piece pieces[kTileGroups];
  for (int64_t step = 0; step < p.steps; ++step) {
    const int num_pieces = pieces_of(g, p, step, pieces);
    uint8_t* to = scratch + step * kTileBytes;
    for (int64_t s = 0; s < count; ++s) {
      if (!strips[s].copied) continue;
      for (int64_t i = 0; i < p.height; ++i) {
        Tiles::gather(to + i * kTileGroups * kGroup, g.rows[strips[s].row + i], pieces, num_pieces);
      }
      to += p.steps * kTileBytes;
    }
  }
}

struct TileBlock {
  const IgemmArgs* g;
  const TilePlan* plan;
  const Strip* strips;
  int64_t column;
};

/// The A tiles of successive steps.
struct TileRun {
  const uint8_t* at;
  int64_t stride;
  int64_t advance;
};

template <class Tiles, int MR, int NP>
inline __attribute__((always_inline)) void multiply_steps(TileRun (&a)[MR], const int8_t* b,
                                                          int64_t panel_bytes, int64_t b_advance,
                                                          int64_t steps) {
  const auto column = [&]<int P>() __attribute__((always_inline)) {
    if constexpr (P < NP) {
      constexpr int kB = 6 + P % 2;
      Tiles::template load<kB>(b + P * panel_bytes, kPanel * kGroup);
      Tiles::template dot<P, 4, kB>();
      if constexpr (MR == 2) Tiles::template dot<NP + P, 5, kB>();
    }
  };
  TileRun upper = a[0];
  TileRun lower = a[MR - 1];
  for (; steps > 0; --steps, b += b_advance) {
    Tiles::template load<4>(upper.at, upper.stride);
    if constexpr (MR == 2) Tiles::template load<5>(lower.at, lower.stride);
    column.template operator()<0>();
    column.template operator()<1>();
    column.template operator()<2>();
    column.template operator()<3>();
    upper.at += upper.advance;
    lower.at += lower.advance;
  }
  a[0].at = upper.at;
  a[MR - 1].at = lower.at;
}

/// MR strips times NP panels.
template <class Tiles, class Finish, int MR, int NP>
void tile_block(const TileBlock& at) {
  const IgemmArgs& g = *at.g;
  const TilePlan& p = *at.plan;
  const auto each_sum = [](const auto& f) __attribute__((always_inline)) {
    f.template operator()<0>();
    if constexpr (MR * NP > 1) f.template operator()<1>();
    if constexpr (MR * NP > 2) f.template operator()<2>();
    if constexpr (MR * NP > 3) f.template operator()<3>();
  };
  // Stride 0: every row starts with the corrections.
  const int32_t* corr = g.epilogue.corr + at.column;
  each_sum([&]<int T>() __attribute__((always_inline)) {
    Tiles::template load<T>(corr + T % NP * kPanel, 0);
  });
  const int64_t group_bytes = kPanel * kGroup;
  const int64_t panel_bytes = p.groups * group_bytes;
  const int64_t b_advance = p.depth * group_bytes;
  const int8_t* panel = g.weights + at.column / kPanel * panel_bytes;
  const int64_t taps = p.in_place ? g.num_taps : 1;
  const int64_t whole = p.groups / p.depth / taps;
  TileRun a[MR] = {};
  for (int64_t t = 0; t < taps; ++t) {
    for (int i = 0; i < MR; ++i) {
      const Strip& s = at.strips[i];
      a[i] = s.copied ? TileRun{s.at + t * whole * kTileBytes, kTileGroups * kGroup, kTileBytes}
                      : TileRun{s.at + g.taps[t], s.stride, p.depth * kGroup};
    }
    multiply_steps<Tiles, MR, NP>(a, panel + t * whole * b_advance, panel_bytes, b_advance, whole);
  }
  // Only copies have such a step, and they go on where the last one ended.
  if (whole * taps < p.steps) {
    multiply_steps<Tiles, MR, NP>(a, panel + panel_bytes - b_advance, panel_bytes, 0, 1);
  }
  alignas(64) int32_t sums[MR * kTileRows * NP * kPanel];
  each_sum([&]<int T>() __attribute__((always_inline)) {
    Tiles::template store<T>(sums + (T / NP * kTileRows * NP + T % NP) * kPanel,
                             NP * kPanel * sizeof(int32_t));
  });
  for (int i = 0; i < MR; ++i) {
    Finish::template rows<NP>(g, at.strips[i].row, p.height, at.column,
                              sums + i * kTileRows * NP * kPanel);
  }
}

/// All columns of some strips.
template <class Tiles, class Finish>
void tile_columns(const IgemmArgs& g, const TilePlan& p, const Strip* strips, int64_t count) {
  using BlockFn = void (*)(const TileBlock&);
  // [strips][panels]
  constexpr BlockFn kBlocks[3][5] = {
      {},
      {nullptr, tile_block<Tiles, Finish, 1, 1>, tile_block<Tiles, Finish, 1, 2>,
       tile_block<Tiles, Finish, 1, 3>, tile_block<Tiles, Finish, 1, 4>},
      {nullptr, tile_block<Tiles, Finish, 2, 1>, tile_block<Tiles, Finish, 2, 2>}};
  const int64_t panels = (g.n + kPanel - 1) / kPanel;
  const int64_t widest = count == 1 ? 4 : 2;
  for (int64_t p0 = 0; p0 < panels; p0 += widest) {
    const int64_t np = panels - p0 < widest ? panels - p0 : widest;
    for (int64_t s = 0; s < count; s += 2) {
      const int64_t mr = count - s < 2 ? 1 : 2;
      kBlocks[mr][np]({&g, &p, strips + s, p0 * kPanel});
    }
  }
}

/// False, with nothing done, where rows have to be copied that are too long for the scratch. For
/// at least one row and one group. A function of its own, since callers that do without it should
/// not set up its frame.
template <class Tiles, class Finish>
__attribute__((noinline)) bool tile_igemm(const IgemmArgs& g) {
  const TilePlan p = plan_tiles(g);
  if (p.steps > kScratchTiles) {
    for (int64_t tile = 0; tile < p.tiles; ++tile) {
      if (strip_of(g, p, tile).copied) return false;
    }
  }
  alignas(64) uint8_t scratch[kScratchTiles * kTileBytes];
  Strip strips[kStripTiles];
  Tiles::configure(p.height, p.depth);
  for (int64_t tile = 0; tile < p.tiles;) {
    int64_t count = 0;
    int64_t copies = 0;
    while (count < kStripTiles && tile + count < p.tiles) {
      Strip s = strip_of(g, p, tile + count);
      if (s.copied) {
        if ((copies + 1) * p.steps > kScratchTiles) break;
        s.at = scratch + copies++ * p.steps * kTileBytes;
      }
      strips[count++] = s;
    }
    // Pairs, as long as more follow.
    if (count > 1 && count % 2 != 0 && tile + count < p.tiles) --count;
    copy_strips<Tiles>(g, p, strips, count, scratch);
    tile_columns<Tiles, Finish>(g, p, strips, count);
    tile += count;
  }
  Tiles::release();
  return true;
}
