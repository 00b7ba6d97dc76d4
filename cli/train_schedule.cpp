// SPDX-License-Identifier: Apache-2.0
#include "train_schedule.h"

#include <fmt/format.h>

#include <filesystem>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/pipeline/train_schedule.h"
#include "text.h"

namespace narrow::cli {

bool names_schedule_file(const std::string& text) {
  if (train::schedule_from_string(text)) return false;
  if (std::filesystem::exists(text)) return true;
  const std::vector<std::string> names = {"constant", "step", "cosine"};
  throw Error(ErrorCode::invalid_argument,
              fmt::format("--schedule: '{}' is neither a course nor a file", text),
              did_you_mean(text, names));
}

void run_phases(const std::string& file, const TrainJob& job, bool dry_run, Context& context) {
  std::vector<TrainPhase> phases;
  if (file.empty()) {
    phases.push_back({.name = "train", .job = job, .stamp = "", .grids = job.qat});
  } else {
    phases = load_schedule(file, job);
  }
  if (dry_run) {
    const SchedulePlan plan = plan_schedule(phases);
    context.print(to_json(plan), to_text(plan));
    return;
  }
  const ScheduleReport report = run_schedule(phases, [&](const std::string& name) {
    if (!context.json) write_stderr(fmt::format("== {} ==", name));
  });
  context.print(to_json(report), to_text(report));
}

}  // namespace narrow::cli
