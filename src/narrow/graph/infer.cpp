// SPDX-License-Identifier: Apache-2.0
// The driver of shape inference: walks the nodes in order, lets each operator's row state its
// outputs, checks the sizes, and merges the outcome with the annotations that are there.
#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/ops/subgraph.h"

namespace narrow {
namespace {

constexpr size_t kMaxRank = 64;  // numpy's limit; real models stay below 10
constexpr int kMaxDepth = 32;    // of nested subgraphs

struct Facts {
  std::vector<Tensor> known;
  std::vector<std::optional<KnownValue>> partial;
};

[[noreturn]] void fail(const Node& node, const std::string& message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): {}", node.name, node.op, message), std::move(hint));
}

bool in_order(const Graph& graph) {
  std::vector<bool> visited(graph.node_capacity(), false);
  for (const NodeId id : graph.nodes()) {
    for (const ValueId in : graph.node(id).inputs) {
      const NodeId producer = graph.producer_id(in);
      if (producer != kNoId && !visited[producer]) return false;
    }
    visited[id] = true;
  }
  return true;
}

/// Ranks and products that nothing downstream needs to check again.
void check_size(const Node& node, const SymbolicShape& shape) {
  if (shape.size() > kMaxRank) fail(node, fmt::format("an output has rank {}", shape.size()));
  Dims known;
  for (const Dim& d : shape) {
    if (d.known()) known.push_back(d.value);
  }
  try {
    num_elements(known);
  } catch (const Error&) {
    fail(node, fmt::format("an output has shape {}, which is too large", to_string(shape)));
  }
}

/// What inference says wins; annotations fill what it leaves open.
SymbolicShape merge(const Node& node, const Value& value, const SymbolicShape& inferred) {
  const SymbolicShape& declared = *value.shape;
  const auto contradiction = [&] {
    fail(node,
         fmt::format("output '{}' is declared {} but has shape {}", value.name, to_string(declared),
                     to_string(inferred)),
         "export the model again, or strip its value_info: the annotation may be wrong");
  };
  if (declared.size() != inferred.size()) contradiction();
  SymbolicShape merged = inferred;
  for (size_t i = 0; i < merged.size(); ++i) {
    if (merged[i].known() && declared[i].known() && merged[i].value != declared[i].value) {
      contradiction();
    }
    if (merged[i] == Dim()) merged[i] = declared[i];
  }
  return merged;
}

void apply(Graph& graph, const Node& node, size_t i, InferContext::Output& output, bool fresh) {
  Value& value = graph.mutable_value(node.outputs[i]);
  if (output.dtype != DType::undefined) {
    if (value.dtype != DType::undefined && value.dtype != output.dtype) {
      fail(node, fmt::format("output '{}' is declared {} but is {}", value.name,
                             to_string(value.dtype), to_string(output.dtype)));
    }
    value.dtype = output.dtype;
  }
  if (!output.shape) {
    if (fresh) value.shape.reset();
    return;
  }
  check_size(node, *output.shape);
  value.shape =
      fresh || !value.shape ? std::move(*output.shape) : merge(node, value, *output.shape);
}

void infer_node(Graph& graph, NodeId id, Facts& facts, bool fresh, int depth) {
  const Node& node = graph.node(id);
  const OpInfo* op = find_op(node.domain, node.op);
  if (!op || !op->infer) return;
  InferContext context(graph, node);
  context.known_values = &facts.known;
  context.partial_values = &facts.partial;
  context.depth = depth;
  try {
    op->infer(context);
  } catch (Error& e) {
    // Errors of the core (attribute types, axes, sizes) do not know the node.
    if (e.message().find(node.name) == std::string::npos) {
      e.add_context(fmt::format("node '{}' ({})", node.name, node.op));
    }
    throw;
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoId) continue;
    InferContext::Output& output = context.outputs()[i];
    apply(graph, node, i, output, fresh);
    facts.known[node.outputs[i]] = std::move(output.constant);
    facts.partial[node.outputs[i]] = std::move(output.value);
  }
}

void infer_graph(Graph& graph, Facts& facts, bool fresh, int depth) {
  facts.known.resize(graph.value_capacity());
  facts.partial.resize(graph.value_capacity());
  if (!in_order(graph)) graph.sort();
  for (const NodeId id : graph.nodes()) infer_node(graph, id, facts, fresh, depth);
}

/// Gives the inputs their dimensions; a symbol bound on the way gets its value in every input.
void bind_inputs(Graph& graph, std::span<const std::optional<Dims>> input_dims) {
  if (input_dims.size() > graph.inputs().size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} input shapes given, the graph '{}' has {} inputs",
                            input_dims.size(), graph.name, graph.inputs().size()));
  }
  std::map<std::string, int64_t> symbols;
  for (size_t i = 0; i < input_dims.size(); ++i) {
    if (!input_dims[i]) continue;
    Value& input = graph.mutable_value(graph.inputs()[i]);
    const Dims& dims = *input_dims[i];
    num_elements(dims);
    if (input.shape && input.shape->size() != dims.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("input '{}' has rank {}, shape {} does not fit", input.name,
                              input.shape->size(), to_string(dims)));
    }
    for (size_t d = 0; input.shape && d < dims.size(); ++d) {
      const std::string& symbol = (*input.shape)[d].name;
      if (symbol.empty() || (*input.shape)[d].known()) continue;
      const auto [it, added] = symbols.emplace(symbol, dims[d]);
      if (!added && it->second != dims[d]) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("input '{}': dimension '{}' is {} here and {} elsewhere",
                                input.name, symbol, dims[d], it->second));
      }
    }
    input.shape = symbolic(dims);
  }
  for (const ValueId id : graph.inputs()) {
    Value& input = graph.mutable_value(id);
    if (!input.shape) continue;
    for (Dim& d : *input.shape) {
      const auto it = d.known() ? symbols.end() : symbols.find(d.name);
      if (it != symbols.end()) d = Dim(it->second);
    }
  }
}

}  // namespace

std::vector<Tensor> infer_shapes(Graph& graph, std::span<const std::optional<Dims>> input_dims) {
  const bool fresh = !input_dims.empty();
  if (fresh) bind_inputs(graph, input_dims);
  Facts facts;
  infer_graph(graph, facts, fresh, 0);
  return std::move(facts.known);
}

namespace ops {

void infer_body(InferContext& c, Graph& body, std::span<const BodyInput> inputs) {
  if (c.depth >= kMaxDepth) c.fail(fmt::format("subgraphs nest deeper than {}", kMaxDepth));
  if (body.inputs().size() != inputs.size()) {
    c.fail(fmt::format("body '{}' has {} inputs, expected {}", body.name, body.inputs().size(),
                       inputs.size()));
  }
  Facts facts;
  facts.known.resize(body.value_capacity());
  for (size_t i = 0; i < inputs.size(); ++i) {
    Value& input = body.mutable_value(body.inputs()[i]);
    if (inputs[i].dtype != DType::undefined) {
      if (input.dtype != DType::undefined && input.dtype != inputs[i].dtype) {
        c.fail(fmt::format("body input '{}' is declared {} but gets {}", input.name,
                           to_string(input.dtype), to_string(inputs[i].dtype)));
      }
      input.dtype = inputs[i].dtype;
    }
    input.shape = inputs[i].shape;
    facts.known[body.inputs()[i]] = inputs[i].constant;
  }
  infer_graph(body, facts, true, c.depth + 1);
}

}  // namespace ops
}  // namespace narrow
