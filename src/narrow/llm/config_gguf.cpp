// SPDX-License-Identifier: Apache-2.0
// The keys are those of the GGUF specification (ggml-org/ggml, docs/gguf.md); what files leave out
// is what llama.cpp takes for it.
#include <fmt/format.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/config.h"

namespace narrow::llm {
namespace {

/// The values of <architecture>.*.
class Keys {
  /// Errors name the key.
  template <class F>
  auto in_context(std::string_view key, F&& read) const {
    try {
      return read();
    } catch (Error& e) {
      e.add_context(prefix_ + std::string(key));
      throw;
    }
  }

 public:
  Keys(const GgufFile& file, std::string architecture)
      : file_(file), prefix_(std::move(architecture) + ".") {}

  const GgufValue* find(std::string_view key) const {
    return file_.find_metadata(prefix_ + std::string(key));
  }
  int64_t size(std::string_view key) const {
    return number_of(file_.metadata_at(prefix_ + std::string(key)), key);
  }
  int64_t size_or(std::string_view key, int64_t fallback) const {
    const GgufValue* v = find(key);
    return v ? number_of(*v, key) : fallback;
  }
  double real_or(std::string_view key, double fallback) const {
    const GgufValue* v = find(key);
    if (!v) return fallback;
    return in_context(key, [v] { return v->as_float(); });
  }
  bool flag_or(std::string_view key, bool fallback) const {
    const GgufValue* v = find(key);
    if (!v) return fallback;
    return in_context(key, [v] { return v->as_bool(); });
  }
  std::string text_or(std::string_view key, std::string fallback) const {
    const GgufValue* v = find(key);
    if (!v) return fallback;
    return in_context(key, [v] { return std::string(v->as_string()); });
  }

 private:
  /// Sizes that differ by layer come as arrays: only equal ones are one size.
  int64_t number_of(const GgufValue& v, std::string_view key) const {
    if (v.kind() != GgufKind::array) {
      return in_context(key, [&v] { return v.as_int(); });
    }
    const std::vector<int64_t> all = in_context(key, [&v] { return v.as_ints(); });
    for (const int64_t x : all) {
      if (x != all.front()) {
        throw Error(ErrorCode::unsupported,
                    fmt::format("{}{}: differs from layer to layer", prefix_, key));
      }
    }
    if (all.empty()) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{}{}: is empty", prefix_, key));
    }
    return all.front();
  }

  const GgufFile& file_;
  std::string prefix_;
};

bool has_tensor(const GgufFile& file, std::string_view name) {
  return file.find_tensor(name) != nullptr;
}

void read_sizes(const GgufFile& file, const Keys& keys, ModelConfig& c) {
  c.context = keys.size("context_length");
  c.hidden_size = keys.size("embedding_length");
  c.layers = keys.size("block_count");
  c.intermediate_size = keys.size("feed_forward_length");
  c.heads = keys.size("attention.head_count");
  c.kv_heads = keys.size_or("attention.head_count_kv", c.heads);
  if (c.heads < 1) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("{}.attention.head_count: {}", c.architecture, c.heads));
  }
  c.head_dim = keys.size_or("attention.key_length", c.hidden_size / c.heads);
  const int64_t value_dim = keys.size_or("attention.value_length", c.head_dim);
  if (value_dim != c.head_dim) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{0}.attention.value_length is {1}, {0}.attention.key_length {2}: heads "
                    "of two widths",
                    c.architecture, value_dim, c.head_dim));
  }
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  c.vocab_size =
      keys.size_or("vocab_size", embedding && embedding->dims.size() == 2 ? embedding->dims[0] : 0);
  if (keys.size_or("expert_count", 0) != 0) {
    throw Error(ErrorCode::unsupported, "layers of several experts are not known");
  }
}

void read_rope(const GgufFile& file, const Keys& keys, ModelConfig& c) {
  c.rope_dim = keys.size_or("rope.dimension_count", c.head_dim);
  c.rope_theta = keys.real_or("rope.freq_base", 10000);
  const std::string scaling = keys.text_or("rope.scaling.type", "");
  // Files from before the key "type" existed.
  const double factor = keys.real_or("rope.scaling.factor", keys.real_or("rope.scale_linear", 1));
  if (scaling == "linear" || (scaling.empty() && factor != 1 && factor != 0)) {
    c.rope_scaling = RopeScaling::linear;
    c.rope_factor = factor;
  } else if (!scaling.empty() && scaling != "none") {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}.rope.scaling.type: '{}' is not known", c.architecture, scaling),
                "known are none, linear, and llama3's by the tensor rope_freqs.weight");
  }
  if (has_tensor(file, "rope_freqs.weight")) {
    const Tensor divisors = file.decoded("rope_freqs.weight");
    c.rope_divisors = divisors.to_floats();
    c.rope_scaling = RopeScaling::llama3;
  }
}

/// A period (layers with (i + 1) % period == 0 see everything) or a list by layer.
void read_pattern(const Keys& keys, const Architecture& row, ModelConfig& c) {
  c.window = keys.size_or("attention.sliding_window", 0);
  if (c.window == 0) return;
  const GgufValue* pattern = keys.find("attention.sliding_window_pattern");
  if (pattern && pattern->kind() == GgufKind::array) {
    for (const int64_t local : pattern->as_ints()) c.local_layers.push_back(local != 0);
    return;
  }
  const int64_t period = pattern ? pattern->as_int() : row.gguf_local_period;
  if (period <= 0) return;
  for (int64_t i = 0; i < c.layers && i < 10000; ++i) {
    c.local_layers.push_back((i + 1) % period != 0);
  }
}

void read_gemma(const Keys& keys, ModelConfig& c) {
  c.activation = Activation::gelu_tanh;
  c.norm_placement = NormPlacement::around;
  c.qk_norm = c.architecture == "gemma3";
  if (c.qk_norm) c.rope_theta_local = keys.real_or("rope.freq_base_swa", 10000);
  // The largest models of both families scale by the hidden size per head.
  const bool largest = c.layers == (c.qk_norm ? 62 : 46);
  const double width = largest ? static_cast<double>(c.hidden_size) / static_cast<double>(c.heads)
                               : static_cast<double>(c.head_dim);
  c.attention_scale = keys.real_or("attention.scale", 1 / std::sqrt(width));
  c.attention_softcap = keys.real_or("attn_logit_softcapping", c.qk_norm ? 0 : 50);
  c.logit_softcap = keys.real_or("final_logit_softcapping", c.qk_norm ? 0 : 30);
}

void read_ids(const GgufFile& file, ModelConfig& c) {
  const auto id = [&](const char* key) -> int32_t {
    const GgufValue* v = file.find_metadata(key);
    if (!v) return -1;
    const int64_t x = v->as_int();
    return x < 0 || x >= c.vocab_size ? -1 : static_cast<int32_t>(x);
  };
  c.bos = id("tokenizer.ggml.bos_token_id");
  c.pad = id("tokenizer.ggml.padding_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const int32_t eos = id(key);
    if (eos >= 0 && (c.eos.empty() || c.eos.front() != eos)) c.eos.push_back(eos);
  }
  if (const GgufValue* types = file.find_metadata("tokenizer.ggml.token_type_count")) {
    c.token_types = types->as_int();
  }
}

/// Does each group of `period` layers end with the only one that sees everything?
bool has_period(const ModelConfig& c, int64_t period) {
  for (int64_t i = 0; i < c.layers; ++i) {
    if (c.local_layers[static_cast<size_t>(i)] != ((i + 1) % period != 0)) return false;
  }
  return true;
}

/// Only where readers would take another pattern: older ones do not know the key.
void append_pattern(const ModelConfig& c, GgufMetadata& metadata) {
  const Architecture* row = find_architecture(c.architecture);
  const int64_t usual = row ? row->gguf_local_period : 0;
  const std::string key = c.architecture + ".attention.sliding_window_pattern";
  if (c.local_layers.empty() || (usual > 0 && has_period(c, usual))) return;
  for (int64_t period = 2; period <= c.layers; ++period) {
    if (!has_period(c, period)) continue;
    metadata.emplace_back(key, GgufValue::u32(static_cast<uint32_t>(period)));
    return;
  }
  metadata.emplace_back(key, GgufValue::booleans(c.local_layers));
}

}  // namespace

ModelConfig config_from_gguf(const GgufFile& file) {
  ModelConfig c;
  c.architecture = std::string(file.metadata_at("general.architecture").as_string());
  const Architecture* row = find_architecture(c.architecture);
  if (!row) unknown_architecture(c.architecture);
  if (const GgufValue* name = file.find_metadata("general.name")) c.name = name->as_string();
  const Keys keys(file, c.architecture);
  read_sizes(file, keys, c);
  read_ids(file, c);
  c.attention_scale =
      keys.real_or("attention.scale", 1 / std::sqrt(static_cast<double>(c.head_dim)));
  const double rms_eps = keys.real_or("attention.layer_norm_rms_epsilon", 0);
  c.norm_eps = keys.real_or("attention.layer_norm_epsilon", rms_eps);
  c.tied_embedding = !has_tensor(file, "output.weight");
  c.qkv_bias = has_tensor(file, "blk.0.attn_q.bias") || has_tensor(file, "blk.0.attn_qkv.bias");
  c.output_bias = has_tensor(file, "blk.0.attn_output.bias");
  c.ffn_bias = has_tensor(file, "blk.0.ffn_up.bias");
  c.rope_interleaved = row->gguf_interleaved;
  if (row->scales_embedding) c.embedding_scale = std::sqrt(static_cast<double>(c.hidden_size));
  if (c.architecture == "gpt2" || c.architecture == "bert") {
    c.norm = NormKind::layer;
    c.positions = PositionKind::learned;
    c.gated = false;
    c.activation = Activation::gelu_tanh;
  } else {
    read_rope(file, keys, c);
    read_pattern(keys, *row, c);
  }
  if (c.architecture == "qwen3") c.qk_norm = true;
  if (c.architecture.starts_with("gemma")) read_gemma(keys, c);
  if (c.architecture == "bert") {
    c.norm_placement = NormPlacement::after_residual;
    c.activation = Activation::gelu;
    c.causal = keys.flag_or("attention.causal", false);
    const int64_t pooling = keys.size_or("pooling_type", 0);
    if (pooling < 0 || pooling > 3) {
      throw Error(ErrorCode::unsupported, fmt::format("bert.pooling_type: {}", pooling));
    }
    c.pooling = static_cast<Pooling>(pooling);
  }
  check_config(c);
  return c;
}

void append_gguf_config(const ModelConfig& c, GgufMetadata& metadata) {
  const std::string prefix = c.architecture + ".";
  const auto add = [&](const char* key, GgufValue value) {
    metadata.emplace_back(prefix + key, std::move(value));
  };
  const auto size = [&](const char* key, int64_t value) {
    add(key, GgufValue::u32(static_cast<uint32_t>(value)));
  };
  const auto real = [&](const char* key, double value) {
    add(key, GgufValue::f32(static_cast<float>(value)));
  };
  metadata.emplace_back("general.architecture", GgufValue::string(c.architecture));
  if (!c.name.empty()) metadata.emplace_back("general.name", GgufValue::string(c.name));
  size("vocab_size", c.vocab_size);
  size("context_length", c.context);
  size("embedding_length", c.hidden_size);
  size("block_count", c.layers);
  size("feed_forward_length", c.intermediate_size);
  size("attention.head_count", c.heads);
  size("attention.head_count_kv", c.kv_heads);
  if (c.head_dim * c.heads != c.hidden_size) {
    size("attention.key_length", c.head_dim);
    size("attention.value_length", c.head_dim);
  }
  real(
      c.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
      c.norm_eps);
  if (c.positions == PositionKind::rope) {
    size("rope.dimension_count", c.rope_dim);
    real("rope.freq_base", c.rope_theta);
    if (c.rope_theta_local != 0) real("rope.freq_base_swa", c.rope_theta_local);
    if (c.rope_scaling == RopeScaling::linear) {
      add("rope.scaling.type", GgufValue::string("linear"));
      real("rope.scaling.factor", c.rope_factor);
    }
  }
  if (c.window != 0) {
    size("attention.sliding_window", c.window);
    append_pattern(c, metadata);
  }
  // Only where it is not what every reader takes for it.
  if (std::abs(c.attention_scale * std::sqrt(static_cast<double>(c.head_dim)) - 1) > 1e-6) {
    real("attention.scale", c.attention_scale);
  }
  if (c.attention_softcap != 0) real("attn_logit_softcapping", c.attention_softcap);
  if (c.logit_softcap != 0) real("final_logit_softcapping", c.logit_softcap);
  if (!c.causal) {
    add("attention.causal", GgufValue::boolean(false));
    size("pooling_type", static_cast<int64_t>(c.pooling));
  }
}

}  // namespace narrow::llm
