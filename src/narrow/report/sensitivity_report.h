// SPDX-License-Identifier: Apache-2.0
// A sensitivity scan as a table, as JSON and as a picture.
#pragma once

#include <cstdint>
#include <string>

#include "narrow/search/sensitivity.h"

namespace narrow {

struct SensitivityReport {
  std::string model;
  std::string by;      // "bits", "sparsity"
  std::string metric;  // "top1", "agreement", "cosine"
  bool percent = false;
  int64_t samples = 0;
  double noise = 0;  // half of the 95 % interval of the reference, in its unit; 0: not known
  double seconds = 0;
  SensitivityScan scan;
};

std::string to_json(const SensitivityReport& report);
/// The most sensitive layers first.
std::string to_text(const SensitivityReport& report);
/// One row for each layer, one column for each level, coloured by what is lost; to be read in a
/// browser.
std::string to_svg(const SensitivityReport& report);

}  // namespace narrow
