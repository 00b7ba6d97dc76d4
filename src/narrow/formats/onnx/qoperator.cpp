// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/qoperator.h"

#include <fmt/format.h>

#include <array>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/fused.h"
#include "narrow/formats/onnx/upgrade.h"

namespace narrow::onnx {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";
constexpr const char* kRefusal = "read the file without turning QOperator form into QDQ";

[[noreturn]] void unsupported(const ProtoNode& n, const std::string& what) {
  throw Error(ErrorCode::unsupported, fmt::format("{}: {}", n.describe(), what), kRefusal);
}

/// Codes with their grid, as names; the zero point may be absent.
struct Quantized {
  std::string codes;
  std::string scale;
  std::string zero_point;
};

Quantized quantized_input(const ProtoNode& n, size_t first) {
  if (!n.has_input(first) || !n.has_input(first + 1)) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("{}: input {} or {} is absent", n.describe(), first, first + 1));
  }
  return {n.inputs[first], n.inputs[first + 1], n.input(first + 2)};
}

/// A zero point for every scale: operators of the QOperator form take one for all channels.
std::string spread_zero_point(const Quantized& q, GraphBuilder& b) {
  const Tensor* scale = b.constant_of(q.scale);
  const Tensor* zero = q.zero_point.empty() ? nullptr : b.constant_of(q.zero_point);
  if (scale == nullptr || zero == nullptr || scale->dims() == zero->dims()) return q.zero_point;
  if (zero->elements() != 1) return q.zero_point;
  const std::vector<int64_t> values(static_cast<size_t>(scale->elements()), zero->to_ints()[0]);
  return b.constant(q.zero_point + "_per_axis",
                    Tensor::from_ints(values, zero->dtype(), scale->dims()));
}

/// Adds a DequantizeLinear; `axis` counts where the scale has more than one element.
std::string dequantize(const Quantized& from, int64_t axis, GraphBuilder& b) {
  Quantized q = from;
  q.scale = as_scalar(q.scale, b);
  q.zero_point = as_scalar(q.zero_point, b);
  const SymbolicShape* shape = b.shape_of(q.scale);
  const bool per_axis = shape != nullptr && !shape->empty();
  std::map<std::string, ProtoValue> attributes;
  if (per_axis) {
    q.zero_point = spread_zero_point(q, b);
    attributes["axis"] = axis;
  }
  std::vector<std::string> inputs = {q.codes, q.scale};
  if (!q.zero_point.empty()) inputs.push_back(q.zero_point);
  return b.emit_value(q.codes + "_dequantized", "DequantizeLinear", std::move(inputs),
                      std::move(attributes));
}

/// Puts a QuantizeLinear behind the node, under its old output name. Without zero point the codes
/// have the type of the node's inputs.
void quantize_output(ProtoNode& n, const std::string& scale, const std::string& zero_point,
                     DType codes, GraphBuilder& b) {
  if (n.outputs.size() != 1 || n.outputs[0].empty()) {
    throw Error(ErrorCode::corrupt_data, n.describe() + ": has not one output");
  }
  ProtoNode q;
  q.op = "QuantizeLinear";
  q.outputs = {n.outputs[0]};
  n.outputs[0] = b.fresh_name(q.outputs[0] + "_real");
  q.inputs = {n.outputs[0], as_scalar(scale, b), as_scalar(zero_point, b)};
  if (zero_point.empty()) {
    const DType type = codes == DType::int8 ? DType::int8 : DType::uint8;
    q.inputs[2] = b.constant(scale + "_zero_point", Tensor(type, {}));
  }
  b.emit_after(std::move(q));
}

/// The grid of an int32 bias, scale_x * scale_w * alpha, as the integer arithmetic has it.
std::string bias_scale(const ProtoNode& n, const std::string& x_scale, const std::string& w_scale,
                       float alpha, GraphBuilder& b) {
  const Tensor* sx = b.constant_of(x_scale);
  const Tensor* sw = b.constant_of(w_scale);
  if (sx == nullptr || sw == nullptr || sx->elements() != 1) {
    unsupported(n, "it has a bias, and the scales of its inputs are no constants");
  }
  std::vector<float> scales;
  for (const float w : sw->to_floats()) {
    scales.push_back(static_cast<float>(static_cast<double>(sx->to_floats()[0]) * w * alpha));
  }
  const Dims dims = scales.size() == 1 ? Dims{} : Dims{static_cast<int64_t>(scales.size())};
  return b.constant(result_name(n) + "_bias_scale", Tensor::from(scales, dims));
}

void refuse_channels_last(ProtoNode& n) {
  if (n.get_or<int64_t>("channels_last", 0) != 0) unsupported(n, "'channels_last' is 1");
  n.erase("channels_last");
}

// --- convolutions and products -------------------------------------------------------------------

void qlinear_conv(ProtoNode& n, GraphBuilder& b) {
  refuse_channels_last(n);
  const Quantized x = quantized_input(n, 0);
  const Quantized w = quantized_input(n, 3);
  const std::string y_scale = n.input(6);
  const std::string y_zero_point = n.input(7);
  const std::string bias = n.input(8);
  n.inputs = {dequantize(x, 1, b), dequantize(w, 0, b)};
  if (!bias.empty()) {
    n.inputs.push_back(dequantize({bias, bias_scale(n, x.scale, w.scale, 1, b), {}}, 0, b));
  }
  quantize_output(n, y_scale, y_zero_point, b.dtype_of(x.codes), b);
  to_onnx(n, "Conv");
}

/// The axis of a vector of scales over the rows (-2) or columns (-1) of a matrix operand.
void require_vector(const ProtoNode& n, const std::string& scale, const GraphBuilder& b) {
  const SymbolicShape* shape = b.shape_of(scale);
  if (shape != nullptr && shape->size() > 1) {
    unsupported(n, fmt::format("scale '{}' has shape {}", scale, to_string(*shape)));
  }
}

int64_t axis_from_end(const std::string& value, int64_t from_end, const GraphBuilder& b) {
  const SymbolicShape* shape = b.shape_of(value);
  return shape == nullptr ? from_end : static_cast<int64_t>(shape->size()) + from_end;
}

void qlinear_mat_mul(ProtoNode& n, GraphBuilder& b) {
  const Quantized x = quantized_input(n, 0);
  const Quantized w = quantized_input(n, 3);
  require_vector(n, x.scale, b);
  require_vector(n, w.scale, b);
  const std::string y_scale = n.input(6);
  const std::string y_zero_point = n.input(7);
  n.inputs = {dequantize(x, axis_from_end(x.codes, -2, b), b),
              dequantize(w, axis_from_end(w.codes, -1, b), b)};
  quantize_output(n, y_scale, y_zero_point, b.dtype_of(x.codes), b);
  to_onnx(n, "MatMul");
}

void qgemm(ProtoNode& n, GraphBuilder& b) {
  const Quantized x = quantized_input(n, 0);
  const Quantized w = quantized_input(n, 3);
  const std::string bias = n.input(6);
  const std::string y_scale = n.input(7);
  const std::string y_zero_point = n.input(8);
  const float alpha = n.get_or<float>("alpha", 1.0f);
  const bool transposed = n.get_or<int64_t>("transB", 0) != 0;
  n.inputs = {dequantize(x, 0, b), dequantize(w, transposed ? 0 : 1, b)};
  if (!bias.empty()) {
    const std::string scale = bias_scale(n, x.scale, w.scale, alpha, b);
    n.inputs.push_back(dequantize({bias, scale, {}}, axis_from_end(bias, -1, b), b));
  }
  if (!y_scale.empty()) quantize_output(n, y_scale, y_zero_point, b.dtype_of(x.codes), b);
  to_onnx(n, "Gemm");
}

// --- elementwise, pooling, concatenation ---------------------------------------------------------

/// Two operands (codes, scale, zero_point), then the output's scale and zero_point.
void binary(ProtoNode& n, GraphBuilder& b, const char* op) {
  const Quantized x = quantized_input(n, 0);
  const Quantized y = quantized_input(n, 3);
  const std::string scale = n.input(6);
  const std::string zero_point = n.input(7);
  n.inputs = {dequantize(x, 1, b), dequantize(y, 1, b)};
  quantize_output(n, scale, zero_point, b.dtype_of(x.codes), b);
  to_onnx(n, op);
}

void qlinear_add(ProtoNode& n, GraphBuilder& b) {
  binary(n, b, "Add");
}

void qlinear_mul(ProtoNode& n, GraphBuilder& b) {
  binary(n, b, "Mul");
}

/// One operand (codes, scale, zero_point), then the output's scale and zero_point.
void unary(ProtoNode& n, GraphBuilder& b, const char* op) {
  const Quantized x = quantized_input(n, 0);
  const std::string scale = n.input(3);
  const std::string zero_point = n.input(4);
  n.inputs = {dequantize(x, 1, b)};
  quantize_output(n, scale, zero_point, b.dtype_of(x.codes), b);
  to_onnx(n, op);
}

void qlinear_average_pool(ProtoNode& n, GraphBuilder& b) {
  refuse_channels_last(n);
  unary(n, b, "AveragePool");
}

void qlinear_global_average_pool(ProtoNode& n, GraphBuilder& b) {
  refuse_channels_last(n);
  unary(n, b, "GlobalAveragePool");
}

void qlinear_leaky_relu(ProtoNode& n, GraphBuilder& b) {
  unary(n, b, "LeakyRelu");
}

void qlinear_sigmoid(ProtoNode& n, GraphBuilder& b) {
  unary(n, b, "Sigmoid");
}

void qlinear_softmax(ProtoNode& n, GraphBuilder& b) {
  // The attribute says which Softmax it stands for; the upgrade rows take it from there.
  const int64_t opset = n.get_or<int64_t>("opset", kNewestOpset);
  n.erase("opset");
  unary(n, b, "Softmax");
  n.opset = opset;
}

void qlinear_concat(ProtoNode& n, GraphBuilder& b) {
  const std::string scale = n.input(0);
  const std::string zero_point = n.input(1);
  const size_t count = n.inputs.size();
  if (count < 4) throw Error(ErrorCode::corrupt_data, n.describe() + ": has no inputs");
  const DType codes = b.dtype_of(n.inputs[2]);
  std::vector<std::string> inputs;
  for (size_t i = 2; i < count; i += 3) {
    inputs.push_back(dequantize(quantized_input(n, i), 1, b));
  }
  n.inputs = std::move(inputs);
  quantize_output(n, scale, zero_point, codes, b);
  to_onnx(n, "Concat");
}

/// Both had this domain before ONNX had their 16-bit types.
void linear_of_microsoft(ProtoNode& n, GraphBuilder&) {
  to_onnx(n, std::string(n.op));
}

constexpr std::array kRows = {
    ImportRow{"", "QLinearConv", ImportKind::qoperator, qlinear_conv},
    ImportRow{"", "QLinearMatMul", ImportKind::qoperator, qlinear_mat_mul},
    ImportRow{kMicrosoft, "QLinearConv", ImportKind::qoperator, qlinear_conv},
    ImportRow{kMicrosoft, "QGemm", ImportKind::qoperator, qgemm},
    ImportRow{kMicrosoft, "QLinearAdd", ImportKind::qoperator, qlinear_add},
    ImportRow{kMicrosoft, "QLinearMul", ImportKind::qoperator, qlinear_mul},
    ImportRow{kMicrosoft, "QLinearConcat", ImportKind::qoperator, qlinear_concat},
    ImportRow{kMicrosoft, "QLinearAveragePool", ImportKind::qoperator, qlinear_average_pool},
    ImportRow{kMicrosoft, "QLinearGlobalAveragePool", ImportKind::qoperator,
              qlinear_global_average_pool},
    ImportRow{kMicrosoft, "QLinearLeakyRelu", ImportKind::qoperator, qlinear_leaky_relu},
    ImportRow{kMicrosoft, "QLinearSigmoid", ImportKind::qoperator, qlinear_sigmoid},
    ImportRow{kMicrosoft, "QLinearSoftmax", ImportKind::qoperator, qlinear_softmax},
    ImportRow{kMicrosoft, "FusedConv", ImportKind::rename, fused_conv},
    ImportRow{kMicrosoft, "FusedGemm", ImportKind::rename, fused_gemm},
    ImportRow{kMicrosoft, "FusedMatMul", ImportKind::rename, fused_mat_mul},
    ImportRow{kMicrosoft, "Gelu", ImportKind::rename, gelu},
    ImportRow{kMicrosoft, "QuickGelu", ImportKind::rename, quick_gelu},
    ImportRow{kMicrosoft, "QuantizeLinear", ImportKind::rename, linear_of_microsoft},
    ImportRow{kMicrosoft, "DequantizeLinear", ImportKind::rename, linear_of_microsoft},
};

}  // namespace

std::string as_scalar(const std::string& name, GraphBuilder& b) {
  const Tensor* t = name.empty() ? nullptr : b.constant_of(name);
  if (t == nullptr || t->elements() != 1 || t->rank() == 0) return name;
  const std::string wanted = name + "_scalar";
  const Tensor* made = b.constant_of(wanted);
  if (made != nullptr && made->rank() == 0 && made->raw() == t->raw()) return wanted;
  return b.constant(wanted, t->reshaped({}));
}

std::span<const ImportRow> import_rows() {
  return kRows;
}

void import_node(ProtoNode& node, GraphBuilder& builder) {
  for (const ImportRow& row : kRows) {
    if (node.op != row.op || node.domain != row.domain) continue;
    if (row.kind == ImportKind::qoperator && !builder.options().qoperator_to_qdq) return;
    row.edit(node, builder);
    return;
  }
}

}  // namespace narrow::onnx
