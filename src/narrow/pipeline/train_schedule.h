// SPDX-License-Identifier: Apache-2.0
// Training in phases, as a file says: each phase is a training job that takes on the model of the
// one before.
//
//   lr: 1e-4                     # keys of `narrow train`, for all phases
//   phases:
//     - name: prune
//       epochs: 4
//       prune: {method: magnitude, sparsity: 0.8, except: [conv1]}
//     - name: qat                # what was pruned stays zero
//       epochs: 2
//       qat: w8a8
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/pipeline/train.h"
#include "narrow/report/schedule_report.h"

namespace narrow {

struct TrainPhase {
  std::string name;
  TrainJob job;       // model and output are set when it runs
  std::string stamp;  // of everything that came before and of this phase
  std::string grids;  // bits of the model that it leaves ("w4a4"); empty: float
};

/// `base` gives the model, the output, the data and what the file leaves open. Throws
/// invalid_argument with line and column: unknown keys, values that make no sense, phases that
/// cannot follow each other.
std::vector<TrainPhase> parse_schedule(std::string_view yaml, std::string_view source,
                                       const TrainJob& base);
std::vector<TrainPhase> load_schedule(const std::filesystem::path& path, const TrainJob& base);

/// What would be done, with the layers that each phase names; reads the model, trains nothing.
/// Throws invalid_argument with the nearest names for a layer that does not exist.
SchedulePlan plan_schedule(const std::vector<TrainPhase>& phases);

/// Runs all phases. With `resume` in the base job, phases whose model is there are left out, and
/// the one that was interrupted goes on. `begin` is told of each phase.
ScheduleReport run_schedule(const std::vector<TrainPhase>& phases,
                            const std::function<void(const std::string& name)>& begin = {});

}  // namespace narrow
