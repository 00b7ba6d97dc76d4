// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/graph/passes/passes.h"
#include "narrow/runtime/control_flow.h"
#include "narrow/runtime/plan.h"

namespace narrow {
namespace {

/// A copy with only the first outputs: those added to protect observed values go again.
Graph with_outputs(const Graph& graph, size_t count) {
  Graph copy;
  copy.name = graph.name;
  copy.doc = graph.doc;
  copy.metadata = graph.metadata;
  copy.source_opsets = graph.source_opsets;
  copy.producer_name = graph.producer_name;
  copy.producer_version = graph.producer_version;
  std::vector<ValueId> ids(graph.value_capacity(), kNoId);
  for (const ValueId id : graph.inputs()) {
    const Value& v = graph.value(id);
    ids[id] = copy.add_input(v.name, v.dtype, v.shape);
  }
  for (const ValueId id : graph.live_values()) {
    const Value& v = graph.value(id);
    if (v.is_input) continue;
    ids[id] = v.is_constant() ? copy.add_initializer(v.name, v.constant)
                              : copy.add_value(v.name, v.dtype, v.shape);
  }
  const auto translate = [&](std::vector<ValueId> list) {
    for (ValueId& id : list) id = id == kNoId ? kNoId : ids[id];
    return list;
  };
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    copy.add_node_onto(node.op, translate(node.inputs), translate(node.outputs), node.attributes,
                       node.domain, node.name);
  }
  for (size_t i = 0; i < count; ++i) copy.add_output(ids[graph.outputs()[i]]);
  return copy;
}

void check_known(const Graph& graph) {
  std::vector<std::string> unknown;
  for (const UnsupportedNode& node : unsupported_nodes(graph)) {
    unknown.push_back(fmt::format("'{}' ({}): unknown operator", node.node, node.op));
  }
  if (!unknown.empty()) throw NodesNotSupported(std::move(unknown));
}

bool contains(const Graph& graph, const std::string& name) {
  if (graph.find_value(name)) return true;
  for (const NodeId id : graph.nodes()) {
    for (const std::string& key : body_attributes(graph.node(id))) {
      const std::shared_ptr<Graph> body = graph.node(id).graph(key);
      if (body && contains(*body, name)) return true;
    }
  }
  return false;
}

void merge(LoweringReport& into, LoweringReport&& from) {
  into.lowered += from.lowered;
  std::move(from.refused.begin(), from.refused.end(), std::back_inserter(into.refused));
}

LoweringReport prepare_graph(Graph& graph, const SessionOptions& options) {
  const size_t outputs = graph.outputs().size();
  for (const std::string& name : options.observed) {
    const auto id = graph.find_value(name);
    if (id && !graph.value(*id).is_output) graph.add_output(*id);
  }
  LoweringReport report;
  if (options.lower) {
    absorb_casts(graph, {});  // folding would make float32 constants of them
    absorb_cache(graph, {});
    absorb_blocks(graph, {});
  }
  if (options.optimize) {
    PassOptions passes;
    passes.context.evaluate = evaluate_constant;
    optimize(graph, passes);
  }
  if (options.lower) {
    LoweringOptions lowering;
    lowering.sample_ranges = options.sample_ranges;
    report = lower_to_integer(graph, lowering);
    if (options.optimize && !options.reference) merge_products(graph, {});
  }
  if (options.optimize) {
    infer_shapes(graph);
    slice_channels(graph, {});
    if (options.lower && !options.reference) fuse_followers(graph, {});
    fuse_activations(graph, {});  // before the observed values lose their protection
  }
  if (graph.outputs().size() != outputs) graph = with_outputs(graph, outputs);
  graph.sort();
  infer_shapes(graph);
  for (const NodeId id : graph.nodes()) {
    for (const std::string& key : body_attributes(graph.node(id))) {
      const std::shared_ptr<Graph> old = graph.node(id).graph(key);
      if (!old) continue;  // refused by the plan, with its name
      auto body = std::make_shared<Graph>(*old);
      annotate_body(graph, graph.node(id), *body);
      merge(report, prepare_graph(*body, options));
      graph.attributes(id)[key] = std::move(body);
    }
  }
  return report;
}

}  // namespace

LoweringReport prepare(Graph& graph, const SessionOptions& options) {
  check_known(graph);
  for (const std::string& name : options.observed) {
    if (!contains(graph, name)) {
      throw Error(ErrorCode::not_found, fmt::format("no value '{}' to observe", name));
    }
  }
  graph.sort();
  infer_shapes(graph);
  verify(graph);
  return prepare_graph(graph, options);
}

}  // namespace narrow
