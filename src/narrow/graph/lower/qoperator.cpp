// SPDX-License-Identifier: Apache-2.0
// The integer operators of narrow in the words of ONNX and com.microsoft.
#include <array>

#include "narrow/core/error.h"
#include "narrow/graph/lower/patterns.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";

struct Translation {
  const char* from;
  const char* op;
  const char* domain;
};

// QGemm and QBinary are told apart below.
constexpr Translation kTranslations[] = {
    {ops::kQConv, "QLinearConv", ""},
    {ops::kQConcat, "QLinearConcat", kMicrosoft},
    {ops::kQAveragePool, "QLinearAveragePool", kMicrosoft},
    {ops::kQGlobalAveragePool, "QLinearGlobalAveragePool", kMicrosoft},
};

/// A grid without zero_point gets an explicit 0: the QLinear operators demand one.
void require_zero_point(Graph& graph, NodeId id, size_t scale_index, DType dtype) {
  const Node& node = graph.node(id);
  if (node.input(scale_index) == kNoId || node.input(scale_index + 1) != kNoId) return;
  const Dims dims = graph.constant(node.input(scale_index))->dims();
  const std::string name = graph.unique_name(node.name + "_zero_point");
  graph.set_input(id, scale_index + 1, graph.add_initializer(name, Tensor(dtype, dims)));
}

/// The code limits of a fused activation become a Clip of codes.
void split_limits(Graph& graph, NodeId id, DType dtype) {
  const Node& node = graph.node(id);
  if (!node.has("qmin") && !node.has("qmax")) return;
  const std::array lo{node.int_or("qmin", integer_min(dtype))};
  const std::array hi{node.int_or("qmax", integer_max(dtype))};
  const ValueId y = node.outputs[0];
  const std::string name = graph.value(y).name;
  const ValueId min =
      graph.add_initializer(graph.unique_name(name + "_min"), Tensor::from_ints(lo, dtype, {}));
  const ValueId max =
      graph.add_initializer(graph.unique_name(name + "_max"), Tensor::from_ints(hi, dtype, {}));
  const NodeId clip = graph.add_node("Clip", {kNoId, min, max}, {name + "_clipped"});
  const ValueId clipped = graph.node(clip).outputs[0];
  lower::annotate(graph, clipped, dtype, y);
  graph.replace_uses(y, clipped);
  graph.set_input(clip, 0, y);
  graph.attributes(id).erase("qmin");
  graph.attributes(id).erase("qmax");
}

void translate_gemm(Graph& graph, NodeId id) {
  const std::vector<ValueId> in = graph.node(id).inputs;
  const auto at = [&](size_t i) { return i < in.size() ? in[i] : kNoId; };
  const Value& a = graph.value(at(0));
  const bool matrix = a.shape && a.shape->size() == 2;
  if (matrix) {  // (A, s, z, B, s, z, C, y_s, y_z)
    graph.set_input(id, 6, at(8));
    graph.set_input(id, 7, at(6));
    graph.set_input(id, 8, at(7));
    graph.set_op(id, "QGemm", kMicrosoft);
    return;
  }
  graph.set_op(id, "QLinearMatMul");
}

/// QLinearMatMul has neither bias nor transB, QGemm is two-dimensional.
bool gemm_expressible(const Graph& graph, const Node& node) {
  const Value& a = graph.value(node.inputs[0]);
  if (a.shape && a.shape->size() == 2) return true;
  return node.input(8) == kNoId && node.int_or("transB", 0) == 0;
}

void check_expressible(const Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.is(ops::kQGemm, ops::kDomain) && !gemm_expressible(graph, node)) {
      throw Error(ErrorCode::unsupported,
                  "node '" + node.name + "': no integer ONNX operator has this product with bias",
                  "write the QDQ form, or --keep-float " + node.name);
    }
    if (node.is(ops::kQGlobalAveragePool, ops::kDomain) && node.int_or("keepdims", 1) == 0) {
      throw Error(ErrorCode::unsupported,
                  "node '" + node.name + "': the integer ONNX operator keeps the reduced axes",
                  "write the QDQ form, or --keep-float " + node.name);
    }
    if (node.is(ops::kQBinary, ops::kDomain) && node.string_or("op", "") != "Add" &&
        node.string_or("op", "") != "Mul") {
      throw Error(ErrorCode::unsupported,
                  "node '" + node.name + "': there is no integer ONNX operator for it",
                  "write the QDQ form, or --keep-float " + node.name);
    }
  }
}

void translate(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const DType y = graph.value(node.outputs[0]).dtype;
  split_limits(graph, id, y);
  const DType x = graph.value(graph.node(id).inputs[0]).dtype;
  if (graph.node(id).is(ops::kQConcat, ops::kDomain)) {
    require_zero_point(graph, id, 0, y);
    for (size_t i = 2; i < graph.node(id).inputs.size(); i += 3) {
      require_zero_point(graph, id, i + 1, graph.value(graph.node(id).inputs[i]).dtype);
    }
  } else {
    require_zero_point(graph, id, 1, x);
    const bool pool = graph.node(id).is(ops::kQAveragePool, ops::kDomain) ||
                      graph.node(id).is(ops::kQGlobalAveragePool, ops::kDomain);
    if (!pool) require_zero_point(graph, id, 4, graph.value(graph.node(id).inputs[3]).dtype);
    require_zero_point(graph, id, pool ? 3 : 6, y);
  }
  if (graph.node(id).is(ops::kQGemm, ops::kDomain)) return translate_gemm(graph, id);
  if (graph.node(id).is(ops::kQBinary, ops::kDomain)) {
    const std::string op = graph.node(id).string_or("op", "");
    graph.attributes(id).erase("op");
    return graph.set_op(id, "QLinear" + op, kMicrosoft);
  }
  for (const Translation& t : kTranslations) {
    if (!graph.node(id).is(t.from, ops::kDomain)) continue;
    if (t.from == std::string_view(ops::kQGlobalAveragePool)) {
      graph.attributes(id).clear();
      graph.attributes(id)["channels_last"] = int64_t{0};
    }
    return graph.set_op(id, t.op, t.domain);
  }
}

}  // namespace

LoweringReport convert_to_qoperator(Graph& graph) {
  LoweringReport report = lower_to_integer(
      graph, {.lookups = false, .weight_only = false, .dynamic = false, .float_outputs = false});
  check_expressible(graph);
  for (const NodeId id : graph.nodes()) {
    if (graph.node(id).domain == ops::kDomain) translate(graph, id);
  }
  graph.sort();
  return report;
}

}  // namespace narrow
