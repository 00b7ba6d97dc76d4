// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_llm_grids.h"

#include <fmt/format.h>

#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/graph/op_table.h"
#include "narrow/llm/architectures/build.h"
#include "narrow/pipeline/llm_quantize.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

constexpr int64_t kGroup = 32;  // of the blocks of files, and of what is rounded for each token
constexpr int64_t kGroups[] = {32, 64, 128, 256};
constexpr int kEndBits = 8;  // of the embedding and the output matrix

[[noreturn]] void unknown_grids(std::string_view text) {
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' names no grids to train on", text),
              "write w2 to w8 (groups of 32) or w4g128 (of 64, 128, 256), or a format of GGUF "
              "files such as q4_0 or q4_k_m; "
              "behind it a8 and +kv8 where these are wanted too");
}

bool take_end(std::string_view& text, std::string_view end) {
  if (!text.ends_with(end)) return false;
  text.remove_suffix(end.size());
  if (text.ends_with('+')) text.remove_suffix(1);
  return true;
}

bool is_end(std::string_view name) {
  return name == "token_embd.weight" || name == "output.weight";
}

/// The constant that enters a product as its matrix, behind a Transpose or not; kNoId: none.
ValueId matrix_of(const Graph& graph, const Node& node) {
  if (!node.is("MatMul")) return kNoId;
  const ValueId w = node.input(1);
  if (graph.value(w).is_constant()) return w;
  const Node* before = graph.producer(w);
  const bool plain = before != nullptr && before->is("Transpose");
  return plain && graph.value(before->input(0)).is_constant() ? before->input(0) : kNoId;
}

Scheme scheme_of(int bits, int64_t group) {
  Scheme s;
  s.bits = bits;
  s.granularity = Granularity::per_group;
  s.axis = 1;
  s.group_size = group;
  s.scale_type = ScaleType::float16;
  return s;
}

std::string refusal(const llm::CheckpointTensor& t, int64_t block) {
  return fmt::format("'{}' has rows of {}, not of whole groups of {}", t.name, t.columns(), block);
}

void add_uniform(const LlmGrids& grids, const llm::Checkpoint& model, train::TrainPlan& plan) {
  std::string refused;
  for (const llm::CheckpointTensor& t : model.tensors()) {
    const auto id = plan.graph.find_value(t.name);
    if (!id || t.dims.size() != 2 || t.name == "position_embd.weight") continue;
    if (t.columns() % grids.group != 0) {
      refused += (refused.empty() ? "" : ", ") + refusal(t, grids.group);
      continue;
    }
    const int bits = is_end(t.name) ? std::max(grids.bits, kEndBits) : grids.bits;
    const Scheme scheme = scheme_of(bits, grids.group);
    plan.weights[t.name] = weight_params(*plan.graph.constant(*id), scheme);
  }
  if (refused.empty()) return;
  throw Error(ErrorCode::invalid_argument, refused,
              grids.group > kGroup ? "choose smaller groups" : "train it in float");
}

void add_format(const FileFormat& format, const llm::Checkpoint& model, train::TrainPlan& plan) {
  std::vector<MixtureTensor> tensors;
  for (const llm::CheckpointTensor& t : model.tensors()) tensors.push_back({t.name, t.dims});
  const auto choices = choose_types(format, model_traits(model.gguf_metadata()), tensors);
  for (size_t i = 0; i < choices.size(); ++i) {
    const std::string& name = tensors[i].name;
    if (!choices[i].type || !plan.graph.find_value(name) || tensors[i].dims.size() != 2) continue;
    if (codec(*choices[i].type).block_values > 1) plan.blocks[name] = *choices[i].type;
  }
  if (plan.blocks.empty()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("no matrix of this model can be {}", format.name),
                "its rows are no whole blocks; choose q8_0 or q4_0");
  }
}

/// What meets weights that are rounded, and keys and values.
void add_dynamic(const LlmGrids& grids, const llm::Checkpoint& model, train::TrainPlan& plan) {
  const Graph& graph = plan.graph;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const ValueId matrix = matrix_of(graph, node);
    if (grids.a8 && matrix != kNoId) {
      const std::string& name = graph.value(matrix).name;
      if (plan.weights.contains(name) || plan.blocks.contains(name)) {
        plan.dynamic[graph.value(node.input(0)).name] = {};
      }
    }
    if (grids.kv8 && node.is("Attention")) {
      for (const size_t i : {1, 2}) {
        plan.dynamic[graph.value(node.input(i)).name] = {kGroup, model.config().head_dim};
      }
    }
  }
}

}  // namespace

LlmGrids parse_llm_grids(std::string_view text) {
  LlmGrids out;
  std::string_view rest = text;
  out.kv8 = take_end(rest, "kv8");
  out.a8 = take_end(rest, "a8");
  if (rest.starts_with('w')) {
    for (const int64_t group : kGroups) {
      if (take_end(rest, fmt::format("g{}", group))) out.group = group;
    }
    if (rest.size() != 2 || rest[1] < '2' || rest[1] > '8') unknown_grids(text);
    out.bits = rest[1] - '0';
    return out;
  }
  if (rest.empty()) unknown_grids(text);
  out.format = find_file_format(rest);
  if (out.format == nullptr) out.format = find_file_format(std::string(rest) + "_s");
  if (out.format == nullptr) out.format = &file_format(rest);
  if (codec(out.format->type).block_values == 1) unknown_grids(text);
  return out;
}

train::TrainPlan plan_of(const llm::Checkpoint& model, int64_t context) {
  llm::GraphOptions options;
  options.capacity = context;
  options.activations = llm::Activations::real;
  train::TrainPlan plan;
  plan.graph = llm::build_graph(model, options);
  infer_shapes(plan.graph);
  plan.sequences = true;
  plan.output = "logits";
  for (const llm::CheckpointTensor& t : model.tensors()) {
    if (t.difference == llm::Difference::computed || !plan.graph.find_value(t.name)) continue;
    plan.parameters.push_back(t.name);
  }
  return plan;
}

void add_grids(const LlmGrids& grids, const llm::Checkpoint& model, train::TrainPlan& plan) {
  if (grids.bits > 0) add_uniform(grids, model, plan);
  if (grids.format != nullptr) add_format(*grids.format, model, plan);
  add_dynamic(grids, model, plan);
}

llm::TensorInMemory as_blocks(const Tensor& weights, const QuantParams& params) {
  // Values are scale * code with a binary16 scale: just what these two types hold.
  const BlockType type = params.scheme.bits <= 4 ? BlockType::q4_0 : BlockType::q8_0;
  const std::vector<int64_t> codes = quantize(weights, params).to_ints();
  const float* scales = params.scale.data<float>().data();
  const int64_t rows = weights.dim(0);
  const int64_t columns = weights.dim(1);
  const auto blocks_of_group = static_cast<size_t>(params.scheme.group_size / kGroup);
  llm::TensorInMemory out{
      type, Tensor(DType::uint8, {rows, static_cast<int64_t>(row_bytes(type, columns))})};
  std::byte* to = out.data.mutable_raw();
  for (size_t block = 0; block < codes.size() / kGroup; ++block) {
    const int64_t* q = codes.data() + block * kGroup;
    const Half scale = to_half(scales[block / blocks_of_group]);
    std::memcpy(to, &scale, sizeof scale);
    to += sizeof scale;
    if (type == BlockType::q8_0) {
      for (int64_t i = 0; i < kGroup; ++i) *to++ = static_cast<std::byte>(q[i] & 255);
      continue;
    }
    constexpr int64_t kZero = 8;
    for (int64_t i = 0; i < kGroup / 2; ++i) {
      *to++ = static_cast<std::byte>((q[i] + kZero) | (q[i + kGroup / 2] + kZero) << 4);
    }
  }
  return out;
}

llm::TensorInMemory as_blocks(const Tensor& weights, BlockType type) {
  const int64_t columns = weights.dims().back();
  const int64_t rows = weights.elements() / columns;
  llm::TensorInMemory out{
      type, Tensor(DType::uint8, {rows, static_cast<int64_t>(row_bytes(type, columns))})};
  EncodeOptions options;
  options.method = EncodeMethod::rtn;
  encode_rows(type, weights.data<float>(), columns, {out.data.mutable_raw(), out.data.bytes()},
              options);
  return out;
}

}  // namespace narrow
