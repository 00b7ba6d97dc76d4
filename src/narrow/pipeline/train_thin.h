// SPDX-License-Identifier: Apache-2.0
// The part of a training job that makes the network itself smaller before it learns: filters
// removed, layers factored. Internal to pipeline/.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"
#include "narrow/report/thin_report.h"
#include "narrow/train/plugin.h"
#include "narrow/train/prune/low_rank.h"
#include "narrow/train/prune/thin.h"
#include "narrow/train/trainer.h"

namespace narrow {

/// Where rankings that look at data find them.
struct ThinSource {
  std::shared_ptr<const Dataset> data;
  const train::Plugin* plugin = nullptr;  // gradients; may be absent for l1 and apoz
  train::TrainOptions options;            // of the run
};

/// Gradients of the mean loss over all of `data`, by parameter. Throws invalid_argument without a
/// plugin.
std::map<std::string, Tensor> mean_gradients(const train::TrainPlan& plan, const Dataset& data,
                                             const train::Plugin* plugin,
                                             const train::TrainOptions& options);

/// Removes filters, measures both networks. Throws invalid_argument where nothing can be removed or
/// the multiply-adds asked for cannot be reached, internal where the thinned network computes
/// something else than the masked one.
ThinReport thin_graph(Graph& graph, const train::ThinOptions& thin, const ThinSource& source);

/// Factors layers; the report has no groups.
ThinReport factor_graph(Graph& graph, const train::LowRankOptions& low_rank);

}  // namespace narrow
