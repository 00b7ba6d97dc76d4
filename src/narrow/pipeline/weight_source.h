// SPDX-License-Identifier: Apache-2.0
// A language model's weights as quantization and conversion read them: one tensor after the other,
// rows at a time, under GGUF's names and in GGUF's order of rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "narrow/formats/gguf/gguf.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/ptq/mixtures.h"

namespace narrow {

struct WeightInfo {
  std::string name;
  Dims dims;                             // row-major, as GGUF has them
  const GgufTensorType* type = nullptr;  // as stored
  uint64_t bytes = 0;

  int64_t columns() const { return dims.empty() ? 1 : dims.back(); }
  int64_t elements() const { return num_elements(dims); }
  int64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// In the order in which they are written.
  virtual const std::vector<WeightInfo>& tensors() const = 0;
  /// As the GGUF file has it, or as one of these weights would.
  virtual GgufMetadata metadata() const = 0;
  virtual uint64_t file_bytes() const = 0;
  /// A GGUF file's types are meant; of a Hugging Face model the small tensors become f32.
  virtual bool is_gguf() const = 0;

  /// The bytes of tensor `i` as GGUF has them where the file has just those; else empty, and they
  /// are to be read by rows. They stay until the next call of raw() or stored().
  virtual std::span<const std::byte> raw(size_t i) const = 0;
  /// The bytes of tensor `i` as the file has them, for a fingerprint.
  virtual std::span<const std::byte> stored(size_t i) const = 0;
  /// Rows [first, first + count) of a tensor with a block codec, as floats. Any number of threads
  /// may read.
  virtual void read_rows(size_t i, int64_t first, int64_t count, float* out) const = 0;
};

/// A .gguf file of any architecture, or the folder of a Hugging Face model. Throws not_found,
/// corrupt_data, unsupported.
std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& path);

std::unique_ptr<WeightSource> open_weights(const llm::Checkpoint& checkpoint);

/// What the mixtures ask about a model, from its metadata.
ModelTraits model_traits(const GgufMetadata& metadata);

/// Is this path a language model (a folder or a GGUF file) rather than an ONNX file?
bool is_language_model(const std::filesystem::path& path);

}  // namespace narrow
