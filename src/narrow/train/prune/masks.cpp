// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/masks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/core/error.h"

namespace narrow::train {
namespace {

/// Consecutive inputs of one output: elements first, first + stride, ...
struct Group {
  int64_t first = 0;
  int64_t count = 0;
};

/// How a tensor falls into groups along its input axis.
struct Groups {
  Groups(const Dims& dims, int64_t axis, int64_t of) : size(of) {
    for (size_t i = 0; i < dims.size(); ++i) {
      if (static_cast<int64_t>(i) < axis) outer *= dims[i];
      if (static_cast<int64_t>(i) > axis) stride *= dims[i];
    }
    length = dims[static_cast<size_t>(axis)];
    per_line = (length + of - 1) / of;
    count = outer * stride * per_line;
  }
  Group at(int64_t index) const {
    const int64_t line = index / per_line;
    const int64_t within = index % per_line * size;
    const int64_t start = (line / stride) * length * stride + line % stride;
    return {start + within * stride, std::min(size, length - within)};
  }
  int64_t size;
  int64_t outer = 1;
  int64_t stride = 1;
  int64_t length = 1;
  int64_t per_line = 1;
  int64_t count = 0;
};

struct Unit {
  float score;
  int32_t target;
  int64_t index;  // of the element or group
};
bool lower(const Unit& a, const Unit& b) {
  if (a.score != b.score) return a.score < b.score;
  if (a.target != b.target) return a.target < b.target;
  return a.index < b.index;
}

float safe(float score) {
  return std::isnan(score) ? std::numeric_limits<float>::infinity() : score;
}

/// Elements of a group in rising order of score; equal ones in their own order.
std::vector<int64_t> ranked(std::span<const float> scores, const Group& group, int64_t stride) {
  std::vector<int64_t> elements;
  for (int64_t i = 0; i < group.count; ++i) elements.push_back(group.first + i * stride);
  std::stable_sort(elements.begin(), elements.end(), [&](int64_t a, int64_t b) {
    return safe(scores[static_cast<size_t>(a)]) < safe(scores[static_cast<size_t>(b)]);
  });
  return elements;
}

/// How many elements of a group stay; a short last group keeps the same share, rounded up.
int64_t kept_of(const PrunePattern& pattern, int64_t count) {
  return (pattern.keep * count + pattern.of - 1) / pattern.of;
}

/// What is lost with a unit: for blocks the mean score, for N:M the sum of those that go.
void add_units(const Tensor& scores, int32_t target, int64_t axis, const PrunePattern& pattern,
               std::vector<Unit>& units) {
  const auto data = scores.data<float>();
  if (pattern.of == 1) {
    for (size_t i = 0; i < data.size(); ++i) {
      units.push_back({safe(data[i]), target, static_cast<int64_t>(i)});
    }
    return;
  }
  const Groups groups(scores.dims(), axis, pattern.of);
  for (int64_t g = 0; g < groups.count; ++g) {
    const Group group = groups.at(g);
    double sum = 0;
    if (pattern.keep == 0) {
      for (int64_t i = 0; i < group.count; ++i) {
        sum += data[static_cast<size_t>(group.first + i * groups.stride)];
      }
      sum /= static_cast<double>(group.count);
    } else {
      const auto order = ranked(data, group, groups.stride);
      const auto gone = static_cast<size_t>(group.count - kept_of(pattern, group.count));
      for (size_t i = 0; i < gone; ++i) sum += data[static_cast<size_t>(order[i])];
    }
    units.push_back({safe(static_cast<float>(sum)), target, g});
  }
}

void clear_unit(const Tensor& scores, int64_t index, int64_t axis, const PrunePattern& pattern,
                std::span<float> mask) {
  if (pattern.of == 1) {
    mask[static_cast<size_t>(index)] = 0;
    return;
  }
  const Groups groups(scores.dims(), axis, pattern.of);
  const Group group = groups.at(index);
  const auto order = ranked(scores.data<float>(), group, groups.stride);
  const auto gone = static_cast<size_t>(group.count - kept_of(pattern, group.count));
  for (size_t i = 0; i < gone; ++i) mask[static_cast<size_t>(order[i])] = 0;
}

/// Clears a share of the units, the lowest.
void clear_lowest(std::vector<Unit>& units, double share, const std::vector<PruneTarget>& targets,
                  const std::map<std::string, Tensor>& scores, const PrunePattern& pattern,
                  Masks& masks) {
  const auto count = static_cast<size_t>(std::llround(share * static_cast<double>(units.size())));
  if (count == 0) return;
  if (count < units.size()) {
    std::nth_element(units.begin(), units.begin() + static_cast<int64_t>(count), units.end(),
                     lower);
  }
  for (size_t i = 0; i < count; ++i) {
    const PruneTarget& target = targets[static_cast<size_t>(units[i].target)];
    clear_unit(scores.at(target.weights), units[i].index, target.input_axis, pattern,
               masks.at(target.weights).mutable_data<float>());
  }
}

Tensor filled(const Dims& dims, float value) {
  Tensor out(DType::float32, dims);
  std::ranges::fill(out.mutable_data<float>(), value);
  return out;
}

/// f(element) for every element.
template <class F>
Tensor mapped(const Tensor& x, const F& f) {
  Tensor out(DType::float32, x.dims());
  std::ranges::transform(x.data<float>(), out.mutable_data<float>().begin(), f);
  return out;
}

struct Moments {
  double mean = 0;
  double deviation = 0;
};
template <class F>
Moments moments(const Tensor& x, const F& f) {
  Moments m;
  const auto n = static_cast<double>(std::max<int64_t>(1, x.elements()));
  for (const float v : x.data<float>()) m.mean += f(v) / n;
  for (const float v : x.data<float>()) m.deviation += (f(v) - m.mean) * (f(v) - m.mean) / n;
  m.deviation = std::sqrt(m.deviation);
  return m;
}

}  // namespace

Masks lowest_masks(const std::vector<PruneTarget>& targets,
                   const std::map<std::string, Tensor>& scores, double sparsity,
                   const PruneOptions& options) {
  const PrunePattern& pattern = options.pattern;
  // Of N:M patterns a share of the groups is cut, all of them at the end.
  double share = sparsity;
  if (pattern.keep > 0) {
    const auto of = static_cast<double>(pattern.of);
    share = std::min(1.0, sparsity * of / (of - static_cast<double>(pattern.keep)));
  }
  Masks masks;
  std::vector<Unit> units;
  for (size_t i = 0; i < targets.size(); ++i) {
    const Tensor& own = scores.at(targets[i].weights);
    masks[targets[i].weights] = filled(own.dims(), 1);
    add_units(own, static_cast<int32_t>(i), targets[i].input_axis, pattern, units);
    if (scope_of(options) == PruneScope::global) continue;
    clear_lowest(units, share, targets, scores, pattern, masks);
    units.clear();
  }
  clear_lowest(units, share, targets, scores, pattern, masks);
  return masks;
}

Tensor threshold_mask(const Tensor& weights, double threshold, double back, const Tensor& before) {
  Tensor out = before.defined() ? before.clone() : filled(weights.dims(), 1);
  const auto w = weights.data<float>();
  const auto m = out.mutable_data<float>();
  for (size_t i = 0; i < w.size(); ++i) {
    const double size = std::fabs(w[i]);
    if (size < threshold) {
      m[i] = 0;
    } else if (size > back) {
      m[i] = 1;
    }
  }
  return out;
}

Tensor nonzero_mask(const Tensor& weights) {
  return mapped(weights, [](float w) { return w != 0 ? 1.0F : 0.0F; });
}
Tensor absolute(const Tensor& weights) {
  return mapped(weights, [](float w) { return std::fabs(w); });
}
Tensor masked(const Tensor& weights, const Tensor& mask) {
  Tensor out = weights.clone();
  const auto w = out.mutable_data<float>();
  const auto m = mask.data<float>();
  for (size_t i = 0; i < w.size(); ++i) {
    if (m[i] == 0) w[i] = 0;  // not a product: -0 would be no zero code of a file's bytes
  }
  return out;
}
double deviation(const Tensor& weights) {
  return moments(weights, [](float w) { return static_cast<double>(w); }).deviation;
}
double splicing_threshold(const Tensor& weights, double k) {
  const Moments m = moments(weights, [](float w) { return std::fabs(static_cast<double>(w)); });
  return std::max(0.0, m.mean + k * m.deviation);
}

Masks masks_at_once(const Graph& graph, const std::vector<PruneTarget>& targets,
                    const PruneOptions& options) {
  check_options(options, 0);
  std::map<std::string, Tensor> scores;
  Masks masks;
  for (const PruneTarget& target : targets) {
    const Tensor& w = *graph.constant(*graph.find_value(target.weights));
    if (options.method == PruneMethod::keep) {
      masks[target.weights] = nonzero_mask(w);
    } else if (options.method == PruneMethod::sensitivity) {
      const double threshold = options.k * deviation(w);
      masks[target.weights] = threshold_mask(w, threshold, threshold, {});
    } else {
      scores[target.weights] = absolute(w);
    }
  }
  return scores.empty() ? masks : lowest_masks(targets, scores, options.sparsity, options);
}

}  // namespace narrow::train
