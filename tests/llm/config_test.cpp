// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/config.h"

#include <gtest/gtest.h>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), with);
}

std::string with_key(const std::string& config, const std::string& more) {
  return replaced(config, "{", "{" + more + ",");
}

std::string message_of(const std::string& json, ErrorCode code) {
  try {
    (void)config_from_hf(json);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return std::string(e.what()) + " " + e.hint();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(ConfigTest, ReadsLlama) {
  const ModelConfig c = config_from_hf(kLlamaConfig);
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.rope_dim, 8);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_FALSE(c.tied_embedding);
  EXPECT_EQ(c.bos, 1);
  EXPECT_EQ(c.eos, (std::vector<int32_t>{2, 3}));
  EXPECT_DOUBLE_EQ(c.attention_scale, 1 / std::sqrt(8.0));
  EXPECT_EQ(c.window_of(1), 0);
}

TEST(ConfigTest, MistralHasAWindowInEveryLayer) {
  const std::string mistral =
      with_key(replaced(kLlamaConfig, "llama", "mistral"), R"("sliding_window": 7)");
  const ModelConfig c = config_from_hf(mistral);
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.window_of(0), 7);
  EXPECT_EQ(c.window_of(1), 7);
}

TEST(ConfigTest, GemmaAlternatesWindows) {
  const ModelConfig c = config_from_hf(kGemma3Config);
  EXPECT_EQ(c.window_of(0), 5);
  EXPECT_EQ(c.window_of(1), 5);
  EXPECT_EQ(c.window_of(2), 0);
  EXPECT_EQ(c.window_of(3), 5);
  EXPECT_EQ(c.rope_theta_local, 10000);
  EXPECT_EQ(c.rope_scaling, RopeScaling::linear);
  EXPECT_TRUE(c.tied_embedding);
  EXPECT_DOUBLE_EQ(c.embedding_scale, std::sqrt(32.0));
  const ModelConfig second = config_from_hf(kGemma2Config);
  EXPECT_EQ(second.window_of(0), 5);
  EXPECT_EQ(second.window_of(1), 0);
  EXPECT_DOUBLE_EQ(second.attention_scale, 1 / std::sqrt(24.0));
}

TEST(ConfigTest, ReadsRopeParametersOfVersion5) {
  const std::string five = R"({
    "model_type": "gemma3_text", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64,
    "max_position_embeddings": 64, "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500000.0},
      "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}}})";
  const ModelConfig c = config_from_hf(five);
  EXPECT_EQ(c.rope_theta, 500000);
  EXPECT_EQ(c.rope_theta_local, 20000);
  EXPECT_EQ(c.rope_factor, 8);
  EXPECT_EQ(c.window_of(0), 5);
  EXPECT_EQ(c.window_of(1), 0);
}

TEST(ConfigTest, Llama3Divisors) {
  // The numbers of Llama 3.1: rope_theta 500000, head 128; wavelengths below 2048 keep their
  // frequency, above 8192 it is divided by 8. Between: from the formula in double (numpy).
  const std::string config =
      with_key(replaced(replaced(kLlamaConfig, "\"hidden_size\": 32", "\"hidden_size\": 512"),
                        "10000.0", "500000.0"),
               R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})");
  const ModelConfig c = config_from_hf(config);
  ASSERT_EQ(c.rope_divisors.size(), 64u);
  EXPECT_EQ(c.rope_divisors[0], 1.0F);
  EXPECT_EQ(c.rope_divisors[28], 1.0F);
  EXPECT_EQ(c.rope_divisors[63], 8.0F);
  EXPECT_NEAR(c.rope_divisors[30], 1.5534146285049255, 1e-5);
  EXPECT_NEAR(c.rope_divisors[33], 3.684252527745718, 1e-5);
}

TEST(ConfigTest, WritesWhatItReads) {
  for (const auto& [name, json] : tiny_configs()) {
    const ModelConfig c = config_from_hf(json);
    const ModelConfig d = config_from_hf(hf_config_json(c, "float32"));
    GgufMetadata first;
    GgufMetadata second;
    append_gguf_config(c, first);
    append_gguf_config(d, second);
    EXPECT_EQ(first, second) << name;
    EXPECT_EQ(c.tied_embedding, d.tied_embedding) << name;
    EXPECT_EQ(c.local_layers, d.local_layers) << name;
    EXPECT_EQ(c.qkv_bias, d.qkv_bias) << name;
    EXPECT_EQ(c.activation, d.activation) << name;
    EXPECT_EQ(c.eos, d.eos) << name;
  }
}

TEST(ConfigTest, GgufGivesTheSameConfig) {
  TemporaryFolder folder;
  for (const auto& [name, json] : tiny_configs()) {
    const Checkpoint hf = tiny_model(folder / name, json);
    write_gguf(folder / "m.gguf", hf);
    const ModelConfig& c = hf.config();
    const ModelConfig d = Checkpoint::open(folder / "m.gguf").config();
    EXPECT_EQ(c.hidden_size, d.hidden_size) << name;
    EXPECT_EQ(c.vocab_size, d.vocab_size) << name;
    EXPECT_EQ(c.head_dim, d.head_dim) << name;
    EXPECT_EQ(c.kv_heads, d.kv_heads) << name;
    EXPECT_EQ(c.rope_dim, d.rope_dim) << name;
    EXPECT_EQ(c.norm, d.norm) << name;
    EXPECT_EQ(c.norm_placement, d.norm_placement) << name;
    EXPECT_EQ(static_cast<float>(c.norm_eps), static_cast<float>(d.norm_eps)) << name;
    EXPECT_EQ(c.activation, d.activation) << name;
    EXPECT_EQ(c.gated, d.gated) << name;
    EXPECT_EQ(c.causal, d.causal) << name;
    EXPECT_EQ(c.tied_embedding, d.tied_embedding) << name;
    EXPECT_EQ(c.qkv_bias, d.qkv_bias) << name;
    EXPECT_EQ(c.output_bias, d.output_bias) << name;
    EXPECT_EQ(c.ffn_bias, d.ffn_bias) << name;
    EXPECT_EQ(c.qk_norm, d.qk_norm) << name;
    EXPECT_EQ(c.positions, d.positions) << name;
    EXPECT_EQ(c.rope_theta, d.rope_theta) << name;
    EXPECT_EQ(c.rope_theta_local, d.rope_theta_local) << name;
    EXPECT_EQ(c.rope_factor, d.rope_factor) << name;
    EXPECT_EQ(c.token_types, d.token_types) << name;
    EXPECT_NEAR(c.attention_scale, d.attention_scale, 1e-7) << name;
    EXPECT_EQ(c.attention_softcap, d.attention_softcap) << name;
    EXPECT_EQ(c.logit_softcap, d.logit_softcap) << name;
    EXPECT_EQ(c.embedding_scale, d.embedding_scale) << name;
    for (int64_t i = 0; i < c.layers; ++i) EXPECT_EQ(c.window_of(i), d.window_of(i)) << name;
  }
}

TEST(ConfigTest, RotatesAPartOfAHead) {
  ModelConfig c = config_from_hf(with_key(kQwen3Config, R"("partial_rotary_factor": 0.4)"));
  EXPECT_EQ(c.rope_dim, 6);  // of 16
  for (int64_t dim = 2; dim <= 16; dim += 2) {
    c.rope_dim = dim;
    EXPECT_EQ(config_from_hf(hf_config_json(c, "float32")).rope_dim, dim);
  }
}

TEST(ConfigTest, NamesWhatIsNotKnown) {
  std::string text = message_of(replaced(kLlamaConfig, "llama", "mamba"), ErrorCode::unsupported);
  EXPECT_SAYS(text, "'mamba'");
  EXPECT_SAYS(text, "qwen3");
  EXPECT_SAYS(text, "mistral");
  text = message_of(with_key(kLlamaConfig, R"("rope_scaling": {"type": "yarn", "factor": 4.0})"),
                    ErrorCode::unsupported);
  EXPECT_SAYS(text, "'yarn'");
  text = message_of(replaced(kLlamaConfig, "silu", "mish"), ErrorCode::unsupported);
  EXPECT_SAYS(text, "'mish'");
  text = message_of(with_key(kLlamaConfig, R"("quantization_config": {"quant_method": "awq"})"),
                    ErrorCode::unsupported);
  EXPECT_SAYS(text, "awq");
}

TEST(ConfigTest, NamesWhatIsWrong) {
  const ErrorCode corrupt = ErrorCode::corrupt_data;
  EXPECT_SAYS(message_of("[1]", corrupt), "config.json");
  EXPECT_SAYS(message_of(replaced(kLlamaConfig, "\"vocab_size\": 61,", ""), corrupt),
              "vocab_size: is missing");
  EXPECT_SAYS(message_of(replaced(kLlamaConfig, "61", "\"many\""), corrupt), "vocab_size: is no");
  EXPECT_SAYS(message_of(replaced(kLlamaConfig, "61", "-4"), corrupt), "vocab_size is -4");
  EXPECT_SAYS(message_of(replaced(kLlamaConfig, "heads\": 4", "heads\": 5"), corrupt),
              "hidden_size 32");
  EXPECT_SAYS(message_of(replaced(kLlamaConfig, "value_heads\": 2", "value_heads\": 3"), corrupt),
              "4 heads cannot share 3 kv_heads");
  EXPECT_SAYS(message_of(replaced(kLlamaConfig, "layers\": 2", "layers\": 2000000"), corrupt),
              "layers is 2000000");
  EXPECT_SAYS(message_of(with_key(kLlamaConfig, R"("partial_rotary_factor": 1e300)"), corrupt),
              "partial_rotary_factor");
  EXPECT_SAYS(message_of(replaced(kGpt2Config, "32", "9223372036854775807"), corrupt),
              "hidden_size 9223372036854775807");
  EXPECT_SAYS(message_of(with_key(kQwen3Config, R"("use_sliding_window": true, "sliding_window": 4,
                                  "layer_types": ["full_attention"])"),
                         corrupt),
              "1 kinds of attention for 2 layers");
}

}  // namespace
}  // namespace narrow::llm
