// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/conv.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow::kernels {
namespace {

// Padded copies stay within about half of a small L2 cache, so that the product reads them there.
constexpr int64_t kChunkBytes = 512 * 1024;
// Behind a padded image: kernels read up to 3 bytes past the last run.
constexpr int64_t kTailBytes = 64;
constexpr int64_t kAlign = 64;
constexpr int64_t kDepthwiseRows = 64;

int64_t round_up(int64_t v, int64_t unit) {
  return (v + unit - 1) / unit * unit;
}

/// How a problem is read: in place or through a padded copy, and in how many pieces.
struct Reading {
  bool copies = false;
  Extents extents;    // of one (padded) image
  int64_t image = 0;  // bytes of one (padded) image
  int64_t chunk = 1;  // images per piece
};

bool padded(const ConvProblem& p) {
  return p.pad_begin != Extents{0, 0, 0} || p.pad_end != Extents{0, 0, 0};
}

int64_t bytes_of(const Extents& e, int64_t channels) {
  return e[0] * e[1] * e[2] * channels;
}

Reading plan_reading(const ConvProblem& p, bool must_copy) {
  Reading r;
  r.copies = must_copy || padded(p);
  for (int i = 0; i < 3; ++i) {
    r.extents[i] = r.copies ? p.in[i] + p.pad_begin[i] + p.pad_end[i] : p.in[i];
  }
  r.image = bytes_of(r.extents, p.channels);
  r.chunk = p.batch;
  if (r.copies)
    r.chunk = std::clamp<int64_t>(kChunkBytes / std::max<int64_t>(r.image, 1), 1,
                                  std::max<int64_t>(p.batch, 1));
  return r;
}

/// One image into its padded copy.
void pad_rows(const KernelSet& kernels, const ConvProblem& p, const Reading& r,
              const ConvInput& input, int64_t image, int64_t first, int64_t last, uint8_t* copy) {
  const int64_t row_bytes = r.extents[2] * p.channels;
  const int64_t left = p.pad_begin[2] * p.channels;
  const int64_t inner = p.in[2] * p.channels;
  for (int64_t row = first; row < last; ++row) {
    const int64_t z = row / r.extents[1] - p.pad_begin[0];
    const int64_t y = row % r.extents[1] - p.pad_begin[1];
    uint8_t* to = copy + row * row_bytes;
    if (z < 0 || z >= p.in[0] || y < 0 || y >= p.in[1]) {
      std::memset(to, input.fill, static_cast<size_t>(row_bytes));
      continue;
    }
    const uint8_t* from = input.data + ((image * p.in[0] + z) * p.in[1] + y) * inner;
    std::memset(to, input.fill, static_cast<size_t>(left));
    if (input.flip == 0) {
      std::memcpy(to + left, from, static_cast<size_t>(inner));
    } else {
      kernels.xor_copy(to + left, from, inner, input.flip);
    }
    std::memset(to + left + inner, input.fill, static_cast<size_t>(row_bytes - left - inner));
  }
}

void pad_images(const KernelSet& kernels, const ConvProblem& p, const Reading& r,
                const ConvInput& input, int64_t first, int64_t count, uint8_t* copy) {
  const int64_t rows = r.extents[0] * r.extents[1];
  const auto pad = [&](int64_t image, int64_t begin, int64_t end) {
    pad_rows(kernels, p, r, input, first + image, begin, end, copy + image * r.image);
  };
  // Memory speed: a thread's worth of work is some hundred kilobytes.
  if (count * r.image < kChunkBytes) {
    for (int64_t i = 0; i < count; ++i) pad(i, 0, rows);
  } else if (count > 1) {
    parallel_blocks(count, [&](int64_t i) { pad(i, 0, rows); });
  } else {
    parallel_for(rows, std::max<int64_t>(rows / 16, 1),
                 [&](int64_t begin, int64_t end) { pad(0, begin, end); });
  }
}

/// The pixel that output position `index` (of the whole piece) starts at, as a pointer.
class Pixels {
 public:
  Pixels(const ConvProblem& p, const Reading& r, const uint8_t* base)
      : p_(p), base_(base), image_(r.image) {
    step_[2] = p.stride[2] * p.channels;
    step_[1] = p.stride[1] * r.extents[2] * p.channels;
    step_[0] = p.stride[0] * r.extents[1] * r.extents[2] * p.channels;
  }
  void fill(int64_t first, int64_t count, int64_t offset, const uint8_t** rows) const {
    const Extents& out = p_.out;
    int64_t x = first % out[2];
    int64_t y = first / out[2] % out[1];
    int64_t z = first / (out[2] * out[1]) % out[0];
    int64_t image = first / (out[2] * out[1] * out[0]);
    for (int64_t i = 0; i < count;) {
      const uint8_t* row = base_ + image * image_ + z * step_[0] + y * step_[1] + offset;
      for (; x < out[2] && i < count; ++x, ++i) rows[i] = row + x * step_[2];
      x = 0;
      if (++y == out[1]) {
        y = 0;
        if (++z == out[0]) {
          z = 0;
          ++image;
        }
      }
    }
  }

 private:
  const ConvProblem& p_;
  const uint8_t* base_;
  int64_t image_;
  Extents step_;
};

void fill_taps(const ConvProblem& p, const Reading& r, bool rows, std::span<int64_t> taps) {
  const int64_t across = rows ? 1 : p.kernel[2];
  size_t t = 0;
  for (int64_t z = 0; z < p.kernel[0]; ++z) {
    for (int64_t y = 0; y < p.kernel[1]; ++y) {
      for (int64_t x = 0; x < across; ++x) {
        const int64_t row = z * p.dilation[0] * r.extents[1] + y * p.dilation[1];
        taps[t++] = (row * r.extents[2] + x * p.dilation[2]) * p.channels;
      }
    }
  }
}

/// Scratch: the offsets of the taps, then the padded images of one piece.
struct Workspace {
  std::span<int64_t> taps;
  uint8_t* images = nullptr;
};

Workspace carve(const ConvProblem& p, std::span<std::byte> scratch) {
  if (scratch.size() < conv_scratch_bytes(p)) {
    throw Error(ErrorCode::internal, "scratch memory of a convolution is too small");
  }
  const int64_t taps = round_up(p.window(), kGroup);
  Workspace w;
  w.taps = {reinterpret_cast<int64_t*>(scratch.data()), static_cast<size_t>(taps)};
  w.images = reinterpret_cast<uint8_t*>(scratch.data()) + round_up(8 * taps, kAlign);
  return w;
}

/// Calls body(base of the images, first output pixel, output pixels) for each piece.
template <class Body>
void for_pieces(const KernelSet& kernels, const ConvProblem& p, const Reading& r,
                const ConvInput& input, const Workspace& space, const Body& body) {
  const int64_t pixels = p.out[0] * p.out[1] * p.out[2];
  for (int64_t first = 0; first < p.batch; first += r.chunk) {
    const int64_t count = std::min(r.chunk, p.batch - first);
    const uint8_t* base = input.data + first * r.image;
    if (r.copies) {
      pad_images(kernels, p, r, input, first, count, space.images);
      base = space.images;
    }
    body(base, first * pixels, count * pixels);
  }
}

Epilogue make_epilogue(const Columns& columns, const ConvOutput& output) {
  Epilogue e = {};
  e.corr = columns.corr.data();
  e.multiplier = columns.multiplier.data();
  e.bias = columns.bias.empty() ? nullptr : columns.bias.data();
  e.lo = output.lo;
  e.hi = output.hi;
  e.zero_point = output.zero_point;
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

PackedMatrix pack_depthwise_conv(const ConvProblem& p, std::span<const int8_t> codes) {
  const int64_t window = p.window();
  std::vector<int8_t> matrix(codes.size());
  for (int64_t c = 0; c < p.channels; ++c) {
    for (int64_t k = 0; k < window; ++k) matrix[k * p.channels + c] = codes[c * window + k];
  }
  return pack_depthwise(matrix, window, p.channels);
}

size_t conv_scratch_bytes(const ConvProblem& p) {
  // As if everything had to be copied: int8 codes are.
  const Reading r = plan_reading(p, true);
  return static_cast<size_t>(round_up(8 * round_up(p.window(), kGroup), kAlign) +
                             round_up(r.chunk * r.image + kTailBytes, kAlign));
}

void run_conv(const KernelSet& kernels, const ConvProblem& p, const PackedConv& w,
              const ConvInput& input, const ConvOutput& output, std::span<std::byte> scratch) {
  run_conv(kernels, p, w, w.columns, input, output, scratch);
}

void run_conv(const KernelSet& kernels, const ConvProblem& p, const PackedConv& w,
              std::span<const Columns> columns, const ConvInput& input, const ConvOutput& output,
              std::span<std::byte> scratch) {
  if (p.out_values() == 0) return;
  const MatrixShape& shape = w.runs.shape;
  const bool over_reads = shape.read_bytes() != shape.run_bytes;
  const Reading r = plan_reading(p, input.flip != 0 || over_reads);
  const Workspace space = carve(p, scratch);
  fill_taps(p, r, w.runs.rows, space.taps);
  for_pieces(kernels, p, r, input, space, [&](const uint8_t* base, int64_t first, int64_t count) {
    const Pixels pixels(p, r, base);
    const auto run_group = [&](int64_t g) {
      const PackedMatrix& matrix = w.groups[g];
      IgemmProblem problem;
      problem.m = count;
      problem.w = &matrix;
      problem.rows = [&](int64_t row, int64_t rows, const uint8_t** pointers) {
        pixels.fill(row, rows, g * p.group_channels(), pointers);
      };
      problem.tap_offsets = space.taps.first(static_cast<size_t>(shape.taps));
      problem.epilogue = make_epilogue(columns[g], output);
      if (!matrix.weight_zero.empty()) problem.epilogue.weight_zero = matrix.weight_zero.data();
      problem.dst = at_pixel(p, output, first, g * p.group_filters());
      problem.ldc = p.filters;
      run_igemm(kernels, problem);
    };
    if (p.groups > 1 && p.macs() > kOneThreadMacs) {
      parallel_blocks(p.groups, run_group);
    } else {
      for (int64_t g = 0; g < p.groups; ++g) run_group(g);
    }
  });
}

void run_depthwise(const KernelSet& kernels, const ConvProblem& p, const PackedMatrix& w,
                   const Columns& columns, const ConvInput& input, const ConvOutput& output,
                   std::span<std::byte> scratch) {
  if (p.out_values() == 0) return;
  const Reading r = plan_reading(p, input.flip != 0);
  const Workspace space = carve(p, scratch);
  fill_taps(p, r, false, space.taps);
  for (int64_t t = p.window(); t < w.shape.taps; ++t) space.taps[t] = space.taps[0];
  for_pieces(kernels, p, r, input, space, [&](const uint8_t* base, int64_t first, int64_t count) {
    const Pixels pixels(p, r, base);
    const auto run = [&](int64_t begin, int64_t end) {
      std::array<const uint8_t*, kDepthwiseRows> rows;
      pixels.fill(begin, end - begin, 0, rows.data());
      DepthwiseArgs args;
      args.rows = rows.data();
      args.m = end - begin;
      args.taps = space.taps.data();
      args.num_taps = w.shape.taps;
      args.weights = reinterpret_cast<const int8_t*>(w.weights.raw());
      args.channels = p.channels;
      args.epilogue = make_epilogue(columns, output);
      args.dst = at_pixel(p, output, first + begin, 0);
      args.ldc = p.filters;
      kernels.depthwise(args);
    };
    if (p.macs() > kOneThreadMacs / 4) {
      parallel_for(count, kDepthwiseRows, run);
    } else {
      for (int64_t i = 0; i < count; i += kDepthwiseRows) {
        run(i, std::min(i + kDepthwiseRows, count));
      }
    }
  });
}

}  // namespace narrow::kernels
