// SPDX-License-Identifier: Apache-2.0
// A language model that runs: sessions over the graph of a checkpoint, and decoding with a cache.
//
//   const LanguageModel model = LanguageModel::open("models/llama");
//   CachedDecoder decoder(model);
//   Sequence sequence = decoder.start();
//   Tensor logits = decoder.feed(sequence, prompt);     // of the last token
//   logits = decoder.feed(sequence, {next});
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "narrow/core/progress.h"
#include "narrow/llm/architectures/build.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/llm/memory.h"
#include "narrow/runtime/session.h"

namespace narrow::llm {

struct LoadOptions {
  int threads = 0;
  /// Weights in blocks are copied into the kernels' layout. Off: they stay in the mapped file,
  /// which takes no memory beside it and no time to load, and is slower to compute with.
  bool repack = true;
  Progress progress;  // "load"
};

/// Copies share everything; any number of threads may use one.
class LanguageModel {
 public:
  /// As Checkpoint::open.
  static LanguageModel open(const std::filesystem::path& path);
  explicit LanguageModel(Checkpoint checkpoint);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const ModelConfig& config() const { return checkpoint_.config(); }

  /// A session over build_graph(checkpoint, options), its caches declared as states. 16-bit weights
  /// stay in the mapped file, and those in blocks where `load` says so.
  Session make_session(const GraphOptions& options, const LoadOptions& load = {}) const;

  /// Logits [length, vocab_size] of every token of a decoder, without a cache. Makes a session of
  /// its own: for tests and single uses.
  Tensor logits(std::span<const int32_t> ids) const;

 private:
  Checkpoint checkpoint_;
};

/// input_ids [sequences, length] of equally long sequences.
Tensor ids_tensor(std::span<const int32_t> ids, int64_t sequences);

struct DecoderOptions {
  int64_t capacity = 0;  // tokens of a sequence; 0: as many as the model was trained for
  CacheType cache = CacheType::f16;  // not none
  int64_t chunk = 512;               // tokens of a prompt at once
  int threads = 0;
  Activations activations = Activations::quantized;
  bool repack = true;  // as in LoadOptions
  Progress progress;   // of loading
};

/// With one sequence, for memory_need().
MemoryPlan memory_plan(const ModelConfig& config, const DecoderOptions& options);

/// Tokens that have been read, in the cache of one decoder.
class Sequence {
 public:
  int64_t length() const { return length_; }
  /// Forgets all tokens from `length` on: the next ones overwrite them.
  void truncate(int64_t length);
  /// Another sequence that begins like this one.
  Sequence clone() const;

 private:
  friend class CachedDecoder;
  explicit Sequence(State state) : state_(std::move(state)) {}
  State state_;
  int64_t length_ = 0;
};

/// Decoding with a cache; serves any number of sequences, also at the same time.
class CachedDecoder {
 public:
  /// Throws invalid_argument for a cache of type none, and for an encoder; resource_exhausted,
  /// before anything is loaded, where a sequence of full length cannot fit the memory.
  explicit CachedDecoder(const LanguageModel& model, const DecoderOptions& options = {});

  Sequence start() const;
  /// Reads ids (at least one), a chunk at a time, and returns the logits [vocab_size] of the last.
  /// Throws invalid_argument when they do not fit the capacity, before anything is read.
  Tensor feed(Sequence& sequence, std::span<const int32_t> ids) const;

  int64_t capacity() const { return options_.capacity; }
  const Session& session() const { return *session_; }

 private:
  DecoderOptions options_;
  int64_t vocab_size_ = 0;
  std::shared_ptr<const Session> session_;
};

}  // namespace narrow::llm
