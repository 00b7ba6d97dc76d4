// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_llm_blocks.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <set>

#include "narrow/core/half.h"

namespace narrow {
namespace {

constexpr int64_t kGroup = 32;

/// The block type whose grids these are.
std::optional<BlockType> type_of(const Scheme& scheme) {
  const bool groups = scheme.granularity == Granularity::per_group && scheme.axis == 1 &&
                      scheme.group_size == kGroup && scheme.symmetry == Symmetry::symmetric &&
                      scheme.scale_type == ScaleType::float16;
  constexpr int kNibble = 4;
  constexpr int kByte = 8;
  if (groups && scheme.bits == kNibble) return BlockType::q4_0;
  if (groups && scheme.bits == kByte) return BlockType::q8_0;
  return std::nullopt;
}

/// Whether the file has the weight in this type, and the plan has the file's values.
bool is_of_file(const llm::Checkpoint& file, const train::TrainPlan& plan, const std::string& name,
                BlockType type) {
  const llm::CheckpointTensor* tensor = file.find(name);
  if (tensor == nullptr || tensor->type != type) return false;
  const Tensor* values = plan.graph.constant(*plan.graph.find_value(name));
  return values != nullptr && identical(*values, file.read(name, llm::RowOrder::stored));
}

/// Each block begins with its scale. That of zeros may be 0, which is no step: any will do.
Tensor scales_of(const Tensor& blocks, BlockType type, const Dims& dims) {
  Tensor scales(DType::float32, dims);
  const size_t bytes = row_bytes(type, kGroup);
  const std::byte* from = blocks.raw();
  for (float& scale : scales.mutable_data<float>()) {
    Half half;
    std::memcpy(&half, from, sizeof half);
    scale = to_float(half);
    if (scale == 0 || !std::isfinite(scale)) scale = 1;
    from += bytes;
  }
  return scales;
}

}  // namespace

int64_t take_file_grids(const llm::Checkpoint& file, const train::QatOptions& options,
                        train::TrainPlan& plan) {
  using train::QatMethod;
  // The others make scales of their own.
  if (options.method != QatMethod::lsq && options.method != QatMethod::lsq_plus) return 0;
  int64_t taken = 0;
  for (auto& [name, params] : plan.weights) {
    const std::optional<BlockType> type = type_of(params.scheme);
    if (!type || !is_of_file(file, plan, name, *type)) continue;
    params.scale = scales_of(file.raw(name), *type, params.scale.dims());
    if (options.ranges != train::RangeKind::learned) plan.fixed_grids.insert(name);
    ++taken;
  }
  return taken;
}

void hold_file_blocks(const llm::Checkpoint& file, train::TrainPlan& plan, HeldBlocks& held) {
  const std::set<std::string> learn(plan.parameters.begin(), plan.parameters.end());
  const auto holds = [&](const std::string& name, std::optional<BlockType> type) {
    const auto adapter = plan.adapters.find(name);
    const bool changes =
        learn.contains(name) || (adapter != plan.adapters.end() && adapter->second.merged);
    if (changes || !type || !is_of_file(file, plan, name, *type)) return false;
    held[name] = {*type, file.raw(name)};
    return true;
  };
  std::erase_if(plan.weights, [&](const auto& entry) {
    return holds(entry.first, type_of(entry.second.scheme));
  });
  std::erase_if(plan.blocks, [&](const auto& entry) { return holds(entry.first, entry.second); });
}

}  // namespace narrow
