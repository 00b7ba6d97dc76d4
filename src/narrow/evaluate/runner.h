// SPDX-License-Identifier: Apache-2.0
// Runs a model over a data set: fixed batches, each on one thread, several at once, results handed
// over by batch index. Batch borders depend on model and data alone, so results do not depend on
// the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"
#include "narrow/runtime/session.h"

namespace narrow {

/// What a data set has to deliver for this model (open_dataset needs it).
DataHints data_hints(const Graph& graph);

struct RunnerOptions {
  int64_t batch = 0;  // 0: what model and data insist on, else chosen from the model's memory
  int threads = 0;    // 0: all CPUs of the affinity mask
  Progress progress;
  std::string stage = "run";
};

/// One batch with what the model made of it. A short last batch of a model with a fixed batch size
/// is filled up with copies of its last sample; `samples` counts the real ones.
struct RunBatch {
  int64_t index = 0;  // of the batch
  int64_t first = 0;  // position of its first sample in the data set
  int64_t samples = 0;
  int64_t batch = 0;  // leading dimension of the inputs
  std::map<std::string, Tensor> inputs;
  std::vector<int64_t> labels;
  std::vector<Tensor> outputs;  // cut to `samples` where they have the batch as leading dimension
};

/// The batch size that model or data insist on, or 0. A short last batch is then filled up.
int64_t fixed_batch(const Session& session, const Dataset& data);

/// What one run may hold in activations. It bounds the memory of a run and lets the activations of
/// small networks stay in the second-level cache.
inline constexpr int64_t kRunBytes = int64_t{1} << 24;

/// reused: activations share memory, as in a plain run. kept: all of them at once, as where every
/// value is observed and kept.
enum class Activations : uint8_t { reused, kept };

/// The batch size that run_batches() uses with options.batch == 0: the model's or the data's own,
/// else what fits kRunBytes, at most 32. Depends on model and data alone.
int64_t choose_batch(const Session& session, const Dataset& data,
                     Activations activations = Activations::reused);

/// The first `samples` of a tensor whose leading dimension is `batch`; any other as it is.
Tensor cut_batch(const Tensor& tensor, int64_t batch, int64_t samples);

/// Calls begin(batch index) on the worker to get the observer of that run (may be empty), runs the
/// model, then calls done(batch). Both are called from several threads at once, in any order.
void run_batches(const Session& session, const Dataset& data, const RunnerOptions& options,
                 const std::function<RunOptions(int64_t)>& begin,
                 const std::function<void(RunBatch&)>& done);

}  // namespace narrow
