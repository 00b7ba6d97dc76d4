// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/error_measures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/packing.h"

namespace narrow {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;
constexpr int64_t kChunk = 4096;
constexpr int kLanes = 8;  // independent sums, so that the loop becomes vector code
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool is_finite(float x) {
  return std::fabs(x) <= std::numeric_limits<float>::max();
}

bool same(float a, float b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

/// The sums over one block of pairs, in kLanes interleaved parts.
struct Lanes {
  std::array<double, kLanes> error{};
  std::array<double, kLanes> error_squares{};
  std::array<double, kLanes> reference_squares{};
  std::array<double, kLanes> approximation_squares{};
  std::array<double, kLanes> products{};
  std::array<double, kLanes> max_abs{};
  std::array<double, kLanes> low{};
  std::array<double, kLanes> high{};
  std::array<int64_t, kLanes> exact{};
  bool broken = false;  // a value is not finite where the other side differs

  void add(int lane, float reference, float approximation) {
    const auto r = static_cast<double>(reference);
    const auto a = static_cast<double>(approximation);
    const double e = a - r;
    error[lane] += e;
    error_squares[lane] += e * e;
    reference_squares[lane] += r * r;
    approximation_squares[lane] += a * a;
    products[lane] += r * a;
    const double size = std::fabs(e);
    max_abs[lane] = size > max_abs[lane] ? size : max_abs[lane];
    low[lane] = r < low[lane] ? r : low[lane];
    high[lane] = r > high[lane] ? r : high[lane];
    exact[lane] += e == 0 ? 1 : 0;
  }

  void add_finite(const float* reference, const float* approximation, size_t n) {
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (int j = 0; j < kLanes; ++j) add(j, reference[i + j], approximation[i + j]);
    }
    for (int j = 0; i < n; ++i, ++j) add(j, reference[i], approximation[i]);
  }

  void add_any(const float* reference, const float* approximation, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      if (is_finite(reference[i]) && is_finite(approximation[i])) {
        add(static_cast<int>(i % kLanes), reference[i], approximation[i]);
      } else if (same(reference[i], approximation[i])) {
        ++exact[0];
      } else {
        broken = true;
      }
    }
  }

  /// Squares of finite floats are far from the limits of double, so only NaN and inf spoil them.
  bool finite() const {
    double total = 0;
    for (int j = 0; j < kLanes; ++j) total += reference_squares[j] + approximation_squares[j];
    return std::isfinite(total);
  }
};

double sum(const std::array<double, kLanes>& v) {
  double total = 0;
  for (const double x : v) total += x;
  return total;
}

}  // namespace

void ErrorMeasures::add(std::span<const float> reference, std::span<const float> approximation) {
  if (reference.size() != approximation.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} values compared with {}", approximation.size(), reference.size()));
  }
  Lanes lanes;
  for (size_t i = 0; i < reference.size(); i += kChunk) {
    const size_t n = std::min<size_t>(kChunk, reference.size() - i);
    const Lanes before = lanes;
    lanes.add_finite(reference.data() + i, approximation.data() + i, n);
    if (lanes.finite()) continue;
    lanes = before;  // something is NaN or infinite: once more, with a look at each pair
    lanes.add_any(reference.data() + i, approximation.data() + i, n);
  }
  if (lanes.broken) max_abs_ = error_squares_ = kInfinity;
  count_ += static_cast<int64_t>(reference.size());
  error_ += sum(lanes.error);
  error_squares_ += sum(lanes.error_squares);
  reference_squares_ += sum(lanes.reference_squares);
  approximation_squares_ += sum(lanes.approximation_squares);
  products_ += sum(lanes.products);
  for (int j = 0; j < kLanes; ++j) {
    max_abs_ = std::max(max_abs_, lanes.max_abs[j]);
    low_ = std::min(low_, lanes.low[j]);
    high_ = std::max(high_, lanes.high[j]);
    exact_ += lanes.exact[j];
  }
}

void ErrorMeasures::add_codes(const Tensor& codes, const Scheme& scheme) {
  const int32_t qmin = scheme.qmin();
  const int32_t qmax = scheme.qmax();
  std::array<int32_t, kChunk> buffer;
  for (int64_t i = 0; i < codes.elements(); i += kChunk) {
    const auto n = static_cast<size_t>(std::min(kChunk, codes.elements() - i));
    read_codes(codes, i, {buffer.data(), n});
    for (size_t j = 0; j < n; ++j) {
      saturated_ += buffer[j] <= qmin || buffer[j] >= qmax ? 1 : 0;
    }
  }
  codes_ += codes.elements();
}

void ErrorMeasures::merge(const ErrorMeasures& other) {
  count_ += other.count_;
  exact_ += other.exact_;
  codes_ += other.codes_;
  saturated_ += other.saturated_;
  max_abs_ = std::max(max_abs_, other.max_abs_);
  low_ = std::min(low_, other.low_);
  high_ = std::max(high_, other.high_);
  error_ += other.error_;
  error_squares_ += other.error_squares_;
  reference_squares_ += other.reference_squares_;
  approximation_squares_ += other.approximation_squares_;
  products_ += other.products_;
}

double ErrorMeasures::mse() const {
  return count_ > 0 ? error_squares_ / static_cast<double>(count_) : 0;
}

double ErrorMeasures::rmse() const {
  return std::sqrt(mse());
}

double ErrorMeasures::bias() const {
  return count_ > 0 ? error_ / static_cast<double>(count_) : 0;
}

double ErrorMeasures::sqnr_db() const {
  if (error_squares_ == 0) return kInfinity;
  if (reference_squares_ == 0 || std::isinf(error_squares_)) return -kInfinity;
  return 10 * std::log10(reference_squares_ / error_squares_);
}

double ErrorMeasures::cosine() const {
  if (reference_squares_ == 0 && approximation_squares_ == 0) return 1;
  if (reference_squares_ == 0 || approximation_squares_ == 0) return 0;
  // Squares of floats lie in [2^-298, 2^256]: their product neither overflows nor vanishes.
  const double c = products_ / std::sqrt(reference_squares_ * approximation_squares_);
  return std::clamp(c, -1.0, 1.0);
}

double ErrorMeasures::max_relative_to_range() const {
  if (max_abs_ == 0) return 0;
  return high_ > low_ ? max_abs_ / (high_ - low_) : kInfinity;
}

ErrorMeasures measure_error(const Tensor& reference, const Tensor& approximation) {
  const auto r = reference.data<float>();
  const auto a = approximation.data<float>();
  if (r.size() != a.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} compared with {}", approximation.describe(), reference.describe()));
  }
  const auto count = static_cast<int64_t>(r.size());
  std::vector<ErrorMeasures> parts(static_cast<size_t>((count + kBlock - 1) / kBlock));
  parallel_for(count, kBlock, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin);
    const auto n = static_cast<size_t>(end - begin);
    parts[first / static_cast<size_t>(kBlock)].add(r.subspan(first, n), a.subspan(first, n));
  });
  ErrorMeasures total;
  for (const ErrorMeasures& part : parts) total.merge(part);
  return total;
}

}  // namespace narrow
