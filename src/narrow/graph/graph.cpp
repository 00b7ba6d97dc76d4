// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <utility>

#include "narrow/core/error.h"

namespace narrow {
namespace {

template <class T>
T attribute_or(const Node& node, std::string_view name, T fallback) {
  const auto it = node.attributes.find(name);
  if (it == node.attributes.end()) return fallback;
  if (const T* v = std::get_if<T>(&it->second)) return *v;
  throw Error(
      ErrorCode::corrupt_data,
      fmt::format("node '{}' ({}): attribute '{}' has the wrong type", node.name, node.op, name));
}

/// `base`, or base_1, base_2, ... whichever is not in `taken`.
template <class Names>
std::string with_free_suffix(const std::string& base, const Names& taken,
                             std::map<std::string, int, std::less<>>& suffixes) {
  if (taken.count(base) == 0) return base;
  int& suffix = suffixes.try_emplace(base, 1).first->second;
  while (taken.count(fmt::format("{}_{}", base, suffix)) > 0) ++suffix;
  return fmt::format("{}_{}", base, suffix);
}

}  // namespace

std::string to_string(const SymbolicShape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ", ";
    out += shape[i].known() ? std::to_string(shape[i].value)
                            : (shape[i].name.empty() ? "?" : shape[i].name);
  }
  return out + "]";
}

std::optional<Dims> concrete(const SymbolicShape& shape) {
  Dims dims;
  for (const Dim& d : shape) {
    if (!d.known()) return std::nullopt;
    dims.push_back(d.value);
  }
  return dims;
}

SymbolicShape symbolic(std::span<const int64_t> dims) {
  SymbolicShape shape;
  for (const int64_t d : dims) shape.emplace_back(d);
  return shape;
}

int64_t Node::int_or(std::string_view n, int64_t fallback) const {
  return attribute_or<int64_t>(*this, n, fallback);
}
float Node::float_or(std::string_view n, float fallback) const {
  return attribute_or<float>(*this, n, fallback);
}
std::string Node::string_or(std::string_view n, std::string fallback) const {
  return attribute_or<std::string>(*this, n, std::move(fallback));
}
std::vector<int64_t> Node::ints_or(std::string_view n, std::vector<int64_t> fallback) const {
  return attribute_or<std::vector<int64_t>>(*this, n, std::move(fallback));
}
std::vector<float> Node::floats_or(std::string_view n, std::vector<float> fallback) const {
  return attribute_or<std::vector<float>>(*this, n, std::move(fallback));
}
const Tensor* Node::tensor(std::string_view n) const {
  const auto it = attributes.find(n);
  return it == attributes.end() ? nullptr : std::get_if<Tensor>(&it->second);
}
std::shared_ptr<Graph> Node::graph(std::string_view n) const {
  return attribute_or<std::shared_ptr<Graph>>(*this, n, nullptr);
}

Graph::Graph(const Graph& other) {
  *this = other;
}

Graph& Graph::operator=(const Graph& other) {
  if (this == &other) return *this;
  name = other.name;
  doc = other.doc;
  metadata = other.metadata;
  source_opsets = other.source_opsets;
  producer_name = other.producer_name;
  producer_version = other.producer_version;
  values_ = other.values_;
  nodes_ = other.nodes_;
  order_ = other.order_;
  inputs_ = other.inputs_;
  outputs_ = other.outputs_;
  value_names_ = other.value_names_;
  node_names_ = other.node_names_;
  value_suffixes_ = other.value_suffixes_;
  node_suffixes_ = other.node_suffixes_;
  for (Node& n : nodes_) {
    for (auto& [key, attribute] : n.attributes) {
      if (auto* sub = std::get_if<std::shared_ptr<Graph>>(&attribute); sub && *sub) {
        *sub = std::make_shared<Graph>(**sub);
      }
    }
  }
  return *this;
}

// --- values
// ---------------------------------------------------------------------------------------

ValueId Graph::add_value(std::string value_name, DType dtype, std::optional<SymbolicShape> shape) {
  if (value_name.empty() || value_names_.count(value_name) > 0) {
    throw Error(ErrorCode::corrupt_data,
                value_name.empty() ? std::string("a value has no name")
                                   : fmt::format("the name '{}' is used twice", value_name));
  }
  const auto id = static_cast<ValueId>(values_.size());
  Value v;
  v.name = std::move(value_name);
  v.dtype = dtype;
  v.shape = std::move(shape);
  value_names_.emplace(v.name, id);
  values_.push_back(std::move(v));
  return id;
}

ValueId Graph::add_input(std::string value_name, DType dtype, std::optional<SymbolicShape> shape) {
  const ValueId id = add_value(std::move(value_name), dtype, std::move(shape));
  values_[id].is_input = true;
  inputs_.push_back(id);
  return id;
}

ValueId Graph::add_initializer(std::string value_name, Tensor tensor) {
  const ValueId id = add_value(std::move(value_name), tensor.dtype(), symbolic(tensor.dims()));
  values_[id].constant = std::move(tensor);
  return id;
}

void Graph::add_output(ValueId id) {
  mutable_value(id).is_output = true;
  outputs_.push_back(id);
}

void Graph::replace_output(ValueId old, ValueId replacement) {
  bool found = false;
  for (ValueId& output : outputs_) {
    if (output == old) {
      output = replacement;
      found = true;
    }
  }
  if (!found) throw Error(ErrorCode::internal, fmt::format("'{}' is no output", value(old).name));
  values_[old].is_output = false;
  mutable_value(replacement).is_output = true;
  const std::string wanted = values_[old].name;
  rename_value(old, unique_name(wanted + "_before"));
  rename_value(replacement, wanted);
}

void Graph::set_constant(ValueId id, Tensor tensor) {
  Value& v = mutable_value(id);
  if (v.producer != kNoId) {
    for (ValueId& output : nodes_[v.producer].outputs) {
      if (output == id) output = kNoId;
    }
    v.producer = kNoId;
  }
  v.dtype = tensor.dtype();
  v.shape = symbolic(tensor.dims());
  v.constant = std::move(tensor);
}

void Graph::rename_value(ValueId id, std::string new_name) {
  Value& v = mutable_value(id);
  if (v.name == new_name) return;
  if (value_names_.count(new_name) > 0) {
    throw Error(ErrorCode::internal, fmt::format("the name '{}' is taken", new_name));
  }
  value_names_.erase(v.name);
  v.name = std::move(new_name);
  value_names_.emplace(v.name, id);
}

const Value& Graph::value(ValueId id) const {
  if (id < 0 || static_cast<size_t>(id) >= values_.size() || !values_[id].alive) {
    throw Error(ErrorCode::internal, fmt::format("no value {}", id));
  }
  return values_[id];
}

Value& Graph::mutable_value(ValueId id) {
  return const_cast<Value&>(value(id));
}

std::optional<ValueId> Graph::find_value(std::string_view wanted) const {
  const auto it = value_names_.find(wanted);
  return it == value_names_.end() ? std::nullopt : std::optional(it->second);
}

std::vector<ValueId> Graph::live_values() const {
  std::vector<ValueId> ids;
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].alive) ids.push_back(static_cast<ValueId>(i));
  }
  return ids;
}

// --- nodes
// ----------------------------------------------------------------------------------------

NodeId Graph::add_node(std::string op, std::vector<ValueId> inputs,
                       std::vector<std::string> outputs, Attributes attributes, std::string domain,
                       std::string node_name) {
  std::vector<ValueId> ids;
  for (const std::string& output : outputs) {
    ids.push_back(output.empty() ? kNoId : add_value(unique_name(output)));
  }
  return add_node_onto(std::move(op), std::move(inputs), std::move(ids), std::move(attributes),
                       std::move(domain), std::move(node_name));
}

NodeId Graph::add_node_onto(std::string op, std::vector<ValueId> inputs,
                            std::vector<ValueId> outputs, Attributes attributes, std::string domain,
                            std::string node_name) {
  const auto id = static_cast<NodeId>(nodes_.size());
  Node n;
  if (node_name.empty()) {
    const auto first =
        std::find_if(outputs.begin(), outputs.end(), [](ValueId v) { return v >= 0; });
    node_name = op + (first == outputs.end() ? "" : "_" + value(*first).name);
  }
  node_name = with_free_suffix(node_name, node_names_, node_suffixes_);
  n.name = std::move(node_name);
  n.domain = std::move(domain);
  n.op = std::move(op);
  n.inputs = std::move(inputs);
  n.outputs = std::move(outputs);
  n.attributes = std::move(attributes);
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    if (n.inputs[i] != kNoId) mutable_value(n.inputs[i]).uses.push_back({id, static_cast<int>(i)});
  }
  for (const ValueId output : n.outputs) {
    if (output == kNoId) continue;
    Value& v = mutable_value(output);
    if (v.producer != kNoId || v.is_constant() || v.is_input) {
      throw Error(ErrorCode::corrupt_data, fmt::format("value '{}' is written twice", v.name));
    }
    v.producer = id;
  }
  node_names_.emplace(n.name, id);
  nodes_.push_back(std::move(n));
  order_.push_back(id);
  return id;
}

void Graph::remove_node(NodeId id) {
  Node& n = mutable_node(id);
  for (const ValueId output : n.outputs) {
    if (output == kNoId) continue;
    const Value& v = value(output);
    if (!v.uses.empty() || v.is_output) {
      throw Error(ErrorCode::internal, fmt::format("node '{}' is still used", n.name));
    }
  }
  for (const ValueId output : n.outputs) {
    if (output == kNoId) continue;
    value_names_.erase(values_[output].name);
    values_[output].alive = false;
    values_[output].producer = kNoId;
  }
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    if (n.inputs[i] != kNoId) drop_use(n.inputs[i], id, static_cast<int>(i));
  }
  node_names_.erase(n.name);
  n.alive = false;
  n.attributes.clear();
  order_.erase(std::find(order_.begin(), order_.end(), id));
}

void Graph::set_input(NodeId id, size_t index, ValueId replacement) {
  Node& n = mutable_node(id);
  if (index >= n.inputs.size()) n.inputs.resize(index + 1, kNoId);
  if (n.inputs[index] != kNoId) drop_use(n.inputs[index], id, static_cast<int>(index));
  n.inputs[index] = replacement;
  if (replacement != kNoId) {
    mutable_value(replacement).uses.push_back({id, static_cast<int>(index)});
  }
}

void Graph::add_node_input(NodeId id, ValueId added) {
  set_input(id, mutable_node(id).inputs.size(), added);
}

void Graph::set_op(NodeId id, std::string op, std::string domain) {
  mutable_node(id).op = std::move(op);
  mutable_node(id).domain = std::move(domain);
}

void Graph::set_doc(NodeId id, std::string text) {
  mutable_node(id).doc = std::move(text);
}

Attributes& Graph::attributes(NodeId id) {
  return mutable_node(id).attributes;
}

void Graph::replace_uses(ValueId from, ValueId to) {
  const std::vector<Use> uses = value(from).uses;
  for (const Use& use : uses) set_input(use.node, static_cast<size_t>(use.index), to);
  if (value(from).is_output) replace_output(from, to);
}

const Node& Graph::node(NodeId id) const {
  if (id < 0 || static_cast<size_t>(id) >= nodes_.size() || !nodes_[id].alive) {
    throw Error(ErrorCode::internal, fmt::format("no node {}", id));
  }
  return nodes_[id];
}

Node& Graph::mutable_node(NodeId id) {
  return const_cast<Node&>(node(id));
}

std::vector<NodeId> Graph::nodes() const {
  return order_;
}
size_t Graph::num_nodes() const {
  return order_.size();
}

std::optional<NodeId> Graph::find_node(std::string_view wanted) const {
  const auto it = node_names_.find(wanted);
  return it == node_names_.end() ? std::nullopt : std::optional(it->second);
}

// --- convenience
// ----------------------------------------------------------------------------------

NodeId Graph::producer_id(ValueId id) const {
  return id == kNoId ? kNoId : value(id).producer;
}

const Node* Graph::producer(ValueId id) const {
  const NodeId p = producer_id(id);
  return p == kNoId ? nullptr : &nodes_[p];
}

NodeId Graph::single_user(ValueId id) const {
  const Value& v = value(id);
  return v.uses.size() == 1 && !v.is_output ? v.uses[0].node : kNoId;
}

const Tensor* Graph::constant(ValueId id) const {
  if (id == kNoId) return nullptr;
  const Value& v = value(id);
  return v.is_constant() ? &v.constant : nullptr;
}

std::string Graph::unique_name(std::string_view wanted) const {
  std::string base(wanted.empty() ? "value" : wanted);
  return with_free_suffix(base, value_names_, value_suffixes_);
}

void Graph::drop_use(ValueId id, NodeId user, int index) {
  auto& uses = mutable_value(id).uses;
  const auto it = std::find(uses.begin(), uses.end(), Use{user, index});
  if (it != uses.end()) uses.erase(it);
}

void Graph::sort() {
  // Kahn's algorithm; among the ready nodes the one that stands first in the current order goes
  // first.
  std::vector<int> position(nodes_.size(), 0);
  std::vector<int> waits(nodes_.size(), 0);
  for (size_t i = 0; i < order_.size(); ++i) position[order_[i]] = static_cast<int>(i);
  const auto later = [&](NodeId a, NodeId b) { return position[a] > position[b]; };
  std::priority_queue<NodeId, std::vector<NodeId>, decltype(later)> ready(later);
  for (const NodeId id : order_) {
    for (const ValueId in : nodes_[id].inputs) {
      if (in != kNoId && values_[in].producer != kNoId) ++waits[id];
    }
    if (waits[id] == 0) ready.push(id);
  }
  std::vector<NodeId> sorted;
  while (!ready.empty()) {
    const NodeId id = ready.top();
    ready.pop();
    sorted.push_back(id);
    for (const ValueId output : nodes_[id].outputs) {
      if (output == kNoId) continue;
      for (const Use& use : values_[output].uses) {
        if (--waits[use.node] == 0) ready.push(use.node);
      }
    }
  }
  if (sorted.size() != order_.size()) {
    std::string names;
    for (const NodeId id : order_) {
      if (waits[id] <= 0) continue;
      if (names.size() > 200) {
        names += ", ...";
        break;
      }
      names += (names.empty() ? "'" : ", '") + nodes_[id].name + "'";
    }
    throw Error(ErrorCode::corrupt_data, "the graph has a cycle through " + names);
  }
  order_ = std::move(sorted);
}

int64_t Graph::remove_dead() {
  std::vector<bool> needed(nodes_.size(), false);
  std::vector<NodeId> stack;
  const auto need = [&](ValueId id) {
    const NodeId p = producer_id(id);
    if (p != kNoId && !needed[p]) {
      needed[p] = true;
      stack.push_back(p);
    }
  };
  for (const ValueId output : outputs_) need(output);
  while (!stack.empty()) {
    const NodeId id = stack.back();
    stack.pop_back();
    for (const ValueId in : nodes_[id].inputs) need(in);
  }
  int64_t removed = 0;
  // Users before producers, so that outputs are unused when their node goes.
  for (bool progress = true; progress;) {
    progress = false;
    const std::vector<NodeId> order = order_;
    for (size_t i = order.size(); i-- > 0;) {
      const NodeId id = order[i];
      if (needed[id]) continue;
      const auto used = [&](ValueId v) { return v != kNoId && !values_[v].uses.empty(); };
      if (std::any_of(nodes_[id].outputs.begin(), nodes_[id].outputs.end(), used)) continue;
      remove_node(id);
      ++removed;
      progress = true;
    }
  }
  for (Value& v : values_) {
    if (v.alive && v.is_constant() && v.uses.empty() && !v.is_output) {
      value_names_.erase(v.name);
      v.alive = false;
      v.constant = {};
    }
  }
  return removed;
}

}  // namespace narrow
