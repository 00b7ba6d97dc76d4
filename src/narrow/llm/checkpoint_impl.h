// SPDX-License-Identifier: Apache-2.0
// What a Checkpoint holds. Internal to llm/.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "narrow/formats/safetensors/safetensors.h"
#include "narrow/llm/checkpoint.h"

namespace narrow::llm {

/// A tensor of a file, whichever kind.
struct Stored {
  Dims dims;
  BlockType type = BlockType::f32;
  std::span<const std::byte> bytes;
};

struct Checkpoint::Impl {
  std::filesystem::path path;
  std::filesystem::path folder;  // of Hugging Face's files; empty for GGUF
  ModelConfig config;
  const Architecture* architecture = nullptr;
  std::shared_ptr<const GgufFile> gguf;
  std::optional<SafetensorsCheckpoint> safetensors;
  std::vector<CheckpointTensor> tensors;
  std::vector<std::span<const std::byte>> bytes;  // of each tensor
  std::unordered_map<std::string, size_t> index;
  std::unordered_set<std::string> used;              // names of the file
  std::unordered_map<std::string, Tensor> replaced;  // by name, as raw() gives them
  bool reshaped = false;                             // the config is another than the files'
  std::optional<TokenizerData> tokenizer;            // of no file

  void open_gguf(const std::filesystem::path& file);
  void open_folder(const std::filesystem::path& where, const std::filesystem::path& weights);
  std::string find_prefix() const;
  std::optional<Stored> stored(const std::string& name) const;
  std::vector<std::string> names() const;
  std::string stored_name(const TensorRow& row, int64_t layer, const std::string& prefix) const;
  std::string hf_name(const TensorRow& row, int64_t layer) const;
  void add(const TensorRow& row, int64_t layer, const std::string& prefix,
           std::vector<std::string>& missing);
  void check_shape(const TensorRow& row, const CheckpointTensor& t, const Stored& s) const;
  void collect(const std::string& prefix);
  void take(const ModelConfig& shape, const std::map<std::string, TensorInMemory>& tensors_of_it);
  void hold(size_t place, const TensorInMemory& tensor);
  void find_computed();
  void check_left_over() const;
  size_t at(std::string_view name) const;
};

/// Rows of query and key matrices that a Hugging Face file has in another order than GGUF.
inline bool is_rotated(Difference d) {
  return d == Difference::rotation_q || d == Difference::rotation_k;
}

}  // namespace narrow::llm
