// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "narrow/core/parallel.h"

namespace narrow::kernels {
namespace {

constexpr int64_t kPart = 4 * kAttendKeys;  // keys of a part where one tile is split
constexpr float kNothing = -std::numeric_limits<float>::infinity();

bool is_split(int64_t rows, int64_t keys) {
  return rows <= kAttendRows && keys > kPart;
}

size_t element_of(KeyStore store) {
  if (store == KeyStore::int8) return 1;
  return store == KeyStore::f16 ? sizeof(uint16_t) : sizeof(float);
}

/// The numbers of a block as a power of two; one block for everything where it is that long.
int32_t scale_shift(int64_t block, int64_t width) {
  constexpr int32_t kWhole = 62;
  if (block <= 0 || block >= width) return kWhole;
  return static_cast<int32_t>(std::bit_width(static_cast<uint64_t>(block)) - 1);
}

/// Multiply-adds below which a thread costs more than it brings.
constexpr int64_t kThreadWork = int64_t{1} << 16;

/// What a tile's rows have summed up so far.
struct Tile {
  float* y[kAttendRows];
  float largest[kAttendRows];
  float sum[kAttendRows];
};

class Attention {
 public:
  Attention(const KernelSet& kernels, const AttentionProblem& problem)
      : kernels_(kernels),
        p_(problem),
        group_(problem.heads / problem.kv_heads),
        rows_(problem.queries * group_) {}

  void run(std::span<std::byte> scratch) const {
    if (is_split(rows_, p_.keys)) {
      run_split(reinterpret_cast<float*>(scratch.data()));
    } else {
      run_tiles();
    }
  }

 private:
  /// Items of `work` multiply-adds each, as many at once as pay for a thread.
  template <class Item>
  static void for_items(int64_t count, int64_t work, const Item& item) {
    parallel_for(count, std::max<int64_t>(1, kThreadWork / (work + 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) item(i);
                 });
  }

  /// Tiles of rows, each over all its keys, straight into y.
  void run_tiles() const {
    const int64_t tiles = (rows_ + kAttendRows - 1) / kAttendRows;
    const int64_t work = std::min(kAttendRows, rows_) * p_.keys * (p_.width + p_.value_width);
    for_items(p_.batch * p_.kv_heads * tiles, work, [&](int64_t i) {
      const int64_t first = i % tiles * kAttendRows;
      const int64_t count = std::min(kAttendRows, rows_ - first);
      const int64_t item = i / tiles;
      Tile tile;
      for (int64_t r = 0; r < count; ++r) tile.y[r] = output(item, first + r);
      attend(item, first, count, 0, p_.keys, tile);
      for (int64_t r = 0; r < count; ++r) {
        const float factor = tile.sum[r] == 0 ? 0 : 1 / tile.sum[r];
        for (int64_t c = 0; c < p_.value_width; ++c) tile.y[r][c] *= factor;
      }
    });
  }

  /// Parts that some query sees something of: what is empty behind them costs nothing.
  int64_t count_parts() const {
    int64_t end = 1;
    for (int64_t b = 0; b < p_.batch; ++b) {
      for (int64_t i = 0; i < p_.queries; ++i) end = std::max(end, p_.visible(b, i).end);
    }
    return (std::min(end, p_.keys) + kPart - 1) / kPart;
  }

  /// One tile for each key head, its keys in parts; scratch holds y, then maximum and sum, of each
  /// row of each part.
  void run_split(float* scratch) const {
    const int64_t parts = count_parts();
    const int64_t pitch = p_.value_width + 2;
    const int64_t work = rows_ * kPart * (p_.width + p_.value_width);
    for_items(p_.batch * p_.kv_heads * parts, work, [&](int64_t i) {
      Tile tile;
      float* partial = scratch + i * rows_ * pitch;
      for (int64_t r = 0; r < rows_; ++r) tile.y[r] = partial + r * pitch;
      const int64_t from = i % parts * kPart;
      attend(i / parts, 0, rows_, from, std::min(p_.keys, from + kPart), tile);
      for (int64_t r = 0; r < rows_; ++r) {
        tile.y[r][p_.value_width] = tile.largest[r];
        tile.y[r][p_.value_width + 1] = tile.sum[r];
      }
    });
    for_items(p_.batch * p_.kv_heads * rows_, parts * pitch, [&](int64_t i) {
      const int64_t item = i / rows_;
      const int64_t row = i % rows_;
      combine(scratch + (item * parts * rows_ + row) * pitch, parts, rows_ * pitch,
              output(item, row));
    });
  }

  void combine(const float* partial, int64_t parts, int64_t pitch, float* y) const {
    const int64_t n = p_.value_width;
    float largest = kNothing;
    for (int64_t i = 0; i < parts; ++i) largest = std::max(largest, partial[i * pitch + n]);
    std::fill_n(y, n, 0.0F);
    if (largest == kNothing) return;
    float sum = 0;
    for (int64_t i = 0; i < parts; ++i) {
      const float* from = partial + i * pitch;
      if (from[n + 1] == 0) continue;
      const float worth = std::exp(from[n] - largest);
      sum += worth * from[n + 1];
      for (int64_t c = 0; c < n; ++c) y[c] += worth * from[c];
    }
    const float factor = 1 / sum;
    for (int64_t c = 0; c < n; ++c) y[c] *= factor;
  }

  /// Rows of a key head: query by query, the heads of the group in each.
  int64_t head_of(int64_t item, int64_t row) const {
    return item % p_.kv_heads * group_ + row % group_;
  }
  const float* query(int64_t item, int64_t row) const {
    return p_.q + item / p_.kv_heads * p_.q_strides.batch + head_of(item, row) * p_.q_strides.head +
           row / group_ * p_.q_strides.row;
  }
  float* output(int64_t item, int64_t row) const {
    return p_.y + item / p_.kv_heads * p_.y_strides.batch + head_of(item, row) * p_.y_strides.head +
           row / group_ * p_.y_strides.row;
  }

  void attend(int64_t item, int64_t first, int64_t count, int64_t from, int64_t to,
              Tile& tile) const {
    const float* q[kAttendRows];
    AttentionProblem::Range range[kAttendRows];
    int64_t begin = to;
    int64_t end = from;
    for (int64_t r = 0; r < count; ++r) {
      q[r] = query(item, first + r);
      range[r] = p_.visible(item / p_.kv_heads, (first + r) / group_);
      range[r].begin = std::max(range[r].begin, from);
      range[r].end = std::min(range[r].end, to);
      if (range[r].begin < range[r].end) {
        begin = std::min(begin, range[r].begin);
        end = std::max(end, range[r].end);
      }
      std::fill_n(tile.y[r], p_.value_width, 0.0F);
      tile.largest[r] = kNothing;
      tile.sum[r] = 0;
    }
    AttendArgs args{};
    args.q = q;
    args.y = tile.y;
    args.rows = count;
    args.k_row = p_.k_strides.row;
    args.v_row = p_.v_strides.row;
    args.width = p_.width;
    args.value_width = p_.value_width;
    args.store = p_.store;
    args.k_scale_row = p_.k_scale_strides.row;
    args.v_scale_row = p_.v_scale_strides.row;
    args.scale_shift = scale_shift(p_.scale_block, std::max(p_.width, p_.value_width));
    args.scale = p_.scale;
    args.softcap = p_.softcap;
    args.largest = tile.largest;
    args.sum = tile.sum;
    // Stretches lie at the same keys for every tile.
    for (int64_t t = begin / kAttendKeys * kAttendKeys; t < end; t += kAttendKeys) {
      attend_stretch(item, first, t, range, args);
    }
  }

  void attend_stretch(int64_t item, int64_t first, int64_t t, const AttentionProblem::Range* range,
                      AttendArgs& args) const {
    const int64_t batch = item / p_.kv_heads;
    const int64_t head = item % p_.kv_heads;
    int64_t begin[kAttendRows];
    int64_t end[kAttendRows];
    float bias[kAttendRows * kAttendKeys];
    args.keys = std::min(kAttendKeys, p_.keys - t);
    for (int64_t r = 0; r < args.rows; ++r) {
      begin[r] = std::clamp<int64_t>(range[r].begin - t, 0, args.keys);
      end[r] = std::clamp<int64_t>(range[r].end - t, begin[r], args.keys);
    }
    args.begin = begin;
    args.end = end;
    args.bias = nullptr;
    if (p_.bias) {
      std::fill_n(bias, args.rows * kAttendKeys, 0.0F);
      for (int64_t r = 0; r < args.rows; ++r) {
        p_.bias(batch, head_of(item, first + r), (first + r) / group_, t, args.keys,
                bias + r * kAttendKeys);
      }
      args.bias = bias;
    }
    const auto at = [&](const void* base, const AttentionStrides& s, size_t element) {
      const int64_t offset = batch * s.batch + head * s.head + t * s.row;
      return static_cast<const std::byte*>(base) + static_cast<size_t>(offset) * element;
    };
    args.k = at(p_.k, p_.k_strides, element_of(p_.store));
    args.v = at(p_.v, p_.v_strides, element_of(p_.store));
    args.k_scales = nullptr;
    args.v_scales = nullptr;
    if (p_.store == KeyStore::int8) {
      const auto scales = [&](const float* base, const AttentionStrides& s) {
        return reinterpret_cast<const float*>(at(base, s, sizeof(float)));
      };
      args.k_scales = scales(p_.k_scales, p_.k_scale_strides);
      args.v_scales = scales(p_.v_scales, p_.v_scale_strides);
    }
    kernels_.attend(args);
  }

  const KernelSet& kernels_;
  const AttentionProblem& p_;
  int64_t group_;
  int64_t rows_;
};

}  // namespace

std::string refuse_scale_block(int64_t block, int64_t width, int64_t value_width) {
  constexpr int64_t kLeast = 16;  // the longest vector
  const bool whole = block >= std::max(width, value_width);
  const bool power = block >= kLeast && std::has_single_bit(static_cast<uint64_t>(block));
  if (whole || power) return "";
  return "scales for each " + std::to_string(block) + " numbers of a row";
}

size_t attention_scratch_bytes(int64_t batch, int64_t heads, int64_t kv_heads, int64_t queries,
                               int64_t keys, int64_t value_width) {
  const int64_t rows = queries * (heads / kv_heads);
  if (!is_split(rows, keys)) return 0;
  const int64_t parts = (keys + kPart - 1) / kPart;
  return static_cast<size_t>(batch * kv_heads * parts * rows * (value_width + 2)) * sizeof(float);
}

void run_attention(const KernelSet& kernels, const AttentionProblem& problem,
                   std::span<std::byte> scratch) {
  if (problem.batch * problem.queries * problem.heads * problem.value_width == 0) return;
  Attention(kernels, problem).run(scratch);
}

}  // namespace narrow::kernels
