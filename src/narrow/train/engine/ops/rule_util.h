// SPDX-License-Identifier: Apache-2.0
// What the tables of rules share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "narrow/train/engine/device.h"
#include "narrow/train/engine/executor.h"
#include "narrow/train/engine/torch.h"

namespace narrow::train {

inline bool given(const Tensors& inputs, size_t i) {
  return i < inputs.size() && inputs[i].defined();
}

/// All on one device: shapes are computed on the CPU, and what becomes of them may meet a value.
inline Tensors together(Tensors x) {
  for (const torch::Tensor& like : x) {
    if (!like.defined() || like.is_cpu()) continue;
    for (torch::Tensor& other : x) other = beside(other, like);
    break;
  }
  return x;
}

/// A rule whose function needs nothing of the node.
template <torch::Tensor (*F)(const torch::Tensor&)>
Forward unary(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors { return {F(in[0])}; };
}
template <torch::Tensor (*F)(const torch::Tensor&, const torch::Tensor&)>
Forward binary(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    const Tensors x = together(in);
    return {F(x[0], x[1])};
  };
}

/// x as the run's products take it.
inline torch::Tensor operand(const torch::Tensor& x, const RunMode& mode) {
  return mode.bfloat16 ? x.to(torch::kBFloat16) : x;
}
/// What a product gives, for everything else.
inline torch::Tensor product(const torch::Tensor& y) {
  return y.to(torch::kFloat32);
}

/// The elements of a small integer tensor.
inline std::vector<int64_t> ints_of(const torch::Tensor& x) {
  const torch::Tensor c = x.to(torch::kCPU, torch::kInt64).contiguous();
  return {c.data_ptr<int64_t>(), c.data_ptr<int64_t>() + c.numel()};
}

/// [left, right of the last axis, left, right of the one before, ...], as libtorch's pad wants it.
std::vector<int64_t> pad_pairs(const std::vector<int64_t>& begin, const std::vector<int64_t>& end);

}  // namespace narrow::train
