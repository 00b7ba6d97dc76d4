// SPDX-License-Identifier: Apache-2.0
// Functions with weights, norms, pools.

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/engine/torchscript/call.h"

namespace narrow::train::script {
namespace {

using Ids = std::vector<ValueId>;
using Ints = std::vector<int64_t>;

[[noreturn]] void refuse(const char* what) {
  throw Error(ErrorCode::unsupported, what, "export the model to ONNX from Python");
}

Ints both_sides(const Ints& pads) {
  Ints out = pads;
  out.insert(out.end(), pads.begin(), pads.end());
  return out;
}

struct ConvArguments {
  Ints strides;
  Ints pads;  // begin of each axis, then end
  Ints dilations;
  int64_t groups = 1;
};

Attributes attributes_of(const ConvArguments& a, const Ints& kernel) {
  return {{"kernel_shape", kernel},
          {"strides", a.strides},
          {"pads", a.pads},
          {"dilations", a.dilations},
          {"group", a.groups}};
}

Ints kernel_of(const Call& c, size_t weight) {
  const auto sizes = c.item(weight).example.toTensor().sizes();
  return {sizes.begin() + 2, sizes.end()};
}

/// conv1d, conv2d, conv3d: input, weight, bias, stride, padding, dilation, groups.
Ids conv(Call& c) {
  const Ints kernel = kernel_of(c, 1);
  const size_t n = kernel.size();
  ConvArguments a{c.ints(3, n, 1), {}, c.ints(5, n, 1), c.integer(6)};
  if (c.item(4).example.isString()) {
    a.pads.assign(2 * n, 0);
    if (c.item(4).example.toStringRef() == "same") {
      for (size_t i = 0; i < n; ++i) {
        const int64_t total = a.dilations[i] * (kernel[i] - 1);
        a.pads[i] = total / 2;
        a.pads[n + i] = total - total / 2;
      }
    }
  } else {
    a.pads = both_sides(c.ints(4, n, 0));
  }
  return {c.add("Conv", {c.tensor(0), c.tensor(1, "weight"), c.tensor(2, "bias")},
                attributes_of(a, kernel))};
}

Ids transposed_conv(Call& c, const ConvArguments& a, const Ints& output_padding) {
  const Ints kernel = kernel_of(c, 1);
  Attributes attributes = attributes_of(a, kernel);
  attributes["output_padding"] = output_padding;
  return {c.add("ConvTranspose", {c.tensor(0), c.tensor(1, "weight"), c.tensor(2, "bias")},
                std::move(attributes))};
}

/// input, weight, bias, stride, padding, dilation, transposed, output_padding, groups, ...
Ids convolution(Call& c) {
  const Ints kernel = kernel_of(c, 1);
  const size_t n = kernel.size();
  const ConvArguments a{c.ints(3, n, 1), both_sides(c.ints(4, n, 0)), c.ints(5, n, 1),
                        c.integer(8)};
  if (c.flag(6)) return transposed_conv(c, a, c.ints(7, n, 0));
  return {c.add("Conv", {c.tensor(0), c.tensor(1, "weight"), c.tensor(2, "bias")},
                attributes_of(a, kernel))};
}

/// input, weight, bias, stride, padding, output_padding, groups, dilation.
Ids conv_transpose(Call& c) {
  const size_t n = kernel_of(c, 1).size();
  const ConvArguments a{c.ints(3, n, 1), both_sides(c.ints(4, n, 0)), c.ints(7, n, 1),
                        c.integer(6)};
  return transposed_conv(c, a, c.ints(5, n, 0));
}

/// x, weight [out, in], bias.
Ids linear(Call& c) {
  if (c.rank(0) == 2) {
    return {c.add("Gemm", {c.tensor(0), c.tensor(1, "weight"), c.tensor(2, "bias")},
                  {{"transB", int64_t{1}}})};
  }
  ValueId weight = kNoId;
  if (c.item(1).constant()) {
    const torch::Tensor w = c.item(1).example.toTensor().to(torch::kFloat32);
    weight = c.constant(from_torch(w.t()), "weight");
  } else {
    weight = c.add("Transpose", {c.tensor(1)}, {{"perm", Ints{1, 0}}});
  }
  const ValueId product = c.add("MatMul", {c.tensor(0), weight});
  return {c.none(2) ? product : c.add("Add", {product, c.tensor(2, "bias")})};
}

/// addend, a, b, beta, alpha.
Ids addmm(Call& c) {
  return {c.add(
      "Gemm", {c.tensor(1), c.tensor(2, "weight"), c.tensor(0, "bias")},
      {{"alpha", static_cast<float>(c.number(4))}, {"beta", static_cast<float>(c.number(3))}})};
}

Ids matmul(Call& c) {
  return {c.add("MatMul", {c.tensor(0), c.tensor(1, "weight")})};
}

/// A norm's weight or bias, which may be left out.
ValueId vector_or(Call& c, size_t i, int64_t size, float value, const char* role) {
  if (!c.none(i)) return c.tensor(i, role);
  return c.constant(Tensor::vector(std::vector<float>(static_cast<size_t>(size), value)), role);
}

/// x, weight, bias, mean, variance, training, momentum, epsilon, ...
Ids batch_norm(Call& c) {
  if (c.flag(5) || c.none(3)) refuse("a batch norm that takes its statistics from the batch");
  const int64_t channels = c.size_of(0, 1);
  return {
      c.add("BatchNormalization",
            {c.tensor(0), vector_or(c, 1, channels, 1, "weight"),
             vector_or(c, 2, channels, 0, "bias"), c.tensor(3, "mean"), c.tensor(4, "variance")},
            {{"epsilon", static_cast<float>(c.number(7))}})};
}

/// x, normalized_shape, weight, bias, epsilon, ...
Ids layer_norm(Call& c) {
  const Ints shape = c.ints(1);
  if (shape.size() != 1 && c.none(2)) refuse("a layer norm of several axes without weights");
  return {c.add("LayerNormalization",
                {c.tensor(0), vector_or(c, 2, shape.back(), 1, "weight"), c.tensor(3, "bias")},
                {{"axis", -static_cast<int64_t>(shape.size())},
                 {"epsilon", static_cast<float>(c.number(4))}})};
}

/// x, groups, weight, bias, epsilon: an instance norm of the groups, then scale and shift.
Ids group_norm(Call& c) {
  const int64_t groups = c.integer(1);
  const int64_t channels = c.size_of(0, 1);
  const auto ones =
      c.constant(Tensor::vector(std::vector<float>(static_cast<size_t>(groups), 1.0F)), "ones");
  const auto zeros =
      c.constant(Tensor::vector(std::vector<float>(static_cast<size_t>(groups), 0.0F)), "zeros");
  const ValueId x = c.tensor(0);
  const ValueId flat = c.add("Reshape", {x, c.int_constant({0, groups, -1})});
  const ValueId normed = c.add("InstanceNormalization", {flat, ones, zeros},
                               {{"epsilon", static_cast<float>(c.number(4))}});
  ValueId y = c.add("Reshape", {normed, c.add("Shape", {x})});
  Ints shape(static_cast<size_t>(c.rank(0) - 1), 1);
  shape[0] = channels;
  if (!c.none(2)) {
    y = c.add("Mul", {y, c.add("Reshape", {c.tensor(2, "weight"), c.int_constant(shape)})});
  }
  if (!c.none(3)) {
    y = c.add("Add", {y, c.add("Reshape", {c.tensor(3, "bias"), c.int_constant(shape)})});
  }
  return {y};
}

/// x, kernel, stride, padding, dilation, ceil_mode.
template <size_t N>
Ids max_pool(Call& c) {
  const Ints kernel = c.ints(1, N, 1);
  const Item& stride = c.item(2);
  const bool given = !c.none(2) && !(stride.constant() && c.ints(2).empty());
  return {c.add("MaxPool", {c.tensor(0)},
                {{"kernel_shape", kernel},
                 {"strides", given ? c.ints(2, N, 1) : kernel},
                 {"pads", both_sides(c.ints(3, N, 0))},
                 {"dilations", c.ints(4, N, 1)},
                 {"ceil_mode", static_cast<int64_t>(c.flag(5))}})};
}

/// x, kernel, stride, padding, ceil_mode, count_include_pad, divisor.
template <size_t N>
Ids average_pool(Call& c) {
  if (!c.none(6)) refuse("an average pool with a divisor of its own");
  const Ints kernel = c.ints(1, N, 1);
  const bool given = !c.none(2) && !c.ints(2).empty();
  return {c.add("AveragePool", {c.tensor(0)},
                {{"kernel_shape", kernel},
                 {"strides", given ? c.ints(2, N, 1) : kernel},
                 {"pads", both_sides(c.ints(3, N, 0))},
                 {"ceil_mode", static_cast<int64_t>(c.flag(4))},
                 {"count_include_pad", static_cast<int64_t>(c.flag(5))}})};
}

/// Pools down to a size: what divides the size of the input is a plain pool.
Ids adaptive(Call& c, const char* global, const char* pool) {
  const int64_t axes = c.rank(0) - 2;
  const Ints wanted = c.ints(1, static_cast<size_t>(axes), 1);
  if (wanted == Ints(wanted.size(), 1)) return {c.add(global, {c.tensor(0)})};
  Ints kernel;
  for (int64_t i = 0; i < axes; ++i) {
    const int64_t size = c.size_of(0, i + 2);
    const int64_t parts = wanted[static_cast<size_t>(i)];
    if (parts <= 0 || size % parts != 0) refuse("an adaptive pool whose windows differ in size");
    kernel.push_back(size / parts);
  }
  return {c.add(pool, {c.tensor(0)}, {{"kernel_shape", kernel}, {"strides", kernel}})};
}
Ids adaptive_average(Call& c) {
  return adaptive(c, "GlobalAveragePool", "AveragePool");
}

Ids embedding(Call& c) {
  return {c.add("Gather", {c.tensor(0, "weight"), c.tensor(1)}, {{"axis", int64_t{0}}})};
}

/// x, output size, factors.
Ids resize(Call& c, const char* mode, const char* coordinates, size_t factors) {
  ValueId scales = kNoId;
  ValueId sizes = kNoId;
  if (!c.none(1)) {
    const ValueId shape =
        c.add("Shape", {c.tensor(0)}, {{"start", int64_t{0}}, {"end", int64_t{2}}});
    sizes = c.add("Concat", {shape, c.int_vector(1)}, {{"axis", int64_t{0}}});
  } else {
    std::vector<float> values = {1, 1};
    for (const double x : c.item(factors).example.toDoubleVector()) {
      values.push_back(static_cast<float>(x));
    }
    scales = c.constant(Tensor::vector(values), "scales");
  }
  return {c.add("Resize", {c.tensor(0), kNoId, scales, sizes},
                {{"mode", std::string(mode)},
                 {"coordinate_transformation_mode", std::string(coordinates)},
                 {"nearest_mode", std::string("floor")}})};
}
Ids nearest(Call& c) {
  return resize(c, "nearest", "asymmetric", c.size() - 1);
}
Ids bilinear(Call& c) {
  return resize(c, "linear", c.flag(2) ? "align_corners" : "pytorch_half_pixel", c.size() - 1);
}

Ids pixel_shuffle(Call& c) {
  return {c.add("DepthToSpace", {c.tensor(0)},
                {{"blocksize", c.integer(1)}, {"mode", std::string("CRD")}})};
}

constexpr Conversion kTable[] = {
    {"aten::conv1d", conv},
    {"aten::conv2d", conv},
    {"aten::conv3d", conv},
    {"aten::_convolution_mode", conv},
    {"aten::_convolution", convolution},
    {"aten::convolution", convolution},
    {"aten::conv_transpose1d", conv_transpose},
    {"aten::conv_transpose2d", conv_transpose},
    {"aten::linear", linear},
    {"aten::addmm", addmm},
    {"aten::matmul", matmul},
    {"aten::mm", matmul},
    {"aten::bmm", matmul},
    {"aten::batch_norm", batch_norm},
    {"aten::layer_norm", layer_norm},
    {"aten::group_norm", group_norm},
    {"aten::max_pool1d", max_pool<1>},
    {"aten::max_pool2d", max_pool<2>},
    {"aten::avg_pool1d", average_pool<1>},
    {"aten::avg_pool2d", average_pool<2>},
    {"aten::adaptive_avg_pool1d", adaptive_average},
    {"aten::adaptive_avg_pool2d", adaptive_average},
    {"aten::embedding", embedding},
    {"aten::upsample_nearest2d", nearest},
    {"aten::upsample_bilinear2d", bilinear},
    {"aten::pixel_shuffle", pixel_shuffle},
};

}  // namespace

std::span<const Conversion> layer_conversions() {
  return kTable;
}

}  // namespace narrow::train::script
