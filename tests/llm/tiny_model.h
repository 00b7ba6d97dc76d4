// SPDX-License-Identifier: Apache-2.0
// Small random models that tests write as Hugging Face folders and as GGUF files.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "narrow/core/file.h"
#include "narrow/core/rng.h"
#include "narrow/formats/gguf/gguf.h"
#include "narrow/formats/safetensors/safetensors.h"
#include "narrow/llm/checkpoint.h"
#include "support.h"

namespace narrow::llm::testing {

namespace fs = std::filesystem;

using narrow::testing::assets;
using narrow::testing::TemporaryFolder;

inline const std::string kLlamaConfig = R"({
  "model_type": "llama", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": [2, 3]})";
inline const std::string kQwen2Config = R"({
  "model_type": "qwen2", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
  "hidden_act": "silu", "tie_word_embeddings": true})";
inline const std::string kQwen3Config = R"({
  "model_type": "qwen3", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
  "attention_bias": false, "hidden_act": "silu", "tie_word_embeddings": true})";
inline const std::string kGemma2Config = R"({
  "model_type": "gemma2", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 5,
  "query_pre_attn_scalar": 24, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
  "hidden_activation": "gelu_pytorch_tanh"})";
inline const std::string kGemma3Config = R"({
  "model_type": "gemma3_text", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 4,
  "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
  "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
  "sliding_window": 5, "sliding_window_pattern": 3, "query_pre_attn_scalar": 16,
  "hidden_activation": "gelu_pytorch_tanh"})";
inline const std::string kGpt2Config = R"({
  "model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4,
  "n_inner": null, "n_positions": 64, "layer_norm_epsilon": 1e-5,
  "activation_function": "gelu_new"})";
inline const std::string kBertConfig = R"({
  "model_type": "bert", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64,
  "layer_norm_eps": 1e-12, "type_vocab_size": 2, "hidden_act": "gelu"})";

/// All of them, by name.
inline std::map<std::string, std::string> tiny_configs() {
  return {{"llama", kLlamaConfig},   {"qwen2", kQwen2Config},   {"qwen3", kQwen3Config},
          {"gemma2", kGemma2Config}, {"gemma3", kGemma3Config}, {"gpt2", kGpt2Config},
          {"bert", kBertConfig}};
}

/// The weights that a config asks for, under Hugging Face's names: matrices of normal numbers, with
/// a spread that keeps activations near 1, norms near what a new model has.
inline std::map<std::string, Tensor> random_weights(const std::string& config_json,
                                                    DType dtype = DType::float32,
                                                    uint64_t seed = 1) {
  const ModelConfig config = config_from_hf(config_json);
  const Architecture& row = *find_architecture(config.architecture);
  std::map<std::string, Tensor> weights;
  Rng rng(seed);
  for (const TensorRow& t : row.tensors) {
    if (!needs(config, t) || t.difference == Difference::computed) continue;
    const bool layered = t.gguf.starts_with("blk.");
    for (int64_t layer = 0; layer < (layered ? config.layers : 1); ++layer) {
      Dims dims = dims_of(config, t);
      const bool norm = t.gguf.find("norm.weight") != std::string_view::npos;
      const float center = norm && t.difference != Difference::minus_one ? 1.0F : 0.0F;
      const double spread =
          dims.size() == 1 ? 0.1 : 1 / std::sqrt(static_cast<double>(dims.back()));
      if (t.difference == Difference::transposed) std::swap(dims[0], dims[1]);
      std::vector<float> x(static_cast<size_t>(num_elements(dims)));
      for (float& v : x) v = center + static_cast<float>(spread * rng.normal());
      const std::string name = t.hf.starts_with('/')
                                   ? std::string(t.hf.substr(1))
                                   : std::string(row.prefixes.front()) + name_of(t.hf, layer);
      weights[name] = Tensor::from_floats(x, dtype, dims);
    }
  }
  return weights;
}

inline void write_model(const fs::path& folder, const std::string& config_json,
                        const std::map<std::string, Tensor>& weights) {
  fs::create_directories(folder);
  write_text(folder / "config.json", config_json);
  write_safetensors(folder / "model.safetensors", weights);
}

inline Checkpoint tiny_model(const fs::path& folder, const std::string& config_json,
                             DType dtype = DType::float32) {
  write_model(folder, config_json, random_weights(config_json, dtype));
  return Checkpoint::open(folder);
}

/// A checkpoint as GGUF; matrices in `type`, vectors in float32.
inline void write_gguf(const fs::path& path, const Checkpoint& model,
                       BlockType type = BlockType::f32) {
  std::vector<GgufWriter::Item> items;
  for (const CheckpointTensor& t : model.tensors()) {
    const bool matrix = t.dims.size() > 1;
    items.push_back({t.name, &gguf_type(matrix ? type : BlockType::f32), t.dims});
  }
  GgufWriter writer(path, model.gguf_metadata(), items);
  for (const CheckpointTensor& t : model.tensors()) {
    const Tensor x = model.read(t.name);
    const BlockType as = t.dims.size() > 1 ? type : BlockType::f32;
    std::vector<std::byte> bytes(static_cast<size_t>(t.rows()) * row_bytes(as, t.columns()));
    narrow::EncodeOptions options;
    options.method = EncodeMethod::rtn;
    encode_rows(as, x.data<float>(), t.columns(), bytes, options);
    writer.write(bytes);
  }
  writer.commit();
}

}  // namespace narrow::llm::testing
