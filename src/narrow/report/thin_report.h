// SPDX-License-Identifier: Apache-2.0
// What was taken out of a network before it learned, and what that is worth, measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "narrow/train/prune/low_rank.h"

namespace narrow {

/// Layers whose filters go together.
struct ThinnedLayers {
  std::vector<std::string> nodes;
  int64_t before = 0;  // filters
  int64_t after = 0;
};

/// Of a language model in float, one thread: tokens of a prompt that are read in a second, and new
/// ones.
struct ModelSpeed {
  int64_t parameters = 0;
  double prompt_tokens_per_second = 0;
  double new_tokens_per_second = 0;
};

struct ThinReport {
  std::string how;        // as asked for
  double difference = 0;  // of the thinned to the masked network, relative to the largest output
  int64_t macs_before = 0;
  int64_t macs_after = 0;
  double before_us = 0;  // median of a run, one sample, one thread, in float
  double after_us = 0;
  // In place of multiply-adds and times.
  std::optional<ModelSpeed> model_before;
  std::optional<ModelSpeed> model_after;
  std::vector<ThinnedLayers> groups;
  std::vector<train::Factored> factored;
};

std::string to_text(const ThinReport& report);

}  // namespace narrow
