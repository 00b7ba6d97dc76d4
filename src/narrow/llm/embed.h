// SPDX-License-Identifier: Apache-2.0
// One vector of a text: the hidden states of an encoder (or a decoder), pooled over the tokens.
//
//   const Embedder embedder = Embedder::open("models/all-MiniLM-L6-v2", {});
//   embedder.embed(lines, [](const Tensor& rows, ...) { ... });       // [some lines, width]
//
// A vector depends on its text alone, bit for bit: no text is padded, texts run together only where
// they have equally many tokens and rows of a product do not see each other, and ranges that are
// measured at run time are those of one text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/core/tensor.h"
#include "narrow/llm/architectures/build.h"
#include "narrow/llm/config.h"
#include "narrow/llm/tokenizer/tokenizer.h"

namespace narrow::llm {

struct EmbedOptions {
  std::optional<Pooling> pooling;  // nothing: the model's own
  bool normalize = true;           // to a Euclidean length of 1
  int64_t max_tokens = 0;          // of a text, special ones included; 0: the model's own
  int64_t batch = 1024;            // texts that are sorted by length, run, and handed out together
  int threads = 0;
  Activations activations = Activations::quantized;
};

/// What was read of texts.
struct EmbedCounts {
  int64_t texts = 0;
  int64_t tokens = 0;      // after cutting
  int64_t truncated = 0;   // texts of more than max_tokens
  int64_t ill_formed = 0;  // texts that are no UTF-8
  double tokenize_seconds = 0;
  double model_seconds = 0;
};

/// Copies share everything; any number of threads may use one.
class Embedder {
 public:
  /// What Checkpoint::open takes, or an .onnx file of an encoder: inputs input_ids, attention_mask
  /// (and token_type_ids, position_ids), output [batch, length, width], tokenizer.json and
  /// modules.json in its metadata (as narrow writes it), beside it or one folder up. Throws as
  /// Checkpoint, Tokenizer, Session and read_sentence_settings do, unsupported for other inputs,
  /// invalid_argument for more tokens than the model has positions.
  static Embedder open(const std::filesystem::path& path, const EmbedOptions& options = {});

  int64_t width() const;
  int64_t max_tokens() const;
  Pooling pooling() const;

  /// Ids of a text, cut as sentence-transformers does: the first ones, and the special tokens
  /// around them.
  std::vector<int32_t> encode(std::string_view text, bool* truncated = nullptr) const;

  /// float32 [texts, width] of texts that encode() cut. Throws numeric_failure for numbers that are
  /// not finite.
  Tensor embed_ids(std::span<const std::vector<int32_t>> texts,
                   const Progress& progress = {}) const;

  /// All texts, in order, a batch at a time: `sink` gets the rows of each.
  using Sink = std::function<void(const Tensor& rows)>;
  EmbedCounts embed(std::span<const std::string_view> texts, const Sink& sink,
                    const Progress& progress = {}) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace narrow::llm
