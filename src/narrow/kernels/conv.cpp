// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/conv.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow::kernels {
namespace {

// Pixels that one depthwise call gets.
constexpr int64_t kDepthwiseRows = 64;
// Channels of weights stored over and over: some 10 kB of a window of 9, half of an L1 cache.
constexpr int64_t kMaxPeriod = 1024;

void check_scratch(const ConvProblem& p, std::span<std::byte> scratch) {
  if (scratch.size() < conv_scratch_bytes(p)) {
    throw Error(ErrorCode::internal, "scratch memory of a convolution is too small");
  }
}

/// Whether the kernels for rows of outputs take the window.
bool fits_columns(const ConvProblem& p) {
  const bool columns = p.kernel[2] == 3 || p.kernel[2] == 5;
  const bool rows = p.kernel[0] == 1 && p.kernel[1] >= 2 && p.kernel[1] <= 2 * kGroup;
  return columns && rows && p.stride[2] <= 2 && p.dilation[2] == 1;
}

/// Threads copy what they compute, unless they share rows and compute some of the filters each.
ImageReads reads_of(const ConvProblem& p, bool must_copy) {
  ImageReads reads{.element_bytes = 1, .must_copy = must_copy};
  // Depthwise kernels do a quarter of the multiply-adds in the same time.
  const bool depthwise = refuse_depthwise(p, {}).empty();
  if (p.groups > 1 || cut_by_rows(p.out_pixels(), p.filters)) {
    reads.piece_macs = depthwise ? kBlockMacs / 4 : kBlockMacs;
  }
  return reads;
}

/// Kernel positions in the order of packed depthwise weights; -1: padding.
std::vector<int64_t> depthwise_order(const ConvProblem& p) {
  std::vector<int64_t> order;
  if (!depthwise_by_columns(p)) {
    for (int64_t k = 0; k < p.window(); ++k) order.push_back(k);
    return order;
  }
  const int64_t rows = (p.kernel[1] + kGroup - 1) / kGroup * kGroup;
  for (int64_t x = 0; x < p.kernel[2]; ++x) {
    for (int64_t y = 0; y < rows; ++y) {
      order.push_back(y < p.kernel[1] ? y * p.kernel[2] + x : -1);
    }
  }
  return order;
}

Epilogue make_epilogue(const Columns& columns, const ConvOutput& output) {
  Epilogue e = {};
  e.corr = columns.corr.data();
  e.multiplier = columns.multiplier.data();
  e.bias = columns.bias.empty() ? nullptr : columns.bias.data();
  e.lo = output.lo;
  e.hi = output.hi;
  e.zero_point = output.zero_point;
  e.flip = output.flip;
  e.out = output.out;
  return e;
}

std::byte* at_pixel(const ConvProblem& p, const ConvOutput& output, int64_t pixel, int64_t filter) {
  const int64_t element = output.out == Out::codes ? 1 : 4;
  return static_cast<std::byte*>(output.data) + (pixel * p.filters + filter) * element;
}

}  // namespace

ConvRuns::ConvRuns(const ConvProblem& p)
    : rows(p.groups == 1 && (p.dilation[2] == 1 || p.kernel[2] == 1)) {
  shape.n = p.group_filters();
  shape.taps = p.kernel[0] * p.kernel[1] * (rows ? 1 : p.kernel[2]);
  shape.run_bytes = p.group_channels() * (rows ? p.kernel[2] : 1);
}

size_t PackedConv::bytes() const {
  return std::accumulate(groups.begin(), groups.end(), size_t{0},
                         [](size_t sum, const PackedMatrix& m) { return sum + m.bytes(); });
}

PackedConv pack_conv(const ConvProblem& p, std::span<const int8_t> codes,
                     std::span<const int32_t> zero) {
  PackedConv out{ConvRuns(p), {}, {}};
  const int64_t channels = p.group_channels();
  const int64_t filters = p.group_filters();
  const int64_t window = p.window();
  if (static_cast<int64_t>(codes.size()) != p.filters * channels * window) {
    throw Error(ErrorCode::internal, "convolution weights have another size than their shape");
  }
  // Channels innermost: the order of both kinds of runs.
  std::vector<int8_t> matrix(static_cast<size_t>(filters * channels * window));
  for (int64_t g = 0; g < p.groups; ++g) {
    for (int64_t f = 0; f < filters; ++f) {
      const int8_t* from = codes.data() + (g * filters + f) * channels * window;
      int8_t* to = matrix.data() + f * channels * window;
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t k = 0; k < window; ++k) to[k * channels + c] = from[c * window + k];
      }
    }
    const auto zeros = zero.size() > 1 ? zero.subspan(g * filters, filters) : zero;
    out.groups.push_back(pack_matrix(matrix, out.runs.shape, zeros));
  }
  return out;
}

std::string refuse_depthwise(const ConvProblem& p, std::span<const int32_t> zero) {
  if (p.groups != p.channels || p.channels == 1) return "not one group per channel";
  if (p.filters != p.channels) return "several filters per channel";
  if (std::any_of(zero.begin(), zero.end(), [](int32_t z) { return z != 0; })) {
    return "weights have zero_points";
  }
  return {};
}

bool depthwise_by_rows(const ConvProblem& p) {
  const int64_t period = std::lcm(p.channels, kDepthBlock);
  if (p.stride[2] != 1 || p.channels % kDepthBlock == 0 || period > kMaxPeriod) return false;
  // Neighbours share no columns here: a block of the usual window costs 1.6 times as much (64
  // against 40 instructions).
  return !fits_columns(p) ||
         8 * p.channels < 5 * ((p.channels + kDepthBlock - 1) / kDepthBlock * kDepthBlock);
}

bool depthwise_side_by_side(const ConvProblem& p) {
  return fits_columns(p) && p.kernel[2] == 3 && p.kernel[1] <= kGroup &&
         (p.channels == 16 || p.channels == 32);
}

bool depthwise_by_columns(const ConvProblem& p) {
  return fits_columns(p) && (!depthwise_by_rows(p) || depthwise_side_by_side(p));
}

PackedMatrix pack_depthwise_conv(const ConvProblem& p, std::span<const int8_t> codes) {
  const std::vector<int64_t> order = depthwise_order(p);
  const int64_t window = p.window();
  const bool repeats = depthwise_by_rows(p) || depthwise_side_by_side(p);
  const int64_t channels = repeats ? std::lcm(p.channels, kDepthBlock) : p.channels;
  std::vector<int8_t> matrix(order.size() * static_cast<size_t>(channels), 0);
  for (size_t t = 0; t < order.size(); ++t) {
    for (int64_t c = 0; c < channels && order[t] >= 0; ++c) {
      matrix[t * channels + c] = codes[c % p.channels * window + order[t]];
    }
  }
  return pack_depthwise(matrix, static_cast<int64_t>(order.size()), channels);
}

size_t conv_scratch_bytes(const ConvProblem& p) {
  // As if everything had to be copied: int8 codes are.
  return ImageReader::scratch_bytes(p, reads_of(p, true));
}

void run_conv(const KernelSet& kernels, const ConvProblem& p, const PackedConv& w,
              const ConvInput& input, const ConvOutput& output, std::span<std::byte> scratch) {
  run_conv(kernels, p, w, w.columns, input, output, scratch);
}

void run_conv(const KernelSet& kernels, const ConvProblem& p, const PackedConv& w,
              std::span<const Columns> columns, const ConvInput& input, const ConvOutput& output,
              std::span<std::byte> scratch) {
  if (p.out_values() == 0) return;
  check_scratch(p, scratch);
  const MatrixShape& shape = w.runs.shape;
  const bool over_reads = shape.read_bytes() != shape.run_bytes;
  const ImageReader image(p, reads_of(p, input.flip != 0 || over_reads));
  const auto kind = w.runs.rows ? ImageReader::Taps::rows : ImageReader::Taps::positions;
  const std::span<const int64_t> taps = image.taps(kind, shape.taps, scratch);
  image.for_pieces(kernels, input, scratch, [&](const uint8_t* base, int64_t first, int64_t count) {
    const auto run_group = [&](int64_t g) {
      const PackedMatrix& matrix = w.groups[g];
      IgemmProblem problem;
      problem.m = count;
      problem.w = matrix.view();
      problem.rows = [&](int64_t row, int64_t rows, const uint8_t** pointers) {
        image.pixels(base, row, rows, g * p.group_channels(), pointers);
      };
      problem.tap_offsets = taps;
      problem.epilogue = make_epilogue(columns[g], output);
      if (!matrix.weight_zero.empty()) {
        problem.epilogue.weight_zero = matrix.weight_zero.data();
      }
      problem.dst = at_pixel(p, output, first, g * p.group_filters());
      problem.ldc = p.filters;
      if (output.addend != nullptr) {
        problem.addend = output.addend + first * p.filters + g * p.group_filters();
        problem.sum = &output.sum;
      }
      problem.table = output.table;
      run_igemm(kernels, problem);
    };
    if (p.groups > 1 && p.macs() > kOneThreadMacs) {
      parallel_blocks(p.groups, run_group);
    } else {
      for (int64_t g = 0; g < p.groups; ++g) run_group(g);
    }
  });
}

namespace {

/// Output rows [begin, end) of a piece by the kernel for rows.
void depthwise_rows(const KernelSet& kernels, const ConvProblem& p, const ImageReader& image,
                    std::span<const int64_t> taps, const uint8_t* base, int64_t begin, int64_t end,
                    DepthwiseRowArgs args, const ConvOutput& output, int64_t first_pixel) {
  std::array<const uint8_t*, 2 * kGroup> rows;
  args.rows = rows.data();
  args.m = p.out[2];
  for (int64_t r = begin; r < end; ++r) {
    const uint8_t* corner = nullptr;
    image.pixels(base, r * p.out[2], 1, 0, &corner);
    for (int64_t y = 0; y < kGroup * args.groups; ++y) {
      rows[y] = corner + (y < p.kernel[1] ? taps[y * p.kernel[2]] : 0);
    }
    args.dst = at_pixel(p, output, first_pixel + r * p.out[2], 0);
    kernels.depthwise_row(args);
  }
}

}  // namespace

void run_depthwise(const KernelSet& kernels, const ConvProblem& p, const PackedMatrix& w,
                   const Columns& columns, const ConvInput& input, const ConvOutput& output,
                   std::span<std::byte> scratch) {
  if (p.out_values() == 0) return;
  check_scratch(p, scratch);
  const ImageReader image(p, reads_of(p, input.flip != 0));
  const std::span<const int64_t> taps =
      image.taps(ImageReader::Taps::positions, p.window(), scratch);
  const auto* weights = reinterpret_cast<const int8_t*>(w.weights.raw());
  const bool small = p.macs() <= kOneThreadMacs / 4;
  if (kernels.depthwise_row != nullptr && depthwise_by_columns(p)) {
    DepthwiseRowArgs args = {};
    args.groups = (p.kernel[1] + kGroup - 1) / kGroup;
    args.columns = p.kernel[2];
    args.stride = p.stride[2];
    args.pixel = p.channels;
    args.weights = weights;
    args.channels = p.channels;
    args.epilogue = make_epilogue(columns, output);
    args.ldc = p.filters;
    image.for_pieces(
        kernels, input, scratch, [&](const uint8_t* base, int64_t first, int64_t count) {
          const int64_t rows = count / p.out[2];
          const auto run = [&](int64_t begin, int64_t end) {
            depthwise_rows(kernels, p, image, taps, base, begin, end, args, output, first);
          };
          if (small) {
            run(0, rows);
          } else {
            const int64_t per_block = kDepthwiseRows / p.out[2] + 1;
            parallel_for(rows, per_block, run);
          }
        });
    return;
  }
  std::vector<int64_t> ordered;
  for (const int64_t k : depthwise_order(p)) ordered.push_back(taps[k < 0 ? 0 : k]);
  ordered.resize(static_cast<size_t>(w.shape.taps), taps[0]);
  const int64_t unit = depthwise_by_rows(p) ? p.out[2] : 1;  // pixels side by side
  image.for_pieces(kernels, input, scratch, [&](const uint8_t* base, int64_t first, int64_t count) {
    const auto run = [&](int64_t begin, int64_t end) {
      std::array<const uint8_t*, kDepthwiseRows> rows;
      for (int64_t i = begin; i < end; i += kDepthwiseRows) {
        DepthwiseArgs args;
        args.rows = rows.data();
        args.m = std::min(kDepthwiseRows, end - i);
        if (unit == 1) image.pixels(base, i, args.m, 0, rows.data());
        for (int64_t r = 0; r < args.m && unit > 1; ++r) {
          image.pixels(base, (i + r) * unit, 1, 0, &rows[static_cast<size_t>(r)]);
        }
        args.taps = ordered.data();
        args.num_taps = w.shape.taps;
        args.weights = weights;
        args.channels = unit * p.channels;
        args.period = w.shape.n + (kDepthBlock - w.shape.n % kDepthBlock) % kDepthBlock;
        args.epilogue = make_epilogue(columns, output);
        args.dst = at_pixel(p, output, first + i * unit, 0);
        args.ldc = unit * p.filters;
        kernels.depthwise(args);
      }
    };
    if (small) {
      run(0, count / unit);
    } else {
      parallel_for(count / unit, kDepthwiseRows / unit + 1, run);
    }
  });
}

}  // namespace narrow::kernels
