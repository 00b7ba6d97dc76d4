// SPDX-License-Identifier: Apache-2.0
// What a language model's files say about its shape, in one form for all architectures: read from a
// Hugging Face config.json or from the metadata of a GGUF file, and written as either.
//
//   ModelConfig config = config_from_hf(read_text("config.json"));
//   append_gguf_config(config, metadata);
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/formats/gguf/gguf.h"

namespace narrow::llm {

enum class NormKind : uint8_t { rms, layer };

/// Where a layer's two norms stand.
enum class NormPlacement : uint8_t {
  before,          // of what enters attention and ffn (llama, gpt2)
  around,          // of what enters and of what leaves them (gemma2, gemma3)
  after_residual,  // of the sum with the residual (bert)
};

enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu };
enum class PositionKind : uint8_t { rope, learned };
/// linear: positions are divided by rope_factor. llama3: each frequency by its own factor
/// (`rope_divisors`).
enum class RopeScaling : uint8_t { none, linear, llama3 };
/// How an embedding model makes one vector of a text's.
enum class Pooling : uint8_t { none = 0, mean = 1, cls = 2, last = 3 };  // GGUF's numbers
const char* to_string(Pooling pooling);

/// Sizes count elements. What an architecture lacks stays at its default.
struct ModelConfig {
  std::string architecture;  // GGUF's name: "llama"
  std::string name;          // for people; may be empty

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  // of queries, keys and values
  int64_t intermediate_size = 0;
  int64_t context = 0;      // positions the model was trained for
  int64_t token_types = 0;  // rows of the second embedding (bert)

  NormKind norm = NormKind::rms;
  NormPlacement norm_placement = NormPlacement::before;
  double norm_eps = 0;
  Activation activation = Activation::silu;
  bool gated = true;           // ffn: down(act(gate(x)) * up(x)), otherwise down(act(up(x)))
  bool causal = true;          // a token sees those before it only
  bool tied_embedding = true;  // the output matrix is the embedding
  bool qkv_bias = false;
  bool output_bias = false;  // of attention's output matrix
  bool ffn_bias = false;
  bool qk_norm = false;  // each head's query and key are normalized before rope
  Pooling pooling = Pooling::none;

  PositionKind positions = PositionKind::rope;
  double rope_theta = 10000;
  double rope_theta_local = 0;  // of layers with a window; 0: rope_theta, scaled as elsewhere
  int64_t rope_dim = 0;         // leading elements of a head that are rotated
  /// The pairs that rotate together, as the *stored* query and key weights have them: (2i, 2i + 1),
  /// otherwise (i, i + rope_dim / 2).
  bool rope_interleaved = false;
  RopeScaling rope_scaling = RopeScaling::none;
  double rope_factor = 1;
  double rope_low_freq_factor = 1;
  double rope_high_freq_factor = 4;
  int64_t rope_original_context = 0;
  /// Of each frequency (rope_dim / 2 of them), or empty: all 1.
  std::vector<float> rope_divisors;

  /// A query sees itself and window - 1 keys before it; 0: all. Counts in the layers of
  /// `local_layers` (by layer; empty: in all).
  int64_t window = 0;
  std::vector<bool> local_layers;

  double attention_scale = 0;    // of q k
  double attention_softcap = 0;  // scores become c tanh(s / c); 0: none
  double logit_softcap = 0;
  double embedding_scale = 1;

  int32_t bos = -1;
  int32_t pad = -1;
  std::vector<int32_t> eos;

  int64_t q_size() const { return heads * head_dim; }
  int64_t kv_size() const { return kv_heads * head_dim; }
  /// Window of a layer, 0 for none.
  int64_t window_of(int64_t layer) const {
    const bool local = local_layers.empty() || local_layers[static_cast<size_t>(layer)];
    return local ? window : 0;
  }
};

/// From config.json. What the file leaves open because tensors show it (a tied embedding, biases)
/// is taken from `has_tensor`, which is asked for the suffix of a tensor's name and may be empty.
/// Throws corrupt_data naming the key that is missing or contradicts another, unsupported for an
/// architecture (known ones are listed), a rope scaling, an activation or a quantization that is
/// not known.
using HasTensor = std::function<bool(std::string_view suffix)>;
ModelConfig config_from_hf(std::string_view json, const HasTensor& has_tensor = {});

/// From the metadata and the tensors (their presence and rope_freqs) of a GGUF file. Same errors.
ModelConfig config_from_gguf(const GgufFile& file);

/// Appends general.architecture, general.name and <architecture>.*. Divisors of frequencies are no
/// metadata: GGUF has them as the tensor rope_freqs.weight.
void append_gguf_config(const ModelConfig& config, GgufMetadata& metadata);

/// config.json for the weights in Hugging Face's order. `dtype` is its torch_dtype: "bfloat16".
/// Throws unsupported for frequencies whose divisors follow no formula that it has.
std::string hf_config_json(const ModelConfig& config, std::string_view dtype);

/// Throws corrupt_data naming the values that cannot be or contradict each other.
void check_config(const ModelConfig& config);

/// llama3's divisors of the frequencies, from rope_factor, the two freq factors, and
/// rope_original_context.
std::vector<float> llama3_rope_divisors(const ModelConfig& config);

}  // namespace narrow::llm
