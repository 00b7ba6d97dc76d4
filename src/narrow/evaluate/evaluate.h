// SPDX-License-Identifier: Apache-2.0
// How good a model is on data: one metric over a data set.
//
//   Session session(graph);
//   auto data = open_dataset(parse_data_spec("mnist:DIR"), data_hints(graph));
//   MetricResult r = evaluate(session, *data, {.metric = Metric::top1});
//   r.value;  // 92.32, percent
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/runtime/session.h"

namespace narrow {

/// top1, top5: percent of samples whose label has the highest (one of the five highest) output.
/// agreement: percent of samples with the same highest output as the reference model's.
/// mse: mean squared difference to the reference model's output; without one, of a model with one
/// output per sample, to the label. cosine: between all outputs and the reference model's.
enum class Metric : uint8_t { top1, top5, mse, agreement, cosine };
const char* to_string(Metric metric);
std::optional<Metric> metric_from_string(std::string_view name);
/// agreement and cosine do; mse may.
bool needs_reference(Metric metric);
bool is_percent(Metric metric);

struct EvaluateOptions {
  Metric metric = Metric::top1;
  int64_t batch = 0;   // 0: chosen, see runner.h
  int threads = 0;     // 0: all CPUs of the affinity mask
  std::string output;  // name of the output judged; empty: the first
  Progress progress;
};

struct MetricResult {
  Metric metric = Metric::top1;
  double value = 0;  // percent for top1, top5, agreement
  int64_t samples = 0;
  /// 95 % Wilson interval, for percentages.
  std::optional<double> low;
  std::optional<double> high;
  double seconds = 0;
};

/// Throws invalid_argument for unlabelled data, a label outside the model's outputs (with sample
/// and range named), an empty data set, a missing reference; numeric_failure for NaN outputs.
MetricResult evaluate(const Session& session, const Dataset& data, const EvaluateOptions& options,
                      const Session* reference = nullptr);

struct Interval {
  double low = 0;
  double high = 0;
};
/// Wilson score interval of a proportion, in percent, at 95 %.
Interval wilson_interval(int64_t hits, int64_t samples);

/// How many samples have their label among the k highest outputs (earlier classes first among
/// equals). `first` is the number of the first sample, for messages. Throws as evaluate() does.
int64_t count_hits(const Tensor& outputs, std::span<const int64_t> labels, int64_t k,
                   int64_t first = 0);

/// Class index with the highest output of each sample (the first of equal ones), of a tensor
/// [N, classes] or [N, classes, 1, ...]. `first` is the number of the first sample, for messages.
/// Throws invalid_argument for other shapes, numeric_failure for NaN.
std::vector<int64_t> argmax_per_sample(const Tensor& outputs, int64_t first = 0);
/// Whether a tensor of this shape can be read as scores of at least two classes per sample.
bool is_classification(const Dims& dims);

}  // namespace narrow
