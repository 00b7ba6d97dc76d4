// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose tensors are in memory.
#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/llm/checkpoint_impl.h"

namespace narrow::llm {

/// `tensor` in place of what stands there.
void Checkpoint::Impl::hold(size_t place, const TensorInMemory& tensor) {
  CheckpointTensor& t = tensors[place];
  const Tensor& data = tensor.data;
  const DType wanted = tensor.type == BlockType::f32 ? DType::float32 : DType::uint8;
  t.type = tensor.type;
  // What is in memory is as the model has it, but for the order of rows.
  if (!is_rotated(t.difference)) t.difference = Difference::none;
  if (data.dtype() != wanted || data.bytes() != t.bytes()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} bytes of {} for '{}' {}", data.bytes(), narrow::to_string(t.type),
                            t.name, narrow::to_string(t.dims)));
  }
  bytes[place] = {data.raw(), data.bytes()};
  replaced[t.name] = data;
}

/// The bytes of what follows from the config are in this object's own.
void Checkpoint::Impl::find_computed() {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].difference == Difference::computed) {
      bytes[i] = std::as_bytes(std::span(config.rope_divisors));
    }
  }
}

/// All tensors of a model of this shape.
void Checkpoint::Impl::take(const ModelConfig& shape,
                            const std::map<std::string, TensorInMemory>& tensors_of_it) {
  check_config(shape);
  config = shape;
  architecture = find_architecture(config.architecture);
  if (architecture == nullptr) unknown_architecture(config.architecture);
  reshaped = true;
  tensors.clear();
  bytes.clear();
  index.clear();
  replaced.clear();
  for_each_tensor(config, [&](const TensorRow& row, int64_t layer) {
    CheckpointTensor t;
    t.name = name_of(row.gguf, layer);
    t.dims = dims_of(config, row);
    t.difference = gguf ? Difference::none : row.difference;
    t.hf_difference = row.difference;
    t.hf_name = hf_name(row, layer);
    index.emplace(t.name, tensors.size());
    tensors.push_back(t);
    bytes.emplace_back();
    if (t.difference == Difference::computed) return;
    const auto found = tensors_of_it.find(t.name);
    if (found == tensors_of_it.end()) {
      throw Error(ErrorCode::not_found, fmt::format("there is no tensor '{}'", t.name));
    }
    hold(tensors.size() - 1, found->second);
  });
  find_computed();
}

Checkpoint Checkpoint::with(const std::map<std::string, TensorInMemory>& replacements) const {
  auto impl = std::make_shared<Impl>(*impl_);
  for (const auto& [name, tensor] : replacements) impl->hold(impl->at(name), tensor);
  impl->find_computed();
  Checkpoint out;
  out.impl_ = std::move(impl);
  return out;
}

Checkpoint Checkpoint::reshaped(const ModelConfig& config,
                                const std::map<std::string, TensorInMemory>& tensors) const {
  auto impl = std::make_shared<Impl>(*impl_);
  impl->take(config, tensors);
  Checkpoint out;
  out.impl_ = std::move(impl);
  return out;
}

Checkpoint Checkpoint::from_memory(const ModelConfig& config, TokenizerData tokenizer,
                                   const std::map<std::string, TensorInMemory>& tensors) {
  auto impl = std::make_shared<Impl>();
  impl->tokenizer = std::move(tokenizer);
  impl->take(config, tensors);
  Checkpoint out;
  out.impl_ = std::move(impl);
  return out;
}

}  // namespace narrow::llm
