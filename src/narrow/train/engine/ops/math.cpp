// SPDX-License-Identifier: Apache-2.0
// Rules of elementwise functions, reductions and softmax.
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/train/engine/ops/rule_util.h"

namespace narrow::train {
namespace {

torch::Tensor add(const torch::Tensor& a, const torch::Tensor& b) {
  return a + b;
}
torch::Tensor sub(const torch::Tensor& a, const torch::Tensor& b) {
  return a - b;
}
torch::Tensor mul(const torch::Tensor& a, const torch::Tensor& b) {
  return a * b;
}
torch::Tensor div(const torch::Tensor& a, const torch::Tensor& b) {
  return a.is_floating_point() ? a / b : torch::div(a, b, "trunc");
}
torch::Tensor power(const torch::Tensor& a, const torch::Tensor& b) {
  return torch::pow(a, b);
}
torch::Tensor relu(const torch::Tensor& x) {
  return torch::relu(x);
}
torch::Tensor sigmoid(const torch::Tensor& x) {
  return torch::sigmoid(x);
}
torch::Tensor tanh(const torch::Tensor& x) {
  return torch::tanh(x);
}
torch::Tensor exponential(const torch::Tensor& x) {
  return torch::exp(x);
}
torch::Tensor logarithm(const torch::Tensor& x) {
  return torch::log(x);
}
torch::Tensor square_root(const torch::Tensor& x) {
  return torch::sqrt(x);
}
torch::Tensor negative(const torch::Tensor& x) {
  return -x;
}
torch::Tensor absolute(const torch::Tensor& x) {
  return torch::abs(x);
}
torch::Tensor reciprocal(const torch::Tensor& x) {
  return torch::reciprocal(x);
}
torch::Tensor erf(const torch::Tensor& x) {
  return torch::erf(x);
}
torch::Tensor softplus(const torch::Tensor& x) {
  return torch::softplus(x);
}
torch::Tensor hard_swish(const torch::Tensor& x) {
  return torch::hardswish(x);
}
torch::Tensor identity(const torch::Tensor& x) {
  return x;
}

Forward make_swish(const Graph&, const Node& node) {
  const float alpha = node.float_or("alpha", 1);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    if (alpha == 1) return {torch::silu(in[0])};
    return {in[0] * torch::sigmoid(in[0] * alpha)};
  };
}

Forward make_gelu(const Graph&, const Node& node) {
  const std::string approximate = node.string_or("approximate", "none");
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::gelu(in[0], approximate)};
  };
}

Forward make_leaky_relu(const Graph&, const Node& node) {
  const float alpha = node.float_or("alpha", 0.01F);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::leaky_relu(in[0], alpha)};
  };
}

Forward make_prelu(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::relu(in[0]) + torch::clamp_max(in[0], 0) * in[1]};
  };
}

Forward make_elu(const Graph&, const Node& node) {
  const float alpha = node.float_or("alpha", 1);
  return [=](const Tensors& in, const RunMode&) -> Tensors { return {torch::elu(in[0], alpha)}; };
}

Forward make_hard_sigmoid(const Graph&, const Node& node) {
  const float alpha = node.float_or("alpha", 0.2F);
  const float beta = node.float_or("beta", 0.5F);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::clamp(in[0] * alpha + beta, 0, 1)};
  };
}

Forward make_clip(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    torch::Tensor y = in[0];
    if (given(in, 1)) y = torch::clamp_min(y, in[1].item());
    if (given(in, 2)) y = torch::clamp_max(y, in[2].item());
    return {y};
  };
}

template <bool Logarithm>
Forward make_softmax(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", -1);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {Logarithm ? torch::log_softmax(in[0], axis) : torch::softmax(in[0], axis)};
  };
}

enum class Reduction { mean, sum, largest, smallest };

template <Reduction Kind>
Forward make_reduce(const Graph&, const Node& node) {
  const bool keep = node.int_or("keepdims", 1) != 0;
  const bool none_is_noop = node.int_or("noop_with_empty_axes", 0) != 0;
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    std::vector<int64_t> axes;
    if (given(in, 1)) axes = ints_of(in[1]);
    if (axes.empty() && none_is_noop) return {in[0]};
    if (axes.empty()) {
      for (int64_t a = 0; a < in[0].dim(); ++a) axes.push_back(a);
    }
    switch (Kind) {
      case Reduction::mean:
        return {in[0].mean(axes, keep)};
      case Reduction::sum:
        return {in[0].sum(axes, keep)};
      case Reduction::largest:
        return {in[0].amax(axes, keep)};
      case Reduction::smallest:
        return {in[0].amin(axes, keep)};
    }
    return {};
  };
}

/// Sum, Max, Min of any number of inputs.
template <torch::Tensor (*F)(const torch::Tensor&, const torch::Tensor&)>
Forward fold(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    const Tensors x = together(in);
    torch::Tensor y = x[0];
    for (size_t i = 1; i < x.size(); ++i) y = F(y, x[i]);
    return {y};
  };
}
torch::Tensor larger(const torch::Tensor& a, const torch::Tensor& b) {
  return torch::maximum(a, b);
}
torch::Tensor smaller(const torch::Tensor& a, const torch::Tensor& b) {
  return torch::minimum(a, b);
}

const OpRule kRules[] = {
    {"Add", binary<add>},
    {"Sub", binary<sub>},
    {"Mul", binary<mul>},
    {"Div", binary<div>},
    {"Pow", binary<power>},
    {"Sum", fold<add>},
    {"Max", fold<larger>},
    {"Min", fold<smaller>},
    {"Relu", unary<relu>},
    {"Sigmoid", unary<sigmoid>},
    {"Tanh", unary<tanh>},
    {"Exp", unary<exponential>},
    {"Log", unary<logarithm>},
    {"Sqrt", unary<square_root>},
    {"Neg", unary<negative>},
    {"Abs", unary<absolute>},
    {"Reciprocal", unary<reciprocal>},
    {"Erf", unary<erf>},
    {"Softplus", unary<softplus>},
    {"HardSwish", unary<hard_swish>},
    {"Identity", unary<identity>},
    {"Swish", make_swish},
    {"Gelu", make_gelu},
    {"LeakyRelu", make_leaky_relu},
    {"PRelu", make_prelu},
    {"Elu", make_elu},
    {"HardSigmoid", make_hard_sigmoid},
    {"Clip", make_clip},
    {"Softmax", make_softmax<false>},
    {"LogSoftmax", make_softmax<true>},
    {"ReduceMean", make_reduce<Reduction::mean>},
    {"ReduceSum", make_reduce<Reduction::sum>},
    {"ReduceMax", make_reduce<Reduction::largest>},
    {"ReduceMin", make_reduce<Reduction::smallest>},
};

}  // namespace

std::span<const OpRule> math_rules() {
  return kRules;
}

}  // namespace narrow::train
