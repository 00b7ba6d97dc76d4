// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/exporter.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/builder.h"
#include "narrow/formats/onnx/downgrade.h"

namespace narrow::onnx {
namespace {

/// The bodies among a node's attributes.
template <class F>
void each_body(const Node& node, F&& f) {
  for (const auto& [key, attribute] : node.attributes) {
    const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
    if (body != nullptr && *body) f(key, **body);
  }
}

size_t num_captures(const Node& node) {
  const int64_t captures = node.int_or(kCaptures, 0);
  if (captures < 0 || static_cast<size_t>(captures) > node.inputs.size()) {
    throw Error(ErrorCode::internal, fmt::format("node '{}': '{}' is {} with {} inputs", node.name,
                                                 kCaptures, captures, node.inputs.size()));
  }
  return static_cast<size_t>(captures);
}

bool same_storage(const Tensor& a, const Tensor& b) {
  return a.raw() == b.raw() && a.dtype() == b.dtype() && a.dims() == b.dims();
}

}  // namespace

int64_t GraphExporter::lowest_opset(std::string* reason) const {
  GraphExporter trial(graph_);
  int64_t opset = kLowestWrittenOpset;
  for (const NodeId id : graph_.nodes()) {
    const Node& node = graph_.node(id);
    std::string why;
    int64_t needed = needed_opset(trial.plain_node(node), trial, &why);
    each_body(node, [&](const std::string&, const Graph& body) {
      needed = std::max(needed, GraphExporter(body).lowest_opset(&why));
    });
    if (needed > opset) {
      opset = needed;
      if (reason != nullptr) *reason = std::move(why);
    }
  }
  return opset;
}

void GraphExporter::collect_domains(const Graph& graph, std::set<std::string>& domains) {
  for (const NodeId id : graph.nodes()) {
    domains.insert(graph.node(id).domain);
    each_body(graph.node(id),
              [&](const std::string&, const Graph& body) { collect_domains(body, domains); });
  }
}

// --- names ---------------------------------------------------------------------------------------

bool GraphExporter::is_taken(const std::string& name) const {
  return ids_.count(name) > 0 || (outer_ != nullptr && outer_->is_taken(name));
}

bool GraphExporter::is_outer_constant(const Value& value) const {
  if (outer_ == nullptr || !value.is_constant()) return false;
  const auto it = outer_->ids_.find(value.name);
  if (it == outer_->ids_.end()) return outer_->is_outer_constant(value);
  const Tensor* tensor = outer_->graph_.constant(it->second);
  return tensor != nullptr && same_storage(*tensor, value.constant);
}

void GraphExporter::name_values(const GraphExporter* outer,
                                const std::vector<std::string>& captured) {
  outer_ = outer;
  names_.assign(graph_.value_capacity(), std::string());
  const std::vector<ValueId>& inputs = graph_.inputs();
  if (captured.size() > inputs.size()) {
    throw Error(ErrorCode::internal, fmt::format("body '{}' has {} inputs, fewer than the {} "
                                                 "captured values",
                                                 graph_.name, inputs.size(), captured.size()));
  }
  const size_t own = inputs.size() - captured.size();
  for (size_t i = 0; i < captured.size(); ++i) {
    names_[inputs[own + i]] = captured[i];
    ids_.emplace(captured[i], inputs[own + i]);
  }
  for (const ValueId id : graph_.live_values()) {
    if (!names_[id].empty()) continue;
    const Value& value = graph_.value(id);
    if (is_outer_constant(value)) {
      inherited_.insert(id);
    } else {
      // Names of a body must differ from those of the graphs around it.
      names_[id] = value.name;
      for (int i = 1; is_taken(names_[id]); ++i) names_[id] = fmt::format("{}_{}", value.name, i);
    }
    if (names_[id].empty()) names_[id] = value.name;
    ids_.emplace(names_[id], id);
  }
}

const Value* GraphExporter::find(const std::string& name) const {
  if (name.empty()) return nullptr;
  if (names_.empty()) {
    const auto id = graph_.find_value(name);
    return id ? &graph_.value(*id) : nullptr;
  }
  const auto it = ids_.find(name);
  return it == ids_.end() || it->second == kNoId ? nullptr : &graph_.value(it->second);
}

const Tensor* GraphExporter::constant_of(const std::string& name) const {
  const Value* value = find(name);
  if (value != nullptr) return value->is_constant() ? &value->constant : nullptr;
  for (const ProtoTensor& t : added_) {
    if (t.name == name) return &t.tensor;
  }
  return nullptr;
}

DType GraphExporter::dtype_of(const std::string& name) const {
  const Value* value = find(name);
  return value == nullptr ? DType::undefined : value->dtype;
}

const SymbolicShape* GraphExporter::shape_of(const std::string& name) const {
  const Value* value = find(name);
  return value == nullptr || !value->shape ? nullptr : &*value->shape;
}

std::string GraphExporter::constant(const std::string& hint, Tensor tensor) {
  std::string name = hint;
  for (int i = 1; is_taken(name); ++i) name = fmt::format("{}_{}", hint, i);
  ids_.emplace(name, kNoId);
  added_.push_back({name, std::move(tensor), {}});
  return name;
}

// --- messages ------------------------------------------------------------------------------------

ProtoNode GraphExporter::plain_node(const Node& node) const {
  ProtoNode out;
  out.op = node.op;
  out.domain = node.domain;
  out.name = node.name;
  out.doc = node.doc;
  const auto name_of = [this](ValueId id) {
    if (id == kNoId) return std::string();
    return names_.empty() ? graph_.value(id).name : names_[id];
  };
  for (size_t i = 0; i + num_captures(node) < node.inputs.size(); ++i) {
    out.inputs.push_back(name_of(node.inputs[i]));
  }
  for (const ValueId id : node.outputs) out.outputs.push_back(name_of(id));
  for (auto* list : {&out.inputs, &out.outputs}) {
    while (!list->empty() && list->back().empty()) list->pop_back();
  }
  for (const auto& [key, attribute] : node.attributes) {
    if (key == kCaptures) continue;
    std::visit(
        [&out, k = key](const auto& v) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(v)>, std::shared_ptr<Graph>>) {
            out.set(k, v);
          }
        },
        attribute);
  }
  return out;
}

ProtoNode GraphExporter::to_node(const Node& node, int64_t opset) {
  ProtoNode out = plain_node(node);
  std::vector<std::string> captured;
  for (size_t i = node.inputs.size() - num_captures(node); i < node.inputs.size(); ++i) {
    captured.push_back(names_[node.inputs[i]]);
  }
  each_body(node, [&](const std::string& key, const Graph& body) {
    GraphExporter exporter(body);
    auto proto = std::make_shared<ProtoGraph>(exporter.to_proto(opset, this, captured));
    for (std::string& name : free_names(*proto)) body_reads_.insert(std::move(name));
    out.set(key, std::move(proto));
  });
  downgrade_node(out, opset, *this);
  return out;
}

ProtoValueInfo GraphExporter::to_info(ValueId id) const {
  const Value& value = graph_.value(id);
  if (value.dtype == DType::undefined && outer_ == nullptr) {
    throw Error(ErrorCode::unsupported,
                fmt::format("'{}' is to be written and has no element type", value.name),
                "infer shapes first; behind unknown operators no type is known");
  }
  return {names_[id], value.dtype, value.shape, {}};
}

ProtoGraph GraphExporter::to_proto(int64_t opset, const GraphExporter* outer,
                                   const std::vector<std::string>& captured) {
  name_values(outer, captured);
  ProtoGraph proto;
  proto.name = graph_.name.empty() ? "main" : graph_.name;
  proto.doc = outer == nullptr ? std::string() : graph_.doc;
  const std::vector<ValueId>& inputs = graph_.inputs();
  for (size_t i = 0; i + captured.size() < inputs.size(); ++i) {
    proto.inputs.push_back(to_info(inputs[i]));
  }
  for (const NodeId id : graph_.nodes()) {
    const Node& node = graph_.node(id);
    proto.nodes.push_back(to_node(node, opset));
    // Other tools infer no shapes behind operators of other domains.
    if (node.domain.empty()) continue;
    for (const ValueId output : node.outputs) {
      if (output == kNoId || graph_.value(output).is_output) continue;
      if (graph_.value(output).dtype != DType::undefined) {
        proto.value_info.push_back(to_info(output));
      }
    }
  }
  add_outputs(proto);
  add_initializers(proto);
  return proto;
}

void GraphExporter::add_outputs(ProtoGraph& proto) {
  for (const ValueId id : graph_.outputs()) {
    ProtoValueInfo info = to_info(id);
    const Value& value = graph_.value(id);
    const bool is_foreign = outer_ != nullptr && (value.is_input || value.is_constant());
    if (is_foreign) {
      // A body must compute its outputs.
      ProtoNode copy;
      copy.op = "Identity";
      copy.inputs = {info.name};
      copy.outputs = {info.name + "_out"};
      for (int i = 1; is_taken(copy.outputs[0]); ++i) {
        copy.outputs[0] = fmt::format("{}_out_{}", info.name, i);
      }
      ids_.emplace(copy.outputs[0], kNoId);
      info.name = copy.outputs[0];
      proto.nodes.push_back(std::move(copy));
    }
    proto.outputs.push_back(std::move(info));
  }
}

void GraphExporter::add_initializers(ProtoGraph& proto) {
  std::unordered_set<std::string> read;
  for (const ProtoNode& node : proto.nodes) read.insert(node.inputs.begin(), node.inputs.end());
  for (const ProtoValueInfo& output : proto.outputs) read.insert(output.name);
  for (const ValueId id : graph_.live_values()) {
    const Value& value = graph_.value(id);
    if (!value.is_constant() || inherited_.count(id) > 0) continue;
    // Constants that a downgrade row turned into attributes are not needed any more, but bodies may
    // read the outer one instead of their copy.
    const bool became_attribute = !value.uses.empty() && read.count(names_[id]) == 0;
    if (became_attribute && body_reads_.count(names_[id]) == 0) continue;
    proto.initializers.push_back({names_[id], value.constant, {}});
  }
  std::move(added_.begin(), added_.end(), std::back_inserter(proto.initializers));
  added_.clear();
}

}  // namespace narrow::onnx
