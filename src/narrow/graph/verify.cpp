// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

[[noreturn]] void fail(const Node& node, const std::string& message,
                       ErrorCode code = ErrorCode::internal) {
  throw Error(code, fmt::format("node '{}' ({}): {}", node.name, node.op, message));
}

[[noreturn]] void fail(const Value& value, const std::string& message) {
  throw Error(ErrorCode::internal, fmt::format("value '{}': {}", value.name, message));
}

/// Which inputs of which nodes are listed as uses: lists are long where many nodes read one value.
using Listed = std::vector<std::vector<bool>>;

void verify_value(const Graph& graph, ValueId id, Listed& listed) {
  const Value& v = graph.value(id);
  if (graph.find_value(v.name) != id) fail(v, "its name leads to another value");
  if (v.is_constant()) {
    if (v.producer != kNoId || v.is_input) fail(v, "a constant is also produced or an input");
    if (v.dtype != v.constant.dtype() || v.shape != symbolic(v.constant.dims())) {
      fail(v, "its type and shape are not those of its constant " + v.constant.describe());
    }
  }
  if (v.producer != kNoId) {
    const auto& outputs = graph.node(v.producer).outputs;
    if (v.is_input || std::count(outputs.begin(), outputs.end(), id) != 1) {
      fail(v, "its producer does not write it exactly once");
    }
  }
  for (const Use& use : v.uses) {
    const Node& user = graph.node(use.node);
    const auto index = static_cast<size_t>(use.index);
    if (user.input(index) != id) {
      fail(v, fmt::format("it is listed as input {} of node '{}', which reads another value",
                          use.index, user.name));
    }
    std::vector<bool>& inputs = listed[use.node];
    inputs.resize(user.inputs.size());
    if (inputs[index]) {
      fail(v, fmt::format("it lists input {} of node '{}' twice", use.index, user.name));
    }
    inputs[index] = true;
  }
}

/// Required inputs are there, and not more than the operator takes.
void verify_arity(const Node& node, const OpInfo& op) {
  const auto count = [](const std::vector<ValueId>& ids) { return static_cast<int>(ids.size()); };
  const auto captures = static_cast<int>(node.int_or(kCaptures, 0));
  if (count(node.inputs) < op.min_inputs ||
      (op.max_inputs >= 0 && count(node.inputs) > op.max_inputs + captures)) {
    fail(node, fmt::format(
                   "{} inputs, takes {} to {}", node.inputs.size(), op.min_inputs,
                   op.max_inputs < 0 ? std::string("any number") : std::to_string(op.max_inputs)));
  }
  if (count(node.outputs) < op.min_outputs ||
      (op.max_outputs >= 0 && count(node.outputs) > op.max_outputs)) {
    fail(node, fmt::format("{} outputs, gives {} to {}", node.outputs.size(), op.min_outputs,
                           op.max_outputs < 0 ? std::string("any number")
                                              : std::to_string(op.max_outputs)));
  }
  for (int i = 0; i < op.min_inputs; ++i) {
    const bool optional = i < 32 && (op.optional_inputs >> i & 1u) != 0;
    if (node.inputs[i] == kNoId && !optional) {
      fail(node, fmt::format("the required input {} is absent", i));
    }
  }
}

/// Every input is a constant, a graph input, or written by an earlier node.
void verify_operands(const Graph& graph, NodeId id, const Listed& listed,
                     std::vector<bool>& written) {
  const Node& node = graph.node(id);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const ValueId in = node.inputs[i];
    if (in == kNoId) continue;
    const Value& v = graph.value(in);
    if (listed[id].size() <= i || !listed[id][i]) {
      fail(node, fmt::format("input {} '{}' does not list it as a use", i, v.name));
    }
    if (!v.is_constant() && !v.is_input && !written[in]) {
      fail(node, fmt::format("input {} '{}' is read before it is written", i, v.name));
    }
  }
  for (const ValueId out : node.outputs) {
    if (out == kNoId) continue;
    if (written[out]) fail(node, fmt::format("'{}' is written twice", graph.value(out).name));
    if (graph.value(out).producer != id) {
      fail(node, fmt::format("'{}' names another producer", graph.value(out).name));
    }
    written[out] = true;
  }
}

/// What the operator's own inference says of the outputs from the annotated inputs.
void verify_types(const Graph& graph, const Node& node, const OpInfo& op) {
  InferContext context(graph, node);
  op.infer(context);
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoId) continue;
    const Value& v = graph.value(node.outputs[i]);
    const InferContext::Output& inferred = context.outputs()[i];
    if (inferred.dtype != DType::undefined && inferred.dtype != v.dtype) {
      fail(node, fmt::format("output '{}' is annotated {} but is {}", v.name, to_string(v.dtype),
                             to_string(inferred.dtype)));
    }
    if (!inferred.shape || !v.shape) continue;
    bool fits = inferred.shape->size() == v.shape->size();
    for (size_t d = 0; fits && d < v.shape->size(); ++d) {
      const Dim& a = (*inferred.shape)[d];
      const Dim& b = (*v.shape)[d];
      fits = !a.known() || !b.known() || a.value == b.value;
    }
    if (!fits) {
      fail(node, fmt::format("output '{}' is annotated {} but has shape {}", v.name,
                             to_string(*v.shape), to_string(*inferred.shape)));
    }
  }
}

}  // namespace

void verify(const Graph& graph) {
  Listed listed(graph.node_capacity());
  for (const ValueId id : graph.live_values()) verify_value(graph, id, listed);
  std::vector<bool> written(graph.value_capacity(), false);
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (graph.find_node(node.name) != id) fail(node, "its name leads to another node");
    const OpInfo* op = find_op(node.domain, node.op);
    if (!op) {
      fail(node, fmt::format("unknown operator of the domain '{}'", node.domain),
           ErrorCode::unsupported);
    }
    verify_arity(node, *op);
    verify_operands(graph, id, listed, written);
    bool has_body = false;
    for (const auto& [key, attribute] : node.attributes) {
      if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute)) {
        if (!*body) fail(node, fmt::format("attribute '{}' holds no graph", key));
        has_body = true;
        verify(**body);
      }
    }
    // Inference of a node with bodies would write into them.
    if (!has_body && op->infer) verify_types(graph, node, *op);
  }
  for (const ValueId id : graph.outputs()) {
    const Value& v = graph.value(id);
    if (!v.is_output) fail(v, "it is listed as an output but not marked as one");
    if (!v.is_constant() && !v.is_input && !written[id]) fail(v, "an output that nothing writes");
  }
}

}  // namespace narrow
