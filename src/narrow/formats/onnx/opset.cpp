// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/opset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>

#include "narrow/core/error.h"

namespace narrow::onnx {
namespace {

using Mask = uint32_t;

constexpr Mask bit(DType dtype) {
  return Mask{1} << static_cast<unsigned>(dtype);
}

constexpr Mask kInt4 = bit(DType::int4) | bit(DType::uint4);
constexpr Mask kInt2 = bit(DType::int2) | bit(DType::uint2);
constexpr Mask kInt8 = bit(DType::int8) | bit(DType::uint8);
constexpr Mask kInt16 = bit(DType::int16) | bit(DType::uint16);
constexpr Mask kBfloat16 = bit(DType::bfloat16);
constexpr Mask kFloat16 = bit(DType::float16);
constexpr Mask kBool = bit(DType::boolean);
constexpr Mask kSignedNoFloat =
    bit(DType::int8) | bit(DType::int16) | bit(DType::int32) | bit(DType::int64);

struct TypeRow {
  int opset;  // first one that admits the types
  Mask types;
  std::string_view ops;  // separated by spaces
};

// The type constraints that grew after opset 13, from the schemas' history (onnx.defs); operators
// that were new later are bounded by OpInfo::since.
constexpr std::array kTypeRows = {
    TypeRow{14, kInt8 | kInt16, " Add Sub Mul Div "},
    TypeRow{14, kSignedNoFloat, " Relu "},
    TypeRow{14, kBfloat16, " BatchNormalization "},
    TypeRow{14, kBfloat16 | kFloat16, " CumSum "},
    TypeRow{15, kBfloat16, " Pow "},
    TypeRow{16, kBfloat16,
            " GreaterOrEqual LessOrEqual LeakyRelu PRelu Where If Loop Scan ScatterElements "},
    TypeRow{19, kBfloat16 | kFloat16, " DequantizeLinear QuantizeLinear "},
    TypeRow{20, kBool, " ReduceMax ReduceMin "},
    TypeRow{20, kBfloat16, " ConstantOfShape IsInf "},
    TypeRow{20, kFloat16, " IsInf "},
    TypeRow{21, kInt16, " DequantizeLinear QuantizeLinear "},
    TypeRow{21, kBfloat16 | kFloat16, " QLinearMatMul "},
    TypeRow{21, kInt4,
            " Cast CastLike ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
            "QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze "},
    TypeRow{
        22, kBfloat16,
        " Acos Acosh Asin Asinh Atan Atanh AveragePool Conv ConvTranspose Cos Cosh DeformConv "
        "Det Elu EyeLike GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample "
        "HardSigmoid HardSwish InstanceNormalization LSTM LpNormalization LpPool MaxPool "
        "MaxRoiPool MaxUnpool Mish Multinomial NegativeLogLikelihoodLoss RNN RandomNormal "
        "RandomNormalLike RandomUniform RandomUniformLike RoiAlign Round Selu Sin Sinh Softplus "
        "Softsign Tan ThresholdedRelu "},
    TypeRow{24, kBfloat16, " TopK SplitToSequence "},
    TypeRow{25, kInt2,
            " Cast CastLike ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad "
            "QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze "},
    TypeRow{27, kBfloat16 | kFloat16, " Range "},
    TypeRow{28, kBfloat16, " Celu Compress Einsum OneHot ReverseSequence Unique "},
    TypeRow{28, kFloat16 | bit(DType::float64), " Celu "},
};

}  // namespace

int64_t ir_version_of(int64_t opset) {
  // onnx.helper.VERSION_TABLE.
  struct Row {
    int64_t opset;
    int64_t ir_version;
  };
  constexpr std::array<Row, 8> rows = {
      {{13, 7}, {15, 8}, {19, 9}, {21, 10}, {23, 11}, {24, 12}, {25, 13}, {28, 14}}};
  int64_t version = rows[0].ir_version;
  for (const Row& row : rows) {
    if (opset >= row.opset) version = row.ir_version;
  }
  return version;
}

int64_t opset_of_types(const ProtoNode& node, const GraphExporter& graph) {
  const std::string padded = " " + node.op + " ";
  int64_t needed = 0;
  const auto check = [&](const std::string& name) {
    const DType dtype = graph.dtype_of(name);
    if (dtype == DType::undefined) return;
    bool found = false;
    for (const TypeRow& row : kTypeRows) {
      if ((row.types & bit(dtype)) == 0 || row.ops.find(padded) == std::string_view::npos) continue;
      needed = std::max<int64_t>(needed, row.opset);
      found = true;
    }
    // Every operator that may hold codes below 8 bits has a row.
    if (is_sub_byte(dtype) && !found) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: ONNX has no {} for {} ('{}')", node.describe(), node.op,
                              to_string(dtype), name),
                  "keep this value in 8 bits");
    }
  };
  for (const std::string& name : node.inputs) check(name);
  for (const std::string& name : node.outputs) check(name);
  return needed;
}

}  // namespace narrow::onnx
