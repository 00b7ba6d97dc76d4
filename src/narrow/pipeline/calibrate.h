// SPDX-License-Identifier: Apache-2.0
// Statistics of a float model's values over data: batches in parallel, each on one thread, merged
// exactly, so that neither the number of threads nor the order of batches matters.
#pragma once

#include <string>
#include <vector>

#include "narrow/calibrate/observer.h"
#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"

namespace narrow {

struct CalibrateOptions {
  Detail detail = Detail::histogram;
  int64_t batch = 0;  // 0: chosen, see evaluate/runner.h
  int threads = 0;
  Progress progress;
};

/// Observes the named float32 values of `graph`. Memory is bounded by the statistics and one batch
/// per thread. Values of subgraphs are pooled over their iterations. Throws what running throws,
/// and numeric_failure for a value that never held a finite number.
Statistics calibrate(const Graph& graph, const std::vector<std::string>& values,
                     const Dataset& data, const CalibrateOptions& options = {});

}  // namespace narrow
