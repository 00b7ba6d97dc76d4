// SPDX-License-Identifier: Apache-2.0
// Rules of layers: products, norms, pools, attention.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/graph/conv_shape.h"
#include "narrow/train/engine/group.h"
#include "narrow/train/engine/max_pool.h"
#include "narrow/train/engine/ops/rule_util.h"

namespace narrow::train {

std::vector<int64_t> pad_pairs(const std::vector<int64_t>& begin, const std::vector<int64_t>& end) {
  std::vector<int64_t> pairs;
  for (size_t i = begin.size(); i-- > 0;) {
    pairs.push_back(begin[i]);
    pairs.push_back(end[i]);
  }
  return pairs;
}

namespace {

/// x padded by what the geometry says, where the two sides differ or `value` is not 0; else the
/// pads for the operator itself.
torch::Tensor padded(const torch::Tensor& x, const ConvGeometry& g, double value, Dims& pads) {
  pads = g.pads_begin;
  if (value == 0 && g.pads_begin == g.pads_end) return x;
  std::fill(pads.begin(), pads.end(), 0);
  const auto pairs = pad_pairs(g.pads_begin, g.pads_end);
  if (std::all_of(pairs.begin(), pairs.end(), [](int64_t p) { return p == 0; })) return x;
  return torch::constant_pad_nd(x, pairs, value);
}

Forward make_conv(const Graph&, const Node& node) {
  return [node](const Tensors& in, const RunMode& mode) -> Tensors {
    const ConvGeometry g = conv_geometry(node, in[0].sizes(), in[1].sizes());
    Dims pads;
    const torch::Tensor x = padded(in[0], g, 0, pads);
    const torch::Tensor bias = given(in, 2) ? operand(in[2], mode) : torch::Tensor();
    return {product(torch::convolution(operand(x, mode), operand(in[1], mode), bias, g.strides,
                                       pads, g.dilations, false,
                                       std::vector<int64_t>(pads.size(), 0), g.group))};
  };
}

Forward make_gemm(const Graph&, const Node& node) {
  const bool trans_a = node.int_or("transA", 0) != 0;
  const bool trans_b = node.int_or("transB", 0) != 0;
  const float alpha = node.float_or("alpha", 1);
  const float beta = node.float_or("beta", 1);
  return [=](const Tensors& in, const RunMode& mode) -> Tensors {
    const torch::Tensor a = operand(trans_a ? in[0].t() : in[0], mode);
    const torch::Tensor b = operand(trans_b ? in[1].t() : in[1], mode);
    if (given(in, 2) && beta != 0) {
      return {product(torch::addmm(operand(in[2], mode), a, b, beta, alpha))};
    }
    const torch::Tensor y = product(torch::mm(a, b));
    return {alpha == 1 ? y : y * alpha};
  };
}

/// With the mean and variance of all ranks' samples together.
torch::Tensor shared_batch_norm(const Tensors& in, double share, double epsilon, Ranks& ranks) {
  const torch::Tensor& x = in[0];
  std::vector<int64_t> axes;
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  for (int64_t i = 0; i < x.dim(); ++i) {
    if (i != 1) axes.push_back(i);
  }
  shape[1] = x.size(1);
  const torch::Tensor own =
      torch::full({1}, static_cast<double>(x.numel() / x.size(1)), x.options());
  const torch::Tensor sums = sum_over_ranks(torch::cat({x.sum(axes), own}), ranks);
  const torch::Tensor count = sums.narrow(0, x.size(1), 1).detach();
  const torch::Tensor mean = sums.narrow(0, 0, x.size(1)) / count;
  const torch::Tensor centred = x - mean.reshape(shape);
  const torch::Tensor variance = sum_over_ranks((centred * centred).sum(axes), ranks) / count;
  {
    const torch::NoGradGuard guard;
    torch::Tensor running_mean = in[3];
    torch::Tensor running_variance = in[4];
    running_mean.lerp_(mean, share);
    running_variance.lerp_(variance * count / (count - 1).clamp_min(1), share);
  }
  const torch::Tensor scale = in[1] * torch::rsqrt(variance + epsilon);
  return centred * scale.reshape(shape) + in[2].reshape(shape);
}

Forward make_batch_norm(const Graph&, const Node& node) {
  const float epsilon = node.float_or("epsilon", 1e-5F);
  const float momentum = node.float_or("momentum", 0.9F);
  return [=](const Tensors& in, const RunMode& mode) -> Tensors {
    // The running statistics are constants of the executor: updated in place while training.
    const double share = mode.statistics_share < 0 ? 1 - momentum : mode.statistics_share;
    if (mode.batch_statistics && mode.ranks != nullptr) {
      return {shared_batch_norm(in, share, epsilon, *mode.ranks)};
    }
    return {torch::batch_norm(in[0], in[1], in[2], in[3], in[4], mode.batch_statistics, share,
                              epsilon, false)};
  };
}

/// Sizes of the axes from `axis` on.
std::vector<int64_t> tail(const torch::Tensor& x, int64_t axis) {
  const auto sizes = x.sizes();
  if (axis < 0) axis += x.dim();
  return {sizes.begin() + axis, sizes.end()};
}

Forward make_layer_norm(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", -1);
  const float epsilon = node.float_or("epsilon", 1e-5F);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::layer_norm(in[0], tail(in[0], axis), in[1],
                              given(in, 2) ? in[2] : torch::Tensor(), epsilon)};
  };
}

Forward make_rms_norm(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", -1);
  const float epsilon = node.float_or("epsilon", 1e-5F);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const torch::Tensor& x = in[0];
    std::vector<int64_t> axes;
    for (int64_t a = axis < 0 ? axis + x.dim() : axis; a < x.dim(); ++a) axes.push_back(a);
    const torch::Tensor mean = x.square().mean(axes, true);
    return {x * torch::rsqrt(mean + epsilon) * in[1]};
  };
}

constexpr int64_t kPlanes = 16;  // of a task

/// As autograd keeps it.
std::vector<int64_t> numbers_of(const PoolShape& s) {
  std::vector<int64_t> numbers(sizeof(s) / sizeof(int64_t));
  std::memcpy(numbers.data(), &s, sizeof(s));
  return numbers;
}
PoolShape shape_of(const std::vector<int64_t>& numbers) {
  PoolShape s;
  std::memcpy(&s, numbers.data(), sizeof(s));
  return s;
}

PoolShape plane_of(const ConvGeometry& g, const torch::Tensor& x) {
  PoolShape s;
  for (size_t i = 0; i < 2; ++i) {
    s.input[i] = x.size(static_cast<int64_t>(i) + 2);
    s.output[i] = g.output[i];
    s.kernel[i] = g.kernel[i];
    s.strides[i] = g.strides[i];
    s.dilations[i] = g.dilations[i];
    s.pads[i] = g.pads_begin[i];
  }
  return s;
}

struct PlaneMaxPool : torch::autograd::Function<PlaneMaxPool> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& input, const ConvGeometry& g) {
    const torch::Tensor x = input.contiguous();
    const PoolShape s = plane_of(g, x);
    const Dims dims = {x.size(0), x.size(1), s.output[0], s.output[1]};
    const torch::Tensor y = torch::empty(dims, x.options());
    const torch::Tensor where = torch::empty(dims, torch::kUInt8);
    const float* from = x.data_ptr<float>();
    float* to = y.data_ptr<float>();
    auto* at = where.data_ptr<uint8_t>();
    const int64_t in = s.input[0] * s.input[1];
    const int64_t out = s.output[0] * s.output[1];
    parallel_for(x.size(0) * x.size(1), kPlanes, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) max_pool(s, from + p * in, to + p * out, at + p * out);
    });
    context->save_for_backward({where});
    context->saved_data["shape"] = numbers_of(s);
    return y;
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               const torch::autograd::tensor_list& gradients) {
    const torch::Tensor where = context->get_saved_variables()[0];
    const PoolShape s = shape_of(context->saved_data["shape"].toIntVector());
    const torch::Tensor g = gradients[0].contiguous();
    const torch::Tensor dx = torch::zeros({g.size(0), g.size(1), s.input[0], s.input[1]});
    const auto* at = where.data_ptr<uint8_t>();
    const float* from = g.data_ptr<float>();
    float* to = dx.data_ptr<float>();
    const int64_t in = s.input[0] * s.input[1];
    const int64_t out = s.output[0] * s.output[1];
    parallel_for(g.size(0) * g.size(1), kPlanes, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        max_pool_gradient(s, at + p * out, from + p * out, to + p * in);
      }
    });
    return {dx, {}};
  }
};

Forward make_max_pool(const Graph&, const Node& node) {
  if (node.outputs.size() > 1 && node.outputs[1] != kNoId) {
    throw Error(ErrorCode::unsupported, "training has no rule for the indices of MaxPool");
  }
  const bool ceil_mode = node.int_or("ceil_mode", 0) != 0;
  return [=](const Tensors& in, const RunMode& mode) -> Tensors {
    const ConvGeometry g = pool_geometry(node, in[0].sizes());
    const bool own = in[0].is_cpu() && !mode.portable;
    if (own && g.kernel.size() == 2 && g.window() <= kMostPositions)
      return {PlaneMaxPool::apply(in[0], g)};
    Dims pads;
    const bool plain =
        g.pads_begin == g.pads_end &&
        std::all_of(g.pads_begin.begin(), g.pads_begin.end(), [](int64_t p) { return p == 0; });
    const torch::Tensor x =
        plain ? in[0] : padded(in[0], g, -std::numeric_limits<float>::infinity(), pads);
    const Dims none(g.kernel.size(), 0);
    if (g.kernel.size() == 2) {
      return {torch::max_pool2d(x, g.kernel, g.strides, none, g.dilations, ceil_mode)};
    }
    if (g.kernel.size() == 1) {
      return {torch::max_pool1d(x, g.kernel, g.strides, none, g.dilations, ceil_mode)};
    }
    return {torch::max_pool3d(x, g.kernel, g.strides, none, g.dilations, ceil_mode)};
  };
}

Forward make_average_pool(const Graph&, const Node& node) {
  const bool count_pads = node.int_or("count_include_pad", 0) != 0;
  const bool ceil_mode = node.int_or("ceil_mode", 0) != 0;
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const ConvGeometry g = pool_geometry(node, in[0].sizes());
    if (g.kernel.size() != 2 || g.pads_begin != g.pads_end ||
        std::any_of(g.dilations.begin(), g.dilations.end(), [](int64_t d) { return d != 1; })) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("node '{}': training averages windows of two axes with equal pads",
                              node.name));
    }
    return {torch::avg_pool2d(in[0], g.kernel, g.strides, g.pads_begin, ceil_mode, count_pads)};
  };
}

template <bool Largest>
Forward make_global_pool(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    std::vector<int64_t> axes;
    for (int64_t a = 2; a < in[0].dim(); ++a) axes.push_back(a);
    return {Largest ? in[0].amax(axes, true) : in[0].mean(axes, true)};
  };
}

Forward make_dropout(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode& mode) -> Tensors {
    const double ratio = given(in, 1) ? in[1].item<double>() : 0.5;
    return {torch::dropout(in[0], ratio, mode.training), torch::Tensor()};
  };
}

/// [batch, heads, length, width] of x [batch, length, heads * width].
torch::Tensor by_heads(const torch::Tensor& x, int64_t heads) {
  if (x.dim() == 4) return x;
  return x.reshape({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

struct AttentionForm {
  explicit AttentionForm(const Node& node)
      : q_heads(node.int_or("q_num_heads", 0)),
        kv_heads(node.int_or("kv_num_heads", 0)),
        scale(node.float_or("scale", 0)),
        softcap(node.float_or("softcap", 0)),
        causal(node.int_or("is_causal", 0) != 0),
        left(node.int_or("left_window_size", -1)) {}
  int64_t q_heads;
  int64_t kv_heads;
  float scale;
  float softcap;
  bool causal;
  int64_t left;

  /// What a query may not see, as -infinity; undefined where it sees all.
  torch::Tensor hidden(int64_t queries, int64_t keys, torch::Device device) const {
    if (!causal && left < 0) return {};
    const auto numbers = torch::dtype(torch::kInt64).device(device);
    const torch::Tensor rows = torch::arange(queries, numbers).unsqueeze(1) + (keys - queries);
    const torch::Tensor columns = torch::arange(keys, numbers).unsqueeze(0);
    torch::Tensor out = torch::zeros({queries, keys}, numbers.dtype(torch::kBool));
    if (causal) out = out | (columns > rows);
    if (left >= 0) out = out | (columns < rows - left);
    return out;
  }
};

Forward make_attention(const Graph&, const Node& node) {
  if (node.input(4) != kNoId || node.input(5) != kNoId) {
    throw Error(ErrorCode::unsupported, "training runs attention without a cache");
  }
  const AttentionForm form(node);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const bool joined = in[0].dim() == 3;
    const torch::Tensor q = by_heads(in[0], form.q_heads);
    torch::Tensor k = by_heads(in[1], form.kv_heads);
    torch::Tensor v = by_heads(in[2], form.kv_heads);
    const int64_t repeat = q.size(1) / k.size(1);
    if (repeat > 1) {
      k = k.repeat_interleave(repeat, 1);
      v = v.repeat_interleave(repeat, 1);
    }
    const double scale =
        form.scale != 0 ? form.scale : 1 / std::sqrt(static_cast<double>(q.size(3)));
    torch::Tensor scores = torch::matmul(q, k.transpose(2, 3)) * scale;
    if (given(in, 3)) {
      const torch::Tensor mask = beside(in[3], scores);
      scores = mask.scalar_type() == torch::kBool
                   ? scores.masked_fill(mask.logical_not(), -INFINITY)
                   : scores + mask;
    }
    if (form.softcap != 0) scores = torch::tanh(scores / form.softcap) * form.softcap;
    const torch::Tensor hidden = form.hidden(q.size(2), k.size(2), q.device());
    if (hidden.defined()) scores = scores.masked_fill(hidden, -INFINITY);
    torch::Tensor y = torch::matmul(torch::softmax(scores, -1), v);
    if (joined) y = y.transpose(1, 2).reshape({y.size(0), y.size(2), -1});
    return {y};
  };
}

Forward make_rotary(const Graph&, const Node& node) {
  const int64_t heads = node.int_or("num_heads", 0);
  const bool interleaved = node.int_or("interleaved", 0) != 0;
  const int64_t wanted = node.int_or("rotary_embedding_dim", 0);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const bool joined = in[0].dim() == 3;
    const torch::Tensor x = by_heads(in[0], heads);
    const int64_t width = wanted > 0 ? wanted : x.size(3);
    torch::Tensor c = in[1];
    torch::Tensor s = in[2];
    if (given(in, 3)) {
      const torch::Tensor positions = beside(in[3], c);
      c = c.index({positions});
      s = s.index({positions});
    }
    c = c.unsqueeze(1);
    s = s.unsqueeze(1);
    const torch::Tensor turned = x.narrow(3, 0, width);
    torch::Tensor y;
    if (interleaved) {
      const torch::Tensor pairs = turned.reshape({x.size(0), x.size(1), x.size(2), width / 2, 2});
      const torch::Tensor a = pairs.select(4, 0);
      const torch::Tensor b = pairs.select(4, 1);
      y = torch::stack({a * c - b * s, a * s + b * c}, 4).reshape(turned.sizes());
    } else {
      const torch::Tensor a = turned.narrow(3, 0, width / 2);
      const torch::Tensor b = turned.narrow(3, width / 2, width / 2);
      y = torch::cat({a * c - b * s, a * s + b * c}, 3);
    }
    if (width < x.size(3)) y = torch::cat({y, x.narrow(3, width, x.size(3) - width)}, 3);
    if (joined) y = y.transpose(1, 2).reshape(in[0].sizes());
    return {y};
  };
}

Forward make_matmul(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode& mode) -> Tensors {
    return {product(torch::matmul(operand(in[0], mode), operand(in[1], mode)))};
  };
}

const OpRule kRules[] = {
    {"Conv", make_conv},
    {"Gemm", make_gemm},
    {"MatMul", make_matmul},
    {"BatchNormalization", make_batch_norm},
    {"LayerNormalization", make_layer_norm},
    {"RMSNormalization", make_rms_norm},
    {"MaxPool", make_max_pool},
    {"AveragePool", make_average_pool},
    {"GlobalAveragePool", make_global_pool<false>},
    {"GlobalMaxPool", make_global_pool<true>},
    {"Dropout", make_dropout},
    {"Attention", make_attention},
    {"RotaryEmbedding", make_rotary},
};

}  // namespace

std::span<const OpRule> layer_rules() {
  return kRules;
}

}  // namespace narrow::train
