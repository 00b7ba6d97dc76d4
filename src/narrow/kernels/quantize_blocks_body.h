// SPDX-License-Identifier: Apache-2.0
// Rows of activations to codes in blocks of 32 (QuantizeBlocksArgs): where a run goes and what
// stands beside it. How a run is quantized is the instruction set's. Included inside an anonymous
// namespace behind block_gemm_body.h.
#pragma once

/// The place of a run among all runs, of the first row of its tile.
inline int64_t run_place(const QuantizeBlocksArgs& args, int64_t row, int64_t run) {
  const BlockRows& rows = args.rows;
  const int64_t runs = args.k / kRun;
  const int64_t in_stretch = run % kStretchRuns;
  const int64_t before = run - in_stretch;
  const int64_t width = runs - before < kStretchRuns ? runs - before : kStretchRuns;
  return before * rows.padded + (row - row % rows.tile) * width + in_stretch * rows.tile;
}

/// `low` and `high`: sums of the halves of the row's codes in the run at `place`.
inline void store_sums(const QuantizeBlocksArgs& args, int64_t place, int64_t row, int32_t low,
                       int32_t high) {
  const BlockRows& rows = args.rows;
  if (rows.start == nullptr) return;
  const int64_t parts = kRun / args.group;
  const int32_t sums[2] = {parts == 1 ? low + high : low, high};
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t at = place * parts + p * rows.tile + row % rows.tile;
    rows.start[at] = -args.zero * sums[p];
    rows.sums[at] = static_cast<float>(sums[p]);
  }
}

/// quantize(x, scale, codes) makes the codes of a run, sum_halves(codes, sums) adds them up.
template <class Quantize, class SumHalves>
inline void quantize_blocks_body(const QuantizeBlocksArgs& args, const Quantize& quantize,
                                 const SumHalves& sum_halves) {
  const BlockRows& rows = args.rows;
  for (int64_t r = args.begin; r < args.end; ++r) {
    for (int64_t run = 0; run < args.k / kRun; ++run) {
      const int64_t place = run_place(args, r, run);
      const int64_t own = place + r % rows.tile;
      int8_t* codes = rows.codes + own * kRun;
      quantize(args.x + r * args.k + run * kRun, rows.scales + own, codes);
      if (rows.start == nullptr) continue;
      int32_t sums[2];
      sum_halves(codes, sums);
      store_sums(args, place, r, sums[0], sums[1]);
    }
  }
}
