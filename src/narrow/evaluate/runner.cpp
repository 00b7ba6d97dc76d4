// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow {
namespace {

constexpr int64_t kLargestBatch = 32;  // larger ones gain nothing on one thread

/// The batch size that the model insists on, or 0.
int64_t model_batch(const Graph& graph) {
  for (const ValueId input : graph.inputs()) {
    const auto& shape = graph.value(input).shape;
    if (shape && !shape->empty() && (*shape)[0].known()) return (*shape)[0].value;
  }
  return 0;
}

std::vector<Dims> batch_dims(const Session& session, const Batch& sample, int64_t batch) {
  std::vector<Dims> dims;
  for (const std::string& name : session.input_names()) {
    const auto found = sample.inputs.find(name);
    if (found == sample.inputs.end()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the data have nothing for the model's input '{}'", name));
    }
    dims.push_back(found->second.dims());
    if (!dims.back().empty()) dims.back()[0] = batch;
  }
  return dims;
}

}  // namespace

int64_t fixed_batch(const Session& session, const Dataset& data) {
  const int64_t model = model_batch(session.graph());
  return model > 0 ? model : data.fixed_batch();
}

DataHints data_hints(const Graph& graph) {
  DataHints hints;
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    DataHints::Input input{value.name, value.dtype, {}};
    if (value.shape) {
      for (const Dim& dim : *value.shape) input.dims.push_back(dim.value);
    }
    hints.inputs.push_back(std::move(input));
  }
  return hints;
}

Tensor cut_batch(const Tensor& tensor, int64_t batch, int64_t samples) {
  if (samples == batch || tensor.rank() == 0 || tensor.dims()[0] != batch) return tensor;
  if (is_sub_byte(tensor.dtype())) return tensor;
  Dims dims = tensor.dims();
  dims[0] = samples;
  Tensor cut(tensor.dtype(), dims);
  std::memcpy(cut.mutable_raw(), tensor.raw(), cut.bytes());
  return cut;
}

int64_t choose_batch(const Session& session, const Dataset& data, Activations activations) {
  if (const int64_t fixed = fixed_batch(session, data); fixed > 0) return fixed;
  const int64_t first = 0;
  const Batch sample = data.get({&first, 1});
  session.plan(batch_dims(session, sample, 1));
  const MemoryReport memory = session.memory();
  const auto bytes = static_cast<int64_t>(
      activations == Activations::reused ? memory.arena_bytes : memory.activation_bytes);
  return std::clamp<int64_t>(kRunBytes / std::max<int64_t>(1, bytes), 1, kLargestBatch);
}

void run_batches(const Session& session, const Dataset& data, const RunnerOptions& options,
                 const std::function<RunOptions(int64_t)>& begin,
                 const std::function<void(RunBatch&)>& done) {
  const int64_t size = data.size();
  if (size == 0) throw Error(ErrorCode::invalid_argument, "the data set is empty");
  const int64_t fixed = fixed_batch(session, data);
  const int64_t batch = options.batch > 0 ? options.batch : choose_batch(session, data);
  if (fixed > 0 && batch != fixed) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a batch of {} is not possible: model or data have {}", batch, fixed),
                "leave the batch size out");
  }
  const int64_t batches = (size + batch - 1) / batch;
  std::mutex mutex;
  int64_t finished = 0;
  const ThreadLimit limit(options.threads);
  options.progress.report(options.stage, 0, size);
  parallel_blocks(batches, [&](int64_t index) {
    options.progress.check_cancelled();
    // One thread each, also where a single batch leaves the others idle: the same bits always.
    const ThreadLimit single(1);
    RunBatch run;
    run.index = index;
    run.first = index * batch;
    run.samples = std::min(batch, size - run.first);
    // Only a fixed batch size is filled up; other models take a short last batch.
    run.batch = fixed > 0 ? batch : run.samples;
    std::vector<int64_t> indices(static_cast<size_t>(run.batch));
    for (int64_t i = 0; i < run.batch; ++i) {
      indices[static_cast<size_t>(i)] = run.first + std::min(i, run.samples - 1);
    }
    Batch samples = data.get(indices);
    run.inputs = std::move(samples.inputs);
    run.labels = std::move(samples.labels);
    if (!run.labels.empty()) run.labels.resize(static_cast<size_t>(run.samples));
    std::vector<Tensor> inputs;
    for (const std::string& name : session.input_names()) {
      const auto found = run.inputs.find(name);
      if (found == run.inputs.end()) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("the data have nothing for the model's input '{}'", name));
      }
      inputs.push_back(found->second);
    }
    run.outputs = session.run(inputs, begin ? begin(index) : RunOptions{});
    for (Tensor& output : run.outputs) output = cut_batch(output, run.batch, run.samples);
    done(run);
    const std::lock_guard lock(mutex);
    finished += run.samples;
    options.progress.report(options.stage, finished, size);
  });
}

}  // namespace narrow
