// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/builder.h"

#include <fmt/format.h>

#include <queue>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/qoperator.h"
#include "narrow/formats/onnx/upgrade.h"

namespace narrow::onnx {
namespace {

[[noreturn]] void corrupt(std::string message) {
  throw Error(ErrorCode::corrupt_data, std::move(message));
}

/// The tensor that a Constant node states.
ProtoTensor constant_tensor(const ProtoNode& node) {
  ProtoTensor out;
  if (node.outputs.size() != 1 || node.attributes.size() != 1) {
    corrupt(node.describe() + ": needs one output and one attribute");
  }
  out.name = node.outputs[0];
  const auto& [key, attribute] = *node.attributes.begin();
  const ProtoValue& value = attribute.value;
  if (const auto* tensor = std::get_if<Tensor>(&value)) {
    out.tensor = *tensor;
  } else if (const auto* i = std::get_if<int64_t>(&value)) {
    out.tensor = Tensor::scalar(*i);
  } else if (const auto* f = std::get_if<float>(&value)) {
    out.tensor = Tensor::scalar(*f);
  } else if (const auto* ints = std::get_if<std::vector<int64_t>>(&value)) {
    out.tensor = Tensor::vector(*ints);
  } else if (const auto* floats = std::get_if<std::vector<float>>(&value)) {
    out.tensor = Tensor::vector(*floats);
  } else if (key == "sparse_value") {
    throw Error(ErrorCode::unsupported, node.describe() + ": its value is sparse",
                "store it as a dense tensor");
  } else {
    out.unreadable = "a tensor of strings or of a type that narrow has not";
  }
  return out;
}

/// Shape inference relies on the arity that the operator's row states.
void check_arity(const ProtoNode& node) {
  const OpInfo* op = find_op(node.domain, node.op);
  if (op == nullptr) return;
  const auto check = [&](const char* what, size_t have, int least, int most) {
    if (have >= static_cast<size_t>(least) && (most < 0 || have <= static_cast<size_t>(most))) {
      return;
    }
    corrupt(fmt::format("{}: {} {}, the operator has {} to {}", node.describe(), have, what, least,
                        most < 0 ? std::string("any number") : std::to_string(most)));
  };
  check("inputs", node.inputs.size(), op->min_inputs, op->max_inputs);
  check("outputs", node.outputs.size(), op->min_outputs, op->max_outputs);
  for (int i = 0; i < op->min_inputs; ++i) {
    const bool optional = i < 32 && (op->optional_inputs >> i & 1u) != 0;
    if (!optional && node.inputs[static_cast<size_t>(i)].empty()) {
      corrupt(fmt::format("{}: the required input {} is absent", node.describe(), i));
    }
  }
}

}  // namespace

std::string result_name(const ProtoNode& n) {
  return n.outputs.empty() ? n.op : n.outputs[0];
}

void to_onnx(ProtoNode& node, std::string op) {
  node.op = std::move(op);
  node.domain.clear();
  node.opset = kNewestOpset;
}

std::vector<std::string> free_names(const ProtoGraph& graph) {
  std::unordered_set<std::string> seen;
  for (const ProtoValueInfo& input : graph.inputs) seen.insert(input.name);
  for (const ProtoTensor& tensor : graph.initializers) seen.insert(tensor.name);
  for (const ProtoNode& node : graph.nodes) seen.insert(node.outputs.begin(), node.outputs.end());
  std::vector<std::string> free;
  const auto read = [&](const std::string& name) {
    if (!name.empty() && seen.insert(name).second) free.push_back(name);
  };
  for (const ProtoNode& node : graph.nodes) {
    for (const std::string& input : node.inputs) read(input);
    each_subgraph(node, [&](const ProtoGraph& body) {
      for (const std::string& name : free_names(body)) read(name);
    });
  }
  for (const ProtoValueInfo& output : graph.outputs) read(output.name);
  return free;
}

Graph GraphBuilder::build(const std::vector<Capture>& captures,
                          const std::vector<ProtoTensor>& constants) {
  graph_.name = proto_.name.empty() ? "main" : proto_.name;
  graph_.doc = proto_.doc;
  take_constant_nodes();
  note_uses();
  for (const auto* list : {&proto_.outputs, &proto_.value_info}) {
    for (const ProtoValueInfo& info : *list) infos_.emplace(info.name, &info);
  }
  declare_inputs(captures);
  declare_initializers(constants);
  for (const ProtoNode& node : proto_.nodes) {
    for (const std::string& output : node.outputs) {
      if (!output.empty()) claim(output);
    }
    node_names_.insert(node.name);
  }
  for (const size_t i : sorted_nodes()) {
    ProtoNode node = std::move(proto_.nodes[i]);
    node_names_.erase(node.name);  // the first node of a name keeps it
    import_node(node, *this);
    const std::vector<ProtoNode> after_import = std::exchange(after_, {});
    upgrade_node(node, *this);
    const std::vector<ProtoNode> after_upgrade = std::exchange(after_, {});
    emit(node);
    for (const ProtoNode& n : after_upgrade) emit(n);
    for (const ProtoNode& n : after_import) emit(n);
  }
  add_outputs();
  return std::move(graph_);
}

void GraphBuilder::claim(const std::string& name) {
  if (!names_.insert(name).second) corrupt(fmt::format("the name '{}' is given twice", name));
}

void GraphBuilder::take_constant_nodes() {
  std::vector<ProtoNode> rest;
  rest.reserve(proto_.nodes.size());
  for (ProtoNode& node : proto_.nodes) {
    if (node.op == "Constant" && node.domain.empty()) {
      proto_.initializers.push_back(constant_tensor(node));
    } else {
      rest.push_back(std::move(node));
    }
  }
  proto_.nodes = std::move(rest);
}

void GraphBuilder::note_uses() {
  for (const ProtoNode& node : proto_.nodes) {
    used_.insert(node.inputs.begin(), node.inputs.end());
    each_subgraph(node, [this](const ProtoGraph& body) {
      for (std::string& name : free_names(body)) used_.insert(std::move(name));
    });
  }
  for (const ProtoValueInfo& output : proto_.outputs) used_.insert(output.name);
}

void GraphBuilder::declare_inputs(const std::vector<Capture>& captures) {
  // Before IR version 4 every initializer is a graph input as well; as an input it only states its
  // type again.
  std::unordered_set<std::string> initialized;
  for (const ProtoTensor& tensor : proto_.initializers) initialized.insert(tensor.name);
  for (const ProtoValueInfo& input : proto_.inputs) {
    if (input.name.empty()) corrupt("a graph input has no name");
    if (initialized.count(input.name) > 0) continue;
    if (!input.other.empty()) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("graph input '{}' is {}, not a tensor of a type that narrow has",
                              input.name, input.other));
    }
    claim(input.name);
    graph_.add_input(input.name, input.dtype, input.shape);
  }
  for (const Capture& capture : captures) {
    claim(capture.name);
    graph_.add_input(capture.name, capture.dtype, capture.shape);
  }
}

void GraphBuilder::declare_initializers(const std::vector<ProtoTensor>& constants) {
  for (const auto* list : {&std::as_const(proto_.initializers), &constants}) {
    for (const ProtoTensor& tensor : *list) {
      if (tensor.name.empty()) corrupt("an initializer has no name");
      claim(tensor.name);
      if (tensor.unreadable.empty()) {
        graph_.add_initializer(tensor.name, tensor.tensor);
      } else {
        unreadable_.emplace(tensor.name, tensor.unreadable);
      }
    }
  }
}

std::vector<size_t> GraphBuilder::sorted_nodes() const {
  const size_t count = proto_.nodes.size();
  std::unordered_map<std::string_view, size_t> producer;
  for (size_t i = 0; i < count; ++i) {
    for (const std::string& output : proto_.nodes[i].outputs) {
      if (!output.empty()) producer.emplace(output, i);
    }
  }
  std::vector<std::vector<size_t>> users(count);
  std::vector<size_t> waits(count, 0);
  const auto wait_for = [&](const std::string& name, size_t user) {
    const auto it = producer.find(name);
    if (it == producer.end()) return;
    users[it->second].push_back(user);
    ++waits[user];
  };
  for (size_t i = 0; i < count; ++i) {
    for (const std::string& input : proto_.nodes[i].inputs) wait_for(input, i);
    each_subgraph(proto_.nodes[i], [&](const ProtoGraph& body) {
      for (const std::string& name : free_names(body)) wait_for(name, i);
    });
  }
  // Among the nodes that are ready the first of the file goes first: sorted files stay as they are.
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < count; ++i) {
    if (waits[i] == 0) ready.push(i);
  }
  std::vector<size_t> order;
  order.reserve(count);
  while (!ready.empty()) {
    const size_t i = ready.top();
    ready.pop();
    order.push_back(i);
    for (const size_t user : users[i]) {
      if (--waits[user] == 0) ready.push(user);
    }
  }
  for (size_t i = 0; i < count && order.size() < count; ++i) {
    if (waits[i] > 0) corrupt("the graph has a cycle at " + proto_.nodes[i].describe());
  }
  return order;
}

void GraphBuilder::add_outputs() {
  if (proto_.outputs.empty()) corrupt(fmt::format("graph '{}' has no outputs", graph_.name));
  for (const ProtoValueInfo& output : proto_.outputs) {
    const auto id = graph_.find_value(output.name);
    if (!id) corrupt(fmt::format("nothing computes the graph output '{}'", output.name));
    graph_.add_output(*id);
  }
}

ValueId GraphBuilder::resolve(const std::string& name, const ProtoNode& node) const {
  if (name.empty()) return kNoId;
  if (const auto id = graph_.find_value(name)) return *id;
  const auto unreadable = unreadable_.find(name);
  if (unreadable != unreadable_.end()) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: reads '{}', which is {}", node.describe(),
                                                    name, unreadable->second));
  }
  corrupt(fmt::format("{}: reads '{}', which nothing computes", node.describe(), name));
}

void GraphBuilder::emit(const ProtoNode& node) {
  check_arity(node);
  std::vector<ValueId> inputs;
  for (const std::string& input : node.inputs) inputs.push_back(resolve(input, node));
  while (!inputs.empty() && inputs.back() == kNoId) inputs.pop_back();

  // Outer values of the bodies: constants are copied into them (the storage is shared), the others
  // become trailing inputs, the same ones for all bodies of the node.
  std::vector<Capture> captures;
  std::vector<ProtoTensor> constants;
  std::unordered_set<std::string> seen;
  each_subgraph(node, [&](const ProtoGraph& body) {
    for (const std::string& name : free_names(body)) {
      if (!seen.insert(name).second) continue;
      const ValueId id = resolve(name, node);
      const Value& v = graph_.value(id);
      if (v.is_constant()) {
        constants.push_back({name, v.constant, {}});
      } else {
        captures.push_back({name, v.dtype, v.shape});
        inputs.push_back(id);
      }
    }
  });

  Attributes attributes;
  for (const auto& [key, attribute] : node.attributes) {
    if (key == kCaptures) continue;  // a word of the Graph, which no file may say
    if (!attribute.ref.empty()) {
      corrupt(fmt::format("{}: attribute '{}' refers to '{}' outside of a function",
                          node.describe(), key, attribute.ref));
    }
    if (std::holds_alternative<Unreadable>(attribute.value) && options_.allow_unknown_ops) continue;
    attributes.emplace(key, to_attribute(key, attribute.value, node, captures, constants));
  }
  if (!captures.empty()) {
    attributes.insert_or_assign(kCaptures, static_cast<int64_t>(captures.size()));
  }
  std::vector<ValueId> outputs;
  for (const std::string& output : node.outputs) {
    if (output.empty()) {
      outputs.push_back(kNoId);
      continue;
    }
    outputs.push_back(graph_.add_value(output));
  }
  const NodeId id =
      graph_.add_node_onto(node.op, std::move(inputs), std::move(outputs), std::move(attributes),
                           node.domain, unique_node_name(node));
  if (!node.doc.empty()) graph_.set_doc(id, node.doc);
  infer(id);
}

/// Types and shapes are needed while nodes are upgraded: softmax asks for the rank, Clip for the
/// element type.
void GraphBuilder::infer(NodeId id) {
  const Node& node = graph_.node(id);
  const OpInfo* info = find_op(node.domain, node.op);
  if (info != nullptr && info->infer != nullptr) {
    known_.resize(graph_.value_capacity());
    partial_.resize(graph_.value_capacity());
    InferContext context(graph_, node);
    context.known_values = &known_;
    context.partial_values = &partial_;
    try {
      info->infer(context);
    } catch (Error& e) {
      if (e.message().find(node.name) == std::string::npos) {
        e.add_context(fmt::format("node '{}' ({})", node.name, node.op));
      }
      throw;
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i] == kNoId) continue;
      InferContext::Output& output = context.outputs()[i];
      Value& value = graph_.mutable_value(node.outputs[i]);
      value.dtype = output.dtype;
      value.shape = std::move(output.shape);
      known_[node.outputs[i]] = std::move(output.constant);
      partial_[node.outputs[i]] = std::move(output.value);
    }
  }
  for (const ValueId output : node.outputs) {
    if (output != kNoId) annotate(output);
  }
}

Attribute GraphBuilder::to_attribute(const std::string& key, const ProtoValue& value,
                                     const ProtoNode& node, const std::vector<Capture>& captures,
                                     const std::vector<ProtoTensor>& constants) {
  if (const auto* body = std::get_if<std::shared_ptr<ProtoGraph>>(&value)) {
    // Each body gets only the constants that it reads.
    std::vector<ProtoTensor> read;
    const std::vector<std::string> free = free_names(**body);
    const std::unordered_set<std::string> names(free.begin(), free.end());
    for (const ProtoTensor& tensor : constants) {
      if (names.count(tensor.name) > 0) read.push_back(tensor);
    }
    // A capture that only the other body reads may meet a local name of this one.
    std::unordered_set<std::string> local;
    for (const ProtoNode& n : (*body)->nodes) local.insert(n.outputs.begin(), n.outputs.end());
    for (const ProtoTensor& t : (*body)->initializers) local.insert(t.name);
    for (const ProtoValueInfo& i : (*body)->inputs) local.insert(i.name);
    std::vector<Capture> inputs = captures;
    for (Capture& capture : inputs) {
      while (names.count(capture.name) == 0 && local.count(capture.name) > 0) {
        capture.name += "_outer";
      }
      local.insert(capture.name);
    }
    try {
      // Inlined functions may nest deeper than the file did.
      if (depth_ >= kMaxSubgraphDepth) {
        corrupt(fmt::format("subgraphs are nested deeper than {}", kMaxSubgraphDepth));
      }
      GraphBuilder builder(**body, options_, depth_ + 1);
      return std::make_shared<Graph>(builder.build(inputs, read));
    } catch (Error& e) {
      e.add_context(fmt::format("{}: body '{}'", node.describe(), key));
      throw;
    }
  }
  if (const auto* unreadable = std::get_if<Unreadable>(&value)) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: attribute '{}' is {}", node.describe(), key, unreadable->what));
  }
  return std::visit(
      [](const auto& v) -> Attribute {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, Unreadable> ||
                      std::is_same_v<T, std::shared_ptr<ProtoGraph>>) {
          return int64_t{0};  // both are dealt with above
        } else {
          return v;
        }
      },
      value);
}

std::string GraphBuilder::unique_node_name(const ProtoNode& node) {
  std::string base = node.name;
  if (base.empty()) {
    base = node.op;
    for (const std::string& output : node.outputs) {
      if (output.empty()) continue;
      base += "_" + output;
      break;
    }
  }
  std::string name = base;
  while (!node_names_.insert(name).second) {
    name = fmt::format("{}_{}", base, ++next_suffix_["node " + base]);
  }
  return name;
}

/// What the file says of a value fills what inference leaves open; old files often keep shapes from
/// before their batch size was made variable, so that inference wins.
void GraphBuilder::annotate(ValueId id) {
  Value& v = graph_.mutable_value(id);
  const auto it = infos_.find(v.name);
  if (it == infos_.end()) return;
  const ProtoValueInfo& info = *it->second;
  if (v.dtype == DType::undefined) v.dtype = info.dtype;
  if (info.dtype != DType::undefined && v.dtype != info.dtype) {
    corrupt(fmt::format("'{}' is declared {} but is {}", v.name, to_string(info.dtype),
                        to_string(v.dtype)));
  }
  if (!v.shape) v.shape = info.shape;
  if (!info.shape || info.shape->size() != v.shape->size()) return;
  for (size_t i = 0; i < v.shape->size(); ++i) {
    if ((*v.shape)[i] == Dim()) (*v.shape)[i] = (*info.shape)[i];
  }
}

// --- for the rows --------------------------------------------------------------------------------

std::string GraphBuilder::fresh_name(const std::string& hint) {
  std::string name = hint;
  while (!names_.insert(name).second) {
    name = fmt::format("{}_{}", hint, ++next_suffix_["value " + hint]);
  }
  return name;
}

std::string GraphBuilder::emit_value(const std::string& hint, const std::string& op,
                                     std::vector<std::string> inputs,
                                     std::map<std::string, ProtoValue> attributes) {
  ProtoNode node;
  node.op = op;
  node.inputs = std::move(inputs);
  node.outputs = {fresh_name(hint)};
  for (auto& [key, value] : attributes) node.set(key, std::move(value));
  emit(node);
  return node.outputs[0];
}

std::string GraphBuilder::constant(const std::string& hint, Tensor tensor) {
  std::string name = fresh_name(hint);
  graph_.add_initializer(name, std::move(tensor));
  return name;
}

const Tensor* GraphBuilder::constant_of(const std::string& name) const {
  const auto id = graph_.find_value(name);
  return id ? graph_.constant(*id) : nullptr;
}

DType GraphBuilder::dtype_of(const std::string& name) const {
  const auto id = graph_.find_value(name);
  return id ? graph_.value(*id).dtype : DType::undefined;
}

const SymbolicShape* GraphBuilder::shape_of(const std::string& name) const {
  const auto id = graph_.find_value(name);
  return id && graph_.value(*id).shape ? &*graph_.value(*id).shape : nullptr;
}

}  // namespace narrow::onnx
