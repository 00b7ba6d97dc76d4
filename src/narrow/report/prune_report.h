// SPDX-License-Identifier: Apache-2.0
// What pruning left, counted in the file that was written, and what it costs to store and to run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "narrow/train/prune/masks.h"

namespace narrow {

struct PruneReport {
  std::string prune;  // as asked for
  std::vector<train::LayerZeros> layers;
  uint64_t float_bytes = 0;  // the float model as a file ...
  uint64_t float_deflated = 0;
  uint64_t bytes = 0;  // ... and what was written
  uint64_t deflated = 0;
  std::string sample = "one sample";  // or "a new token", of a language model
  double float_us = 0;                // median of a run of it, one thread: of the float model,
  double before_us = 0;               // of the model that is written, before anything was removed,
  double after_us = 0;                // and of the file

  bool empty() const { return layers.empty(); }
};

/// The share of zeros over all layers, in percent.
double zeros_percent(const std::vector<train::LayerZeros>& layers);
/// What the times say about zeros, as a sentence.
std::string speed_remark(const PruneReport& report);
std::string to_text(const PruneReport& report);

}  // namespace narrow
