// SPDX-License-Identifier: Apache-2.0
// Statistics of activations, bounded and mergeable, and the range estimators over them. One
// Statistic per tensor holds all that every estimator needs, so that calibration runs once and the
// estimator can be changed afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/calibrate/exact_sum.h"
#include "narrow/core/tensor.h"
#include "narrow/quant/scheme.h"

namespace narrow {

/// How much a Statistic keeps: `range` counts and extremes (enough for minmax and moving_average,
/// and several times faster), `histogram` also sums and histograms.
enum class Detail : uint8_t { range, histogram };
const char* to_string(Detail detail);

/// Counts and sums of one tensor, with two histograms (negative, positive) of 2048 bins over
/// [0, 2^exponent); zeros are counted apart. Data past the edge double it and add bins pairwise, so
/// that counts stay integers; sums are exact. Merging is associative and commutative: any split or
/// order of the data gives the same bytes. (Only sample borders matter: they are the caller's.)
class Statistic {
 public:
  static constexpr int kBins = 2048;
  /// Where histograms start: everything smaller shares the first bin.
  static constexpr int kLowestExponent = -100;

  explicit Statistic(Detail wanted = Detail::histogram) : detail(wanted) {}

  /// Non-finite values are counted and left out.
  void observe(std::span<const float> values);
  /// Ends one sample: its extremes enter the moving average (mean of per-sample extremes).
  void end_sample();
  /// With one side of Detail::range the result is too; an empty side changes nothing.
  void merge(const Statistic& other);

  double mean() const;
  double mean_abs() const;
  double rms() const;
  double stddev() const;

  Detail detail = Detail::histogram;
  int64_t count = 0;  // finite values, zeros included
  int64_t zeros = 0;
  int64_t non_finite = 0;
  float min = 0;  // of all finite values; 0 while count is 0
  float max = 0;
  ExactSum sum;  // sums stay 0 with Detail::range, except those over samples
  ExactSum sum_abs;
  ExactSum sum_squares;    // magnitudes below 2^-73 count as 0
  int64_t samples = 0;     // that had finite values
  ExactSum sum_of_minima;  // over samples
  ExactSum sum_of_maxima;
  int exponent = kLowestExponent;  // histograms cover magnitudes below 2^exponent
  std::vector<uint64_t> negative;  // kBins counts each, or empty without such values
  std::vector<uint64_t> positive;

  friend bool operator==(const Statistic&, const Statistic&) = default;

 private:
  void observe_block(std::span<const float> values);
  void widen(int new_exponent);
  void note_extremes(float low, float high);

  float sample_min_ = 0;
  float sample_max_ = 0;
  bool sample_open_ = false;
};

struct Range {
  float rmin = 0;
  float rmax = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

enum class ObserverKind : uint8_t { minmax, moving_average, percentile, mse, entropy };
const char* to_string(ObserverKind kind);
std::optional<ObserverKind> observer_from_string(std::string_view name);
/// What a Statistic must hold for this observer.
Detail detail_for(ObserverKind kind);

struct ObserverOptions {
  ObserverKind kind = ObserverKind::minmax;
  double percentile = 99.999;  // share of the values that the range holds, in percent
};

/// The real range for a grid of this scheme; contains 0. Throws numeric_failure when nothing finite
/// was observed, invalid_argument when the statistic lacks what the observer needs.
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

  /// Throws invalid_argument for statistics of another model and for contradicting overrides.
  void merge(const Statistics& other);
  /// The override for `name`, else the estimate. Throws not_found without either.
  Range range_of(const std::string& name, const ObserverOptions& options,
                 const Scheme& scheme) const;
};

/// The file's text; the same statistics give the same bytes.
std::string statistics_to_json(const Statistics& statistics);
/// Throws corrupt_data for text that is no statistics file, naming the place.
Statistics statistics_from_json(std::string_view text);

void save_statistics(const Statistics& statistics, const std::filesystem::path& path);
Statistics load_statistics(const std::filesystem::path& path);

}  // namespace narrow
