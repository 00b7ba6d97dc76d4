// SPDX-License-Identifier: Apache-2.0
// What training did, as JSON and for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "narrow/report/prune_report.h"
#include "narrow/report/thin_report.h"
#include "narrow/train/trainer.h"

namespace narrow {

struct TrainReport {
  std::string model;
  std::string output;
  std::string qat;
  std::string torch_version;
  int rank = 0;   // of this process; the first alone has written and measured
  int ranks = 1;  // processes
  int64_t samples = 0;
  int64_t parameters = 0;
  std::string metric_name = "top1";      // or "perplexity", "kl"
  std::optional<double> metric_before;   // of the float model that came in
  std::optional<double> metric_thinned;  // of a language model that lost parts, untrained
  std::optional<double> metric_ptq;      // quantized on the same grids without training
  std::optional<double> metric;          // of what was written
  std::optional<double> perplexity;      // of a language model that was written
  std::vector<std::string> notes;
  int64_t best_epoch = 0;
  std::vector<train::EpochRecord> epochs;
  std::vector<ThinReport> thinned;  // in the order in which it was done
  PruneReport prune;                // empty: nothing was pruned
  uint64_t output_bytes = 0;
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;
};

std::string to_json(const TrainReport& report);
std::string to_text(const TrainReport& report);

}  // namespace narrow
