// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/moments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "narrow/evaluate/ordered_merge.h"
#include "narrow/evaluate/runner.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

struct ChannelSums {
  std::vector<double> sum;
  std::vector<double> squares;
  std::vector<float> low;
  std::vector<float> high;
  int64_t count = 0;  // values per channel

  void merge(const ChannelSums& other) {
    if (other.count == 0) return;
    sum.resize(std::max(sum.size(), other.sum.size()), 0.0);
    squares.resize(sum.size(), 0.0);
    low.resize(sum.size(), 0.0f);
    high.resize(sum.size(), 0.0f);
    for (size_t c = 0; c < other.sum.size(); ++c) {
      sum[c] += other.sum[c];
      squares[c] += other.squares[c];
      low[c] = std::min(low[c], other.low[c]);
      high[c] = std::max(high[c], other.high[c]);
    }
    count += other.count;
  }
};
using Part = std::map<std::string, ChannelSums>;

constexpr int64_t kLanes = 8;  // independent sums, so that the loop becomes vector code

struct Lanes {
  std::array<double, kLanes> sum{};
  std::array<double, kLanes> squares{};
  std::array<float, kLanes> low{};
  std::array<float, kLanes> high{};

  /// A value that is not finite counts as 0.
  void add(int64_t lane, float x) {
    const auto j = static_cast<size_t>(lane);
    const float v = x - x == 0.0f ? x : 0.0f;
    const auto wide = static_cast<double>(v);
    sum[j] += wide;
    squares[j] += wide * wide;
    low[j] = v < low[j] ? v : low[j];
    high[j] = v > high[j] ? v : high[j];
  }
};

void add_run(const float* x, int64_t count, size_t channel, ChannelSums& to) {
  Lanes lanes;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes.add(j, x[i + j]);
  }
  for (int64_t j = 0; i < count; ++i, ++j) lanes.add(j, x[i]);
  for (size_t j = 0; j < kLanes; ++j) {
    to.sum[channel] += lanes.sum[j];
    to.squares[channel] += lanes.squares[j];
    to.low[channel] = std::min(to.low[channel], lanes.low[j]);
    to.high[channel] = std::max(to.high[channel], lanes.high[j]);
  }
}

ChannelSums sums_of(const Tensor& value, ChannelAxis axis) {
  ChannelSums out;
  const Dims& dims = value.dims();
  if (value.dtype() != DType::float32 || dims.size() < 2 || value.elements() == 0) return out;
  const size_t channel_axis = axis == ChannelAxis::second ? 1 : dims.size() - 1;
  const int64_t outer = num_elements(dims, 0, channel_axis);
  const int64_t channels = dims[channel_axis];
  const int64_t inner = num_elements(dims, channel_axis + 1, dims.size());
  out.sum.assign(static_cast<size_t>(channels), 0.0);
  out.squares.assign(static_cast<size_t>(channels), 0.0);
  out.low.assign(static_cast<size_t>(channels), 0.0f);
  out.high.assign(static_cast<size_t>(channels), 0.0f);
  out.count = outer * inner;
  const float* x = value.data<float>().data();
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t c = 0; c < channels; ++c) {
      add_run(x + (o * channels + c) * inner, inner, static_cast<size_t>(c), out);
    }
  }
  return out;
}

}  // namespace

ValueMoments channel_moments(const Graph& graph, const std::map<std::string, ChannelAxis>& values,
                             const Dataset& data, const MomentOptions& options) {
  SessionOptions session_options;
  std::set<std::string> inputs;
  for (const auto& [name, axis] : values) {
    const auto id = graph.find_value(name);
    if (id && graph.value(*id).is_input) {
      inputs.insert(name);
    } else {
      session_options.observed.push_back(name);
    }
  }
  const Session session(graph, session_options);
  RunnerOptions runner{0, options.threads, options.progress, "means"};
  runner.batch = choose_batch(session, data, Activations::kept);
  const auto batches = static_cast<size_t>((data.size() + runner.batch - 1) / runner.batch);
  std::vector<Part> parts(batches);
  Part all;
  OrderedMerge<Part> merge([&](Part& part) {
    for (const auto& [name, sums] : part) all[name].merge(sums);
  });
  run_batches(
      session, data, runner,
      [&](int64_t index) {
        RunOptions run;
        Part& part = parts[static_cast<size_t>(index)];
        run.observe = [&](const std::string& name, const Tensor& value) {
          part[name].merge(sums_of(value, values.at(name)));
        };
        return run;
      },
      [&](RunBatch& run) {
        Part& part = parts[static_cast<size_t>(run.index)];
        for (const std::string& name : inputs) {
          part[name].merge(sums_of(run.inputs.at(name), values.at(name)));
        }
        merge.add(run.index, std::move(part));
      });
  ValueMoments out;
  for (const auto& [name, sums] : all) {
    if (sums.count == 0) continue;
    ChannelMoments& moments = out[name];
    for (size_t c = 0; c < sums.sum.size(); ++c) {
      moments.mean.push_back(sums.sum[c] / static_cast<double>(sums.count));
      moments.mean_square.push_back(sums.squares[c] / static_cast<double>(sums.count));
    }
    moments.low = sums.low;
    moments.high = sums.high;
  }
  return out;
}

ChannelAxis channel_axis(const Graph& graph, const std::string& value) {
  const Value& v = graph.value(*graph.find_value(value));
  const auto is_convolution = [](const Node& node) {
    return node.is("Conv") || node.is("ConvTranspose");
  };
  for (const Use& use : v.uses) {
    if (is_convolution(graph.node(use.node))) return ChannelAxis::second;
  }
  const Node* producer = graph.producer(*graph.find_value(value));
  return producer != nullptr && is_convolution(*producer) ? ChannelAxis::second : ChannelAxis::last;
}

LayerMoments layer_moments(const Graph& graph, const Assignment& assignment, const Dataset& data,
                           const MomentOptions& options) {
  std::map<std::string, ChannelAxis> values;
  for (const AssignedLayer& layer : assignment.layers) {
    if (!layer.weight_scheme) continue;
    values[layer.input] = channel_axis(graph, layer.input);
  }
  const auto measured = channel_moments(graph, values, data, options);
  LayerMoments moments;
  for (const AssignedLayer& layer : assignment.layers) {
    const auto found = measured.find(layer.input);
    if (layer.weight_scheme && found != measured.end()) moments[layer.node] = found->second;
  }
  return moments;
}

}  // namespace narrow
