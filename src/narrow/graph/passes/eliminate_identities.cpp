// SPDX-License-Identifier: Apache-2.0
// Nodes that hand an input on unchanged go; the selectors below say when a node does.
#include <algorithm>
#include <string_view>

#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

bool keeps_shape(const Graph& graph, const Node& node) {
  return same_known_shape(graph.value(node.inputs[0]), graph.value(node.outputs[0]));
}

bool always(const Graph&, const Node&) {
  return true;
}

/// Inference is the default; a mask that is used keeps the node (only_first_output_used).
bool drops_nothing(const Graph& graph, const Node& node) {
  return node.input(2) == kNoId || is_filled_with(graph, node.input(2), 0);
}

bool has_one_input(const Graph&, const Node& node) {
  return node.inputs.size() == 1;
}

bool has_one_output(const Graph&, const Node& node) {
  return node.outputs.size() == 1;
}

bool keeps_dtype(const Graph& graph, const Node& node) {
  const DType dtype = graph.value(node.inputs[0]).dtype;
  return dtype != DType::undefined && dtype == graph.value(node.outputs[0]).dtype;
}

bool keeps_order(const Graph& graph, const Node& node) {
  const auto& shape = graph.value(node.inputs[0]).shape;
  const auto perm = node.ints_or("perm", {});
  if (perm.empty()) return shape && shape->size() <= 1;
  for (size_t i = 0; i < perm.size(); ++i) {
    if (perm[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

/// No step runs backwards; with an unchanged shape nothing is left out then.
bool slices_nothing(const Graph& graph, const Node& node) {
  if (!keeps_shape(graph, node)) return false;
  if (node.input(4) == kNoId) return true;
  const auto steps = constant_ints(graph, node, 4);
  return steps && std::all_of(steps->begin(), steps->end(), [](int64_t s) { return s == 1; });
}

bool pads_nothing(const Graph& graph, const Node& node) {
  const auto pads = constant_ints(graph, node, 1);
  return pads && std::all_of(pads->begin(), pads->end(), [](int64_t p) { return p == 0; });
}

/// By scales of 1, or by sizes that are there already. A cropping resize samples elsewhere.
bool resizes_nothing(const Graph& graph, const Node& node) {
  if (node.string_or("coordinate_transformation_mode", "") == "tf_crop_and_resize") return false;
  if (!keeps_shape(graph, node)) return false;
  const Tensor* scales = graph.constant(node.input(2));
  if (scales != nullptr && scales->elements() > 0) return is_filled_with(graph, node.input(2), 1);
  return node.input(3) != kNoId && concrete(*graph.value(node.outputs[0]).shape).has_value();
}

bool window_of_one(const Graph&, const Node& node) {
  return node.has("kernel_shape") && all_ints(node, "kernel_shape", 1) &&
         all_ints(node, "strides", 1) && all_ints(node, "pads", 0);
}

bool has_no_bounds(const Graph&, const Node& node) {
  return node.input(1) == kNoId && node.input(2) == kNoId;
}

bool follows_itself(const Graph& graph, const Node& node) {
  const Node* before = graph.producer(node.inputs[0]);
  return before != nullptr && before->is(node.op, node.domain);
}

bool by_one(const Graph& graph, const Node& node) {
  return keeps_shape(graph, node) && is_filled_with(graph, node.inputs[1], 1);
}

bool less_zero(const Graph& graph, const Node& node) {
  return keeps_shape(graph, node) && is_filled_with(graph, node.inputs[1], 0);
}

struct Selector {
  std::string_view op;
  bool (*unchanged)(const Graph&, const Node&);
};

constexpr Selector kSelectors[] = {
    {"Identity", always},
    {"Dropout", drops_nothing},
    {"Cast", keeps_dtype},
    {"CastLike", keeps_dtype},
    {"Transpose", keeps_order},
    {"Reshape", keeps_shape},
    {"Flatten", keeps_shape},
    {"Squeeze", keeps_shape},
    {"Unsqueeze", keeps_shape},
    {"Expand", keeps_shape},
    {"Tile", keeps_shape},
    {"Slice", slices_nothing},
    {"Pad", pads_nothing},
    {"Resize", resizes_nothing},
    {"Concat", has_one_input},
    {"Sum", has_one_input},
    {"Mean", has_one_input},
    {"Max", has_one_input},
    {"Min", has_one_input},
    {"Split", has_one_output},
    {"MaxPool", window_of_one},
    {"AveragePool", window_of_one},
    {"Clip", has_no_bounds},
    {"Relu", follows_itself},
    {"Mul", by_one},
    {"Div", by_one},
    {"Sub", less_zero},
};

bool selected(const Graph& graph, const Node& node) {
  if (!node.domain.empty() || node.input(0) == kNoId || node.output(0) == kNoId) return false;
  if (!only_first_output_used(graph, node)) return false;
  const auto it = std::find_if(std::begin(kSelectors), std::end(kSelectors),
                               [&](const Selector& s) { return s.op == node.op; });
  return it != std::end(kSelectors) && it->unchanged(graph, node);
}

/// The perm of the transpose `second` of the output of `first`; empty where it is not known.
std::vector<int64_t> joined_perm(const Node& first, const Node& second) {
  const auto inner = first.ints_or("perm", {});
  const auto outer = second.ints_or("perm", {});
  if (inner.size() != outer.size()) return {};
  std::vector<int64_t> both;
  for (const int64_t axis : outer) {
    if (axis < 0 || static_cast<size_t>(axis) >= inner.size()) return {};
    both.push_back(inner[static_cast<size_t>(axis)]);
  }
  return both;
}

const Node* transpose_of(const Graph& graph, ValueId value) {
  const Node* node = graph.producer(value);
  return node != nullptr && node->is("Transpose") ? node : nullptr;
}

/// A softmax between two transposes runs along the axis where its own came from, behind it both are
/// one (exporters write softmax over channels so).
bool turn_softmax(Graph& graph, NodeId id) {
  const Node& second = graph.node(id);
  if (!second.is("Transpose")) return false;
  const NodeId between = graph.producer_id(second.inputs[0]);
  if (between == kNoId) return false;
  const Node& softmax = graph.node(between);
  if (!softmax.is("Softmax") && !softmax.is("LogSoftmax")) return false;
  const Value& y = graph.value(softmax.outputs[0]);
  const Node* first = transpose_of(graph, softmax.inputs[0]);
  if (first == nullptr || y.is_output || y.uses.size() != 1) return false;
  const std::vector<int64_t> perm = joined_perm(*first, second);
  if (perm.empty()) return false;
  const auto axis = normalize_axis(softmax.int_or("axis", -1), perm.size());
  const int64_t turned = first->ints_or("perm", {})[static_cast<size_t>(axis)];
  const ValueId x = first->inputs[0];
  const NodeId before = graph.producer_id(softmax.inputs[0]);
  graph.mutable_value(softmax.outputs[0]).shape = graph.value(x).shape;
  graph.attributes(between)["axis"] = turned;
  graph.attributes(id)["perm"] = perm;
  graph.set_input(between, 0, x);
  remove_if_unused(graph, before);
  return true;
}

/// Two transposes in a row are one: the second reads the input of the first.
bool merge_transposes(Graph& graph, NodeId id) {
  const Node& second = graph.node(id);
  if (!second.is("Transpose")) return false;
  const Node* first = transpose_of(graph, second.inputs[0]);
  if (first == nullptr) return false;
  const std::vector<int64_t> both = joined_perm(*first, second);
  if (both.empty()) return false;
  const NodeId before = graph.producer_id(second.inputs[0]);
  graph.attributes(id)["perm"] = both;
  graph.set_input(id, 0, graph.node(before).inputs[0]);
  remove_if_unused(graph, before);
  return true;
}

}  // namespace

int64_t eliminate_identities(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.alive(id)) continue;
    if (merge_transposes(graph, id) || turn_softmax(graph, id)) ++changes;
    const Node& node = graph.node(id);
    if (!selected(graph, node)) continue;
    if (!replace_value(graph, node.outputs[0], node.inputs[0])) continue;
    remove_if_unused(graph, id);
    ++changes;
  }
  return changes;
}

}  // namespace narrow
