// SPDX-License-Identifier: Apache-2.0
#include "model_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "model.h"
#include "narrow/core/error.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow::cli {
namespace {

std::string op_name(const Node& node) {
  return node.domain.empty() ? node.op : node.domain + "::" + node.op;
}

std::map<std::string, int64_t> count_ops(const Graph& graph) {
  std::map<std::string, int64_t> counts;
  for (const NodeId id : graph.nodes()) ++counts[op_name(graph.node(id))];
  return counts;
}

TensorInfo info_of(const Value& value) {
  TensorInfo info{value.name, to_string(value.dtype), "?", 0};
  if (value.shape) info.shape = to_string(*value.shape);
  if (value.is_constant()) info.bytes = value.constant.bytes();
  return info;
}

/// The constant that a node computes with, also behind the DequantizeLinear of its codes.
const Tensor* stored_operand(const Graph& graph, ValueId value) {
  if (value == kNoId) return nullptr;
  if (const Tensor* constant = graph.constant(value)) return constant;
  const Node* producer = graph.producer(value);
  const bool dequantized = producer != nullptr && producer->is("DequantizeLinear");
  return dequantized ? graph.constant(producer->input(0)) : nullptr;
}

NodeInfo info_of(const Graph& graph, const Node& node) {
  NodeInfo info{node.name, op_name(node), "", ""};
  const Tensor* largest = nullptr;
  for (const ValueId input : node.inputs) {
    const Tensor* constant = stored_operand(graph, input);
    if (constant == nullptr) continue;
    if (largest == nullptr || constant->elements() > largest->elements()) largest = constant;
  }
  if (largest != nullptr) info.weights = largest->describe();
  if (node.output(0) != kNoId) {
    const TensorInfo output = info_of(graph.value(node.output(0)));
    info.output = output.dtype + output.shape;
  }
  return info;
}

/// Scales and zero_points describe a grid; shapes and indices steer operators. What is left are
/// weights and biases.
bool is_parameter(const Graph& graph, const Value& value) {
  if (value.dtype == DType::int64 || value.dtype == DType::boolean) return false;
  return !std::all_of(value.uses.begin(), value.uses.end(), [&](const Use& use) {
    const Node& node = graph.node(use.node);
    const bool grid = node.is("QuantizeLinear") || node.is("DequantizeLinear");
    return grid && use.index > 0;
  });
}

void count_constants(const Graph& graph, ModelSummary& summary) {
  for (const ValueId id : graph.live_values()) {
    const Value& value = graph.value(id);
    if (!value.is_constant()) continue;
    summary.tensors.push_back(info_of(value));
    if (!is_parameter(graph, value)) continue;
    summary.parameters += value.constant.elements();
    summary.parameter_bytes += value.constant.bytes();
  }
  std::stable_sort(summary.tensors.begin(), summary.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return a.bytes > b.bytes; });
}

std::vector<int32_t> integers(const Tensor* tensor) {
  if (tensor == nullptr) return {};
  const std::vector<int64_t> values = tensor->to_ints();
  return {values.begin(), values.end()};
}

/// Where an integer product keeps its operands (see graph/lowered_ops.h).
struct ProductForm {
  const char* op;
  size_t weights;
  size_t bias;
  bool dynamic;
};
constexpr ProductForm kProducts[] = {{ops::kQConv, 3, 8, false},
                                     {ops::kQGemm, 3, 8, false},
                                     {ops::kDynamicQConv, 1, 4, true},
                                     {ops::kDynamicQGemm, 1, 4, true}};

const ProductForm* product_form(const Node& node) {
  if (node.domain != ops::kDomain) return nullptr;
  for (const ProductForm& form : kProducts) {
    if (node.op == form.op) return &form;
  }
  return nullptr;
}

/// The codes that its activation can have.
CodeRange activation_range(const Graph& graph, const Node& node, const ProductForm& form) {
  // Dynamic: any zero_point of uint8 may occur, so a difference may be anything of 9 bits.
  if (form.dynamic) return {-255, 255, 0};
  const DType dtype = graph.value(node.input(0)).dtype;
  const std::vector<int32_t> zero = integers(graph.constant(node.input(2)));
  return {static_cast<int32_t>(integer_min(dtype)), static_cast<int32_t>(integer_max(dtype)),
          zero.empty() ? 0 : zero[0]};
}

std::optional<LayerProof> prove_layer(const Graph& graph, const Node& node) {
  const ProductForm* form = product_form(node);
  if (form == nullptr) return std::nullopt;
  const Tensor* weights = graph.constant(node.input(form->weights));
  if (weights == nullptr) return std::nullopt;  // a product of two activations
  const bool convolution = node.op == ops::kQConv || node.op == ops::kDynamicQConv;
  const int64_t axis = convolution || node.int_or("transB", 0) != 0 ? 0 : 1;
  const std::vector<int32_t> zeros = integers(graph.constant(node.input(form->weights + 2)));
  std::vector<int32_t> bias;  // of dynamic layers it is float and added later
  if (!form->dynamic) bias = integers(graph.constant(node.input(form->bias)));
  const OverflowProof proof =
      prove_accumulators(*weights, zeros, activation_range(graph, node, *form), bias, axis);
  return LayerProof{node.name,         node.op,   weights->describe(),
                    proof.min,         proof.max, proof.headroom_bits(),
                    proof.fits_int32()};
}

void count_layers(const Graph& graph, PlanSummary& plan) {
  static const std::set<std::string> kFloat = {"Conv", "ConvTranspose", "FusedConv",
                                               "Gemm", "MatMul",        "FusedGemm"};
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (kFloat.count(node.op) > 0) {
      ++plan.float_layers;
    } else if (const ProductForm* form = product_form(node)) {
      ++(form->dynamic ? plan.dynamic_layers : plan.integer_layers);
    } else if (node.is(ops::kWConv, ops::kDomain) || node.is(ops::kWGemm, ops::kDomain)) {
      ++plan.weight_only_layers;
    }
  }
}

PlanSummary summarize_plan(const Session& session, int64_t batch) {
  PlanSummary plan;
  const Graph& graph = session.graph();
  const int64_t fixed = fixed_batch(graph);
  plan.batch = fixed > 0 ? fixed : batch;
  plan.ops = count_ops(graph);
  plan.not_lowered = session.lowering().refused;
  count_layers(graph, plan);
  plan.proofs = prove_layers(graph);
  const std::vector<Dims> dims = input_dims(graph, plan.batch);
  if (dims.size() == graph.inputs().size()) {
    session.plan(dims);
    plan.macs = session.count_macs(dims);
    plan.memory = session.memory();
  }
  return plan;
}

uint64_t size_of(const std::string& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  return error ? 0 : bytes;
}

}  // namespace

std::vector<LayerProof> prove_layers(const Graph& lowered) {
  std::vector<LayerProof> proofs;
  for (const NodeId id : lowered.nodes()) {
    if (auto proof = prove_layer(lowered, lowered.node(id))) proofs.push_back(std::move(*proof));
  }
  return proofs;
}

std::vector<std::string> ModelSummary::overflowing() const {
  std::vector<std::string> names;
  if (!plan) return names;
  for (const LayerProof& proof : plan->proofs) {
    if (!proof.fits_int32) names.push_back(proof.node);
  }
  return names;
}

ModelSummary summarize(const std::string& path, int64_t batch, const SessionOptions& options) {
  Graph graph = read_onnx(path, {.allow_unknown_ops = true});
  ModelSummary summary;
  summary.path = path;
  summary.file_bytes = size_of(path);
  summary.producer = graph.producer_name;
  if (!graph.producer_version.empty()) summary.producer += " " + graph.producer_version;
  summary.opsets = graph.source_opsets;
  summary.metadata = graph.metadata;
  for (const ValueId id : graph.inputs()) summary.inputs.push_back(info_of(graph.value(id)));
  for (const ValueId id : graph.outputs()) summary.outputs.push_back(info_of(graph.value(id)));
  summary.ops = count_ops(graph);
  for (const NodeId id : graph.nodes()) summary.nodes.push_back(info_of(graph, graph.node(id)));
  count_constants(graph, summary);
  summary.unsupported = unsupported_nodes(graph);
  try {
    const Session session(std::move(graph), options);
    summary.plan = summarize_plan(session, batch);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::internal) throw;
    summary.plan_error = e.what();
  }
  return summary;
}

}  // namespace narrow::cli
