// SPDX-License-Identifier: Apache-2.0
// How far an approximation is from its reference. Sums in double, in a fixed order of blocks, so
// that a result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/core/tensor.h"
#include "narrow/quant/scheme.h"

namespace narrow {

class ErrorMeasures {
 public:
  /// Equally many values on both sides. A pair with NaN or inf counts as exact when both are the
  /// same, and otherwise makes the error infinite.
  void add(std::span<const float> reference, std::span<const float> approximation);
  /// Counts codes at the ends of their range, qmin or qmax.
  void add_codes(const Tensor& codes, const Scheme& scheme);
  /// Merging parts in one fixed order gives one result.
  void merge(const ErrorMeasures& other);

  int64_t count() const { return count_; }
  int64_t exact() const { return exact_; }
  int64_t codes() const { return codes_; }
  int64_t saturated() const { return saturated_; }
  double max_abs() const { return max_abs_; }
  double mse() const;
  double rmse() const;
  /// Mean of approximation - reference.
  double bias() const;
  /// 10 log10(sum of reference^2 / sum of error^2); infinite without error.
  double sqnr_db() const;
  /// Of the angle between both; 1 when both are zero, 0 when one is.
  double cosine() const;
  /// max_abs over the width of the reference's range (0 included).
  double max_relative_to_range() const;

 private:
  int64_t count_ = 0;
  int64_t exact_ = 0;
  int64_t codes_ = 0;
  int64_t saturated_ = 0;
  double max_abs_ = 0;
  double low_ = 0;
  double high_ = 0;
  double error_ = 0;
  double error_squares_ = 0;
  double reference_squares_ = 0;
  double approximation_squares_ = 0;
  double products_ = 0;
};

/// Of two float32 tensors of equally many elements, in parallel.
ErrorMeasures measure_error(const Tensor& reference, const Tensor& approximation);

}  // namespace narrow
