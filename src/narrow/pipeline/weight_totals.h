// SPDX-License-Identifier: Apache-2.0
// Adds up what became of a language model's tensors, for its report.
#pragma once

#include <map>
#include <string>

#include "narrow/report/weights_report.h"

namespace narrow {

/// Sums over the weights of a tensor; all zero where they were not changed.
struct WeightErrors {
  double squares = 0;    // of the weights
  double errors = 0;     // squares of the differences
  bool rounded = false;  // to a grid of codes: counts in the error of the whole
};

class WeightTotals {
 public:
  /// `nominal_bits` are those of one weight's code.
  void add(WeightReport tensor, double nominal_bits, const WeightErrors& errors);
  /// What add() told, as a report; models, names and times are the caller's.
  WeightsReport finish();

  WeightsReport report;

 private:
  std::map<std::string, WeightTypeTotal> types_;
  double bits_ = 0;
  uint64_t bytes_ = 0;
  double squares_ = 0;
  double errors_ = 0;
};

}  // namespace narrow
