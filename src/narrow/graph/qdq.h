// SPDX-License-Identifier: Apache-2.0
// Quantization as it stands in a graph: QuantizeLinear / DequantizeLinear around operators. Finding
// them, writing them (insert_qdq), and lowering them to integer operators (lower_to_integer).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/quant/scheme.h"

namespace narrow {

/// The grid that a DequantizeLinear (or QuantizeLinear) node states, with constant parameters.
struct QdqGrid {
  ValueId codes = kNoId;  // the integer side
  ValueId real = kNoId;   // the float side
  ValueId scale = kNoId;
  ValueId zero_point = kNoId;  // may be absent
  DType code_dtype = DType::undefined;
  int64_t axis = 1;
  int64_t block_size = 0;
  bool per_tensor = true;
};
/// nullopt unless `value` is produced by a DequantizeLinear with constant scale (and zero_point).
std::optional<QdqGrid> dequantized_from(const Graph& graph, ValueId value);
/// nullopt unless the node is a QuantizeLinear with constant scale (and zero_point).
std::optional<QdqGrid> quantizes_to(const Graph& graph, NodeId node);

/// What to quantize and how: the outcome of calibration and of the weight methods.
struct QdqPlan {
  /// Float activations (by value name, in the graph before insertion) -> per_tensor grid.
  std::map<std::string, QuantParams> activations;
  /// Float initializers (by name) -> codes and grid. `axis` of the scheme counts in the
  /// initializer's own dimensions.
  std::map<std::string, QuantizedTensor> weights;
  /// Float bias initializers -> int32 codes with scale = s_x * s_w (per axis 0 or per tensor).
  std::map<std::string, QuantizedTensor> biases;
};

/// Writes the plan into the graph: Q+DQ behind every listed activation, DQ behind the codes of
/// every listed weight and bias. Values that are not listed stay float. A value that is graph
/// output too gets Q+DQ before the output, under the output's name. Returns the number of values
/// quantized.
int64_t insert_qdq(Graph& graph, const QdqPlan& plan);

/// Why a node with quantized inputs stays float, for reports.
struct LoweringRefusal {
  std::string node;
  std::string op;
  std::string reason;
};

struct LoweringReport {
  int64_t lowered = 0;
  std::vector<LoweringRefusal> refused;
};

/// Rewrites QDQ patterns to the integer operators of graph/lowered_ops.md:
///   DQ(x), DQ(w)[, DQ(b)] -> Conv | Gemm | MatMul [-> Relu | Clip] -> Q      narrow.QConv,
///   narrow.QGemm DQ(a), DQ(b) -> Add | Sub | Mul [-> Relu | Clip] -> Q narrow.QBinary DQ(x) ->
///   unary -> Q                                                       narrow.QLookup DQ.. -> Concat
///   -> Q                                                       narrow.QConcat DQ -> AveragePool |
///   GlobalAveragePool | ReduceMean -> Q                   narrow.QAveragePool ... DQ -> data
///   movement or MaxPool -> Q with equal parameters                 the operator on codes
/// The same patterns without a final Q keep a float output. Weight-only and dynamic patterns become
/// narrow.WGemm / narrow.DynamicQGemm ... A pattern that does not match stays as it is and is
/// reported.
struct LoweringOptions {
  bool lookups = true;        // unary operators as 256-entry tables (narrow.QLookup)
  bool weight_only = true;    // narrow.WConv, narrow.WGemm
  bool dynamic = true;        // narrow.DynamicQConv, narrow.DynamicQGemm
  bool float_outputs = true;  // integer products whose result is float32
  /// Ranges that are measured at run time are those of a sample (for a matrix product: a row), not,
  /// as DynamicQuantizeLinear says, of the whole tensor.
  bool sample_ranges = false;
};
LoweringReport lower_to_integer(Graph& graph, const LoweringOptions& options = {});

/// Rewrites QDQ patterns to ONNX's integer operators (QLinearConv, QLinearMatMul) and those of the
/// domain com.microsoft (QGemm, QLinearAdd, QLinearMul, QLinearConcat, QLinearAveragePool,
/// QLinearGlobalAveragePool). What has no such form stays QDQ and is reported.
LoweringReport convert_to_qoperator(Graph& graph);

}  // namespace narrow
