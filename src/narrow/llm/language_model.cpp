// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/language_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/memory.h"

namespace narrow::llm {

LanguageModel LanguageModel::open(const std::filesystem::path& path) {
  return LanguageModel(Checkpoint::open(path));
}

LanguageModel::LanguageModel(Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)) {}

Session LanguageModel::make_session(const GraphOptions& options, const LoadOptions& load) const {
  SessionOptions session;
  session.threads = load.threads;
  session.repack = load.repack;
  session.progress = load.progress;
  session.states = state_pairs(config(), options);
  return Session(build_graph(checkpoint_, options), std::move(session));
}

Tensor ids_tensor(std::span<const int32_t> ids, int64_t sequences) {
  const auto count = static_cast<int64_t>(ids.size());
  if (sequences < 1 || count % sequences != 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} ids are no {} sequences of equal length", count, sequences));
  }
  Tensor tensor(DType::int64, {sequences, count / sequences});
  std::copy(ids.begin(), ids.end(), tensor.mutable_data<int64_t>().begin());
  return tensor;
}

Tensor LanguageModel::logits(std::span<const int32_t> ids) const {
  GraphOptions options;
  options.capacity = std::max<int64_t>(1, static_cast<int64_t>(ids.size()));
  const Session session = make_session(options);
  const Tensor y = session.run({ids_tensor(ids, 1), Tensor(DType::int64, {1})}).front();
  return y.reshaped({y.dim(1), y.dim(2)});
}

void Sequence::truncate(int64_t length) {
  if (length < 0 || length > length_) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a sequence of {} tokens cannot be cut to {}", length_, length));
  }
  length_ = length;
}

Sequence Sequence::clone() const {
  Sequence copy(state_.clone());
  copy.length_ = length_;
  return copy;
}

MemoryPlan memory_plan(const ModelConfig& config, const DecoderOptions& options) {
  MemoryPlan plan;
  plan.cache = options.cache;
  plan.capacity = options.capacity > 0 ? options.capacity : config.context;
  plan.tokens = std::min(std::max<int64_t>(1, options.chunk), plan.capacity);
  plan.repack = options.repack;
  return plan;
}

CachedDecoder::CachedDecoder(const LanguageModel& model, const DecoderOptions& options)
    : options_(options), vocab_size_(model.config().vocab_size) {
  if (options.cache == CacheType::none || !model.config().causal) {
    throw Error(ErrorCode::invalid_argument,
                model.config().causal ? "decoding needs a cache" : "an encoder does not decode");
  }
  if (options_.capacity == 0) options_.capacity = model.config().context;
  options_.chunk = std::max<int64_t>(1, options_.chunk);
  const MemoryPlan memory = memory_plan(model.config(), options_);
  check_memory(memory_need(model.checkpoint(), memory), memory, available_memory());
  const GraphOptions graph{options_.cache, options_.capacity, kLastLogit, options_.activations};
  session_ = std::make_shared<const Session>(
      model.make_session(graph, {options_.threads, options_.repack, options_.progress}));
}

Sequence CachedDecoder::start() const {
  return Sequence(session_->make_state({{"batch", 1}}));
}

Tensor CachedDecoder::feed(Sequence& sequence, std::span<const int32_t> ids) const {
  const auto count = static_cast<int64_t>(ids.size());
  if (count == 0 || count > options_.capacity - sequence.length_) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} tokens behind {} do not fit a context of {}", count,
                            sequence.length_, options_.capacity),
                "ask for a longer context, or cut the text");
  }
  Tensor logits;
  for (int64_t done = 0; done < count; done += options_.chunk) {
    const int64_t size = std::min(options_.chunk, count - done);
    const auto part = ids.subspan(static_cast<size_t>(done), static_cast<size_t>(size));
    Tensor position(DType::int64, {1});
    position.mutable_data<int64_t>()[0] = sequence.length_;
    logits = session_->run({ids_tensor(part, 1), position}, sequence.state_).front();
    sequence.length_ += size;
  }
  return logits.reshaped({vocab_size_});
}

}  // namespace narrow::llm
