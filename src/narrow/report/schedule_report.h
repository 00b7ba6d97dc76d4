// SPDX-License-Identifier: Apache-2.0
// Phases of a training schedule: what is planned, and what came of each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "narrow/report/train_report.h"

namespace narrow {

struct PlannedPhase {
  std::string name;
  int64_t epochs = 0;
  double lr = 0;
  std::string loss;
  std::string what;                 // "prune magnitude,sparsity=0.8; qat w8a8", "train"
  std::vector<std::string> layers;  // that are pruned or thinned; empty: none
};
struct SchedulePlan {
  std::string model;
  std::string output;
  std::vector<PlannedPhase> phases;
};
std::string to_json(const SchedulePlan& plan);
std::string to_text(const SchedulePlan& plan);

struct PhaseReport {
  std::string name;
  bool resumed = false;  // done by an earlier run
  TrainReport report;
};
struct ScheduleReport {
  std::vector<PhaseReport> phases;
};
std::string to_json(const ScheduleReport& report);
std::string to_text(const ScheduleReport& report);

}  // namespace narrow
