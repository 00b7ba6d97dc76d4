// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "narrow/calibrate/clip.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

/// The integral of the squared error of a grid from its lowest value to x: a cubic piece per grid
/// cell, and one beyond each end. With it the error of a histogram whose bins are uniform inside is
/// exact, also where a bin is wider than a step.
class ErrorIntegral {
 public:
  ErrorIntegral(const ScaleZeroPoint& p, const Scheme& scheme)
      : step_(static_cast<double>(p.scale)),
        cell_(step_ * step_ * step_ / 12),
        last_(scheme.qmax() - scheme.qmin()) {
    const double code = scheme.qmin() - p.zero_point;
    low_ = scheme.symmetry == Symmetry::offset
               ? static_cast<double>(p.offset) + step_ * scheme.qmin()
               : step_ * code;
  }

  double operator()(double x) const {
    const double nearest = nearest_step(x);
    return nearest * cell_ + cube(x - low_ - nearest * step_) / 3;
  }

  /// The squared error of x alone.
  double error_at(double x) const {
    const double rest = x - low_ - nearest_step(x) * step_;
    return rest * rest;
  }

 private:
  double nearest_step(double x) const {
    const double t = (x - low_) / step_;
    if (t <= 0) return 0;
    return t >= last_ ? last_ : std::floor(t + 0.5);
  }
  static double cube(double v) { return v * v * v; }

  double step_;
  double cell_;  // the integral over one whole cell
  double last_;  // steps from the lowest value to the highest
  double low_ = 0;
};

/// The histogram as one line of bins from the most negative to the most positive, without the empty
/// ends.
struct Line {
  std::vector<double> counts;
  std::vector<double> edges;  // one more
  explicit Line(const Statistic& s) {
    const double width = std::ldexp(1.0, s.exponent - 11);
    const Range all = observed_range(s);
    const auto used = [](const std::vector<uint64_t>& bins) {
      size_t n = bins.size();
      while (n > 0 && bins[n - 1] == 0) --n;
      return n;
    };
    const size_t below = used(s.negative);
    const size_t above = used(s.positive);
    edges.push_back(static_cast<double>(all.rmin));
    for (size_t i = below; i-- > 0;) {
      counts.push_back(static_cast<double>(s.negative[i]));
      edges.push_back(-width * static_cast<double>(i));
    }
    if (below == 0) edges.back() = 0;
    for (size_t i = 0; i < above; ++i) {
      counts.push_back(static_cast<double>(s.positive[i]));
      edges.push_back(width * static_cast<double>(i + 1));
    }
    if (above > 0) edges.back() = static_cast<double>(all.rmax);
  }
};

class Search {
 public:
  Search(const Statistic& s, const Scheme& scheme)
      : line_(s), scheme_(scheme), all_(observed_range(s)) {
    best_ = all_;
    best_error_ = error(all_);
  }

  /// Strictly better only, candidates in a fixed order: ties are deterministic.
  void try_range(const Range& candidate) {
    const double e = error(candidate);
    if (e < best_error_) {
      best_error_ = e;
      best_ = candidate;
    }
  }

  /// Tries range_at(ratio) for ratios in (0, 1]: octaves in eighths down to 2^-10, then finer
  /// around the best.
  template <class RangeAt>
  void scan(const RangeAt& range_at) {
    constexpr double kEighth = 0.917004043204671232;  // 2^(-1/8)
    constexpr int kCoarse = 80;
    constexpr int kFine = 12;
    double ratio = 1;
    double best_ratio = 1;
    for (int i = 0; i <= kCoarse; ++i, ratio *= kEighth) {
      const double before = best_error_;
      try_range(range_at(ratio));
      if (best_error_ < before) best_ratio = ratio;
    }
    const double from = best_ratio * kEighth;
    const double to = std::min(1.0, best_ratio / kEighth);
    for (int i = 1; i < kFine; ++i) try_range(range_at(from + (to - from) * i / kFine));
  }

  const Range& all() const { return all_; }
  const Range& best() const { return best_; }

 private:
  double error(const Range& r) const {
    const ErrorIntegral integral(choose_params(r.rmin, r.rmax, scheme_), scheme_);
    double total = 0;
    double before = integral(line_.edges.front());
    for (size_t i = 0; i < line_.counts.size(); ++i) {
      const double after = integral(line_.edges[i + 1]);
      const double width = line_.edges[i + 1] - line_.edges[i];
      if (line_.counts[i] > 0) {
        // A bin without width holds copies of one value, at the end of the data.
        total += line_.counts[i] *
                 (width > 0 ? (after - before) / width : integral.error_at(line_.edges[i]));
      }
      before = after;
    }
    return total;
  }

  Line line_;
  const Scheme& scheme_;
  Range all_;
  Range best_;
  double best_error_ = 0;
};

float scaled(float x, double ratio) {
  return static_cast<float>(static_cast<double>(x) * ratio);
}

}  // namespace

Range mse_range(const Statistic& s, const Scheme& scheme) {
  Search search(s, scheme);
  const Range all = search.all();
  if (all.rmin == all.rmax) return all;
  if (scheme.symmetry == Symmetry::symmetric) {
    const double amax = std::max(-static_cast<double>(all.rmin), static_cast<double>(all.rmax));
    search.scan([&](double ratio) { return symmetric_range(s, amax * ratio); });
    return search.best();
  }
  search.scan([&](double ratio) {
    return Range{scaled(all.rmin, ratio), scaled(all.rmax, ratio)};
  });
  constexpr int kRounds = 2;
  for (int round = 0; round < kRounds && all.rmin < 0 && all.rmax > 0; ++round) {
    const Range high = search.best();
    search.scan([&](double ratio) { return Range{high.rmin, scaled(all.rmax, ratio)}; });
    const Range low = search.best();
    search.scan([&](double ratio) { return Range{scaled(all.rmin, ratio), low.rmax}; });
  }
  return search.best();
}

}  // namespace narrow
