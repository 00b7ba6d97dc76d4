// SPDX-License-Identifier: Apache-2.0
// The flags of `train` that say which grids are trained, and how.
#pragma once

#include <string>

#include "context.h"
#include "narrow/pipeline/train.h"

namespace narrow::cli {

struct QatFlags {
  std::string bits;
  std::string method = "lsq";
  std::string ranges = "learned";
  std::string granularity = "per_axis";
  int64_t first_last = 0;
  train::QatOptions options;
};

void add_qat_flags(CLI::App& command, QatFlags& flags);
/// Throws invalid_argument.
void apply_qat_flags(const QatFlags& flags, TrainJob& job);

}  // namespace narrow::cli
