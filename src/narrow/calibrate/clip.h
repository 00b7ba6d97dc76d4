// SPDX-License-Identifier: Apache-2.0
// Range estimators that search a histogram for the best clipping. Internal to calibrate/.
#pragma once

#include "narrow/calibrate/observer.h"

namespace narrow {

/// The two ends that a search starts from: the observed extremes with 0 between them.
inline Range observed_range(const Statistic& s) {
  return {s.min < 0 ? s.min : 0.0f, s.max > 0 ? s.max : 0.0f};
}

/// [-threshold, threshold] cut to what was observed.
inline Range symmetric_range(const Statistic& s, double threshold) {
  const auto t = static_cast<float>(threshold);
  const Range all = observed_range(s);
  return {all.rmin > -t ? all.rmin : -t, all.rmax < t ? all.rmax : t};
}

/// Least mean squared error of the values without the exact zeros, which every grid represents.
Range mse_range(const Statistic& s, const Scheme& scheme);

/// Least Kullback-Leibler divergence between the distribution and its quantized form.
Range entropy_range(const Statistic& s, const Scheme& scheme);

}  // namespace narrow
