// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/checkpoint.h"

#include <gtest/gtest.h>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

Error error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::internal, "");
}

bool says(const Error& e, const std::string& text) {
  return (std::string(e.what()) + " " + e.hint()).find(text) != std::string::npos;
}

TEST(CheckpointTest, TranslatesNamesOfLlama) {
  TemporaryFolder folder;
  const auto weights = random_weights(kLlamaConfig);
  write_model(folder.path(), kLlamaConfig, weights);
  const Checkpoint model = Checkpoint::open(folder.path());
  const std::map<std::string, std::string> names = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"blk.1.attn_norm.weight", "model.layers.1.input_layernorm.weight"},
      {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"},
      {"blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"},
      {"blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"},
      {"blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight"},
      {"blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"},
      {"blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"},
      {"output_norm.weight", "model.norm.weight"},
      {"output.weight", "lm_head.weight"},
  };
  for (const auto& [gguf, hf] : names) {
    EXPECT_TRUE(identical(model.read(gguf), weights.at(hf))) << gguf;
    EXPECT_TRUE(identical(model.raw(gguf), weights.at(hf))) << gguf;
  }
  EXPECT_EQ(model.tensors().size(), weights.size());
  EXPECT_EQ(model.tensors().front().name, "token_embd.weight");
  EXPECT_EQ(model.tensors().back().name, "output.weight");
  EXPECT_EQ(model.find("blk.2.attn_q.weight"), nullptr);
  EXPECT_FALSE(model.has_tokenizer());
}

TEST(CheckpointTest, InterleavesTheRotationOfLlama) {
  TemporaryFolder folder;
  const auto weights = random_weights(kLlamaConfig, DType::bfloat16);
  write_model(folder.path(), kLlamaConfig, weights);
  const Checkpoint model = Checkpoint::open(folder.path());
  EXPECT_FALSE(model.config().rope_interleaved);
  const std::vector<float> stored =
      weights.at("model.layers.1.self_attn.k_proj.weight").to_floats();
  const Tensor got = model.read("blk.1.attn_k.weight");
  const std::vector<float> same_order =
      model.read("blk.1.attn_k.weight", RowOrder::stored).to_floats();
  EXPECT_EQ(same_order, stored);
  // Heads of 8: reshaped [heads, 2, 4, columns], the two middle axes exchanged.
  for (int64_t head = 0; head < 2; ++head) {
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t c = 0; c < 32; ++c) {
          const float wanted = stored[((head * 2 + half) * 4 + i) * 32 + c];
          ASSERT_EQ(got.data<float>()[((head * 4 + i) * 2 + half) * 32 + c], wanted);
        }
      }
    }
  }
  std::vector<float> part(3 * 32);
  model.read_rows("blk.1.attn_k.weight", 5, 3, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), got.data<float>().begin() + 5 * 32));
}

TEST(CheckpointTest, TransposesAndAddsOne) {
  TemporaryFolder folder;
  const auto gpt2 = random_weights(kGpt2Config, DType::float16);
  write_model(folder / "gpt2", kGpt2Config, gpt2);
  const Checkpoint first = Checkpoint::open(folder / "gpt2");
  const Tensor& stored = gpt2.at("transformer.h.1.attn.c_attn.weight");
  ASSERT_EQ(stored.dims(), (Dims{32, 96}));
  EXPECT_TRUE(identical(first.raw("blk.1.attn_qkv.weight"), stored));
  EXPECT_EQ(first.at("blk.1.attn_qkv.weight").dims, (Dims{96, 32}));
  std::vector<float> rows(7 * 32);
  first.read_rows("blk.1.attn_qkv.weight", 40, 7, rows);
  const std::vector<float> x = stored.to_floats();
  for (size_t r = 0; r < 7; ++r) {
    for (size_t c = 0; c < 32; ++c) ASSERT_EQ(rows[r * 32 + c], x[c * 96 + 40 + r]);
  }

  const auto gemma = random_weights(kGemma3Config);
  write_model(folder / "gemma", kGemma3Config, gemma);
  const Checkpoint second = Checkpoint::open(folder / "gemma");
  const std::vector<float> norm = gemma.at("model.layers.2.self_attn.q_norm.weight").to_floats();
  const std::vector<float> got = second.read("blk.2.attn_q_norm.weight").to_floats();
  for (size_t i = 0; i < norm.size(); ++i) EXPECT_EQ(got[i], norm[i] + 1.0F);
}

TEST(CheckpointTest, GgufGivesTheSameTensors) {
  TemporaryFolder folder;
  for (const auto& [name, config] : tiny_configs()) {
    const Checkpoint from = tiny_model(folder / name, config, DType::bfloat16);
    const fs::path file = folder / (name + ".gguf");
    write_gguf(file, from);
    const Checkpoint to = Checkpoint::open(file);
    EXPECT_TRUE(to.is_gguf());
    ASSERT_EQ(to.tensors().size(), from.tensors().size()) << name;
    for (const CheckpointTensor& t : from.tensors()) {
      EXPECT_TRUE(identical(from.read(t.name), to.read(t.name))) << name << " " << t.name;
    }
    EXPECT_EQ(to.gguf_metadata(), from.gguf_metadata()) << name;
  }
}

TEST(CheckpointTest, ReadsBlocksAsStored) {
  TemporaryFolder folder;
  const Checkpoint from = tiny_model(folder / "m", kLlamaConfig);
  write_gguf(folder / "q8.gguf", from, BlockType::q8_0);
  const Checkpoint model = Checkpoint::open(folder / "q8.gguf");
  const Tensor raw = model.raw("blk.0.attn_q.weight");
  EXPECT_EQ(raw.dtype(), DType::uint8);
  EXPECT_EQ(raw.dims(), (Dims{32, 34}));
  EXPECT_EQ(model.at("blk.0.attn_q.weight").type, BlockType::q8_0);
  EXPECT_TRUE(model.config().rope_interleaved);
  std::vector<float> row(32);
  decode(BlockType::q8_0, {raw.raw() + 3 * 34, 34}, row);
  std::vector<float> got(32);
  model.read_rows("blk.0.attn_q.weight", 3, 1, got);
  EXPECT_EQ(got, row);
}

TEST(CheckpointTest, FindsNamesWithOtherPrefixes) {
  TemporaryFolder folder;
  for (const std::string prefix : {"", "language_model.model.", "model.language_model."}) {
    std::map<std::string, Tensor> weights;
    for (const auto& [name, tensor] : random_weights(kGemma3Config)) {
      weights[name.starts_with("model.") ? prefix + name.substr(6) : name] = tensor;
    }
    weights["vision_tower.patch.weight"] = Tensor(DType::float32, {4});
    const std::string wrapped = R"({"model_type": "gemma3", "text_config": )" + kGemma3Config + "}";
    write_model(folder.path(), wrapped, weights);
    EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), weights.size() - 1) << prefix;
  }
}

TEST(CheckpointTest, NamesWhatDoesNotFit) {
  TemporaryFolder folder;
  const auto open = [&] { (void)Checkpoint::open(folder.path()); };
  auto weights = random_weights(kLlamaConfig);

  auto some = weights;
  some.erase("model.layers.1.mlp.up_proj.weight");
  write_model(folder.path(), kLlamaConfig, some);
  Error e = error_of(open);
  EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
  EXPECT_TRUE(says(e, "'model.layers.1.mlp.up_proj.weight'")) << e.what();

  some = weights;
  some["model.layers.0.self_attn.k_proj.weight"] = Tensor(DType::float32, {32, 32});
  write_model(folder.path(), kLlamaConfig, some);
  e = error_of(open);
  EXPECT_TRUE(says(e, "'model.layers.0.self_attn.k_proj.weight' is [32, 32]")) << e.what();
  EXPECT_TRUE(says(e, "kv_heads * head_dim = 16")) << e.what();

  some = weights;
  some["model.layers.2.mlp.up_proj.weight"] = Tensor(DType::float32, {64, 32});
  write_model(folder.path(), kLlamaConfig, some);
  e = error_of(open);
  EXPECT_TRUE(says(e, "no place")) << e.what();
  EXPECT_TRUE(says(e, "'model.layers.2.mlp.up_proj.weight'")) << e.what();

  some = weights;
  some["model.norm.weight"] = Tensor(DType::int8, {32});
  write_model(folder.path(), kLlamaConfig, some);
  e = error_of(open);
  EXPECT_EQ(e.code(), ErrorCode::unsupported);
  EXPECT_TRUE(says(e, "'model.norm.weight' has the element type I8")) << e.what();

  some = weights;
  some.erase("model.embed_tokens.weight");
  write_model(folder.path(), kLlamaConfig, some);
  EXPECT_TRUE(says(error_of(open), "no embedding"));

  EXPECT_EQ(error_of([&] { (void)Checkpoint::open(folder / "absent"); }).code(),
            ErrorCode::not_found);
  fs::remove(folder / "config.json");
  EXPECT_TRUE(says(error_of(open), "config.json"));
}

TEST(CheckpointTest, ChecksRequestsForRows) {
  TemporaryFolder folder;
  const Checkpoint model = tiny_model(folder.path(), kLlamaConfig);
  std::vector<float> out(32);
  const auto code = [&](const std::string& name, int64_t first, int64_t count) {
    return error_of([&] { model.read_rows(name, first, count, out); }).code();
  };
  EXPECT_EQ(code("blk.0.attn_q.weight", 32, 1), ErrorCode::invalid_argument);
  EXPECT_EQ(code("blk.0.attn_q.weight", -1, 1), ErrorCode::invalid_argument);
  EXPECT_EQ(code("blk.0.attn_q.weight", 0, 2), ErrorCode::invalid_argument);
  EXPECT_EQ(code("blk.9.attn_q.weight", 0, 1), ErrorCode::not_found);
}

TEST(CheckpointTest, Stories260kAgreesInBothForms) {
  const fs::path models = assets() / "stories260k";
  if (!fs::exists(models)) GTEST_SKIP() << "NARROW_ASSETS is absent";
  const Checkpoint hf = Checkpoint::open(models / "hf");
  const Checkpoint gguf = Checkpoint::open(models / "stories260k-f32.gguf");
  ASSERT_EQ(hf.tensors().size(), gguf.tensors().size());
  for (const CheckpointTensor& t : hf.tensors()) {
    EXPECT_TRUE(identical(hf.read(t.name), gguf.read(t.name))) << t.name;
  }
  EXPECT_EQ(gguf.tokenizer().vocab_size(), 512);
  EXPECT_EQ(hf.config().kv_heads, gguf.config().kv_heads);
  EXPECT_EQ(hf.config().context, gguf.config().context);
}

TEST(CheckpointTest, NovelsGoToGgufAndBack) {
  if (!fs::exists(assets() / "novels-7m")) GTEST_SKIP() << "NARROW_ASSETS is absent";
  TemporaryFolder folder;
  for (const std::string name : {"novels-7m", "novels-gpt2"}) {
    const Checkpoint hf = Checkpoint::open(assets() / name);
    write_gguf(folder / "m.gguf", hf, BlockType::bf16);
    const Checkpoint gguf = Checkpoint::open(folder / "m.gguf");
    for (const CheckpointTensor& t : hf.tensors()) {
      EXPECT_TRUE(identical(hf.read(t.name), gguf.read(t.name))) << t.name;
    }
    const std::string text = read_text(assets() / "novels-7m" / "heldout.txt").substr(0, 50000);
    const Tokenizer a = hf.tokenizer();
    const Tokenizer b = gguf.tokenizer();
    EXPECT_EQ(a.encode(text), b.encode(text));
    EXPECT_EQ(a.special().bos, b.special().bos);
    EXPECT_EQ(a.special().eos, b.special().eos);
    EXPECT_EQ(a.special().bos, 0);
  }
}

}  // namespace
}  // namespace narrow::llm
