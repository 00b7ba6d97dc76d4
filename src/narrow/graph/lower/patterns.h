// SPDX-License-Identifier: Apache-2.0
// What the lowering rules share: selectors that recognise the quantized surroundings of a node, and
// the emission of the operators of lowered_ops.h. Selectors never edit; rules select, then act.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/graph/qdq.h"

namespace narrow::lower {

/// What a rule did with one node. Neither lowered nor a reason: nothing around the node is
/// quantized.
struct Outcome {
  bool lowered = false;
  std::string reason;
  static Outcome done() { return {true, {}}; }
  static Outcome refuse(std::string why) { return {false, std::move(why)}; }
  static Outcome none() { return {}; }
};

struct Rule {
  const char* domain;
  const char* op;
  Outcome (*apply)(Graph&, NodeId, const LoweringOptions&);
};

/// What follows a float value: activations that become limits, then the QuantizeLinear if there is
/// one.
struct Tail {
  explicit Tail(ValueId from) : value(from) {}
  ValueId value;  // the last float value: input of the QuantizeLinear, or what stays float
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();
  NodeId quantize = kNoId;
  std::optional<QdqGrid> grid;
};
/// Follows single uses through Relu and constant Clip to a per_tensor 8-bit QuantizeLinear.
Tail tail_of(const Graph& graph, ValueId from);

/// The activation grid behind an input: a per_tensor DequantizeLinear of 8-bit codes.
std::optional<QdqGrid> activation_grid(const Graph& graph, ValueId value);
/// The grid of constant codes of at most 8 bits behind an input, any granularity.
std::optional<QdqGrid> weight_grid(const Graph& graph, ValueId value);

bool is_8_bit(DType dtype);
float scalar_scale(const Graph& graph, const QdqGrid& grid);
int64_t scalar_zero_point(const Graph& graph, const QdqGrid& grid);
/// Same scale, zero_point and dtype.
bool same_grid(const Graph& graph, const QdqGrid& a, const QdqGrid& b);
/// The code of a real bound, inside the range of the dtype.
int64_t code_of(const Graph& graph, const QdqGrid& grid, float bound);

/// int32 codes of a constant bias (float, or int32 behind a DequantizeLinear) on the grid s_x *
/// s_w; `channels` elements. nullopt and a reason when it is not constant, has another shape or
/// does not fit int32. An absent bias gives an undefined tensor.
std::optional<Tensor> bias_codes(const Graph& graph, ValueId bias, float x_scale,
                                 const Tensor& w_scale, int64_t channels, std::string* reason);

/// Attributes qmin, qmax for the limits of a tail (left out where they are the dtype's own).
void set_code_limits(const Graph& graph, const Tail& tail, Attributes& attributes);
/// Attributes min, max of a float output.
void set_float_limits(const Tail& tail, Attributes& attributes);

/// Puts the new node's output in the place of the tail's end: of the codes when there is a
/// QuantizeLinear, of the float value otherwise. `inputs` lack the y_scale, y_zero_point pair,
/// which is inserted at `y_index`.
void emit(Graph& graph, const Tail& tail, const char* op, std::vector<ValueId> inputs,
          size_t y_index, Attributes attributes, const std::string& name);

/// Replaces the codes behind `quantize` (a QuantizeLinear node) by `codes`.
void replace_codes(Graph& graph, NodeId quantize, ValueId codes);

/// A new value of the wanted dtype with the shape of another.
void annotate(Graph& graph, ValueId value, DType dtype, ValueId shape_of);

/// MaxPool, Reshape and others that move or select values.
bool is_movement(const Node& node);
/// Why such an operator cannot run on codes, as it makes values of its own; empty if it can.
std::string movement_refusal(const Graph& graph, const Node& node);

/// Before the rules: activations of 2 and 4 bits as bytes. Returns how many.
int64_t widen_activations(Graph& graph);

// The rules, by file.
Outcome lower_conv(Graph&, NodeId, const LoweringOptions&);
Outcome lower_gemm(Graph&, NodeId, const LoweringOptions&);
Outcome lower_matmul(Graph&, NodeId, const LoweringOptions&);
Outcome lower_binary(Graph&, NodeId, const LoweringOptions&);
Outcome lower_concat(Graph&, NodeId, const LoweringOptions&);
Outcome lower_unary(Graph&, NodeId, const LoweringOptions&);
Outcome lower_pool(Graph&, NodeId, const LoweringOptions&);
Outcome lower_movement(Graph&, NodeId, const LoweringOptions&);
Outcome lower_requantize(Graph&, NodeId, const LoweringOptions&);
Outcome lower_dynamic_conv(Graph&, NodeId, const LoweringOptions&);
Outcome lower_dynamic_matmul(Graph&, NodeId, const LoweringOptions&);

}  // namespace narrow::lower
