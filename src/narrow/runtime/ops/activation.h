// SPDX-License-Identifier: Apache-2.0
// The activation that narrow.FusedConv and narrow.FusedGemm apply to their result, as attributes
// state it: `activation` (an ONNX operator's name, "" for none), `min` and `max` for Clip,
// `activation_alpha` and `activation_beta` where the operator has them (Gemm has an alpha of its
// own).
#pragma once

#include <cstdint>
#include <string>

#include "narrow/runtime/op_impl.h"

namespace narrow::ops {

enum class ActivationKind : uint8_t {
  none,
  relu,
  clip,
  leaky_relu,
  elu,
  sigmoid,
  hard_sigmoid,
  hard_swish,
  swish,
  tanh,
};

struct Activation {
  ActivationKind kind = ActivationKind::none;
  float alpha = 0;
  float beta = 0;
  float min = 0;  // clip only
  float max = 0;

  /// y[i] = f(y[i]).
  void apply(float* y, int64_t n) const;
};

/// Why the node's activation has no fused form; empty when it has.
Refusal refuse_activation(const Node& node);
/// Throws invalid_argument for an activation that refuse_activation() names.
Activation activation_of(const Node& node);

}  // namespace narrow::ops
