// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/overflow.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/quant/packing.h"
#include "narrow/quant/unit_map.h"

namespace narrow {
namespace {

constexpr int64_t kChunk = 4096;
// Weights differ from their zero_point by less than 2^17 and activations by less than 2^17: 2^28
// products stay far inside int64.
constexpr int64_t kMaxElements = int64_t{1} << 28;

/// Sums of the positive and of the negative weights of each row.
struct SignedSums {
  int64_t positive = 0;
  int64_t negative = 0;
  void add(int64_t w) { (w > 0 ? positive : negative) += w; }
};

std::vector<SignedSums> sum_rows(const Tensor& weights, const UnitMap& map,
                                 std::span<const int32_t> zero_points) {
  std::vector<SignedSums> rows(static_cast<size_t>(map.units));
  std::array<int32_t, kChunk> buffer;
  const auto zero_of = [&](int64_t row) -> int64_t {
    if (zero_points.empty()) return 0;
    return zero_points[zero_points.size() == 1 ? 0 : static_cast<size_t>(row)];
  };
  for (int64_t begin = 0; begin < weights.elements(); begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, weights.elements());
    read_codes(weights, begin, {buffer.data(), static_cast<size_t>(end - begin)});
    map.for_runs(begin, end, [&](int64_t first, int64_t count, int64_t unit, int64_t step) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = unit + i * step;
        rows[static_cast<size_t>(row)].add(buffer[static_cast<size_t>(first - begin + i)] -
                                           zero_of(row));
      }
    });
  }
  return rows;
}

void check(const Tensor& weights, int64_t rows, std::span<const int32_t> zero_points,
           const CodeRange& x, std::span<const int32_t> bias) {
  const auto wanted = static_cast<size_t>(rows);
  const bool zeros_fit = zero_points.size() <= 1 || zero_points.size() == wanted;
  const bool bias_fits = bias.empty() || bias.size() == wanted;
  if (!zeros_fit || !bias_fits) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} zero_points and {} biases for {} rows of {}", zero_points.size(),
                            bias.size(), rows, weights.describe()));
  }
  const auto wide = [](int32_t v) { return v < -65536 || v > 65536; };
  if (x.qmin > x.qmax || wide(x.qmin) || wide(x.qmax) || wide(x.zero_point)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("codes [{}, {}] with zero_point {} are not"
                                                         " of 16 bits",
                                                         x.qmin, x.qmax, x.zero_point));
  }
  if (std::any_of(zero_points.begin(), zero_points.end(), wide)) {
    throw Error(ErrorCode::invalid_argument, "a weight's zero_point has more than 16 bits");
  }
  if (weights.elements() / std::max<int64_t>(rows, 1) > kMaxElements) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{} has rows too long for an int64 sum", weights.describe()));
  }
}

int64_t magnitude(const AccumulatorBound& b) {
  return std::max(b.max, -b.min);
}

}  // namespace

bool OverflowProof::fits_int32() const {
  return min >= std::numeric_limits<int32_t>::min() && max <= std::numeric_limits<int32_t>::max();
}

double OverflowProof::headroom_bits() const {
  const int64_t largest = std::max<int64_t>({1, max, -min});
  return 31 - std::log2(static_cast<double>(largest));
}

OverflowProof prove_accumulators(const Tensor& weights, std::span<const int32_t> zero_points,
                                 const CodeRange& activations, std::span<const int32_t> bias,
                                 int64_t axis) {
  const UnitMap map(weights.dims(), Scheme{.granularity = Granularity::per_axis, .axis = axis});
  check(weights, map.units, zero_points, activations, bias);
  // Padding is real 0, which stands at the zero_point, so 0 is always among the differences.
  const int64_t low = std::min(activations.qmin - activations.zero_point, 0);
  const int64_t high = std::max(activations.qmax - activations.zero_point, 0);
  OverflowProof proof;
  for (const SignedSums& sums : sum_rows(weights, map, zero_points)) {
    const size_t row = proof.rows.size();
    const int64_t b = bias.empty() ? 0 : bias[row];
    proof.rows.push_back({sums.positive * low + sums.negative * high + b,
                          sums.positive * high + sums.negative * low + b});
    const AccumulatorBound& bound = proof.rows.back();
    proof.min = row == 0 ? bound.min : std::min(proof.min, bound.min);
    proof.max = row == 0 ? bound.max : std::max(proof.max, bound.max);
    if (magnitude(bound) > magnitude(proof.rows[static_cast<size_t>(proof.worst_row)])) {
      proof.worst_row = static_cast<int64_t>(row);
    }
  }
  return proof;
}

}  // namespace narrow
