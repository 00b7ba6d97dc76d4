// SPDX-License-Identifier: Apache-2.0
// A model that is quantized already, taken apart: a float graph whose weights have the values of
// their codes, and the grids; and put together again, with other numbers in the same places.
//
//   LiftedModel lifted = lift(qdq_graph);
//   ... train lifted.graph on its grids ...
//   Graph same_nodes = put_back(lifted, {parameters, activations, weights});
#pragma once

#include <map>
#include <string>

#include "narrow/graph/graph.h"
#include "narrow/quant/scheme.h"

namespace narrow {

/// A value behind QuantizeLinear and DequantizeLinear. Values of equal `group` share one grid:
/// those that move (MaxPool, Reshape, ...), and those whose scale is one initializer.
struct LiftedActivation {
  QuantParams params;  // per_tensor
  std::string group;
  ValueId scale = kNoId;  // all of the file
  ValueId zero_point = kNoId;
  ValueId clip_min = kNoId;  // of the Clip that makes the grid smaller than its type
  ValueId clip_max = kNoId;
};

/// Constant codes of at most 8 bits behind DequantizeLinear. The bits are those that the codes
/// use: files have no type of 3 bits.
struct LiftedWeight {
  QuantParams params;
  std::string node;   // that multiplies with it; may be empty
  std::string input;  // quantized value that it is multiplied with; may be empty
  int64_t channel_axis = 0;
  ValueId real = kNoId;  // all of the file
  ValueId codes = kNoId;
  ValueId scale = kNoId;
  ValueId zero_point = kNoId;
};

/// Constant codes of 32 bits. The scale of a layer's bias is that of its input times that of its
/// weights.
struct LiftedBias {
  std::string weights;  // of the layer; empty: the scale stays as it is
  ValueId codes = kNoId;
  ValueId scale = kNoId;
};

struct LiftedModel {
  Graph graph;                                          // float
  std::map<std::string, LiftedActivation> activations;  // by value of `graph`
  std::map<std::string, LiftedWeight> weights;          // by initializer of `graph`
  std::map<std::string, LiftedBias> biases;             // likewise
  Graph file;  // as it came, but that every grid has initializers of its own
};

/// Weights are named as before they were quantized ("w" for "w_quantized"). Quantization of another
/// form (grids that are measured at run time, codes that move) stays in the graph. Throws
/// corrupt_data for a grid that is none.
LiftedModel lift(const Graph& qdq);

/// New numbers: initializers of the float graph, grids of its values and of its initializers. What
/// is left out is as in the file.
struct LiftedState {
  std::map<std::string, Tensor> parameters;
  std::map<std::string, QuantParams> activations;
  std::map<std::string, QuantParams> weights;
};

/// The file's graph with these numbers. What did not change keeps its codes, bit for bit. Throws
/// numeric_failure for NaN and inf and where accumulators could overflow.
Graph put_back(const LiftedModel& lifted, const LiftedState& state);

}  // namespace narrow
