// SPDX-License-Identifier: Apache-2.0
// Blocked activations times weights in blocks (BlockGemmArgs). A lane is an output column, so every
// result is summed along k alone, in the same order on every instruction set. One row multiplies
// codes as they are unpacked; more rows share a stretch of codes that was unpacked once. Included
// inside an anonymous namespace behind a block_vec.h.
#pragma once

#define NARROW_INLINE inline __attribute__((always_inline))

/// body(std::integral_constant<int, 0>), ..., (.., N - 1): shifts need constants.
template <class Body, int... I>
NARROW_INLINE void unrolled(const Body& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
NARROW_INLINE void unrolled(const Body& body) {
  unrolled(body, std::make_integer_sequence<int, N>{});
}

constexpr int64_t kRun = 32;     // values between two scales of the activations
constexpr int64_t kPlane = 64;   // bytes of a bit plane
constexpr int kSteps = 8;        // of 4 k in a run
constexpr int64_t kSuper = 256;  // values of a large block
constexpr int64_t kHalves = 32;  // bytes of a 16-bit float per row of the panel
// Two unpacked panels, 16 KiB, fit the L1 cache with what meets them.
constexpr int64_t kStretch = kBlockStretch;
constexpr int64_t kStretchRuns = kStretch / kRun;

enum class ScaleKind { plain, bytes, nibbles };

template <int Bits, int64_t Values, int64_t Group, int Zero, bool Table, bool Offset,
          ScaleKind Kind>
struct Form {
  static constexpr int kBits = Bits;
  static constexpr int64_t kValues = Values;
  static constexpr int64_t kGroup = Group;
  static constexpr float kZero = Zero;  // the code of 0; of looked-up integers, which are + 128
  static constexpr bool kTable = Table;
  static constexpr bool kOffset = Offset;
  static constexpr ScaleKind kKind = Kind;
  static constexpr int64_t kRunBytes = Bits * kPlane;
  static constexpr int64_t kGroupBytes =
      Kind == ScaleKind::plain ? 0 : (Kind == ScaleKind::bytes && Offset ? 2 : 1) * kPanel;
  /// Of a record.
  static constexpr int64_t kRecord = Values == kRun && !Offset ? 2 * kRun : Values;
  static constexpr int64_t kRecordRuns = kRecord / kRun;
  static constexpr int64_t kScaleBytes =
      (kRecord / Values * ((Offset ? 2 : 1) * kHalves + kGroupBytes * (Values / Group)) + kPlane -
       1) /
      kPlane * kPlane;
  static constexpr int64_t kRecordBytes = kScaleBytes + kRecordRuns * kRunBytes;
  static constexpr int kClass = product_class(Table ? 8 : Bits);
  /// Bytes that are fetched into the second-level cache ahead of their use: +25 % on a core that
  /// reads 20 GB/s (into the first-level cache: +5 %).
  static constexpr int64_t kAhead = bytes_ahead(Bits);
};

using Q4_0 = Form<4, 32, 32, 8, false, false, ScaleKind::plain>;
using Q4_1 = Form<4, 32, 32, 0, false, true, ScaleKind::plain>;
using Q5_0 = Form<5, 32, 32, 16, false, false, ScaleKind::plain>;
using Q5_1 = Form<5, 32, 32, 0, false, true, ScaleKind::plain>;
using Q8_0 = Form<8, 32, 32, 128, false, false, ScaleKind::plain>;
using Iq4Nl = Form<4, 32, 32, 128, true, false, ScaleKind::plain>;
using Q2K = Form<2, kSuper, 16, 0, false, true, ScaleKind::nibbles>;
using Q3K = Form<3, kSuper, 16, 4, false, false, ScaleKind::bytes>;
using Q4K = Form<4, kSuper, 32, 0, false, true, ScaleKind::bytes>;
using Q5K = Form<5, kSuper, 32, 0, false, true, ScaleKind::bytes>;
using Q6K = Form<6, kSuper, 16, 32, false, false, ScaleKind::bytes>;
using Iq4Xs = Form<4, kSuper, 32, 128, true, false, ScaleKind::bytes>;

/// Step J of a run as codes of 8 bits.
template <class F, int J>
NARROW_INLINE Codes codes_of(const uint8_t* p) {
  constexpr int kPair = 2 * (J % 4);
  if constexpr (F::kBits == 8) {
    return load_codes(p + kPlane * J);
  } else if constexpr (F::kBits < 4) {
    const Codes low = field<kPair, 0, 2>(load_codes(p + kPlane * (J / 4)));
    if constexpr (F::kBits == 2) return low;
    return merge(low, field<J, 2, 1>(load_codes(p + 2 * kPlane)));
  } else {
    const Codes low = field < J < 4 ? 0 : 4, 0, 4 > (load_codes(p + kPlane * (J % 4)));
    if constexpr (F::kTable) {
      return look_up(low);
    } else if constexpr (F::kBits == 4) {
      return low;
    } else if constexpr (F::kBits == 5) {
      return merge(low, field<J, 4, 1>(load_codes(p + 4 * kPlane)));
    } else {
      return merge(low, field<kPair, 4, 2>(load_codes(p + 4 * kPlane + kPlane * (J / 4))));
    }
  }
}

/// The scales of one record of the panel's 16 rows.
template <class F>
struct Scales {
  Floats d;
  Floats m;  // negated in large blocks
  const uint8_t* groups;

  NARROW_INLINE explicit Scales(const uint8_t* p) : d(load_halves(p)) {
    if constexpr (F::kOffset) {
      m = load_halves(p + kHalves);
      if constexpr (F::kKind != ScaleKind::plain) m = negated(m);
    }
    groups = F::kRecord == F::kValues ? p + (F::kOffset ? 2 : 1) * kHalves : p;
  }
  NARROW_INLINE Floats scale(int64_t g) const {
    if constexpr (F::kRecord != F::kValues) return load_halves(groups + g * kHalves);
    if constexpr (F::kKind == ScaleKind::plain) return d;
    const uint8_t* p = groups + g * F::kGroupBytes;
    if constexpr (F::kKind == ScaleKind::nibbles) return multiply(d, low_nibbles(p));
    return multiply(d, from_int8(p));
  }
  NARROW_INLINE Floats offset(int64_t g) const {
    if constexpr (F::kKind == ScaleKind::plain) return m;
    const uint8_t* p = groups + g * F::kGroupBytes;
    if constexpr (F::kKind == ScaleKind::nibbles) return multiply(m, high_nibbles(p));
    return multiply(m, from_uint8(p + kPanel));
  }
};

/// Activations of one row, or of a tile of rows in one stretch.
struct Rows {
  const int8_t* codes;
  const float* scales;
  const int32_t* start;
  const float* sums;
};

/// Bytes from p on into the second-level cache.
template <int64_t Bytes>
NARROW_INLINE void fetch(const uint8_t* p) {
  unrolled<Bytes / kPlane>([&](auto line) NARROW_LAMBDA {
    __builtin_prefetch(p + kPlane * decltype(line)::value, 0, 2);
  });
}

/// Of a record with `left` values before the end of the panel.
template <class F>
NARROW_INLINE int64_t record_runs(int64_t left) {
  if constexpr (F::kRecord == F::kValues) return F::kRecordRuns;
  return left < F::kRecord ? left / kRun : F::kRecordRuns;
}

/// One row times one panel.
template <class F>
NARROW_INLINE void gemv_panel(const BlockGemmArgs& a, const uint8_t* panel, float* dst,
                              int64_t columns) {
  constexpr int kParts = static_cast<int>(kRun / F::kGroup);
  constexpr int kPartSteps = kSteps / kParts;
  Rows x{a.rows.codes, a.rows.scales, a.rows.start, a.rows.sums};
  Floats y = zero_floats();
  for (int64_t at = 0; at < a.k; at += F::kRecord, panel += F::kRecordBytes) {
    const Scales<F> scales(panel);
    const uint8_t* codes = panel + F::kScaleBytes;
    fetch<F::kScaleBytes>(panel + F::kAhead);
    const int64_t runs = record_runs<F>(a.k - at);
    for (int64_t run = 0; run < runs; ++run) {
      Floats t = zero_floats();
      unrolled<kParts>([&](auto part) NARROW_LAMBDA {
        constexpr int kPart = decltype(part)::value;
        Product<F::kClass, kPartSteps> sum;
        sum.begin(F::kOffset ? 0 : x.start[kPart]);
        unrolled<kPartSteps>([&](auto step) NARROW_LAMBDA {
          constexpr int kStep = kPart * kPartSteps + decltype(step)::value;
          sum.template step<decltype(step)::value>(prepare<F::kClass>(codes_of<F, kStep>(codes)),
                                                   quad(x.codes + 4 * kStep));
        });
        const Floats s = to_floats(sum.end());
        const Floats scale = scales.scale(run * kParts + kPart);
        t = kPart == 0 ? multiply(s, scale) : multiply_add(s, scale, t);
      });
      if constexpr (F::kOffset) {
        for (int64_t part = 0; part < kParts; ++part) {
          t = multiply_add(set_all(x.sums[part]), scales.offset(run * kParts + part), t);
        }
      }
      y = multiply_add(t, set_all(*x.scales), y);
      fetch<F::kRunBytes>(codes + F::kAhead);
      codes += F::kRunBytes;
      x.codes += kRun;
      x.scales += 1;
      x.start += kParts;
      x.sums += kParts;
    }
  }
  store_floats(dst, y, columns);
}

/// A stretch of k of up to kTilePanels panels, unpacked.
struct Stretch {
  static constexpr int64_t kGroups = kStretch / 16;
  alignas(64) uint8_t codes[kTilePanels][kStretch * kPanel];
  alignas(64) float scale[kTilePanels][kGroups * kPanel];
  alignas(64) float offset[kTilePanels][kGroups * kPanel];
  int64_t runs;
};

/// What float weights need beside the scale.
enum class Wanted { codes, floats };

/// Values [first, first + 32 * runs) of one panel. For floats, zeros become offsets: they are
/// powers of two, so that scale * code + offset is still the decoded value, rounded once.
template <class F, Wanted For>
inline void unpack(const uint8_t* panel, int64_t first, int64_t slot, Stretch& to) {
  constexpr int kParts = static_cast<int>(kRun / F::kGroup);
  const uint8_t* record = panel + first / F::kRecord * F::kRecordBytes;
  uint8_t* out = to.codes[slot];
  float* scale = to.scale[slot];
  float* offset = to.offset[slot];
  for (int64_t done = 0; done < to.runs; done += F::kRecordRuns, record += F::kRecordBytes) {
    const Scales<F> scales(record);
    const uint8_t* codes = record + F::kScaleBytes;
    if constexpr (For == Wanted::floats) fetch<F::kScaleBytes>(record + F::kAhead);
    const int64_t runs = record_runs<F>((to.runs - done) * kRun);
    for (int64_t run = 0; run < runs; ++run) {
      unrolled<kSteps>([&](auto step) NARROW_LAMBDA {
        constexpr int kStep = decltype(step)::value;
        store_codes(out + kPlane * kStep, codes_of<F, kStep>(codes));
      });
      for (int64_t part = 0; part < kParts; ++part, scale += kPanel, offset += kPanel) {
        const Floats s = scales.scale(run * kParts + part);
        store_floats(scale, s, kPanel);
        if constexpr (F::kOffset) {
          store_floats(offset, scales.offset(run * kParts + part), kPanel);
        } else if constexpr (For == Wanted::floats) {
          store_floats(offset, multiply(s, set_all(-F::kZero)), kPanel);
        }
      }
      if constexpr (For == Wanted::floats) fetch<F::kRunBytes>(codes + F::kAhead);
      codes += F::kRunBytes;
      out += kPlane * kSteps;
    }
  }
}

struct TileOutput {
  float* dst;
  int64_t ldc;
  int64_t columns;  // of the last panel; the others are whole
  bool first;       // nothing was added yet
};

/// R rows times NR unpacked panels.
template <int Class, int64_t Group, bool Offset, int R, int NR>
void tile(const BlockGemmArgs& a, const Stretch& w, int64_t r, int64_t first,
          const TileOutput& out) {
  constexpr int kParts = static_cast<int>(kRun / Group);
  constexpr int kPartSteps = kSteps / kParts;
  constexpr int64_t kTile = kBlockTile;
  const int64_t at_row = first * a.rows.padded + r * w.runs * kRun;  // r is a multiple of kTile
  Rows x{a.rows.codes + at_row, a.rows.scales + at_row / kRun, a.rows.start + at_row / Group,
         a.rows.sums + at_row / Group};
  Floats y[R][NR];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) {
      const int64_t columns = j + 1 == NR ? out.columns : kPanel;
      y[i][j] =
          out.first ? zero_floats() : load_floats(out.dst + i * out.ldc + j * kPanel, columns);
    }
  }
  for (int64_t run = 0; run < w.runs; ++run) {
    Floats t[R][NR];
    unrolled<kParts>([&](auto part) NARROW_LAMBDA {
      constexpr int kPart = decltype(part)::value;
      const int64_t group = run * kParts + kPart;
      Product<Class, kPartSteps> sum[R][NR];
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < NR; ++j) sum[i][j].begin(Offset ? 0 : x.start[kPart * kTile + i]);
      }
      unrolled<kPartSteps>([&](auto step) NARROW_LAMBDA {
        constexpr int kStep = decltype(step)::value;
        const int64_t at = run * kSteps + kPart * kPartSteps + kStep;
        Prepared<Class> b[NR];
#pragma GCC unroll 4
        for (int j = 0; j < NR; ++j) b[j] = prepare<Class>(load_codes(w.codes[j] + kPlane * at));
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
          const Quad q = quad(x.codes + kRun * i + 4 * (kPart * kPartSteps + kStep));
#pragma GCC unroll 4
          for (int j = 0; j < NR; ++j) sum[i][j].template step<kStep>(b[j], q);
        }
      });
#pragma GCC unroll 4
      for (int j = 0; j < NR; ++j) {
        const Floats scale = load_floats(w.scale[j] + group * kPanel, kPanel);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
          const Floats s = to_floats(sum[i][j].end());
          t[i][j] = kPart == 0 ? multiply(s, scale) : multiply_add(s, scale, t[i][j]);
        }
      }
    });
    if constexpr (Offset) {
#pragma GCC unroll 2
      for (int64_t part = 0; part < kParts; ++part) {
        const int64_t group = run * kParts + part;
#pragma GCC unroll 4
        for (int j = 0; j < NR; ++j) {
          const Floats offset = load_floats(w.offset[j] + group * kPanel, kPanel);
#pragma GCC unroll 8
          for (int i = 0; i < R; ++i) {
            t[i][j] = multiply_add(set_all(x.sums[part * kTile + i]), offset, t[i][j]);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Floats scale = set_all(x.scales[i]);
#pragma GCC unroll 4
      for (int j = 0; j < NR; ++j) y[i][j] = multiply_add(t[i][j], scale, y[i][j]);
    }
    x.codes += kTile * kRun;
    x.scales += kTile;
    x.start += kTile * kParts;
    x.sums += kTile * kParts;
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) {
      const int64_t columns = j + 1 == NR ? out.columns : kPanel;
      store_floats(out.dst + i * out.ldc + j * kPanel, y[i][j], columns);
    }
  }
}

using TileFn = void (*)(const BlockGemmArgs&, const Stretch&, int64_t, int64_t, const TileOutput&);

/// The tiles of 1 to kBlockTile rows.
template <int Class, int64_t Group, bool Offset, int NR, int... R>
constexpr auto tiles(std::integer_sequence<int, R...>) {
  return std::array<TileFn, sizeof...(R)>{tile<Class, Group, Offset, R + 1, NR>...};
}

/// All rows times panels [first_column, ..) of one stretch.
template <int Class, int64_t Group, bool Offset, int NR>
void rows_times(const BlockGemmArgs& a, const Stretch& w, int64_t column, int64_t first) {
  static constexpr auto kTiles =
      tiles<Class, Group, Offset, NR>(std::make_integer_sequence<int, kBlockTile>{});
  const int64_t left = a.n - column - (NR - 1) * kPanel;
  for (int64_t r = 0; r < a.m; r += kBlockTile) {
    const int64_t rows = a.m - r < kBlockTile ? a.m - r : kBlockTile;
    const TileOutput out{a.dst + r * a.ldc + column, a.ldc, left < kPanel ? left : kPanel,
                         first == 0};
    kTiles[static_cast<size_t>(rows - 1)](a, w, r, first, out);
  }
}

template <class F>
void gemm(const BlockGemmArgs& a) {
  if (a.m == 1) {
    const uint8_t* panel = a.weights;
    for (int64_t column = 0; column < a.n; column += kPanel, panel += a.panel_bytes) {
      const int64_t left = a.n - column;
      gemv_panel<F>(a, panel, a.dst + column, left < kPanel ? left : kPanel);
    }
    return;
  }
  Stretch w;
  for (int64_t first = 0; first < a.k; first += kStretch) {
    const int64_t values = a.k - first < kStretch ? a.k - first : kStretch;
    w.runs = values / kRun;
    for (int64_t column = 0; column < a.n; column += kTilePanels * kPanel) {
      const int64_t left = (a.n - column + kPanel - 1) / kPanel;
      const int64_t panels = left < kTilePanels ? left : kTilePanels;
      for (int64_t j = 0; j < panels; ++j) {
        unpack<F, Wanted::codes>(a.weights + (column / kPanel + j) * a.panel_bytes, first, j, w);
      }
      if (panels == kTilePanels) {
        rows_times<F::kClass, F::kGroup, F::kOffset, kTilePanels>(a, w, column, first);
      } else {
        rows_times<F::kClass, F::kGroup, F::kOffset, 1>(a, w, column, first);
      }
    }
  }
}

/// body(std::type_identity<form>{}) for the form of a kernel.
template <class Body>
NARROW_INLINE void for_form(BlockKernel kernel, const Body& body) {
  switch (kernel) {
    case BlockKernel::q4_0:
      return body(std::type_identity<Q4_0>{});
    case BlockKernel::q4_1:
      return body(std::type_identity<Q4_1>{});
    case BlockKernel::q5_0:
      return body(std::type_identity<Q5_0>{});
    case BlockKernel::q5_1:
      return body(std::type_identity<Q5_1>{});
    case BlockKernel::q8_0:
      return body(std::type_identity<Q8_0>{});
    case BlockKernel::iq4_nl:
      return body(std::type_identity<Iq4Nl>{});
    case BlockKernel::q2_k:
      return body(std::type_identity<Q2K>{});
    case BlockKernel::q3_k:
      return body(std::type_identity<Q3K>{});
    case BlockKernel::q4_k:
      return body(std::type_identity<Q4K>{});
    case BlockKernel::q5_k:
      return body(std::type_identity<Q5K>{});
    case BlockKernel::q6_k:
      return body(std::type_identity<Q6K>{});
    case BlockKernel::iq4_xs:
      return body(std::type_identity<Iq4Xs>{});
  }
}

inline void block_gemm_body(const BlockGemmArgs& a) {
  for_form(a.kernel, [&]<class F>(std::type_identity<F>) { gemm<F>(a); });
}
