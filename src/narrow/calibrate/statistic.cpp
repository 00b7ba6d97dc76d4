// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "narrow/calibrate/observer.h"

namespace narrow {
namespace {

constexpr size_t kBlock = 4096;  // values that stay in the first-level cache between the passes
constexpr int kLanes = 16;       // independent accumulators, so that the loops become vector code
constexpr uint32_t kInfinityBits = 0x7f800000;

uint32_t magnitude_bits(float x) {
  return std::bit_cast<uint32_t>(x) & 0x7fffffff;
}

struct Extremes {
  float low = std::numeric_limits<float>::infinity();
  float high = -std::numeric_limits<float>::infinity();
  int64_t zeros = 0;
  bool finite = true;
};

Extremes extremes_of(std::span<const float> values) {
  std::array<float, kLanes> low;
  std::array<float, kLanes> high;
  std::array<float, kLanes> poison{};  // NaN as soon as a value is not finite
  std::array<int32_t, kLanes> zeros{};
  low.fill(std::numeric_limits<float>::infinity());
  high.fill(-std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    const float* x = values.data() + i;
    for (int j = 0; j < kLanes; ++j) {
      low[j] = x[j] < low[j] ? x[j] : low[j];
      high[j] = x[j] > high[j] ? x[j] : high[j];
      poison[j] += x[j] * 0.0f;
      zeros[j] += x[j] == 0 ? 1 : 0;
    }
  }
  for (int j = 0; i < values.size(); ++i, ++j) {
    const float x = values[i];
    low[j] = x < low[j] ? x : low[j];
    high[j] = x > high[j] ? x : high[j];
    poison[j] += x * 0.0f;
    zeros[j] += x == 0 ? 1 : 0;
  }
  Extremes all;
  for (int j = 0; j < kLanes; ++j) {
    all.low = std::min(all.low, low[j]);
    all.high = std::max(all.high, high[j]);
    all.zeros += zeros[j];
    all.finite = all.finite && poison[j] == 0;
  }
  // Without the sign of zero, which would depend on the order of the values.
  all.low += 0.0f;
  all.high += 0.0f;
  return all;
}

/// Appends without a branch on the data: every value is written, kept ones advance.
template <class Keep>
size_t keep_if(std::span<const float> values, float* out, const Keep& keep) {
  size_t n = 0;
  for (const float x : values) {
    out[n] = x;
    n += keep(x) ? 1 : 0;
  }
  return n;
}

/// Sums of one block by sign and exponent: 9 bits that lead a float's pattern. The 23 bits that
/// follow add up as integers, exactly; counts stand in the same word above bit 40. Squares of the
/// 24 significant bits fill 48. A block of up to 2^15 values overflows none of them.
class BlockSums {
 public:
  static constexpr int kCountShift = 40;

  void add(float x) {
    const auto bits = std::bit_cast<uint32_t>(x);
    Bucket& bucket = buckets_[bits >> 23];
    const uint32_t fraction = bits & 0x7fffff;
    const uint64_t mantissa = fraction | 0x800000;
    bucket.count_and_sum += (uint64_t{1} << kCountShift) + fraction;
    bucket.squares += mantissa * mantissa;
  }

  void flush_into(Statistic& s) const {
    constexpr uint64_t kSumMask = (uint64_t{1} << kCountShift) - 1;
    for (int b = 0; b < 512; ++b) {
      const Bucket& bucket = buckets_[b];
      if (bucket.count_and_sum == 0) continue;
      const int exponent = b & 255;
      uint64_t total = bucket.count_and_sum & kSumMask;
      if (exponent > 0) total += (bucket.count_and_sum >> kCountShift) << 23;
      const auto mantissas = static_cast<int64_t>(total);
      const int unit = std::max(exponent, 1) - 150;
      s.sum.add(b < 256 ? mantissas : -mantissas, unit);
      s.sum_abs.add(mantissas, unit);
      const int square_unit = 2 * (exponent - 150);
      if (square_unit >= ExactSum::kLowestExponent) {
        s.sum_squares.add(static_cast<int64_t>(bucket.squares), square_unit);
      }
    }
  }

 private:
  struct Bucket {
    uint64_t count_and_sum = 0;
    uint64_t squares = 0;
  };
  std::array<Bucket, 512> buckets_{};
};

/// Adds counts pairwise until the bins cover 2^steps as much.
void halve_bins(std::vector<uint64_t>& bins, int steps) {
  for (; steps > 0 && !bins.empty(); --steps) {
    const size_t half = bins.size() / 2;
    for (size_t i = 0; i < half; ++i) bins[i] = bins[2 * i] + bins[2 * i + 1];
    std::fill(bins.begin() + static_cast<std::ptrdiff_t>(half), bins.end(), 0);
    // All in the first bin: further steps change nothing.
    if (std::all_of(bins.begin() + 1, bins.end(), [](uint64_t n) { return n == 0; })) return;
  }
}

void add_bins(std::vector<uint64_t>& to, const std::vector<uint64_t>& from) {
  if (from.empty()) return;
  to.resize(Statistic::kBins);
  for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

const char* to_string(Detail detail) {
  return detail == Detail::range ? "range" : "histogram";
}

void Statistic::observe(std::span<const float> values) {
  // Long enough to spread the cost of flushing the sums, short enough for their integers.
  constexpr size_t kSumBlock = size_t{1} << 15;
  for (size_t i = 0; i < values.size(); i += kSumBlock) {
    observe_block(values.subspan(i, std::min(kSumBlock, values.size() - i)));
  }
}

void Statistic::observe_block(std::span<const float> values) {
  const bool wants_histogram = detail == Detail::histogram;
  BlockSums sums;
  bool summed = false;
  std::array<float, kBlock + 1> kept;  // one spare place: keep_if writes before it decides
  for (size_t i = 0; i < values.size(); i += kBlock) {
    std::span<const float> part = values.subspan(i, std::min(kBlock, values.size() - i));
    Extremes e = extremes_of(part);
    if (!e.finite) {
      const size_t n =
          keep_if(part, kept.data(), [](float x) { return magnitude_bits(x) < kInfinityBits; });
      non_finite += static_cast<int64_t>(part.size() - n);
      part = {kept.data(), n};
      e = extremes_of(part);
    }
    if (part.empty()) continue;
    note_extremes(e.low, e.high);
    count += static_cast<int64_t>(part.size());
    zeros += e.zeros;
    const float amax = std::max(-e.low, e.high);
    if (!wants_histogram || amax == 0) continue;
    if (e.zeros > 0) {
      part = {kept.data(), keep_if(part, kept.data(), [](float x) { return x != 0; })};
    }
    int needed = 0;
    std::frexp(amax, &needed);
    widen(needed);
    if (e.low < 0) negative.resize(kBins);
    if (e.high > 0) positive.resize(kBins);
    const std::array<uint64_t*, 2> bins = {positive.data(), negative.data()};
    const float to_bin = std::ldexp(1.0f, 11 - exponent);  // kBins = 2^11
    for (const float x : part) {
      ++bins[std::signbit(x) ? 1 : 0][static_cast<int32_t>(std::fabs(x) * to_bin)];
      sums.add(x);
    }
    summed = true;
  }
  if (summed) sums.flush_into(*this);
}

void Statistic::note_extremes(float low, float high) {
  min = count == 0 ? low : std::min(min, low);
  max = count == 0 ? high : std::max(max, high);
  sample_min_ = sample_open_ ? std::min(sample_min_, low) : low;
  sample_max_ = sample_open_ ? std::max(sample_max_, high) : high;
  sample_open_ = true;
}

void Statistic::widen(int new_exponent) {
  if (new_exponent <= exponent) return;
  halve_bins(negative, new_exponent - exponent);
  halve_bins(positive, new_exponent - exponent);
  exponent = new_exponent;
}

void Statistic::end_sample() {
  if (!sample_open_) return;
  ++samples;
  sum_of_minima.add(sample_min_);
  sum_of_maxima.add(sample_max_);
  sample_open_ = false;
  sample_min_ = 0;
  sample_max_ = 0;
}

void Statistic::merge(const Statistic& other) {
  non_finite += other.non_finite;
  if (other.count == 0) return;
  if (count == 0) {
    const int64_t lost = non_finite;
    *this = other;
    non_finite = lost;
    return;
  }
  if (other.sample_open_) {
    sample_min_ = sample_open_ ? std::min(sample_min_, other.sample_min_) : other.sample_min_;
    sample_max_ = sample_open_ ? std::max(sample_max_, other.sample_max_) : other.sample_max_;
    sample_open_ = true;
  }
  count += other.count;
  zeros += other.zeros;
  min = std::min(min, other.min);
  max = std::max(max, other.max);
  samples += other.samples;
  sum_of_minima.add(other.sum_of_minima);
  sum_of_maxima.add(other.sum_of_maxima);
  if (detail == Detail::range || other.detail == Detail::range) {
    detail = Detail::range;
    sum = sum_abs = sum_squares = ExactSum();
    negative.clear();
    positive.clear();
    exponent = kLowestExponent;
    return;
  }
  sum.add(other.sum);
  sum_abs.add(other.sum_abs);
  sum_squares.add(other.sum_squares);
  widen(other.exponent);
  std::vector<uint64_t> bins = other.negative;
  halve_bins(bins, exponent - other.exponent);
  add_bins(negative, bins);
  bins = other.positive;
  halve_bins(bins, exponent - other.exponent);
  add_bins(positive, bins);
}

double Statistic::mean() const {
  return count > 0 ? sum.value() / static_cast<double>(count) : 0;
}

double Statistic::mean_abs() const {
  return count > 0 ? sum_abs.value() / static_cast<double>(count) : 0;
}

double Statistic::rms() const {
  return count > 0 ? std::sqrt(sum_squares.value() / static_cast<double>(count)) : 0;
}

double Statistic::stddev() const {
  const double m = mean();
  return std::sqrt(std::max(0.0, rms() * rms() - m * m));
}

}  // namespace narrow
