// SPDX-License-Identifier: Apache-2.0
// Statistics of activations, bounded and mergeable, and the range estimators over them. One
// Statistic per tensor holds all that every estimator needs, so that calibration runs once and the
// estimator can be changed afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/quant/scheme.h"

namespace narrow {

/// Counts and sums of one tensor, with two histograms (negative, positive) of 2048 bins over
/// [0, 2^exponent). Data past the edge double it and add bins pairwise, so that counts stay
/// integers and merging is associative and commutative: any split or order of the data gives the
/// same bytes.
class Statistic {
 public:
  static constexpr int kBins = 2048;

  /// Non-finite values are counted and left out.
  void observe(std::span<const float> values);
  /// Ends one sample: its extremes enter the moving average (mean of per-sample extremes).
  void end_sample();
  void merge(const Statistic& other);

  int64_t count = 0;
  int64_t zeros = 0;
  int64_t non_finite = 0;
  float min = 0;
  float max = 0;
  double sum = 0;  // of fixed-point roundings, so that the order of merging does not matter
  double sum_abs = 0;
  double sum_squares = 0;
  int64_t samples = 0;
  double sum_of_minima = 0;  // over samples
  double sum_of_maxima = 0;
  int exponent = -126;  // histograms cover magnitudes below 2^exponent
  std::vector<uint64_t> negative;
  std::vector<uint64_t> positive;

 private:
  float sample_min_ = 0;
  float sample_max_ = 0;
  bool sample_open_ = false;
};

struct Range {
  float rmin = 0;
  float rmax = 0;
};

enum class ObserverKind : uint8_t { minmax, moving_average, percentile, mse, entropy };
const char* to_string(ObserverKind kind);
std::optional<ObserverKind> observer_from_string(std::string_view name);

struct ObserverOptions {
  ObserverKind kind = ObserverKind::minmax;
  double percentile = 99.999;
};

/// The real range for a grid of this scheme; contains 0. Throws numeric_failure when nothing finite
/// was observed.
Range estimate_range(const Statistic& statistic, const ObserverOptions& options,
                     const Scheme& scheme);

/// Everything calibration knows, by value name. Saved as JSON that a person can read and edit: an
/// entry "range": [rmin, rmax] overrides what the observer would choose.
struct Statistics {
  std::map<std::string, Statistic> values;
  std::map<std::string, Range> overrides;
  std::string model_fingerprint;
  std::string data_fingerprint;
  int64_t samples = 0;

  void merge(const Statistics& other);
};

void save_statistics(const Statistics& statistics, const std::filesystem::path& path);
Statistics load_statistics(const std::filesystem::path& path);

}  // namespace narrow
