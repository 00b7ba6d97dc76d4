// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/architecture.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

using enum Difference;
constexpr auto kHidden = Size::hidden;

// llama: also mistral and others that differ in nothing but numbers.
constexpr TensorRow kLlama[] = {
    {"token_embd.weight", "embed_tokens.weight", Size::vocab, kHidden},
    {"rope_freqs.weight", "", Size::rope_pairs, Size::none, Need::rope_divisors, computed},
    {"blk.{}.attn_norm.weight", "layers.{}.input_layernorm.weight", kHidden},
    {"blk.{}.attn_q.weight", "layers.{}.self_attn.q_proj.weight", Size::q, kHidden, Need::always,
     rotation_q},
    {"blk.{}.attn_q.bias", "layers.{}.self_attn.q_proj.bias", Size::q, Size::none, Need::qkv_bias,
     rotation_q},
    {"blk.{}.attn_k.weight", "layers.{}.self_attn.k_proj.weight", Size::kv, kHidden, Need::always,
     rotation_k},
    {"blk.{}.attn_k.bias", "layers.{}.self_attn.k_proj.bias", Size::kv, Size::none, Need::qkv_bias,
     rotation_k},
    {"blk.{}.attn_v.weight", "layers.{}.self_attn.v_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_v.bias", "layers.{}.self_attn.v_proj.bias", Size::kv, Size::none, Need::qkv_bias},
    {"blk.{}.attn_output.weight", "layers.{}.self_attn.o_proj.weight", kHidden, Size::q},
    {"blk.{}.attn_output.bias", "layers.{}.self_attn.o_proj.bias", kHidden, Size::none,
     Need::output_bias},
    {"blk.{}.ffn_norm.weight", "layers.{}.post_attention_layernorm.weight", kHidden},
    {"blk.{}.ffn_gate.weight", "layers.{}.mlp.gate_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_gate.bias", "layers.{}.mlp.gate_proj.bias", Size::ffn, Size::none, Need::ffn_bias},
    {"blk.{}.ffn_up.weight", "layers.{}.mlp.up_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_up.bias", "layers.{}.mlp.up_proj.bias", Size::ffn, Size::none, Need::ffn_bias},
    {"blk.{}.ffn_down.weight", "layers.{}.mlp.down_proj.weight", kHidden, Size::ffn},
    {"blk.{}.ffn_down.bias", "layers.{}.mlp.down_proj.bias", kHidden, Size::none, Need::ffn_bias},
    {"output_norm.weight", "norm.weight", kHidden},
    {"output.weight", "/lm_head.weight", Size::vocab, kHidden, Need::untied},
};

constexpr TensorRow kQwen2[] = {
    {"token_embd.weight", "embed_tokens.weight", Size::vocab, kHidden},
    {"blk.{}.attn_norm.weight", "layers.{}.input_layernorm.weight", kHidden},
    {"blk.{}.attn_q.weight", "layers.{}.self_attn.q_proj.weight", Size::q, kHidden},
    {"blk.{}.attn_q.bias", "layers.{}.self_attn.q_proj.bias", Size::q, Size::none, Need::qkv_bias},
    {"blk.{}.attn_k.weight", "layers.{}.self_attn.k_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_k.bias", "layers.{}.self_attn.k_proj.bias", Size::kv, Size::none, Need::qkv_bias},
    {"blk.{}.attn_v.weight", "layers.{}.self_attn.v_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_v.bias", "layers.{}.self_attn.v_proj.bias", Size::kv, Size::none, Need::qkv_bias},
    {"blk.{}.attn_output.weight", "layers.{}.self_attn.o_proj.weight", kHidden, Size::q},
    {"blk.{}.ffn_norm.weight", "layers.{}.post_attention_layernorm.weight", kHidden},
    {"blk.{}.ffn_gate.weight", "layers.{}.mlp.gate_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_up.weight", "layers.{}.mlp.up_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_down.weight", "layers.{}.mlp.down_proj.weight", kHidden, Size::ffn},
    {"output_norm.weight", "norm.weight", kHidden},
    {"output.weight", "/lm_head.weight", Size::vocab, kHidden, Need::untied},
};

constexpr TensorRow kQwen3[] = {
    {"token_embd.weight", "embed_tokens.weight", Size::vocab, kHidden},
    {"blk.{}.attn_norm.weight", "layers.{}.input_layernorm.weight", kHidden},
    {"blk.{}.attn_q.weight", "layers.{}.self_attn.q_proj.weight", Size::q, kHidden},
    {"blk.{}.attn_q.bias", "layers.{}.self_attn.q_proj.bias", Size::q, Size::none, Need::qkv_bias},
    {"blk.{}.attn_q_norm.weight", "layers.{}.self_attn.q_norm.weight", Size::head},
    {"blk.{}.attn_k.weight", "layers.{}.self_attn.k_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_k.bias", "layers.{}.self_attn.k_proj.bias", Size::kv, Size::none, Need::qkv_bias},
    {"blk.{}.attn_k_norm.weight", "layers.{}.self_attn.k_norm.weight", Size::head},
    {"blk.{}.attn_v.weight", "layers.{}.self_attn.v_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_v.bias", "layers.{}.self_attn.v_proj.bias", Size::kv, Size::none, Need::qkv_bias},
    {"blk.{}.attn_output.weight", "layers.{}.self_attn.o_proj.weight", kHidden, Size::q},
    {"blk.{}.attn_output.bias", "layers.{}.self_attn.o_proj.bias", kHidden, Size::none,
     Need::output_bias},
    {"blk.{}.ffn_norm.weight", "layers.{}.post_attention_layernorm.weight", kHidden},
    {"blk.{}.ffn_gate.weight", "layers.{}.mlp.gate_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_up.weight", "layers.{}.mlp.up_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_down.weight", "layers.{}.mlp.down_proj.weight", kHidden, Size::ffn},
    {"output_norm.weight", "norm.weight", kHidden},
    {"output.weight", "/lm_head.weight", Size::vocab, kHidden, Need::untied},
};

/// Of gemma2 and gemma3.
constexpr TensorRow kGemma[] = {
    {"token_embd.weight", "embed_tokens.weight", Size::vocab, kHidden},
    {"blk.{}.attn_norm.weight", "layers.{}.input_layernorm.weight", kHidden, Size::none,
     Need::always, minus_one},
    {"blk.{}.attn_q.weight", "layers.{}.self_attn.q_proj.weight", Size::q, kHidden},
    {"blk.{}.attn_q_norm.weight", "layers.{}.self_attn.q_norm.weight", Size::head, Size::none,
     Need::qk_norm, minus_one},
    {"blk.{}.attn_k.weight", "layers.{}.self_attn.k_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_k_norm.weight", "layers.{}.self_attn.k_norm.weight", Size::head, Size::none,
     Need::qk_norm, minus_one},
    {"blk.{}.attn_v.weight", "layers.{}.self_attn.v_proj.weight", Size::kv, kHidden},
    {"blk.{}.attn_output.weight", "layers.{}.self_attn.o_proj.weight", kHidden, Size::q},
    {"blk.{}.post_attention_norm.weight", "layers.{}.post_attention_layernorm.weight", kHidden,
     Size::none, Need::always, minus_one},
    {"blk.{}.ffn_norm.weight", "layers.{}.pre_feedforward_layernorm.weight", kHidden, Size::none,
     Need::always, minus_one},
    {"blk.{}.ffn_gate.weight", "layers.{}.mlp.gate_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_up.weight", "layers.{}.mlp.up_proj.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_down.weight", "layers.{}.mlp.down_proj.weight", kHidden, Size::ffn},
    {"blk.{}.post_ffw_norm.weight", "layers.{}.post_feedforward_layernorm.weight", kHidden,
     Size::none, Need::always, minus_one},
    {"output_norm.weight", "norm.weight", kHidden, Size::none, Need::always, minus_one},
    {"output.weight", "/lm_head.weight", Size::vocab, kHidden, Need::untied},
};

constexpr TensorRow kGpt2[] = {
    {"token_embd.weight", "wte.weight", Size::vocab, kHidden},
    {"position_embd.weight", "wpe.weight", Size::context, kHidden},
    {"blk.{}.attn_norm.weight", "h.{}.ln_1.weight", kHidden},
    {"blk.{}.attn_norm.bias", "h.{}.ln_1.bias", kHidden},
    {"blk.{}.attn_qkv.weight", "h.{}.attn.c_attn.weight", Size::qkv, kHidden, Need::always,
     transposed},
    {"blk.{}.attn_qkv.bias", "h.{}.attn.c_attn.bias", Size::qkv},
    {"blk.{}.attn_output.weight", "h.{}.attn.c_proj.weight", kHidden, Size::q, Need::always,
     transposed},
    {"blk.{}.attn_output.bias", "h.{}.attn.c_proj.bias", kHidden},
    {"blk.{}.ffn_norm.weight", "h.{}.ln_2.weight", kHidden},
    {"blk.{}.ffn_norm.bias", "h.{}.ln_2.bias", kHidden},
    {"blk.{}.ffn_up.weight", "h.{}.mlp.c_fc.weight", Size::ffn, kHidden, Need::always, transposed},
    {"blk.{}.ffn_up.bias", "h.{}.mlp.c_fc.bias", Size::ffn},
    {"blk.{}.ffn_down.weight", "h.{}.mlp.c_proj.weight", kHidden, Size::ffn, Need::always,
     transposed},
    {"blk.{}.ffn_down.bias", "h.{}.mlp.c_proj.bias", kHidden},
    {"output_norm.weight", "ln_f.weight", kHidden},
    {"output_norm.bias", "ln_f.bias", kHidden},
    {"output.weight", "/lm_head.weight", Size::vocab, kHidden, Need::untied},
};

constexpr TensorRow kBert[] = {
    {"token_embd.weight", "embeddings.word_embeddings.weight", Size::vocab, kHidden},
    {"position_embd.weight", "embeddings.position_embeddings.weight", Size::context, kHidden},
    {"token_types.weight", "embeddings.token_type_embeddings.weight", Size::token_types, kHidden},
    {"token_embd_norm.weight", "embeddings.LayerNorm.weight", kHidden},
    {"token_embd_norm.bias", "embeddings.LayerNorm.bias", kHidden},
    {"blk.{}.attn_q.weight", "encoder.layer.{}.attention.self.query.weight", Size::q, kHidden},
    {"blk.{}.attn_q.bias", "encoder.layer.{}.attention.self.query.bias", Size::q},
    {"blk.{}.attn_k.weight", "encoder.layer.{}.attention.self.key.weight", Size::kv, kHidden},
    {"blk.{}.attn_k.bias", "encoder.layer.{}.attention.self.key.bias", Size::kv},
    {"blk.{}.attn_v.weight", "encoder.layer.{}.attention.self.value.weight", Size::kv, kHidden},
    {"blk.{}.attn_v.bias", "encoder.layer.{}.attention.self.value.bias", Size::kv},
    {"blk.{}.attn_output.weight", "encoder.layer.{}.attention.output.dense.weight", kHidden,
     Size::q},
    {"blk.{}.attn_output.bias", "encoder.layer.{}.attention.output.dense.bias", kHidden},
    {"blk.{}.attn_output_norm.weight", "encoder.layer.{}.attention.output.LayerNorm.weight",
     kHidden},
    {"blk.{}.attn_output_norm.bias", "encoder.layer.{}.attention.output.LayerNorm.bias", kHidden},
    {"blk.{}.ffn_up.weight", "encoder.layer.{}.intermediate.dense.weight", Size::ffn, kHidden},
    {"blk.{}.ffn_up.bias", "encoder.layer.{}.intermediate.dense.bias", Size::ffn},
    {"blk.{}.ffn_down.weight", "encoder.layer.{}.output.dense.weight", kHidden, Size::ffn},
    {"blk.{}.ffn_down.bias", "encoder.layer.{}.output.dense.bias", kHidden},
    {"blk.{}.layer_output_norm.weight", "encoder.layer.{}.output.LayerNorm.weight", kHidden},
    {"blk.{}.layer_output_norm.bias", "encoder.layer.{}.output.LayerNorm.bias", kHidden},
};

constexpr std::string_view kLlamaTypes[] = {"llama", "mistral"};
constexpr std::string_view kQwen2Types[] = {"qwen2"};
constexpr std::string_view kQwen3Types[] = {"qwen3"};
constexpr std::string_view kGemma2Types[] = {"gemma2"};
constexpr std::string_view kGemma3Types[] = {"gemma3_text", "gemma3"};
constexpr std::string_view kGpt2Types[] = {"gpt2"};
constexpr std::string_view kBertTypes[] = {"bert"};

constexpr std::string_view kModelPrefixes[] = {"model.", "", "language_model.model.",
                                               "model.language_model."};
constexpr std::string_view kGpt2Prefixes[] = {"transformer.", ""};
constexpr std::string_view kBertPrefixes[] = {"", "bert."};

// Frequencies that follow from the config; of gemma3 the parts that see pictures.
constexpr std::string_view kRopeUnused[] = {"rotary_emb.inv_freq"};
constexpr std::string_view kGemma3Unused[] = {"rotary_emb.inv_freq", "vision_tower.",
                                              "multi_modal_projector."};
constexpr std::string_view kGpt2Unused[] = {".attn.bias", ".attn.masked_bias"};
// Heads for tasks.
constexpr std::string_view kBertUnused[] = {"embeddings.position_ids", "pooler.", "cls.",
                                            "classifier."};

constexpr Architecture kArchitectures[] = {
    {"llama", kLlamaTypes, "LlamaForCausalLM",
     "llama 3's scaling of frequencies, linear scaling, windows, biases", kModelPrefixes,
     kRopeUnused, kLlama, true},
    {"qwen2", kQwen2Types, "Qwen2ForCausalLM", "biases of query, key, value", kModelPrefixes,
     kRopeUnused, kQwen2},
    {"qwen3", kQwen3Types, "Qwen3ForCausalLM", "heads are normalized", kModelPrefixes, kRopeUnused,
     kQwen3},
    {"gemma2", kGemma2Types, "Gemma2ForCausalLM",
     "norms on both sides, soft caps, every other layer has a window", kModelPrefixes, kRopeUnused,
     kGemma, false, 2, true},
    {"gemma3", kGemma3Types, "Gemma3ForCausalLM",
     "five of six layers have a window and a rotation of their own", kModelPrefixes, kGemma3Unused,
     kGemma, false, 6, true},
    {"gpt2", kGpt2Types, "GPT2LMHeadModel", "learned positions, matrices stored [in, out]",
     kGpt2Prefixes, kGpt2Unused, kGpt2},
    {"bert", kBertTypes, "BertModel", "an encoder", kBertPrefixes, kBertUnused, kBert},
};

int64_t value_of(const ModelConfig& c, Size size) {
  switch (size) {
    case Size::none:
      return 1;
    case Size::vocab:
      return c.vocab_size;
    case Size::hidden:
      return c.hidden_size;
    case Size::q:
      return c.q_size();
    case Size::kv:
      return c.kv_size();
    case Size::qkv:
      return c.q_size() + 2 * c.kv_size();
    case Size::head:
      return c.head_dim;
    case Size::ffn:
      return c.intermediate_size;
    case Size::context:
      return c.context;
    case Size::token_types:
      return c.token_types;
    case Size::rope_pairs:
      return c.rope_dim / 2;
  }
  return 0;
}

}  // namespace

std::span<const Architecture> architectures() {
  return kArchitectures;
}

const Architecture* find_architecture(std::string_view gguf_name) {
  for (const Architecture& a : kArchitectures) {
    if (a.name == gguf_name) return &a;
  }
  return nullptr;
}

const Architecture* find_hf_architecture(std::string_view model_type) {
  for (const Architecture& a : kArchitectures) {
    for (const std::string_view type : a.hf_types) {
      if (type == model_type) return &a;
    }
  }
  return nullptr;
}

void unknown_architecture(std::string_view asked) {
  std::string known;
  for (const Architecture& a : kArchitectures) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", a.name);
    for (const std::string_view type : a.hf_types) {
      if (type != a.name) known += fmt::format(", {}", type);
    }
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("the model is of the architecture '{}', which is not known", asked),
              "known are " + known);
}

bool needs(const ModelConfig& config, const TensorRow& row) {
  switch (row.need) {
    case Need::always:
      return true;
    case Need::untied:
      return !config.tied_embedding;
    case Need::qkv_bias:
      return config.qkv_bias;
    case Need::output_bias:
      return config.output_bias;
    case Need::ffn_bias:
      return config.ffn_bias;
    case Need::qk_norm:
      return config.qk_norm;
    case Need::rope_divisors:
      return !config.rope_divisors.empty();
  }
  return true;
}

Dims dims_of(const ModelConfig& config, const TensorRow& row) {
  if (row.columns == Size::none) return {value_of(config, row.rows)};
  return {value_of(config, row.rows), value_of(config, row.columns)};
}

void for_each_tensor(const ModelConfig& config,
                     const std::function<void(const TensorRow& row, int64_t layer)>& f) {
  const Architecture* architecture = find_architecture(config.architecture);
  if (architecture == nullptr) unknown_architecture(config.architecture);
  const std::span<const TensorRow> rows = architecture->tensors;
  const auto in_layer = [](const TensorRow& row) { return row.gguf.starts_with("blk."); };
  size_t first = 0;
  while (first < rows.size() && !in_layer(rows[first])) ++first;
  size_t last = first;
  while (last < rows.size() && in_layer(rows[last])) ++last;
  const auto visit = [&](size_t begin, size_t end, int64_t layer) {
    for (size_t i = begin; i < end; ++i) {
      if (needs(config, rows[i])) f(rows[i], layer);
    }
  };
  visit(0, first, 0);
  for (int64_t layer = 0; layer < config.layers; ++layer) visit(first, last, layer);
  visit(last, rows.size(), 0);
}

std::string describe(const ModelConfig& config, Size size) {
  static constexpr std::string_view kNames[] = {"1",
                                                "vocab_size",
                                                "hidden_size",
                                                "heads * head_dim",
                                                "kv_heads * head_dim",
                                                "(heads + 2 kv_heads) * head_dim",
                                                "head_dim",
                                                "intermediate_size",
                                                "context",
                                                "token_types",
                                                "rope_dim / 2"};
  return fmt::format("{} = {}", kNames[static_cast<size_t>(size)], value_of(config, size));
}

std::string name_of(std::string_view pattern, int64_t layer) {
  const size_t hole = pattern.find("{}");
  if (hole == std::string_view::npos) return std::string(pattern);
  return fmt::format("{}{}{}", pattern.substr(0, hole), layer, pattern.substr(hole + 2));
}

}  // namespace narrow::llm
