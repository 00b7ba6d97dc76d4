// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_quantized.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/ptq/assign.h"

namespace narrow {
namespace {

/// Nodes that quantize in a way that was not lifted.
std::string left_over(const Graph& graph) {
  constexpr size_t kMost = 3;
  std::string names;
  size_t count = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const bool quantizes = node.op.find("QuantizeLinear") != std::string::npos ||
                           node.op.find("DequantizeLinear") != std::string::npos ||
                           node.is("MatMulInteger") || node.is("ConvInteger");
    if (!quantizes || ++count > kMost) continue;
    names += fmt::format("{}'{}' ({})", names.empty() ? "" : ", ", node.name, node.op);
  }
  if (count > kMost) names += fmt::format(" and {} more", count - kMost);
  return names;
}

void check_job(const TrainJob& job) {
  const auto refuse = [](const char* what, const char* hint) {
    throw Error(ErrorCode::unsupported, fmt::format("the model is quantized: {}", what), hint);
  };
  if (job.thin.active || job.low_rank.active) {
    refuse("its layers keep their sizes on its grids",
           "thin or factor the float model, or give --qat to make new grids");
  }
  const train::QatMethod method = job.options.qat.method;
  if (method != train::QatMethod::lsq && method != train::QatMethod::lsq_plus) {
    refuse("pact, dorefa and wrpn change weights before they round them",
           "go on with lsq or lsq_plus, or give --qat to make new grids");
  }
  const bool taught = train::learns_from_teacher(job.options);
  if (taught && job.teacher.empty()) {
    refuse("it has nothing to learn from itself", "name its float model with --teacher");
  }
}

}  // namespace

bool is_quantized(const Graph& graph) {
  return !quantized_layers(graph).empty();
}

LiftedModel open_quantized(const Graph& graph, const TrainJob& job) {
  if (job.qat.empty()) check_job(job);
  LiftedModel lifted = lift(graph);
  const std::string others = left_over(lifted.graph);
  if (!others.empty()) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the model is quantized in a form without constant grids: {}", others),
                "train the float model with --qat");
  }
  return lifted;
}

void add_file_grids(const LiftedModel& lifted, train::TrainPlan& plan) {
  for (const auto& [name, a] : lifted.activations) plan.activations[name] = {a.params, a.group};
  std::set<std::string> parameters(plan.parameters.begin(), plan.parameters.end());
  for (const auto& [name, w] : lifted.weights) {
    plan.weights[name] = w.params;
    // Also those behind a Reshape.
    const Tensor& values = *lifted.graph.constant(*lifted.graph.find_value(name));
    if (values.elements() > 1) parameters.insert(name);
  }
  plan.parameters.assign(parameters.begin(), parameters.end());
}

void fix_file_grids(train::TrainPlan& plan, train::QatOptions& options) {
  const bool beside = std::any_of(plan.adapters.begin(), plan.adapters.end(),
                                  [](const auto& entry) { return !entry.second.merged; });
  if (beside) options.ranges = train::RangeKind::fixed;
  const std::set<std::string> learn(plan.parameters.begin(), plan.parameters.end());
  for (const auto& [name, params] : plan.weights) {
    const bool learns = learn.contains(name) || plan.adapters.contains(name);
    // Ranges that are not learned are those of the file.
    if (!learns || options.ranges != train::RangeKind::learned) plan.fixed_grids.insert(name);
  }
}

Graph on_file_grids(const LiftedModel& lifted, const train::TrainState& state) {
  return put_back(lifted, {state.parameters, state.activations, state.weights});
}

Graph beside_codes(Graph quantized, const std::map<std::string, train::Adapter>& adapters) {
  if (adapters.empty()) return quantized;
  LiftedModel lifted = lift(quantized);
  for (const auto& [name, adapter] : adapters) {
    const auto weight = lifted.weights.find(name);
    if (weight == lifted.weights.end()) {
      throw Error(ErrorCode::internal, fmt::format("no codes of '{}'", name));
    }
    const Tensor& w = *lifted.graph.constant(*lifted.graph.find_value(name));
    const ValueId sum = lifted.file.add_initializer(lifted.file.unique_name(name + "_adapted"),
                                                    with_adapter(w, adapter));
    lifted.file.replace_uses(weight->second.real, sum);
  }
  lifted.file.remove_dead();
  infer_shapes(lifted.file);
  return std::move(lifted.file);
}

std::string describe_grids(const LiftedModel& lifted) {
  std::set<int> bits;
  for (const auto& [name, w] : lifted.weights) bits.insert(w.params.scheme.bits);
  return fmt::format("on the grids of the file: {} weights of {} bits, {} values",
                     lifted.weights.size(), fmt::join(bits, ", "), lifted.activations.size());
}

}  // namespace narrow
