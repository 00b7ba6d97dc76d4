// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/sensitivity.h"

#include <fmt/format.h>

#include <cmath>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/evaluate/evaluate.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/quant/quantize.h"
#include "narrow/runtime/session.h"
#include "narrow/train/prune/masks.h"

namespace narrow {
namespace {

std::vector<double> levels_of(const SensitivityJob& job) {
  const bool bits = job.by == SensitivityBy::bits;
  if (job.levels.empty()) {
    return bits ? std::vector<double>{8, 6, 5, 4, 3, 2}
                : std::vector<double>{0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95};
  }
  for (const double level : job.levels) {
    const bool good =
        bits ? level >= 2 && level <= 8 && level == std::floor(level) : level >= 0 && level < 1;
    if (!good) {
      throw Error(ErrorCode::invalid_argument, fmt::format("level {} is not possible", level),
                  bits ? "give bits from 2 to 8" : "give shares of zeros from 0 to below 1");
    }
  }
  return job.levels;
}

Graph read_float(const std::filesystem::path& path) {
  Graph graph = read_onnx(path);
  infer_shapes(graph);
  PassOptions passes;
  passes.context.evaluate = evaluate_constant;
  optimize(graph, passes);
  infer_shapes(graph);
  return graph;
}

struct Measure {
  Metric metric = Metric::top1;
  std::shared_ptr<const Dataset> data;
  std::unique_ptr<Session> reference;
  EvaluateOptions options;

  MetricResult operator()(const Graph& graph) const {
    return evaluate(Session(graph), *data, options, reference.get());
  }
};

Measure measure_of(const SensitivityJob& job, const Graph& graph) {
  Measure m;
  m.data = open_dataset(job.data, data_hints(graph));
  if (job.samples > 0 && job.samples < m.data->size()) {
    m.data = subset(m.data, sample_indices(m.data->size(), job.samples, job.seed));
  }
  const Value& output = graph.value(graph.outputs().at(0));
  const bool classes = output.shape && output.shape->size() >= 2 && output.shape->at(1).known() &&
                       is_classification({1, output.shape->at(1).value});
  if (!m.data->labelled()) {
    m.metric = classes ? Metric::agreement : Metric::cosine;
    m.reference = std::make_unique<Session>(graph);
  }
  m.options.metric = m.metric;
  m.options.threads = job.threads;
  return m;
}

}  // namespace

SensitivityReport run_sensitivity(const SensitivityJob& job) {
  const auto begin = Clock::now();
  const std::vector<double> levels = levels_of(job);
  const Graph graph = read_float(job.model);
  const auto targets = train::find_targets(graph, job.layers);
  std::vector<ScanLayer> layers;
  std::map<std::string, train::PruneTarget> by_node;
  for (const train::PruneTarget& target : targets) {
    layers.push_back({target.node, target.weights});
    by_node[target.node] = target;
  }
  const Measure measure = measure_of(job, graph);
  const auto change = [&](const ScanLayer& layer, const Tensor& weights, double level) {
    const train::PruneTarget& target = by_node.at(layer.node);
    if (job.by == SensitivityBy::bits) {
      Scheme scheme;
      scheme.bits = static_cast<int>(level);
      scheme.granularity = Granularity::per_axis;
      scheme.axis = target.output_axis;
      return fake_quant(weights, weight_params(weights, scheme));
    }
    const train::PruneOptions options{.method = train::PruneMethod::level};
    const auto masks =
        train::lowest_masks({target}, {{target.weights, train::absolute(weights)}}, level, options);
    return train::masked(weights, masks.at(target.weights));
  };
  SensitivityReport report;
  report.scan = scan_layers(
      graph, layers, levels, change, [&](const Graph& g) { return measure(g).value; },
      job.progress);
  const MetricResult whole = measure(graph);
  if (whole.low && whole.high) report.noise = (*whole.high - *whole.low) / 2;
  report.model = job.model.string();
  report.by = job.by == SensitivityBy::bits ? "bits" : "sparsity";
  report.metric = to_string(measure.metric);
  report.percent = is_percent(measure.metric);
  report.samples = whole.samples;
  report.seconds = seconds_since(begin);
  return report;
}

}  // namespace narrow
