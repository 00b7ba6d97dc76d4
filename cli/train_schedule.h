// SPDX-License-Identifier: Apache-2.0
// `narrow train --schedule FILE` and --dry-run.
#pragma once

#include <string>

#include "context.h"
#include "narrow/pipeline/train.h"

namespace narrow::cli {

/// Whether the text is the name of a file, not of a course of the learning rate. Throws
/// invalid_argument where it is neither.
bool names_schedule_file(const std::string& text);

/// The phases of the file; without a file the job alone. A dry run says what they are.
void run_phases(const std::string& file, const TrainJob& job, bool dry_run, Context& context);

}  // namespace narrow::cli
