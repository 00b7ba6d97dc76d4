// SPDX-License-Identifier: Apache-2.0
// The driver: one rule per operator, applied in topological order.
#include <algorithm>

#include "narrow/graph/lower/patterns.h"
#include "narrow/graph/qdq.h"

namespace narrow {
namespace {

using lower::Rule;

// A unary operator meets the rule of its own name; every other one that can stand in a table is in
// kUnary. To lower another operator: a row here.
constexpr Rule kRules[] = {
    {"", "Conv", lower::lower_conv},
    {"", "Gemm", lower::lower_gemm},
    {"", "MatMul", lower::lower_matmul},
    {"", "ConvInteger", lower::lower_dynamic_conv},
    {"", "MatMulInteger", lower::lower_dynamic_matmul},
    {"", "Add", lower::lower_binary},
    {"", "Sub", lower::lower_binary},
    {"", "Mul", lower::lower_binary},
    {"", "Div", lower::lower_binary},
    {"", "Pow", lower::lower_unary},
    {"", "Concat", lower::lower_concat},
    {"", "AveragePool", lower::lower_pool},
    {"", "GlobalAveragePool", lower::lower_pool},
    {"", "ReduceMean", lower::lower_pool},
    {"", "QuantizeLinear", lower::lower_requantize},
};

constexpr const char* kUnary[] = {
    "Relu",      "LeakyRelu",  "PRelu", "Clip", "Sigmoid",  "Tanh",     "HardSigmoid",
    "HardSwish", "Elu",        "Selu",  "Celu", "Softplus", "Softsign", "Gelu",
    "Mish",      "Swish",      "Exp",   "Log",  "Sqrt",     "Abs",      "Neg",
    "Erf",       "Reciprocal", "Floor", "Ceil", "Round",    "Sign"};

lower::Outcome apply(Graph& graph, NodeId id, const LoweringOptions& options) {
  const Node& node = graph.node(id);
  for (const Rule& rule : kRules) {
    if (node.is(rule.op, rule.domain)) return rule.apply(graph, id, options);
  }
  if (!node.domain.empty()) return lower::Outcome::none();
  const auto in = [&](const auto& names) {
    return std::any_of(std::begin(names), std::end(names),
                       [&](const char* name) { return node.op == name; });
  };
  if (lower::is_movement(node)) return lower::lower_movement(graph, id, options);
  if (in(kUnary)) return lower::lower_unary(graph, id, options);
  for (const ValueId input : node.inputs) {
    if (input != kNoId && !node.is("DequantizeLinear") && lower::activation_grid(graph, input)) {
      return lower::Outcome::refuse("there is no integer form of " + node.op);
    }
  }
  return lower::Outcome::none();
}

bool is_live(const Graph& graph, const std::string& name) {
  return graph.find_node(name).has_value();
}

}  // namespace

LoweringReport lower_to_integer(Graph& graph, const LoweringOptions& options) {
  LoweringReport report;
  graph.sort();
  lower::widen_activations(graph);
  std::vector<LoweringRefusal> refused;
  // Rules append nodes, so one sweep may leave work for the next (a requantization behind a moved
  // DequantizeLinear); each sweep lowers at least one node, or is the last.
  for (bool progress = true; progress;) {
    progress = false;
    refused.clear();
    for (const NodeId id : graph.nodes()) {
      const Node& node = graph.node(id);
      const bool used = std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) {
        return v != kNoId && (!graph.value(v).uses.empty() || graph.value(v).is_output);
      });
      if (!used) continue;
      const std::string name = node.name;
      const std::string op = node.op;
      const lower::Outcome outcome = apply(graph, id, options);
      if (outcome.lowered) {
        ++report.lowered;
        progress = true;
      } else if (!outcome.reason.empty()) {
        refused.push_back({name, op, outcome.reason});
      }
    }
    graph.sort();
    graph.remove_dead();
  }
  for (LoweringRefusal& r : refused) {
    if (is_live(graph, r.node)) report.refused.push_back(std::move(r));
  }
  return report;
}

}  // namespace narrow
