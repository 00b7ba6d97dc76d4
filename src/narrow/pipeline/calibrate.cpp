// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "narrow/core/error.h"
#include "narrow/evaluate/runner.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

/// The samples of a batch one after the other. A value whose size is no multiple of the batch is
/// one sample.
void observe_samples(const Tensor& value, int64_t batch, int64_t samples, Statistic& statistic) {
  if (value.dtype() != DType::float32) return;
  const auto values = value.data<float>();
  const auto count = static_cast<int64_t>(values.size());
  if (batch < 1 || count % batch != 0) {
    statistic.observe(values);
    statistic.end_sample();
    return;
  }
  const auto each = static_cast<size_t>(count / batch);
  for (int64_t i = 0; i < samples; ++i) {
    statistic.observe(values.subspan(static_cast<size_t>(i) * each, each));
    statistic.end_sample();
  }
}

}  // namespace

Statistics calibrate(const Graph& graph, const std::vector<std::string>& values,
                     const Dataset& data, const CalibrateOptions& options) {
  Statistics all;
  for (const std::string& name : values) all.values.emplace(name, Statistic(options.detail));
  SessionOptions session_options;
  std::vector<std::string> inputs;  // known before the model runs
  for (const std::string& name : values) {
    const auto id = graph.find_value(name);
    const bool is_input = id && graph.value(*id).is_input;
    (is_input ? inputs : session_options.observed).push_back(name);
  }
  session_options.lower = false;  // ranges are those of the float model
  const Session session(graph, session_options);
  RunnerOptions runner{options.batch, options.threads, options.progress, "calibrate"};
  if (runner.batch == 0 && data.size() > 0) {
    runner.batch = choose_batch(session, data, Activations::kept);
  }
  const int64_t size = data.size();
  const bool fixed = fixed_batch(session, data) > 0;
  std::mutex mutex;
  // `batch`: how many samples the value holds, of which the first `samples` count.
  const auto add = [&](const std::string& name, const Tensor& value, int64_t batch,
                       int64_t samples) {
    Statistic part(options.detail);
    observe_samples(value, batch, samples, part);
    const std::lock_guard lock(mutex);
    all.values.at(name).merge(part);
  };
  run_batches(
      session, data, runner,
      [&](int64_t index) {
        RunOptions run;
        const int64_t samples = std::min(runner.batch, size - index * runner.batch);
        const int64_t batch = fixed ? runner.batch : samples;
        run.observe = [&, samples, batch](const std::string& name, const Tensor& value) {
          add(name, value, batch, samples);
        };
        return run;
      },
      [&](RunBatch& run) {
        for (const std::string& name : inputs) {
          add(name, run.inputs.at(name), run.batch, run.samples);
        }
      });
  for (const auto& [name, statistic] : all.values) {
    if (statistic.count > 0) continue;
    throw Error(ErrorCode::numeric_failure,
                fmt::format("value '{}' never held a finite number", name),
                "look for NaN or inf in the calibration data or the model's weights");
  }
  all.samples = size;
  return all;
}

}  // namespace narrow
