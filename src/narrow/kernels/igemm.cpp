// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/igemm.h"

#include <algorithm>
#include <array>
#include <bit>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow::kernels {
namespace {

// Rows that one kernel call gets: a multiple of every tile height (6, 8, 10), so that no block but
// the last has ragged tiles, and few enough that their activations stay in the caches while the
// panels pass.
constexpr int64_t kBlockRows = 120;
// Parallel blocks have multiples of this many rows.
constexpr int64_t kRowUnit = 12;
// A thread's next block lies behind those of the others: few long ones are streams that the CPU's
// prefetchers follow (ResNet-50 with 32 images on two threads: 7 % faster), and enough for 64
// threads.
constexpr int64_t kMostBlocks = 256;
// Columns of one kernel tile.
constexpr int64_t kTileColumns = 4 * kPanel;

int64_t divide_up(int64_t v, int64_t by) {
  return (v + by - 1) / by;
}
int64_t round_up(int64_t v, int64_t unit) {
  return divide_up(v, unit) * unit;
}

int32_t wrap(int64_t v) {
  return static_cast<int32_t>(static_cast<uint32_t>(v));
}

struct Blocks {
  int64_t rows;     // of one block; a multiple of kRowUnit or all
  int64_t columns;  // of one block; a multiple of kTileColumns or all
};

Blocks choose_blocks(int64_t m, int64_t n, int64_t k) {
  const int64_t total = m * n * k;
  if (total <= kOneThreadMacs) return {m, n};
  // A power of two of about the same size: 2, 4 or 8 threads end together.
  const int64_t wanted = std::min(total / kBlockMacs, kMostBlocks);
  const auto blocks = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(wanted)));
  if (cut_by_rows(m, n)) {
    return {round_up(divide_up(m, blocks), kRowUnit), n};
  }
  const int64_t rows = std::min(m, kBlockRows);
  const int64_t across = divide_up(blocks, divide_up(m, rows));
  return {rows, round_up(divide_up(n, across), kTileColumns)};
}

int64_t panel_bytes(const PackedView& w) {
  const int64_t groups = w.shape.taps * w.shape.groups();
  return (w.bits == 4 ? (groups + 1) / 2 : groups) * kPanel * kGroup;
}

/// The sum or the table, for rows [row, row + count), columns [column, column_end).
void follow(const KernelSet& kernels, const IgemmProblem& p, int64_t row, int64_t count,
            int64_t column, int64_t column_end) {
  int64_t offset = row * p.ldc + column;
  int64_t width = column_end - column;
  if (width == p.ldc) {  // rows without gaps
    width *= count;
    count = 1;
  }
  for (int64_t i = 0; i < count; ++i, offset += p.ldc) {
    uint8_t* dst = static_cast<uint8_t*>(p.dst) + offset;
    if (p.addend != nullptr) kernels.binary(dst, dst, 1, p.addend + offset, 1, width, *p.sum);
    if (p.table != nullptr) kernels.lookup(dst, dst, width, p.table);
  }
}

void run_part(const KernelSet& kernels, const IgemmProblem& p, int64_t row, int64_t row_end,
              int64_t column, int64_t column_end) {
  const MatrixShape& shape = p.w.shape;
  std::array<const uint8_t*, kBlockRows> rows;
  std::array<int32_t, kBlockRows> sums;
  const int64_t element = p.epilogue.out == Out::codes ? 1 : 4;
  for (; row < row_end; row += kBlockRows) {
    const int64_t count = std::min(kBlockRows, row_end - row);
    p.rows(row, count, rows.data());
    IgemmArgs args;
    args.rows = rows.data();
    args.m = count;
    args.taps = p.tap_offsets.data();
    args.num_taps = shape.taps;
    args.run = shape.groups();
    args.weights = p.w.weights + column / kPanel * panel_bytes(p.w);
    args.n = column_end - column;
    args.row_sums = sums.data();
    args.epilogue = p.epilogue;
    args.epilogue.corr += column;
    if (args.epilogue.multiplier != nullptr) args.epilogue.multiplier += column;
    if (p.w.weight_zero != nullptr) {
      args.epilogue.weight_zero = p.w.weight_zero + column;
      kernels.row_sums(rows.data(), count, args.taps, shape.taps, shape.run_bytes, sums.data());
    }
    if (args.epilogue.bias != nullptr) args.epilogue.bias += column;
    args.dst = static_cast<std::byte*>(p.dst) + (row * p.ldc + column) * element;
    args.ldc = p.ldc;
    (p.w.bits == 4 ? kernels.igemm4 : kernels.igemm)(args);
    if (p.addend != nullptr || p.table != nullptr) {
      follow(kernels, p, row, count, column, column_end);
    }
  }
}

void check_size(std::span<const int8_t> codes, const MatrixShape& shape) {
  if (static_cast<int64_t>(codes.size()) == shape.n * shape.k()) return;
  throw Error(ErrorCode::internal, "weights to pack have another size than their shape");
}

void fill_panels(std::span<const int8_t> codes, const MatrixShape& shape, int8_t* weights,
                 int32_t* column_sums) {
  const int64_t groups = shape.groups();
  for (int64_t c = 0; c < shape.panels() * kPanel; ++c) {
    int8_t* panel = weights + c / kPanel * (shape.taps * groups * kPanel * kGroup);
    const int8_t* column = c < shape.n ? codes.data() + c * shape.k() : nullptr;
    int64_t sum = 0;
    for (int64_t t = 0; t < shape.taps; ++t) {
      for (int64_t k = 0; k < groups * kGroup; ++k) {
        const bool inside = column != nullptr && k < shape.run_bytes;
        const int8_t w = inside ? column[t * shape.run_bytes + k] : int8_t{0};
        const int64_t group = t * groups + k / kGroup;
        panel[(group * kPanel + c % kPanel) * kGroup + k % kGroup] = w;
        sum += w;
      }
    }
    column_sums[c] = wrap(sum);
  }
}

}  // namespace

size_t packed_matrix_bytes(const MatrixShape& shape) {
  return static_cast<size_t>(shape.panels() * kPanel * shape.taps * shape.read_bytes());
}

PackedMatrix pack_matrix(std::span<const int8_t> codes, const MatrixShape& shape,
                         std::span<const int32_t> zero) {
  check_size(codes, shape);
  PackedMatrix out;
  out.shape = shape;
  out.weights = Tensor(DType::int8, {static_cast<int64_t>(packed_matrix_bytes(shape))});
  const int64_t padded = shape.panels() * kPanel;
  out.column_sums.resize(padded);
  fill_panels(codes, shape, reinterpret_cast<int8_t*>(out.weights.mutable_raw()),
              out.column_sums.data());
  if (std::any_of(zero.begin(), zero.end(), [](int32_t z) { return z != 0; })) {
    out.weight_zero.assign(padded, 0);
    for (int64_t c = 0; c < shape.n; ++c) out.weight_zero[c] = zero[zero.size() == 1 ? 0 : c];
  }
  return out;
}

std::optional<PackedMatrix> pack_nibbles(std::span<const int8_t> codes, const MatrixShape& shape,
                                         std::span<const int32_t> zero) {
  check_size(codes, shape);
  const int64_t k = shape.k();
  if (k == 0 || shape.taps != 1) return std::nullopt;
  std::vector<int8_t> moved(codes.begin(), codes.end());
  std::vector<int32_t> zeros(static_cast<size_t>(shape.n), 0);
  for (int64_t c = 0; c < shape.n; ++c) {
    const std::span<int8_t> column = std::span(moved).subspan(c * k, k);
    const auto [low, high] = std::ranges::minmax(column);
    if (high - low > 15) return std::nullopt;
    const int32_t shift = low < -8 || high > 7 ? low + 8 : 0;
    for (int8_t& code : column) code = static_cast<int8_t>(code - shift);
    if (!zero.empty()) zeros[c] = zero[zero.size() == 1 ? 0 : c];
    zeros[c] -= shift;
  }
  PackedMatrix out = pack_matrix(moved, shape, zeros);
  out.bits = 4;
  const PackedView wide = {shape, 8};
  const PackedView narrow = {shape, 4};
  Tensor nibbles(DType::int8, {shape.panels() * panel_bytes(narrow)});
  const auto* from = reinterpret_cast<const uint8_t*>(out.weights.raw());
  auto* to = reinterpret_cast<uint8_t*>(nibbles.mutable_raw());
  constexpr int64_t kRecord = kPanel * kGroup;
  for (int64_t p = 0; p < shape.panels(); ++p, from += panel_bytes(wide)) {
    for (int64_t g = 0; g < shape.groups(); g += 2, to += kRecord) {
      const bool pair = g + 1 < shape.groups();
      for (int64_t i = 0; i < kRecord; ++i) {
        const int next = pair ? from[(g + 1) * kRecord + i] : 0;
        to[i] = static_cast<uint8_t>((from[g * kRecord + i] & 15) | next << 4);
      }
    }
  }
  out.weights = std::move(nibbles);
  return out;
}

int64_t depthwise_place(int64_t channel) {
  const int64_t c = channel % kDepthBlock;
  return channel - c + c / 4 % 4 * 16 + c / 16 * 4 + c % 4;
}

PackedMatrix pack_depthwise(std::span<const int8_t> codes, int64_t taps, int64_t channels) {
  PackedMatrix out;
  const int64_t padded_taps = round_up(taps, kGroup);
  const int64_t padded = round_up(channels, kDepthBlock);
  out.shape = {channels, padded_taps, 1};
  out.weights = Tensor(DType::int8, {padded * padded_taps});
  out.column_sums.assign(padded, 0);
  auto* w = reinterpret_cast<int8_t*>(out.weights.mutable_raw());
  for (int64_t t = 0; t < taps; ++t) {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t place = depthwise_place(c);
      const int64_t block = place / kDepthBlock * (padded_taps * kDepthBlock);
      const int64_t group = t / kGroup * kDepthBlock + place % kDepthBlock;
      w[block + group * kGroup + t % kGroup] = codes[t * channels + c];
      out.column_sums[place] += codes[t * channels + c];
    }
  }
  return out;
}

void fill_corrections(const PackedMatrix& w, int32_t z_x, std::span<const int32_t> bias,
                      int32_t* corr) {
  for (size_t c = 0; c < w.column_sums.size(); ++c) {
    int64_t v = -int64_t{z_x} * w.column_sums[c];
    if (c < bias.size()) v += bias[c];
    if (!w.weight_zero.empty()) v += w.shape.k() * z_x * w.weight_zero[c];
    corr[c] = wrap(v);
  }
}

Columns make_depthwise_columns(const PackedMatrix& w, int32_t z_x, std::span<const int32_t> bias,
                               std::span<const float> multiplier) {
  Columns out;
  out.corr.resize(w.column_sums.size());
  out.multiplier.assign(w.column_sums.size(), 0.0f);
  for (int64_t c = 0; c < w.shape.n; ++c) {
    const int64_t place = depthwise_place(c);
    const auto channel = static_cast<size_t>(c);
    const int64_t b = bias.empty() ? 0 : bias[channel % bias.size()];
    out.corr[place] = wrap(b - int64_t{z_x} * w.column_sums[place]);
    out.multiplier[place] = multiplier[channel % multiplier.size()];
  }
  return out;
}

Columns make_columns(const PackedMatrix& w, int32_t z_x, std::span<const int32_t> bias,
                     std::span<const float> multiplier) {
  Columns out;
  out.corr.resize(w.column_sums.size());
  fill_corrections(w, z_x, bias, out.corr.data());
  out.multiplier.assign(w.column_sums.size(), 0.0f);
  for (int64_t c = 0; c < w.shape.n; ++c) {
    out.multiplier[c] = multiplier[multiplier.size() == 1 ? 0 : c];
  }
  return out;
}

bool cut_by_rows(int64_t m, int64_t n) {
  return m >= 4 * kBlockRows || n <= kTileColumns;
}

void run_igemm(const KernelSet& kernels, const IgemmProblem& p) {
  const int64_t n = p.w.shape.n;
  if (p.m == 0 || n == 0) return;
  const Blocks block = choose_blocks(p.m, n, std::max<int64_t>(p.w.shape.k(), 1));
  const int64_t across = (n + block.columns - 1) / block.columns;
  const int64_t down = (p.m + block.rows - 1) / block.rows;
  const auto run = [&](int64_t i) {
    // Down first: neighbours share weights.
    const int64_t row = i % down * block.rows;
    const int64_t column = i / down * block.columns;
    run_part(kernels, p, row, std::min(row + block.rows, p.m), column,
             std::min(column + block.columns, n));
  };
  if (across * down == 1) {
    run(0);
  } else {
    parallel_blocks(across * down, run);
  }
}

}  // namespace narrow::kernels
