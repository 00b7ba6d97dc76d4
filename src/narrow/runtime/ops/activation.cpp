// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/activation.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "narrow/core/error.h"
#include "narrow/runtime/ops/strided.h"
#include "narrow/runtime/ops/vec_math.h"

namespace narrow::ops {
namespace {

struct Row {
  const char* name;
  ActivationKind kind;
  float alpha;  // ONNX defaults
  float beta;
};
constexpr Row kKinds[] = {
    {"", ActivationKind::none, 0, 0},
    {"Relu", ActivationKind::relu, 0, 0},
    {"Clip", ActivationKind::clip, 0, 0},
    {"LeakyRelu", ActivationKind::leaky_relu, 0.01F, 0},
    {"Elu", ActivationKind::elu, 1, 0},
    {"Sigmoid", ActivationKind::sigmoid, 0, 0},
    {"HardSigmoid", ActivationKind::hard_sigmoid, 0.2F, 0.5F},
    {"HardSwish", ActivationKind::hard_swish, 1.0F / 6, 0.5F},
    {"Swish", ActivationKind::swish, 1, 0},
    {"Tanh", ActivationKind::tanh, 0, 0},
};

const Row* find_kind(const Node& node) {
  const std::string name = node.string_or("activation", "");
  const auto* row = std::find_if(std::begin(kKinds), std::end(kKinds),
                                 [&](const Row& r) { return name == r.name; });
  return row == std::end(kKinds) ? nullptr : row;
}

template <class F>
void each(float* y, int64_t n, const F& f) {
  NARROW_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] = f(y[i]);
}

float unit_clamp(float x) {
  return x < 0 ? 0.0F : (x > 1 ? 1.0F : x);
}

}  // namespace

Refusal refuse_activation(const Node& node) {
  if (find_kind(node) != nullptr) return {};
  return "activation \"" + node.string_or("activation", "") + "\"";
}

Activation activation_of(const Node& node) {
  const Row* row = find_kind(node);
  if (row == nullptr) {
    throw Error(ErrorCode::invalid_argument,
                "node '" + node.name + "': unknown " + refuse_activation(node));
  }
  Activation a;
  a.kind = row->kind;
  a.alpha = node.float_or("activation_alpha", row->alpha);
  a.beta = node.float_or("activation_beta", row->beta);
  if (a.kind == ActivationKind::hard_swish) {
    a.alpha = row->alpha;
    a.beta = row->beta;
  }
  if (a.kind == ActivationKind::clip) {
    a.min = node.float_or("min", std::numeric_limits<float>::lowest());
    a.max = node.float_or("max", std::numeric_limits<float>::max());
  }
  return a;
}

void Activation::apply(float* y, int64_t n) const {
  const float a = alpha;
  const float b = beta;
  const float lo = min;
  const float hi = max;
  switch (kind) {
    case ActivationKind::none:
      return;
    case ActivationKind::relu:
      return each(y, n, [](float x) { return x < 0 ? 0.0F : x; });
    case ActivationKind::clip:
      return each(y, n, [=](float x) {
        const float v = x < lo ? lo : x;
        return v > hi ? hi : v;
      });
    case ActivationKind::leaky_relu:
      return each(y, n, [=](float x) { return x < 0 ? a * x : x; });
    case ActivationKind::elu:
      return each(y, n, [=](float x) { return x < 0 ? a * (vec_exp(x) - 1.0F) : x; });
    case ActivationKind::sigmoid:
      return each(y, n, [](float x) { return vec_sigmoid(x); });
    case ActivationKind::hard_sigmoid:
      return each(y, n, [=](float x) { return unit_clamp(a * x + b); });
    case ActivationKind::hard_swish:
      return each(y, n, [=](float x) { return x * unit_clamp(a * x + b); });
    case ActivationKind::swish:
      return each(y, n, [=](float x) { return x * vec_sigmoid(a * x); });
    case ActivationKind::tanh:
      return each(y, n, [](float x) { return vec_tanh(x); });
  }
}

}  // namespace narrow::ops
