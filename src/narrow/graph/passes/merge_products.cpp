// SPDX-License-Identifier: Apache-2.0
// narrow.DynamicQGemm of one input with several weights (query, key and value) as one product with
// the columns of all, and a Split: the input is quantized once, and the product is large enough for
// threads. Columns do not see each other: results stay the same bits.
#include <map>

#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

constexpr size_t kX = 0;
constexpr size_t kW = 1;
constexpr size_t kScale = 2;
constexpr size_t kZero = 3;
constexpr size_t kBias = 4;

bool takes_part(const Graph& graph, const Node& node) {
  if (node.op != ops::kDynamicQGemm || node.domain != ops::kDomain) return false;
  const Tensor* w = graph.constant(node.input(kW));
  const Tensor* scale = graph.constant(node.input(kScale));
  if (w == nullptr || scale == nullptr || graph.value(node.outputs[0]).is_output) return false;
  const bool plain = w->dtype() == DType::int8 && w->rank() == 2 && node.int_or("transB", 0) == 0 &&
                     node.input(kZero) == kNoId;
  const bool scaled = scale->dtype() == DType::float32 &&
                      (scale->elements() == 1 || scale->elements() == w->dim(1));
  if (!plain || !scaled || node.input(kBias) == kNoId) return plain && scaled;
  const Tensor* bias = graph.constant(node.input(kBias));
  return bias != nullptr && bias->dtype() == DType::float32 && bias->elements() == w->dim(1);
}

bool alike(const Graph& graph, const Node& a, const Node& b) {
  return a.string_or("granularity", "") == b.string_or("granularity", "") &&
         (a.input(kBias) == kNoId) == (b.input(kBias) == kNoId) &&
         graph.constant(a.input(kW))->dim(0) == graph.constant(b.input(kW))->dim(0);
}

/// The matrices [K, N] of all side by side.
Tensor joined_codes(const Graph& graph, const std::vector<NodeId>& nodes, int64_t columns) {
  const int64_t rows = graph.constant(graph.node(nodes[0]).input(kW))->dim(0);
  Tensor out(DType::int8, {rows, columns});
  const std::span<int8_t> to = out.mutable_data<int8_t>();
  int64_t first = 0;
  for (const NodeId id : nodes) {
    const Tensor& w = *graph.constant(graph.node(id).input(kW));
    const std::span<const int8_t> from = w.data<int8_t>();
    const int64_t n = w.dim(1);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(from.begin() + r * n, n, to.begin() + r * columns + first);
    }
    first += n;
  }
  return out;
}

/// One number for each column; a scalar counts for all of its node.
Tensor joined_columns(const Graph& graph, const std::vector<NodeId>& nodes, size_t input) {
  std::vector<float> all;
  for (const NodeId id : nodes) {
    const Node& node = graph.node(id);
    const std::span<const float> own = graph.constant(node.input(input))->data<float>();
    const auto n = static_cast<size_t>(graph.constant(node.input(kW))->dim(1));
    for (size_t i = 0; i < n; ++i) all.push_back(own[own.size() == 1 ? 0 : i]);
  }
  return Tensor::vector(all);
}

void merge(Graph& graph, const std::vector<NodeId>& nodes) {
  const Node first = graph.node(nodes[0]);  // a copy: the graph changes below
  std::vector<int64_t> sizes;
  int64_t columns = 0;
  for (const NodeId id : nodes) {
    sizes.push_back(graph.constant(graph.node(id).input(kW))->dim(1));
    columns += sizes.back();
  }
  const auto constant = [&](const char* what, const Tensor& value) {
    return graph.add_initializer(graph.unique_name(first.name + what), value);
  };
  std::vector<ValueId> inputs{first.inputs[kX],
                              constant("_merged_w", joined_codes(graph, nodes, columns)),
                              constant("_merged_scale", joined_columns(graph, nodes, kScale))};
  if (first.input(kBias) != kNoId) {
    inputs.resize(kBias, kNoId);
    inputs.push_back(constant("_merged_bias", joined_columns(graph, nodes, kBias)));
  }
  const std::string name = graph.unique_name(first.name + "_merged");
  const NodeId product = graph.add_node(ops::kDynamicQGemm, std::move(inputs), {name},
                                        first.attributes, ops::kDomain, first.name + "_merged");
  std::vector<std::string> parts;
  for (const NodeId id : nodes) {
    parts.push_back(graph.unique_name(graph.value(graph.node(id).outputs[0]).name + "_part"));
  }
  const ValueId lengths = constant("_merged_sizes", Tensor::vector(sizes));
  const NodeId split = graph.add_node("Split", {graph.node(product).outputs[0], lengths}, parts,
                                      {{"axis", int64_t{-1}}}, "", first.name + "_split");
  for (size_t i = 0; i < nodes.size(); ++i) {
    const ValueId old = graph.node(nodes[i]).outputs[0];
    const ValueId part = graph.node(split).outputs[i];
    take_place(graph, old, part);
  }
  graph.mutable_value(graph.node(product).outputs[0]).dtype = DType::float32;
}

}  // namespace

int64_t merge_products(Graph& graph, const PassContext&) {
  std::map<ValueId, std::vector<NodeId>> by_input;
  graph.sort();
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!takes_part(graph, node)) continue;
    std::vector<NodeId>& siblings = by_input[node.inputs[kX]];
    if (siblings.empty() || alike(graph, graph.node(siblings[0]), node)) siblings.push_back(id);
  }
  int64_t changes = 0;
  for (const auto& [x, nodes] : by_input) {
    if (nodes.size() < 2) continue;
    merge(graph, nodes);
    ++changes;
  }
  graph.sort();
  graph.remove_dead();
  return changes;
}

}  // namespace narrow
