// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/qat.h"

#include <fmt/format.h>

#include <span>

#include "narrow/core/error.h"

namespace narrow::train {
namespace {

constexpr const char* kMethods[] = {"lsq", "lsq_plus", "pact", "dorefa", "wrpn"};
constexpr const char* kRanges[] = {"learned", "fixed", "moving_average"};

template <class Kind>
std::optional<Kind> find(std::span<const char* const> names, std::string_view name) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<Kind>(i);
  }
  return std::nullopt;
}

constexpr GridRule kLearned{.learn_scale = true};
constexpr GridRule kLearnedWithZero{.learn_scale = true, .learn_zero = true};
constexpr GridRule kFollowing{.follow = true};
constexpr GridRule kFixed{};
constexpr GridRule kObserved{.observe = true};
constexpr GridRule kTanh{.follow = true, .tanh = true};
constexpr GridRule kClip{.learn_scale = true, .inside = false, .paced = false};

struct Row {
  GridRule weights;
  GridRule activations;
};
constexpr Row kRules[] = {
    {kLearned, kLearned}, {kLearned, kLearnedWithZero}, {kTanh, kClip}, {kTanh, kFixed},
    {kFixed, kFixed},
};

bool learns_scales(QatMethod method) {
  return method == QatMethod::lsq || method == QatMethod::lsq_plus;
}

void check(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} is {}, not in {}..{}", name, value, low, high));
}

}  // namespace

const char* to_string(QatMethod method) {
  return kMethods[static_cast<size_t>(method)];
}
std::optional<QatMethod> qat_method_from_string(std::string_view name) {
  return find<QatMethod>(kMethods, name);
}
const char* to_string(RangeKind kind) {
  return kRanges[static_cast<size_t>(kind)];
}
std::optional<RangeKind> range_from_string(std::string_view name) {
  return find<RangeKind>(kRanges, name);
}

GridRule weight_rule(const QatOptions& o) {
  // Weights of methods that learn scales follow their extremes where nothing is to be learned.
  if (o.ranges != RangeKind::learned && learns_scales(o.method)) return kFollowing;
  return kRules[static_cast<size_t>(o.method)].weights;
}

GridRule activation_rule(const QatOptions& o) {
  switch (o.ranges) {
    case RangeKind::learned:
      return kRules[static_cast<size_t>(o.method)].activations;
    case RangeKind::fixed:
      return kFixed;
    case RangeKind::moving_average:
      return kObserved;
  }
  return kFixed;
}

void check_options(const QatOptions& o) {
  check("freeze_step", static_cast<double>(o.freeze_step), 0, 1e12);
  check("range_momentum", o.range_momentum, 0, 0.999999);
  check("clip_decay", o.clip_decay, 0, 1e3);
  check("oscillation", o.oscillation, 0, 1);
  check("oscillation_start", o.oscillation_start, o.oscillation, 1);
}

}  // namespace narrow::train
