// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/rtn/scale_search.h"

#include <algorithm>
#include <cmath>

#include "narrow/quant/grid.h"

namespace narrow {
namespace {

// Shares of the extremes that are tried as ends of the grid. Below a half, clipping costs more
// than a finer step gains for every distribution of weights met.
constexpr int kTrials = 26;
constexpr float kTrialStep = 0.02f;
constexpr int kRefits = 3;  // least squares converges in two or three rounds

struct Fit {
  double error = 0;    // sum of w (x - scale l)^2
  double product = 0;  // sum of w x l
  double square = 0;   // sum of w l^2
};

class Search {
 public:
  Search(std::span<const float> values, std::span<const float> weights, const Scheme& scheme)
      : values_(values), weights_(weights), scheme_(scheme) {
    for (const float x : values) {
      low_ = std::min(low_, x);
      high_ = std::max(high_, x);
    }
  }

  ScaleZeroPoint run() {
    if (low_ == high_) return choose_params(low_, high_, scheme_);
    consider(choose_params(low_, high_, scheme_));  // what the result must not be worse than
    for (int t = 0; t < kTrials; ++t) consider(start(1.0f - kTrialStep * static_cast<float>(t)));
    // With the codes fixed the best scale is a weighted least-squares fit; then the codes follow.
    for (int i = 0; i < kRefits && best_fit_.square > 0; ++i) {
      ScaleZeroPoint refit = best_;
      refit.scale = static_cast<float>(best_fit_.product / best_fit_.square);
      if (!(refit.scale > 0) || !consider(refit)) break;
    }
    return best_;
  }

 private:
  /// The grid that spans this share of the extremes.
  ScaleZeroPoint start(float share) const {
    if (scheme_.symmetry != Symmetry::symmetric || !scheme_.is_signed) {
      return choose_params(low_ * share, high_ * share, scheme_);
    }
    // The negative side has one code more: the extreme that needs the larger step decides.
    ScaleZeroPoint p;
    p.scale = share * std::max(low_ / static_cast<float>(scheme_.qmin()),
                               high_ / static_cast<float>(scheme_.qmax()));
    return p;
  }

  bool consider(const ScaleZeroPoint& p) {
    if (!(p.scale > 0)) return false;
    const Fit fit = fit_of(p);
    if (found_ && !(fit.error < best_fit_.error)) return false;
    found_ = true;
    best_ = p;
    best_fit_ = fit;
    return true;
  }

  Fit fit_of(const ScaleZeroPoint& p) const {
    const UnitGrid grid = unit_grid(p.scale, p.zero_point, 0, scheme_);
    Fit fit;
    for (size_t i = 0; i < values_.size(); ++i) {
      const double x = values_[i];
      const double w = weights_.empty() ? 1.0 : static_cast<double>(weights_[i]);
      const double l = quantize_one(values_[i], grid) - p.zero_point;
      const double error = x - static_cast<double>(p.scale) * l;
      fit.error += w * error * error;
      fit.product += w * x * l;
      fit.square += w * l * l;
    }
    return fit;
  }

  std::span<const float> values_;
  std::span<const float> weights_;
  const Scheme& scheme_;
  float low_ = 0;
  float high_ = 0;
  bool found_ = false;
  ScaleZeroPoint best_;
  Fit best_fit_;
};

}  // namespace

ScaleZeroPoint search_scale(std::span<const float> values, std::span<const float> weights,
                            const Scheme& scheme) {
  return Search(values, weights, scheme).run();
}

}  // namespace narrow
