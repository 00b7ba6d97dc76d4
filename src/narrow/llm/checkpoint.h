// SPDX-License-Identifier: Apache-2.0
// A language model's files behind one interface: the folder of a Hugging Face model (config.json,
// .safetensors, tokenizer files) or a GGUF file. Tensors have GGUF's names whatever the file
// ("blk.0.attn_q.weight"); the tables in architecture.cpp translate. Files are mapped: opening
// reads headers alone, a tensor's bytes are read when it is asked for.
//
//   const Checkpoint model = Checkpoint::open("models/llama");
//   for (const CheckpointTensor& t : model.tensors()) ...
//   std::vector<float> row(t.columns());
//   model.read_rows("blk.0.attn_q.weight", 7, 1, row);
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/formats/gguf/gguf.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/config.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow::llm {

struct CheckpointTensor {
  std::string name;                 // GGUF's
  std::string stored_name;          // the file's
  Dims dims;                        // of the model, [out, in] or [n]; `raw` may be transposed
  BlockType type = BlockType::f32;  // f32, f16, bf16, or a block type of a GGUF file
  Difference difference = Difference::none;  // of the stored bytes from what GGUF would have
  // As Hugging Face's files have it: its name (empty: they do not), and how it differs from GGUF.
  std::string hf_name;
  Difference hf_difference = Difference::none;

  int64_t rows() const { return dims.size() < 2 ? 1 : dims.front(); }
  int64_t columns() const { return dims.back(); }
  /// Bytes in the file.
  size_t bytes() const { return static_cast<size_t>(rows()) * row_bytes(type, columns()); }
};

/// The order of the rows of llama's query and key matrices (and biases): GGUF's, where elements
/// (2i, 2i + 1) of a head rotate together, or that of the file (ModelConfig::rope_interleaved). All
/// other tensors have one order.
enum class RowOrder : uint8_t { gguf, stored };

/// A tensor that stands for one of a file: float32 with the dims of CheckpointTensor, or uint8
/// [rows, bytes of a row] of a block codec. Rows are in the stored order.
struct TensorInMemory {
  BlockType type = BlockType::f32;
  Tensor data;
};

/// Does not change; copies share everything; any number of threads may read.
class Checkpoint {
 public:
  /// A folder with config.json (or with a single .gguf), a .gguf file, or a .safetensors file with
  /// config.json beside it. Throws not_found, unsupported (architecture, quantization, element
  /// type), corrupt_data where tensors are missing, left over, or have other shapes than the config
  /// gives: each is named with both.
  static Checkpoint open(const std::filesystem::path& path);

  /// The same model with other tensors in place of those of these names. Throws not_found, and
  /// invalid_argument for another size.
  Checkpoint with(const std::map<std::string, TensorInMemory>& replacements) const;
  /// A model of another shape, with all of its tensors (those that follow from the config are not
  /// asked for); the tokenizer, and what else the files say, are those of this one. Throws
  /// corrupt_data for a config that contradicts itself, not_found, invalid_argument.
  Checkpoint reshaped(const ModelConfig& config,
                      const std::map<std::string, TensorInMemory>& tensors) const;
  /// A model of no file. Rows have Hugging Face's order.
  static Checkpoint from_memory(const ModelConfig& config, TokenizerData tokenizer,
                                const std::map<std::string, TensorInMemory>& tensors);

  const std::filesystem::path& path() const;
  bool is_gguf() const;
  /// The config is not that of the files.
  bool is_reshaped() const;
  /// Of the Hugging Face model's files; empty for a GGUF file, and for no file.
  const std::filesystem::path& folder() const;
  const ModelConfig& config() const;

  /// In the order of the model: embedding, layers, output.
  std::span<const CheckpointTensor> tensors() const;
  /// Null when the model has none of this name.
  const CheckpointTensor* find(std::string_view name) const;
  /// Throws not_found.
  const CheckpointTensor& at(std::string_view name) const;

  /// As stored: float32, float16 or bfloat16 with the file's dims ([in, out] where it is
  /// transposed; norms of gemma less one), or uint8 [rows, bytes of a row] of block codecs. A view
  /// of the mapped file, or a copy where the file does not align it.
  Tensor raw(std::string_view name) const;
  /// The same with the rows of query and key matrices in GGUF's order; a copy where that is
  /// another.
  Tensor raw_in_gguf_order(std::string_view name) const;
  /// Rows [first, first + count) of `dims` as float32, as GGUF has them (or the model with the
  /// stored order of rows). A vector is one row. Throws invalid_argument when `out` has another
  /// size.
  void read_rows(std::string_view name, int64_t first, int64_t count, std::span<float> out,
                 RowOrder order = RowOrder::gguf) const;
  /// Rows of the tensor as Hugging Face's files have it, [in, out] where it is transposed there, in
  /// their order and less one where they are; a vector is one row. Of a file of theirs: what it
  /// says.
  void read_hf_rows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                    std::span<float> out) const;
  Dims hf_dims(const CheckpointTensor& tensor) const;
  /// All rows, float32.
  Tensor read(std::string_view name, RowOrder order = RowOrder::gguf) const;

  /// general.*, <architecture>.* and tokenizer.* for a GGUF file of this model: those of the file,
  /// or made from config.json and the tokenizer (a folder without one gives a vocabulary "none").
  /// Without general.file_type, which depends on the types that are written.
  GgufMetadata gguf_metadata() const;

  bool has_tokenizer() const;
  /// Throws not_found when there is none.
  TokenizerData tokenizer_data() const;
  Tokenizer tokenizer() const { return Tokenizer(tokenizer_data()); }

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace narrow::llm
