// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_llm_arch.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/core/suggest.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/model_tokenizer.h"

namespace narrow {
namespace {

constexpr std::string_view kLlama = "llama";

int64_t number(const std::string& key, std::string_view text, int64_t least) {
  constexpr int64_t kMost = int64_t{1} << 20;
  int64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec == std::errc() && end.ptr == text.data() + text.size() && value >= least &&
      value <= kMost) {
    return value;
  }
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("--arch llama: {}={} is no number from {} to {}", key, text, least, kMost));
}

/// "(dim=256,layers=8)" as keys and numbers.
std::map<std::string, int64_t> keys_of(std::string_view text) {
  const std::vector<std::string> known = {"dim", "layers",  "heads", "kv_heads",
                                          "ff",  "context", "tied",  "theta"};
  if (!text.starts_with('(') || !text.ends_with(')')) {
    throw Error(ErrorCode::invalid_argument, fmt::format("--arch llama{}: no list of sizes", text),
                "write 'llama(dim=256,layers=8,heads=8,kv_heads=4,ff=768,context=512)'");
  }
  text = text.substr(1, text.size() - 2);
  std::map<std::string, int64_t> keys;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    const size_t equal = std::min(part.find('='), part.size());
    const std::string key(part.substr(0, equal));
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("--arch llama: no size '{}'", part),
                  did_you_mean(key, known));
    }
    keys[key] = number(key, part.substr(std::min(equal + 1, part.size())), key == "tied" ? 0 : 1);
  }
  return keys;
}

llm::ModelConfig config_of(std::string_view arch) {
  const auto keys = keys_of(arch.substr(kLlama.size()));
  const auto size = [&](const char* key, int64_t otherwise) {
    const auto found = keys.find(key);
    if (found != keys.end()) return found->second;
    if (otherwise > 0) return otherwise;
    throw Error(ErrorCode::invalid_argument, fmt::format("--arch llama: {} is missing", key),
                "dim and layers are needed");
  };
  constexpr int64_t kHead = 64;
  constexpr int64_t kGroup = 32;
  llm::ModelConfig c;
  c.architecture = kLlama;
  c.name = std::string(arch);
  c.hidden_size = size("dim", 0);
  c.layers = size("layers", 0);
  c.heads = size("heads", std::max<int64_t>(1, c.hidden_size / kHead));
  c.kv_heads = size("kv_heads", c.heads);
  c.intermediate_size = size("ff", (c.hidden_size * 8 / 3 + kGroup - 1) / kGroup * kGroup);
  c.context = size("context", 512);
  c.tied_embedding = size("tied", 1) != 0;
  if (c.hidden_size % c.heads != 0 || c.hidden_size / c.heads % 2 != 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("--arch llama: dim={} is no whole even number for each of {} heads",
                            c.hidden_size, c.heads));
  }
  if (c.heads % c.kv_heads != 0) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("--arch llama: {} heads cannot share kv_heads={}", c.heads, c.kv_heads));
  }
  c.head_dim = c.hidden_size / c.heads;
  c.rope_dim = c.head_dim;
  c.rope_theta = static_cast<double>(size("theta", 10000));
  c.norm_eps = 1e-5;
  c.attention_scale = 1 / std::sqrt(static_cast<double>(c.head_dim));
  return c;
}

Tensor random_weights(const llm::ModelConfig& c, const llm::TensorRow& row, Rng& rng) {
  constexpr double kDeviation = 0.02;
  Tensor x(DType::float32, llm::dims_of(c, row));
  if (row.columns == llm::Size::none) {
    std::ranges::fill(x.mutable_data<float>(), 1.0F);
    return x;
  }
  const bool adds =
      row.gguf.find("attn_output.") != row.gguf.npos || row.gguf.find("ffn_down.") != row.gguf.npos;
  const double spread =
      adds ? kDeviation / std::sqrt(2 * static_cast<double>(c.layers)) : kDeviation;
  for (float& v : x.mutable_data<float>()) v = static_cast<float>(spread * rng.normal());
  return x;
}

}  // namespace

bool is_language_arch(std::string_view arch) {
  return arch.starts_with(kLlama);
}

llm::Checkpoint new_language_model(std::string_view arch, const std::filesystem::path& tokenizer,
                                   uint64_t seed) {
  llm::ModelConfig config = config_of(arch);
  if (tokenizer.empty()) {
    throw Error(ErrorCode::invalid_argument, "a language model from scratch needs a tokenizer",
                "give --tokenizer: a model's folder, a .gguf file, or a tokenizer.json");
  }
  llm::TokenizerData data = llm::read_model_tokenizer(tokenizer);
  config.vocab_size = llm::Tokenizer(data).vocab_size();
  config.bos = data.special.bos;
  config.pad = data.special.pad;
  config.eos = data.special.eos;
  constexpr double kMostWeights = 4e9;  // 16 GB, four times that in training
  const double layer =
      2.0 * static_cast<double>(config.hidden_size) *
          static_cast<double>(config.q_size() + config.kv_size()) +
      3.0 * static_cast<double>(config.hidden_size) * static_cast<double>(config.intermediate_size);
  if (layer * static_cast<double>(config.layers) > kMostWeights) {
    throw Error(ErrorCode::invalid_argument, "--arch llama: more than 4 G weights",
                "make dim, ff or layers smaller");
  }
  Rng rng(seed);
  std::map<std::string, llm::TensorInMemory> tensors;
  for_each_tensor(config, [&](const llm::TensorRow& row, int64_t number_of_layer) {
    tensors[llm::name_of(row.gguf, number_of_layer)] = {BlockType::f32,
                                                        random_weights(config, row, rng)};
  });
  return llm::Checkpoint::from_memory(config, std::move(data), tensors);
}

}  // namespace narrow
