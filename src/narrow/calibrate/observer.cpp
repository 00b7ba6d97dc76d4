// SPDX-License-Identifier: Apache-2.0
#include "narrow/calibrate/observer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "narrow/calibrate/clip.h"
#include "narrow/core/error.h"

namespace narrow {
namespace {

Range minmax_range(const Statistic& s, const ObserverOptions& /*options*/,
                   const Scheme& /*scheme*/) {
  return observed_range(s);
}

Range moving_average_range(const Statistic& s, const ObserverOptions& /*options*/,
                           const Scheme& /*scheme*/) {
  if (s.samples == 0) {
    throw Error(ErrorCode::invalid_argument, "no sample was ended: there is no mean of extremes");
  }
  const auto n = static_cast<double>(s.samples);
  return {std::min(static_cast<float>(s.sum_of_minima.value() / n), 0.0f),
          std::max(static_cast<float>(s.sum_of_maxima.value() / n), 0.0f)};
}

/// The upper edge of the bin with the largest magnitude that stays when `cut` values may be
/// dropped; 0 when all may.
double edge_after_cut(const std::vector<uint64_t>& bins, int exponent, uint64_t cut) {
  uint64_t dropped = 0;
  for (size_t i = bins.size(); i-- > 0;) {
    dropped += bins[i];
    if (dropped > cut) return std::ldexp(static_cast<double>(i + 1), exponent - 11);
  }
  return 0;
}

/// Symmetric grids drop the largest magnitudes; others half as many values at each end.
Range percentile_range(const Statistic& s, const ObserverOptions& options, const Scheme& scheme) {
  if (!(options.percentile > 0 && options.percentile <= 100)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a percentile of {} is not in (0, 100]", options.percentile),
                "99.999 is usual");
  }
  const double share = (100 - options.percentile) / 100;
  const auto total = static_cast<double>(s.count);
  if (scheme.symmetry == Symmetry::symmetric) {
    std::vector<uint64_t> sizes(Statistic::kBins);
    for (size_t i = 0; i < s.negative.size(); ++i) sizes[i] += s.negative[i];
    for (size_t i = 0; i < s.positive.size(); ++i) sizes[i] += s.positive[i];
    return symmetric_range(s,
                           edge_after_cut(sizes, s.exponent, static_cast<uint64_t>(total * share)));
  }
  const auto cut = static_cast<uint64_t>(total * share / 2);
  const Range all = observed_range(s);
  return {std::max(all.rmin, static_cast<float>(-edge_after_cut(s.negative, s.exponent, cut))),
          std::min(all.rmax, static_cast<float>(edge_after_cut(s.positive, s.exponent, cut)))};
}

struct ObserverRow {
  ObserverKind kind;
  const char* name;
  Detail needs;
  Range (*estimate)(const Statistic&, const ObserverOptions&, const Scheme&);
};

constexpr std::array kObservers = {
    ObserverRow{ObserverKind::minmax, "minmax", Detail::range, minmax_range},
    ObserverRow{ObserverKind::moving_average, "moving_average", Detail::range,
                moving_average_range},
    ObserverRow{ObserverKind::percentile, "percentile", Detail::histogram, percentile_range},
    ObserverRow{ObserverKind::mse, "mse", Detail::histogram,
                [](const Statistic& s, const ObserverOptions&, const Scheme& scheme) {
                  return mse_range(s, scheme);
                }},
    ObserverRow{ObserverKind::entropy, "entropy", Detail::histogram,
                [](const Statistic& s, const ObserverOptions&, const Scheme& scheme) {
                  return entropy_range(s, scheme);
                }},
};

constexpr bool rows_are_in_order() {
  for (size_t i = 0; i < kObservers.size(); ++i) {
    if (static_cast<size_t>(kObservers[i].kind) != i) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

const ObserverRow& row_of(ObserverKind kind) {
  return kObservers[static_cast<size_t>(kind)];
}

}  // namespace

const char* to_string(ObserverKind kind) {
  return row_of(kind).name;
}

std::optional<ObserverKind> observer_from_string(std::string_view name) {
  for (const ObserverRow& row : kObservers) {
    if (name == row.name) return row.kind;
  }
  return std::nullopt;
}

Detail detail_for(ObserverKind kind) {
  return row_of(kind).needs;
}

Range estimate_range(const Statistic& statistic, const ObserverOptions& options,
                     const Scheme& scheme) {
  const ObserverRow& row = row_of(options.kind);
  scheme.validate();
  if (statistic.count == 0) {
    throw Error(ErrorCode::numeric_failure,
                statistic.non_finite > 0 ? fmt::format("all {} observed values are NaN or infinite",
                                                       statistic.non_finite)
                                         : std::string("no value was observed"),
                "check the model and the calibration data");
  }
  if (row.needs == Detail::histogram && statistic.detail == Detail::range) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("the observer {} needs histograms, but only ranges were collected", row.name),
        "calibrate again with this observer");
  }
  return row.estimate(statistic, options, scheme);
}

}  // namespace narrow
