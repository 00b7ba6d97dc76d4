// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>

#include "narrow/core/error.h"
#include "narrow/evaluate/runner.h"
#include "narrow/quant/error_measures.h"

namespace narrow {
namespace {

struct MetricRow {
  Metric metric;
  const char* name;
  bool percent;
  bool reference;  // makes no sense without a reference model
};
constexpr MetricRow kMetrics[] = {{Metric::top1, "top1", true, false},
                                  {Metric::top5, "top5", true, false},
                                  {Metric::mse, "mse", false, false},
                                  {Metric::agreement, "agreement", true, true},
                                  {Metric::cosine, "cosine", false, true}};

const MetricRow& row(Metric metric) {
  return kMetrics[static_cast<size_t>(metric)];
}

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

/// What one batch adds; merged in the order of the batches.
struct Partial {
  int64_t hits = 0;
  int64_t samples = 0;
  ErrorMeasures error;
};

int64_t classes_of(const Dims& dims) {
  return num_elements(dims, 1, dims.size());
}

/// How many classes stand before the label when sorted by score, earlier ones first among equals.
int64_t rank_of(std::span<const float> scores, int64_t label) {
  const float own = scores[static_cast<size_t>(label)];
  int64_t rank = 0;
  for (size_t c = 0; c < scores.size(); ++c) {
    const bool before = scores[c] > own || (scores[c] == own && static_cast<int64_t>(c) < label);
    rank += before ? 1 : 0;
  }
  return rank;
}

void require_no_nan(std::span<const float> scores, int64_t sample) {
  for (const float s : scores) {
    if (std::isnan(s)) {
      throw Error(ErrorCode::numeric_failure,
                  fmt::format("sample {}: the model's output holds NaN", sample));
    }
  }
}

void require_scores(const Dims& dims) {
  if (is_classification(dims)) return;
  refuse(fmt::format("an output of shape {} is no list of class scores", to_string(dims)),
         "name another output, or use metric mse or cosine with a reference model");
}

void count_agreement(const Tensor& output, const Tensor& reference, int64_t first,
                     Partial& partial) {
  require_scores(output.dims());
  require_scores(reference.dims());
  const auto a = argmax_per_sample(output, first);
  const auto b = argmax_per_sample(reference, first);
  if (a.size() != b.size()) refuse("the models' outputs hold different numbers of samples");
  for (size_t i = 0; i < a.size(); ++i) partial.hits += a[i] == b[i] ? 1 : 0;
}

void add_label_error(const Tensor& output, const RunBatch& run, Partial& partial) {
  if (output.elements() != run.samples) {
    refuse(fmt::format("metric mse: an output of shape {} is not one number per sample",
                       to_string(output.dims())),
           "give a reference model to compare with");
  }
  std::vector<float> labels;
  for (const int64_t label : run.labels) labels.push_back(static_cast<float>(label));
  partial.error.add(labels, output.to_floats());
}

size_t output_index(const Session& session, const std::string& name) {
  const auto& names = session.output_names();
  if (name.empty()) return 0;
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) refuse(fmt::format("the model has no output '{}'", name));
  return static_cast<size_t>(found - names.begin());
}

double value_of(Metric metric, const Partial& all) {
  if (row(metric).percent) {
    return 100.0 * static_cast<double>(all.hits) / static_cast<double>(all.samples);
  }
  return metric == Metric::mse ? all.error.mse() : all.error.cosine();
}

}  // namespace

const char* to_string(Metric metric) {
  return row(metric).name;
}
std::optional<Metric> metric_from_string(std::string_view name) {
  for (const MetricRow& r : kMetrics) {
    if (name == r.name) return r.metric;
  }
  return std::nullopt;
}
bool needs_reference(Metric metric) {
  return row(metric).reference;
}
bool is_percent(Metric metric) {
  return row(metric).percent;
}

bool is_classification(const Dims& dims) {
  if (dims.size() < 2 || dims[1] < 2) return false;
  return std::all_of(dims.begin() + 2, dims.end(), [](int64_t d) { return d == 1; });
}

std::vector<int64_t> argmax_per_sample(const Tensor& outputs, int64_t first) {
  require_scores(outputs.dims());
  const int64_t classes = classes_of(outputs.dims());
  const std::vector<float> values = outputs.to_floats();
  std::vector<int64_t> best;
  for (int64_t i = 0; i < outputs.dims()[0]; ++i) {
    const std::span<const float> scores(values.data() + i * classes, static_cast<size_t>(classes));
    require_no_nan(scores, first + i);
    best.push_back(std::max_element(scores.begin(), scores.end()) - scores.begin());
  }
  return best;
}

int64_t count_hits(const Tensor& outputs, std::span<const int64_t> labels, int64_t k,
                   int64_t first) {
  require_scores(outputs.dims());
  const int64_t classes = classes_of(outputs.dims());
  const std::vector<float> values = outputs.to_floats();
  if (static_cast<int64_t>(labels.size()) * classes > outputs.elements()) {
    refuse(fmt::format("{} labels for an output of shape {}", labels.size(),
                       to_string(outputs.dims())));
  }
  int64_t hits = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    const int64_t sample = first + static_cast<int64_t>(i);
    if (labels[i] < 0 || labels[i] >= classes) {
      refuse(fmt::format("sample {} has label {}, the model {} classes (0 to {})", sample,
                         labels[i], classes, classes - 1),
             "the labels belong to another task, or start at another number");
    }
    const std::span<const float> scores(values.data() + static_cast<int64_t>(i) * classes,
                                        static_cast<size_t>(classes));
    require_no_nan(scores, sample);
    hits += rank_of(scores, labels[i]) < k ? 1 : 0;
  }
  return hits;
}

Interval wilson_interval(int64_t hits, int64_t samples) {
  if (samples <= 0) return {0, 100};
  constexpr double kZ = 1.959963984540054;  // two-sided 95 % quantile of the normal distribution
  const auto n = static_cast<double>(samples);
  const double p = static_cast<double>(hits) / n;
  const double middle = p + kZ * kZ / (2 * n);
  const double half = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  const double scale = 100 / (1 + kZ * kZ / n);
  return {std::max(0.0, (middle - half) * scale), std::min(100.0, (middle + half) * scale)};
}

MetricResult evaluate(const Session& session, const Dataset& data, const EvaluateOptions& options,
                      const Session* reference) {
  const auto start = std::chrono::steady_clock::now();
  const Metric metric = options.metric;
  const bool by_reference =
      reference != nullptr && metric != Metric::top1 && metric != Metric::top5;
  if (needs_reference(metric) && reference == nullptr) {
    refuse(fmt::format("metric {} compares with a reference model", to_string(metric)), "name one");
  }
  if (!by_reference && !data.labelled()) {
    refuse(fmt::format("metric {} needs labels, and the data have none", to_string(metric)),
           "compare with a reference model by metric agreement or cosine");
  }
  const size_t output = output_index(session, options.output);
  const size_t reference_output =
      by_reference ? output_index(*reference, options.output) : size_t{0};
  RunnerOptions runner{options.batch, options.threads, options.progress, "evaluate"};
  if (runner.batch <= 0 && data.size() > 0) runner.batch = choose_batch(session, data);
  const int64_t batches =
      runner.batch > 0 ? (data.size() + runner.batch - 1) / runner.batch : int64_t{0};
  std::vector<Partial> partials(static_cast<size_t>(batches));
  run_batches(session, data, runner, {}, [&](RunBatch& run) {
    Partial& partial = partials[static_cast<size_t>(run.index)];
    partial.samples = run.samples;
    const Tensor& y = run.outputs[output];
    if (by_reference) {
      const auto all = reference->run_named(run.inputs);
      const Tensor other =
          cut_batch(all.at(reference->output_names()[reference_output]), run.batch, run.samples);
      if (metric == Metric::agreement) {
        count_agreement(y, other, run.first, partial);
      } else {
        if (y.elements() != other.elements()) refuse("the models' outputs differ in size");
        partial.error.add(other.to_floats(), y.to_floats());
      }
    } else if (metric == Metric::mse) {
      add_label_error(y, run, partial);
    } else {
      partial.hits = count_hits(y, run.labels, metric == Metric::top5 ? 5 : 1, run.first);
    }
  });
  Partial all;
  for (const Partial& partial : partials) {
    all.hits += partial.hits;
    all.samples += partial.samples;
    all.error.merge(partial.error);
  }
  MetricResult result;
  result.metric = metric;
  result.samples = all.samples;
  result.value = value_of(metric, all);
  if (is_percent(metric)) {
    const Interval interval = wilson_interval(all.hits, all.samples);
    result.low = interval.low;
    result.high = interval.high;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace narrow
