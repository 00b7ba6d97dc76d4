// SPDX-License-Identifier: Apache-2.0
// How operators take part in integer arithmetic, one table row each; the rest has no integer form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow {

enum class OpClass : uint8_t {
  none,      // float only
  product,   // multiplies with constant weights: Conv, Gemm, MatMul
  binary,    // of two activations, or of one and a constant: Add, Mul, MatMul
  concat,    // requantizes its inputs to one grid
  pool,      // averages
  unary,     // a table
  movement,  // the same codes elsewhere: input and output share a grid
};

struct OpClassification {
  OpClass op_class = OpClass::none;
  std::string reason;  // why an operator with an integer form has none here
};
/// Looks at attributes and constant inputs too. Needs inferred dtypes.
OpClassification classify(const Graph& graph, const Node& node);

/// Inputs whose codes the operator reads: float32 and not constant.
std::vector<ValueId> activation_inputs(const Graph& graph, const Node& node);

/// A unary operator, or a binary one with a scalar constant: what one table can hold.
bool is_table_function(const Graph& graph, const Node& node, OpClass op_class);

/// A multiplication with constant weights, as one layer: the node, its bias and the activation
/// that is computed with it.
struct Layer {
  NodeId node = kNoId;
  ValueId input = kNoId;
  ValueId weights = kNoId;   // constant
  ValueId bias = kNoId;      // constant, or absent
  ValueId output = kNoId;    // behind the bias and Relu or Clip
  int64_t channel_axis = 0;  // of the weights: the output channels
  int64_t reduce_axis = 1;   // of the weights as a matrix: what is summed over
  int64_t channels = 0;
  std::vector<NodeId> absorbed;  // Add, Relu, Clip between the node and `output`
};
/// nullopt and a reason unless the node is of class product (or a ConvTranspose, whose weights
/// alone can be quantized).
std::optional<Layer> layer_of(const Graph& graph, NodeId node, std::string* reason);

/// Relu and Clip with constant bounds, each the only user of what stands before it; the last
/// value, and the nodes passed.
ValueId behind_activations(const Graph& graph, ValueId from, std::vector<NodeId>* passed);

}  // namespace narrow
