// SPDX-License-Identifier: Apache-2.0
// Fused activations as oneDNN's post-operations.
#pragma once

#if defined(NARROW_ONEDNN)

#include <oneapi/dnnl/dnnl.hpp>

#include "narrow/runtime/ops/activation.h"

namespace narrow::ops::onednn {

enum class Residual { no, yes };

/// User-provided scratch memory; residual (already in the output) added, then the activation.
inline dnnl::primitive_attr attributes_of(const Activation& a, Residual residual) {
  using dnnl::algorithm;
  dnnl::post_ops ops;
  if (residual == Residual::yes) ops.append_sum();
  const auto eltwise = [&](algorithm kind, float alpha, float beta) {
    ops.append_eltwise(1.0F, kind, alpha, beta);
  };
  switch (a.kind) {
    case ActivationKind::none:
      break;
    case ActivationKind::relu:
      eltwise(algorithm::eltwise_relu, 0, 0);
      break;
    case ActivationKind::clip:
      eltwise(algorithm::eltwise_clip, a.min, a.max);
      break;
    case ActivationKind::leaky_relu:
      eltwise(algorithm::eltwise_relu, a.alpha, 0);
      break;
    case ActivationKind::elu:
      eltwise(algorithm::eltwise_elu, a.alpha, 0);
      break;
    case ActivationKind::sigmoid:
      eltwise(algorithm::eltwise_logistic, 0, 0);
      break;
    case ActivationKind::hard_sigmoid:
      eltwise(algorithm::eltwise_linear, a.alpha, a.beta);
      eltwise(algorithm::eltwise_clip, 0, 1);
      break;
    case ActivationKind::hard_swish:
      eltwise(algorithm::eltwise_hardswish, 0, 0);
      break;
    case ActivationKind::swish:
      eltwise(algorithm::eltwise_swish, a.alpha, 0);
      break;
    case ActivationKind::tanh:
      eltwise(algorithm::eltwise_tanh, 0, 0);
      break;
  }
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(ops);
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

}  // namespace narrow::ops::onednn

#endif  // NARROW_ONEDNN
