// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/op_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/graph/ops/tables.h"

namespace narrow {
namespace {

using Table = std::span<const OpInfo> (*)();
constexpr Table kTables[] = {
    ops::conv_ops,        ops::matmul_ops,    ops::pool_ops,         ops::normalization_ops,
    ops::elementwise_ops, ops::reduction_ops, ops::movement_ops,     ops::cut_ops,
    ops::gather_ops,      ops::shape_ops,     ops::quantization_ops, ops::detection_ops,
    ops::control_ops,     ops::attention_ops, ops::narrow_ops,       ops::com_microsoft_ops,
};

using Key = std::pair<std::string_view, std::string_view>;
Key key(const OpInfo* op) {
  return {op->domain, op->name};
}

/// Every row, sorted by domain and name.
const std::vector<const OpInfo*>& rows() {
  static const std::vector<const OpInfo*> sorted = [] {
    std::vector<const OpInfo*> all;
    for (const Table table : kTables) {
      for (const OpInfo& op : table()) all.push_back(&op);
    }
    std::sort(all.begin(), all.end(),
              [](const OpInfo* a, const OpInfo* b) { return key(a) < key(b); });
    return all;
  }();
  return sorted;
}

void collect_unsupported(const Graph& graph, std::vector<UnsupportedNode>& out) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!find_op(node.domain, node.op)) {
      out.push_back({node.name, node.domain.empty() ? node.op : node.domain + "::" + node.op});
    }
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (body && *body) collect_unsupported(**body, out);
    }
  }
}

}  // namespace

DType InferContext::dtype(size_t i) const {
  return has_input(i) ? graph_.value(node_.input(i)).dtype : DType::undefined;
}

const SymbolicShape* InferContext::shape(size_t i) const {
  if (!has_input(i)) return nullptr;
  const auto& shape = graph_.value(node_.input(i)).shape;
  return shape ? &*shape : nullptr;
}

const Tensor* InferContext::constant(size_t i) const {
  if (!has_input(i)) return nullptr;
  const ValueId id = node_.input(i);
  if (const Tensor* t = graph_.constant(id)) return t;
  if (!known_values || static_cast<size_t>(id) >= known_values->size()) return nullptr;
  const Tensor& t = (*known_values)[static_cast<size_t>(id)];
  return t.defined() ? &t : nullptr;
}

std::optional<KnownValue> InferContext::value(size_t i) const {
  if (!has_input(i)) return std::nullopt;
  if (const Tensor* t = constant(i)) return KnownValue::from(*t);
  const auto id = static_cast<size_t>(node_.input(i));
  if (!partial_values || id >= partial_values->size()) return std::nullopt;
  return (*partial_values)[id];
}

void InferContext::set_output(size_t i, DType dtype, std::optional<SymbolicShape> shape) {
  if (i >= outputs_.size() || node_.outputs[i] == kNoId) return;
  outputs_[i].dtype = dtype;
  outputs_[i].shape = std::move(shape);
}

void InferContext::set_constant(size_t i, Tensor value) {
  if (i >= outputs_.size() || node_.outputs[i] == kNoId) return;
  set_output(i, value.dtype(), symbolic(value.dims()));
  outputs_[i].constant = std::move(value);
}

void InferContext::set_value(size_t i, KnownValue value) {
  if (auto tensor = value.tensor()) return set_constant(i, std::move(*tensor));
  if (i >= outputs_.size() || node_.outputs[i] == kNoId) return;
  set_output(i, value.dtype, symbolic(value.dims));
  outputs_[i].value = std::move(value);
}

void InferContext::fail(const std::string& message) const {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): {}", node_.name, node_.op, message));
}

const OpInfo* find_op(std::string_view domain, std::string_view name) {
  const auto& all = rows();
  const auto it =
      std::lower_bound(all.begin(), all.end(), Key(domain, name),
                       [](const OpInfo* op, const Key& wanted) { return key(op) < wanted; });
  return it != all.end() && key(*it) == Key(domain, name) ? *it : nullptr;
}

std::vector<const OpInfo*> all_ops() {
  return rows();
}

std::vector<UnsupportedNode> unsupported_nodes(const Graph& graph) {
  std::vector<UnsupportedNode> out;
  collect_unsupported(graph, out);
  return out;
}

}  // namespace narrow
