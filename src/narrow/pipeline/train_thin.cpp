// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_thin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/runner.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

using train::Channels;
using train::FilterGroup;
using train::FilterScores;

int64_t macs_of(const Graph& graph) {
  std::vector<Dims> dims;
  const auto inputs = random_inputs(graph, 1, 1);
  for (const ValueId id : graph.inputs()) dims.push_back(inputs.at(graph.value(id).name).dims());
  return Session(graph).count_macs(dims).total;
}

/// The better of a few medians, in turns: a machine with other work to do slows both.
void measure(const Graph& before, const Graph& after, ThinReport& report) {
  BenchOptions options;
  options.threads = 1;
  options.seconds = 0.2;
  for (int round = 0; round < 3; ++round) {
    const double a = bench(before, options).median_us;
    const double b = bench(after, options).median_us;
    report.before_us = round == 0 ? a : std::min(report.before_us, a);
    report.after_us = round == 0 ? b : std::min(report.after_us, b);
  }
}

/// Of a network of filters.
std::map<std::string, Tensor> gradients_of(const Graph& graph, const Dataset& data,
                                           const ThinSource& source) {
  if (source.options.loss != train::LossKind::cross_entropy) {
    throw Error(ErrorCode::invalid_argument, "thin: gradients are those of --loss cross_entropy",
                "rank by l1 or apoz");
  }
  const train::TrainPlan plan{.graph = graph, .parameters = train::trainable_parameters(graph)};
  return mean_gradients(plan, data, source.plugin, source.options);
}

/// The share of values behind Relu that are not zero, by channel class.
class Activity {
 public:
  Activity(const Graph& graph, const Channels& channels) {
    for (const NodeId id : graph.nodes()) {
      const Node& node = graph.node(id);
      if (!node.is("Relu")) continue;
      const Value& value = graph.value(node.output(0));
      if (!value.shape || value.shape->size() < 2 || !value.shape->at(1).known()) continue;
      std::vector<int64_t>& classes = classes_[value.name];
      for (int64_t i = 0; i < value.shape->at(1).value; ++i) {
        classes.push_back(channels.class_of(node.output(0), 1, i));
      }
    }
  }

  void measure(const Graph& graph, const Dataset& data, int threads) {
    SessionOptions options;
    for (const auto& [name, classes] : classes_) options.observed.push_back(name);
    const Session session(graph, options);
    RunnerOptions run;
    run.threads = threads;
    run_batches(
        session, data, run,
        [&](int64_t) {
          RunOptions o;
          o.observe = [&](const std::string& name, const Tensor& x) { add(name, x); };
          return o;
        },
        [](RunBatch&) {});
  }

  FilterScores scores() const {
    FilterScores out;
    for (const auto& [c, count] : counts_) {
      out[c] =
          static_cast<double>(count.active) / static_cast<double>(std::max<int64_t>(1, count.all));
    }
    return out;
  }

 private:
  struct Count {
    int64_t active = 0;
    int64_t all = 0;
  };
  void add(const std::string& name, const Tensor& x) {
    const std::vector<int64_t>& classes = classes_.at(name);
    const auto channels = static_cast<int64_t>(classes.size());
    const int64_t inner = x.elements() / std::max<int64_t>(1, x.dim(0) * channels);
    std::vector<int64_t> active(classes.size());
    const auto data = x.data<float>();
    for (size_t i = 0; i < data.size(); ++i) {
      active[i / static_cast<size_t>(inner) % classes.size()] += data[i] != 0;
    }
    const std::lock_guard lock(mutex_);
    for (size_t c = 0; c < classes.size(); ++c) {
      counts_[classes[c]].active += active[c];
      counts_[classes[c]].all += x.elements() / channels;
    }
  }

  std::map<std::string, std::vector<int64_t>> classes_;
  std::map<int64_t, Count> counts_;
  std::mutex mutex_;
};

FilterScores activity_scores(const Graph& graph, const Channels& channels,
                             const std::vector<FilterGroup>& groups, const Dataset& data,
                             int threads) {
  Activity activity(graph, channels);
  activity.measure(graph, data, threads);
  FilterScores scores = activity.scores();
  for (const FilterGroup& group : groups) {
    if (scores.contains(group.filters[0].channel_class)) continue;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("thin: no Relu shows what '{}' does", group.nodes[0]),
                "rank by l1, or leave the layer out: except=" + group.nodes[0]);
  }
  return scores;
}

FilterScores rank(const Graph& graph, const Channels& channels,
                  const std::vector<FilterGroup>& groups, const train::ThinOptions& thin,
                  const ThinSource& source) {
  if (thin.method == train::RankMethod::l1) return score_filters(graph, groups, thin.method, {});
  const auto data =
      subset(source.data, sample_indices(source.data->size(), thin.samples, source.options.seed));
  if (thin.method == train::RankMethod::apoz) {
    return activity_scores(graph, channels, groups, *data, source.options.threads);
  }
  return score_filters(graph, groups, thin.method, gradients_of(graph, *data, source));
}

/// The smallest share of filters whose removal leaves so many multiply-adds.
double ratio_for(const Graph& graph, double macs, const std::function<Graph(double)>& make) {
  const double wanted = macs * static_cast<double>(macs_of(graph));
  double low = 0;
  double high = 0.999;
  constexpr int kHalvings = 10;  // a filter of a thousand
  const auto fits = [&](double ratio) {
    return static_cast<double>(macs_of(make(ratio))) <= wanted;
  };
  if (!fits(high)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("thin: a share of {} of the multiply-adds cannot be reached", macs),
                "give a larger macs, a smaller align, or leave fewer layers out");
  }
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (fits(middle) ? high : low) = middle;
  }
  return high;
}

/// The largest difference of the outputs, relative to the largest output.
double difference(const Graph& a, const Graph& b) {
  const auto inputs = random_inputs(a, 1, 1);
  const auto y = Session(a).run_named(inputs);
  const auto z = Session(b).run_named(inputs);
  double most = 0;
  double size = 1e-30;
  for (const auto& [name, tensor] : y) {
    const auto one = tensor.to_floats();
    const auto other = z.at(name).to_floats();
    for (size_t i = 0; i < one.size(); ++i) {
      most = std::max(most, std::fabs(static_cast<double>(one[i]) - other[i]));
      size = std::max(size, std::fabs(static_cast<double>(one[i])));
    }
  }
  return most / size;
}

std::vector<ThinnedLayers> describe(const std::vector<FilterGroup>& groups,
                                    const std::set<int64_t>& removed) {
  std::vector<ThinnedLayers> out;
  for (const FilterGroup& group : groups) {
    ThinnedLayers layers{group.nodes, static_cast<int64_t>(group.filters.size()), 0};
    for (const train::Filter& filter : group.filters) {
      layers.after += !removed.contains(filter.channel_class);
    }
    out.push_back(std::move(layers));
  }
  return out;
}

}  // namespace

/// What one step of plain descent, with a rate of 1, takes off the weights.
std::map<std::string, Tensor> mean_gradients(const train::TrainPlan& plan, const Dataset& data,
                                             const train::Plugin* plugin,
                                             const train::TrainOptions& options) {
  if (plugin == nullptr) {
    throw Error(ErrorCode::invalid_argument, "thin: gradients need training", "give --epochs");
  }
  train::TrainOptions o;
  o.epochs = 1;
  o.batch = options.batch;
  o.accumulate = (data.size() + o.batch - 1) / o.batch;
  o.optimizer = train::OptimizerKind::sgd;
  o.momentum = 0;
  o.lr = 1;
  o.threads = options.threads;
  const train::TrainState state = plugin->train(plan, data, o, {}, {}).state;
  std::map<std::string, Tensor> gradients;
  for (const std::string& name : plan.parameters) {
    const Tensor& before = *plan.graph.constant(*plan.graph.find_value(name));
    Tensor g = state.parameters.at(name).clone();
    const auto w = before.data<float>();
    const auto out = g.mutable_data<float>();
    for (size_t i = 0; i < w.size(); ++i) out[i] = w[i] - out[i];
    gradients[name] = g;
  }
  return gradients;
}

ThinReport thin_graph(Graph& graph, const train::ThinOptions& thin, const ThinSource& source) {
  if (thin.of_language_model()) {
    throw Error(ErrorCode::invalid_argument,
                "thin: heads, kv_heads, ff and blocks are parts of language models",
                "give ratio=SHARE or macs=SHARE");
  }
  const Channels channels(graph);
  const auto groups = filter_groups(graph, channels, thin.layers, thin.except);
  if (groups.empty()) {
    throw Error(ErrorCode::invalid_argument, "thin: no filter of these layers can be removed",
                "layers that add up go together: name all of them");
  }
  const FilterScores scores = rank(graph, channels, groups, thin, source);
  const auto removed_at = [&](double ratio) {
    return train::lowest_filters(groups, scores, ratio, thin.align);
  };
  const double ratio = thin.ratio ? *thin.ratio : ratio_for(graph, *thin.macs, [&](double share) {
    return thinned(graph, make_recipe(graph, channels, removed_at(share)));
  });
  const std::set<int64_t> removed = removed_at(ratio);
  const train::ThinRecipe recipe = make_recipe(graph, channels, removed);
  Graph thin_one = thinned(graph, recipe);
  ThinReport report;
  report.how = to_text(thin);
  report.difference = difference(masked(graph, recipe), thin_one);
  constexpr double kRounding = 1e-4;  // of sums in another order, in a deep network
  if (!(report.difference <= kRounding)) {
    throw Error(ErrorCode::internal, fmt::format("the thinned network differs from the masked one "
                                                 "by {:.3g}",
                                                 report.difference));
  }
  report.macs_before = macs_of(graph);
  report.macs_after = macs_of(thin_one);
  report.groups = describe(groups, removed);
  measure(graph, thin_one, report);
  graph = std::move(thin_one);
  return report;
}

ThinReport factor_graph(Graph& graph, const train::LowRankOptions& low_rank) {
  ThinReport report;
  report.how = "low rank " + to_text(low_rank);
  const Graph before = graph;
  report.factored = train::factor_layers(graph, low_rank);
  report.macs_before = macs_of(before);
  report.macs_after = macs_of(graph);
  measure(before, graph, report);
  return report;
}

}  // namespace narrow
