// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/graph/qdq.h"
#include "narrow/ptq/op_class.h"
#include "narrow/ptq/options.h"
#include "narrow/train/prune/masks.h"

namespace narrow::train {
namespace {

bool any_match(const std::vector<std::string>& globs, const std::string& name) {
  return std::ranges::any_of(globs, [&](const std::string& g) { return glob_match(g, name); });
}

void require_matches(const char* key, const std::vector<std::string>& globs,
                     const std::vector<std::string>& names) {
  for (const std::string& glob : globs) {
    const bool hit =
        std::ranges::any_of(names, [&](const std::string& n) { return glob_match(glob, n); });
    if (hit) continue;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: '{}' names no layer with weights", key, glob),
                did_you_mean(glob, names));
  }
}

/// The number of elements and of zeros of the weights of a node; nullopt where they are no
/// constants that can be counted.
std::optional<LayerZeros> zeros_of(const Graph& graph, ValueId weights) {
  LayerZeros out;
  if (const Tensor* w = graph.constant(weights)) {
    if (w->dtype() != DType::float32) return std::nullopt;
    const auto data = w->data<float>();
    out.weights = w->elements();
    out.zeros = std::ranges::count(data, 0.0F);
    return out;
  }
  const auto grid = dequantized_from(graph, weights);
  const Tensor* codes = grid ? graph.constant(grid->codes) : nullptr;
  if (codes == nullptr) return std::nullopt;
  const Tensor* zero = graph.constant(grid->zero_point);
  const auto zeros = zero != nullptr ? zero->to_ints() : std::vector<int64_t>{0};
  // Codes of several zero points would need their units; sparse weights are symmetric.
  if (!std::ranges::all_of(zeros, [&](int64_t z) { return z == zeros.front(); })) {
    return std::nullopt;
  }
  const auto values = codes->to_ints();
  out.weights = codes->elements();
  out.zeros = std::ranges::count(values, zeros.front());
  return out;
}

/// A layer's weights; nullopt for none.
std::optional<PruneTarget> target_of(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const auto weights = [&](ValueId w) {
    const Tensor* x = graph.constant(w);
    return x != nullptr && x->dtype() == DType::float32 && x->rank() >= 2;
  };
  std::string reason;
  if (const auto layer = layer_of(graph, id, &reason)) {
    if (!weights(layer->weights)) return std::nullopt;
    return PruneTarget{node.name, graph.value(layer->weights).name, layer->reduce_axis,
                       layer->channel_axis};
  }
  // [out, in] behind a Transpose, as in language models; a table of embeddings is no layer.
  const Node* transpose = node.is("MatMul") ? graph.producer(node.input(1)) : nullptr;
  if (transpose == nullptr || !transpose->is("Transpose")) return std::nullopt;
  const ValueId w = transpose->input(0);
  if (!weights(w) || graph.constant(w)->rank() != 2) return std::nullopt;
  const bool table = std::ranges::any_of(
      graph.value(w).uses, [&](const Use& use) { return graph.node(use.node).is("Gather"); });
  if (table) return std::nullopt;
  return PruneTarget{node.name, graph.value(w).name, 1, 0};
}

}  // namespace

std::vector<PruneTarget> find_targets(const Graph& graph, const std::vector<std::string>& layers,
                                      const std::vector<std::string>& except) {
  std::vector<PruneTarget> targets;
  std::vector<std::string> names;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const std::optional<PruneTarget> target = target_of(graph, id);
    if (!target) continue;
    names.push_back(node.name);
    if (!layers.empty() && !any_match(layers, node.name)) continue;
    if (any_match(except, node.name)) continue;
    const bool seen = std::ranges::any_of(
        targets, [&](const PruneTarget& t) { return t.weights == target->weights; });
    if (!seen) targets.push_back(*target);
  }
  require_matches("layers", layers, names);
  require_matches("except", except, names);
  if (targets.empty()) {
    throw Error(ErrorCode::invalid_argument, "no layer with float weights is left to prune");
  }
  return targets;
}

std::vector<LayerZeros> count_zeros(const Graph& graph) {
  std::vector<LayerZeros> out;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const bool product =
        node.is("Conv") || node.is("Gemm") || node.is("MatMul") || node.is("ConvTranspose");
    if (!product || node.input(1) == kNoId) continue;
    ValueId weights = node.input(1);
    // Weights in groups stand behind a Reshape, as matrices may behind a Transpose.
    while (const Node* from = graph.producer(weights)) {
      if (!from->is("Reshape") && !from->is("Transpose")) break;
      weights = from->input(0);
    }
    auto zeros = zeros_of(graph, weights);
    if (!zeros) continue;
    zeros->node = node.name;
    zeros->op = node.op;
    out.push_back(*zeros);
  }
  return out;
}

}  // namespace narrow::train
