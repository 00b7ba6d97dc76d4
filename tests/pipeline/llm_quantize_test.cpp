// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_quantize.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/formats/gguf/gguf.h"
#include "narrow/formats/gguf/importance.h"
#include "narrow/formats/safetensors/safetensors.h"
#include "narrow/pipeline/weight_journal.h"
#include "support.h"

namespace narrow {
namespace {

using testing::bytes_of;
using testing::TemporaryFolder;

namespace fs = std::filesystem;

constexpr int kLayers = 2;
constexpr int64_t kHidden = 256;

struct TestTensor {
  std::string name;
  Dims dims;
};

std::vector<TestTensor> model_tensors() {
  std::vector<TestTensor> all = {{"token_embd.weight", {96, kHidden}},
                                 {"output_norm.weight", {kHidden}},
                                 {"output.weight", {96, kHidden}}};
  for (int i = 0; i < kLayers; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    all.push_back({p + "attn_q.weight", {kHidden, kHidden}});
    all.push_back({p + "attn_v.weight", {64, kHidden}});
    all.push_back({p + "attn_norm.weight", {kHidden}});
    all.push_back({p + "ffn_down_exps.weight", {3, kHidden, 288}});  // falls back to blocks of 32
  }
  return all;
}

/// A small llama whose weights are normal numbers.
void write_model(const fs::path& path, BlockType type = BlockType::bf16, float bad = 0) {
  GgufMetadata metadata = {{"general.architecture", GgufValue::string("llama")},
                           {"general.name", GgufValue::string("test")},
                           {"llama.block_count", GgufValue::u32(kLayers)},
                           {"llama.attention.head_count", GgufValue::u32(4)},
                           {"tokenizer.ggml.model", GgufValue::string("none")}};
  std::vector<GgufItem> items;
  for (const TestTensor& t : model_tensors()) {
    const BlockType stored = t.dims.size() < 2 ? BlockType::f32 : type;
    items.push_back({t.name, &gguf_type(stored), t.dims});
  }
  GgufWriter writer(path, metadata, items);
  Rng rng(7);
  for (const GgufItem& item : items) {
    std::vector<float> x(static_cast<size_t>(num_elements(item.dims)));
    for (float& v : x) v = 0.05f * static_cast<float>(rng.normal());
    if (bad != 0 && item.name == "blk.1.attn_q.weight") x[3 * kHidden + 5] = bad;
    std::vector<std::byte> bytes(gguf_tensor_bytes(item));
    if (bad != 0 && item.type->codec == BlockType::f32) {
      std::memcpy(bytes.data(), x.data(), bytes.size());
    } else {
      encode_rows(*item.type->codec, x, item.dims.back(), bytes);
    }
    writer.write(bytes);
  }
  writer.commit();
}

void write_statistics(const fs::path& path) {
  ImportanceFile file;
  Rng rng(9);
  for (const TestTensor& t : model_tensors()) {
    if (t.dims.size() < 2 || t.name == "token_embd.weight") continue;
    const size_t experts = t.dims.size() > 2 ? static_cast<size_t>(t.dims.front()) : 1;
    ImportanceEntry& e = file.entries[t.name];
    e.counts.assign(experts, 4.0f);
    e.sums.resize(experts * static_cast<size_t>(t.dims.back()));
    for (float& s : e.sums) s = static_cast<float>(std::exp(2 * rng.normal()));
  }
  file.datasets = {"text.txt"};
  file.chunk_count = 3;
  write_importance(file, path);
}

class LlmQuantize : public ::testing::Test {
 protected:
  void SetUp() override { write_model(model_); }
  LlmQuantizeJob job(const char* name, const char* format = "q4_k_m") const {
    LlmQuantizeJob j;
    j.model = model_;
    j.output = folder_.path() / name;
    j.format = format;
    return j;
  }
  size_t files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()));
  }

  TemporaryFolder folder_;
  fs::path model_ = folder_.path() / "m.gguf";
};

TEST_F(LlmQuantize, WritesWhatTheReportSays) {
  const WeightsReport r = run_llm_quantize(job("q.gguf"));
  EXPECT_EQ(files(), 2u) << "nothing else is left";
  const GgufFile file = GgufFile::open(folder_.path() / "q.gguf");
  EXPECT_EQ(file.metadata_at("general.file_type").as_int(), 15);
  EXPECT_EQ(file.metadata_at("general.quantization_version").as_int(), 2);
  EXPECT_EQ(file.metadata_at("general.name").as_string(), "test");
  ASSERT_EQ(file.tensors().size(), r.tensors.size());
  EXPECT_EQ(r.output_bytes, fs::file_size(folder_.path() / "q.gguf"));
  const GgufFile source = GgufFile::open(model_);
  uint64_t bytes = 0;
  for (size_t i = 0; i < r.tensors.size(); ++i) {
    const GgufTensor& t = file.tensors()[i];
    const WeightReport& w = r.tensors[i];
    EXPECT_EQ(t.name, w.name);
    EXPECT_EQ(t.type->name, w.type);
    EXPECT_EQ(t.bytes.size(), w.bytes);
    bytes += w.bytes;
    // The error, measured again from the file.
    const Tensor x = source.decoded(t.name);
    const Tensor y = file.decoded(t.name);
    double squares = 0;
    double errors = 0;
    for (size_t k = 0; k < x.data<float>().size(); ++k) {
      const double d = static_cast<double>(x.data<float>()[k]) - y.data<float>()[k];
      squares += static_cast<double>(x.data<float>()[k]) * x.data<float>()[k];
      errors += d * d;
    }
    EXPECT_NEAR(w.relative_rmse, std::sqrt(errors / squares), 1e-9) << t.name;
  }
  EXPECT_DOUBLE_EQ(r.stored_bits,
                   8.0 * static_cast<double>(bytes) / static_cast<double>(r.elements));
  EXPECT_LT(r.nominal_bits, r.stored_bits);
  EXPECT_EQ(r.method, "mse");
  EXPECT_EQ(file.tensor_at("output.weight").type->name, std::string("Q6_K"));
  EXPECT_EQ(file.tensor_at("blk.0.attn_norm.weight").type->name, std::string("F32"));
}

TEST_F(LlmQuantize, NamesWhatFellBack) {
  const WeightsReport r = run_llm_quantize(job("q.gguf"));
  int fallen = 0;
  for (const WeightReport& t : r.tensors) {
    if (t.name.find("exps") == std::string::npos) {
      EXPECT_TRUE(t.wanted.empty()) << t.name;
      continue;
    }
    ++fallen;
    const bool last = t.name.starts_with("blk.1.");  // of which the mixture wants more bits
    EXPECT_EQ(t.wanted, last ? "Q6_K" : "Q4_K");
    EXPECT_EQ(t.type, last ? "Q8_0" : "Q5_0");
    EXPECT_NE(t.reason.find("288"), std::string::npos);
    EXPECT_NE(to_text(r).find(t.name), std::string::npos);
  }
  EXPECT_EQ(fallen, kLayers);
}

TEST_F(LlmQuantize, SameBytesForAnyThreadsAndMemory) {
  for (const WeightMethod method : {WeightMethod::rtn, WeightMethod::mse}) {
    LlmQuantizeJob one = job("a.gguf", "q3_k_m");
    one.method = method;
    one.threads = 1;
    run_llm_quantize(one);
    LlmQuantizeJob two = job("b.gguf", "q3_k_m");
    two.method = method;
    two.threads = 2;
    two.max_memory = 1200000;  // a few rows at a time
    run_llm_quantize(two);
    EXPECT_TRUE(bytes_of(one.output) == bytes_of(two.output)) << to_string(method);
  }
  LlmQuantizeJob tight = job("c.gguf");
  tight.max_memory = 1000;
  try {
    run_llm_quantize(tight);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::resource_exhausted) << e.what();
  }
}

TEST_F(LlmQuantize, ImportanceLowersTheWeightedErrorOfEachExpert) {
  const fs::path statistics = folder_.path() / "imatrix.gguf";
  write_statistics(statistics);
  LlmQuantizeJob plain = job("a.gguf", "q4_0");
  LlmQuantizeJob informed = job("b.gguf", "q4_0");
  plain.rules = informed.rules = {{"*ffn_down_exps*", BlockType::q4_0}};
  informed.method = WeightMethod::importance;
  informed.statistics = statistics;
  run_llm_quantize(plain);
  const WeightsReport r = run_llm_quantize(informed);
  EXPECT_EQ(r.method, "importance");
  ASSERT_EQ(r.notes.size(), 1u);
  EXPECT_NE(r.notes[0].find("token_embd.weight"), std::string::npos);
  const GgufFile source = GgufFile::open(model_);
  const GgufFile a = GgufFile::open(plain.output);
  const GgufFile b = GgufFile::open(informed.output);
  EXPECT_EQ(b.metadata_at("quantize.imatrix.chunks_count").as_int(), 3);
  const ImportanceFile file = read_importance(statistics);
  const std::string name = "blk.1.ffn_down_exps.weight";
  const auto x = source.decoded(name);
  for (size_t expert = 0; expert < 3; ++expert) {
    const std::vector<float> weights = file.entries.at(name).mean_squares(expert);
    const auto error = [&](const GgufFile& f) {
      const Tensor y = f.decoded(name);
      double sum = 0;
      for (size_t row = 0; row < kHidden; ++row) {
        for (size_t c = 0; c < 288; ++c) {
          const size_t k = (expert * kHidden + row) * 288 + c;
          const double d = static_cast<double>(x.data<float>()[k]) - y.data<float>()[k];
          sum += weights[c] * d * d;
        }
      }
      return sum;
    };
    EXPECT_LT(error(b), 0.9 * error(a)) << expert;
  }
}

TEST_F(LlmQuantize, GoesOnAfterBeingStopped) {
  const LlmQuantizeJob whole = job("whole.gguf");
  run_llm_quantize(whole);
  for (int stop_after = 1; stop_after <= 5; stop_after += 2) {
    LlmQuantizeJob stopped = job("q.gguf");
    std::atomic<bool> cancel{false};
    int reports = 0;
    stopped.progress = Progress(
        [&](const ProgressEvent&) {
          if (++reports == stop_after) cancel = true;
        },
        &cancel);
    EXPECT_THROW(run_llm_quantize(stopped), Error);
    EXPECT_FALSE(fs::exists(stopped.output));
    ASSERT_TRUE(fs::exists(partial_path(stopped.output)));
    LlmQuantizeJob again = job("q.gguf");
    again.resume = true;
    EXPECT_EQ(run_llm_quantize(again).resumed, stop_after);
    EXPECT_TRUE(bytes_of(again.output) == bytes_of(whole.output));
    EXPECT_FALSE(fs::exists(partial_path(again.output)));
    EXPECT_FALSE(fs::exists(journal_path(again.output)));
    fs::remove(again.output);
  }
}

class StoppedLlmQuantize : public LlmQuantize {
 protected:
  void SetUp() override {
    LlmQuantize::SetUp();
    run_llm_quantize(job("whole.gguf"));
    LlmQuantizeJob stopped = job("q.gguf");
    std::atomic<bool> cancel{false};
    int reports = 0;
    stopped.progress = Progress(
        [&](const ProgressEvent&) {
          if (++reports == 4) cancel = true;
        },
        &cancel);
    EXPECT_THROW(run_llm_quantize(stopped), Error);
  }
  LlmQuantizeJob again() const {
    LlmQuantizeJob j = job("q.gguf");
    j.resume = true;
    return j;
  }
};

TEST_F(StoppedLlmQuantize, WritesDamagedTensorsAgain) {
  // A flipped byte of the last finished tensor.
  const fs::path partial = partial_path(again().output);
  std::string bytes = bytes_of(partial);
  bytes[bytes.size() - 40] = static_cast<char>(bytes[bytes.size() - 40] ^ 1);
  std::ofstream(partial, std::ios::binary) << bytes;
  const WeightsReport r = run_llm_quantize(again());
  EXPECT_EQ(r.resumed, 3);
  ASSERT_FALSE(r.notes.empty());
  EXPECT_NE(r.notes[0].find("damaged"), std::string::npos);
  EXPECT_TRUE(bytes_of(again().output) == bytes_of(folder_.path() / "whole.gguf"));
}

TEST_F(StoppedLlmQuantize, ACutJournalOrFileIsNoObstacle) {
  const fs::path journal = journal_path(again().output);
  const std::string text = bytes_of(journal);
  std::ofstream(journal, std::ios::binary) << text.substr(0, text.size() - 7);
  const fs::path partial = partial_path(again().output);
  fs::resize_file(partial, fs::file_size(partial) / 2);
  run_llm_quantize(again());
  EXPECT_TRUE(bytes_of(again().output) == bytes_of(folder_.path() / "whole.gguf"));
}

TEST_F(StoppedLlmQuantize, RefusesAnotherJobOrModel) {
  const auto expect_refused = [](const LlmQuantizeJob& j) {
    try {
      run_llm_quantize(j);
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument) << e.what();
      EXPECT_NE(e.hint().find("--resume"), std::string::npos) << e.hint();
    }
  };
  LlmQuantizeJob other = again();
  other.method = WeightMethod::rtn;
  expect_refused(other);
  other = again();
  other.format = "q4_k_s";
  expect_refused(other);
  // One weight of the first tensor changes.
  std::string bytes = bytes_of(model_);
  const GgufFile file = GgufFile::open(model_);
  const auto* begin = reinterpret_cast<const char*>(file.tensors()[0].bytes.data());
  const size_t at = bytes.find(std::string(begin, 64));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 2] = static_cast<char>(bytes[at + 2] ^ 1);
  std::ofstream(model_, std::ios::binary) << bytes;
  expect_refused(again());
  // Without the flag it begins anew.
  LlmQuantizeJob anew = again();
  anew.resume = false;
  run_llm_quantize(anew);
  EXPECT_TRUE(fs::exists(anew.output));
  EXPECT_FALSE(fs::exists(partial_path(anew.output)));
}

TEST_F(LlmQuantize, ConvertsWithoutChange) {
  LlmQuantizeJob copy = job("copy.gguf", "");
  const WeightsReport r = run_llm_quantize(copy);
  EXPECT_EQ(r.format, "as it is");
  EXPECT_TRUE(r.method.empty());
  EXPECT_TRUE(bytes_of(copy.output) == bytes_of(model_));
  run_llm_quantize(job("f32.gguf", "f32"));
  LlmQuantizeJob back = job("back.gguf", "bf16");
  back.model = folder_.path() / "f32.gguf";
  run_llm_quantize(back);
  const GgufFile a = GgufFile::open(model_);
  const GgufFile b = GgufFile::open(back.output);
  for (const GgufTensor& t : a.tensors()) {
    const GgufTensor& other = b.tensor_at(t.name);
    ASSERT_EQ(t.bytes.size(), other.bytes.size());
    EXPECT_TRUE(std::equal(t.bytes.begin(), t.bytes.end(), other.bytes.begin())) << t.name;
  }
}

TEST_F(LlmQuantize, RefusesWhatMakesNoSense) {
  const auto code = [](const LlmQuantizeJob& j) {
    try {
      run_llm_quantize(j);
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::internal;
  };
  LlmQuantizeJob j = job("x.gguf");
  j.method = WeightMethod::importance;
  EXPECT_EQ(code(j), ErrorCode::invalid_argument);
  j = job("x.gguf", "q9_k");
  EXPECT_EQ(code(j), ErrorCode::invalid_argument);
  j = job("x.gguf");
  j.rules = {{"nothing", BlockType::q8_0}};
  EXPECT_EQ(code(j), ErrorCode::invalid_argument);
  run_llm_quantize(job("q.gguf", "q4_0"));
  j = job("x.gguf", "q8_0");
  j.model = folder_.path() / "q.gguf";
  EXPECT_EQ(code(j), ErrorCode::invalid_argument);
  j.requantize = true;
  run_llm_quantize(j);
  EXPECT_TRUE(fs::exists(j.output));
}

TEST_F(LlmQuantize, ANonFiniteWeightIsNamed) {
  write_model(model_, BlockType::f32, std::numeric_limits<float>::quiet_NaN());
  try {
    run_llm_quantize(job("q.gguf"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
    EXPECT_NE(std::string(e.what()).find("tensor 'blk.1.attn_q.weight', row 3"), std::string::npos)
        << e.what();
  }
  EXPECT_EQ(files(), 1u) << "nothing is left";
}

/// A llama of one layer as a Hugging Face folder, bf16.
void write_folder(const fs::path& folder) {
  fs::create_directories(folder);
  std::ofstream(folder / "config.json")
      << R"({"model_type":"llama","hidden_size":256,"intermediate_size":512,
          "num_hidden_layers":1,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":64,
          "max_position_embeddings":64,"rms_norm_eps":1e-5,"rope_theta":10000.0,
          "hidden_act":"silu","tie_word_embeddings":true})";
  const std::string layer = "model.layers.0.";
  const std::vector<TestTensor> tensors = {{"model.embed_tokens.weight", {64, 256}},
                                           {"model.norm.weight", {256}},
                                           {layer + "self_attn.q_proj.weight", {256, 256}},
                                           {layer + "self_attn.k_proj.weight", {128, 256}},
                                           {layer + "self_attn.v_proj.weight", {128, 256}},
                                           {layer + "self_attn.o_proj.weight", {256, 256}},
                                           {layer + "mlp.gate_proj.weight", {512, 256}},
                                           {layer + "mlp.up_proj.weight", {512, 256}},
                                           {layer + "mlp.down_proj.weight", {256, 512}},
                                           {layer + "input_layernorm.weight", {256}},
                                           {layer + "post_attention_layernorm.weight", {256}}};
  std::map<std::string, Tensor> all;
  Rng rng(5);
  for (const TestTensor& t : tensors) {
    Tensor tensor(DType::bfloat16, t.dims);
    std::vector<float> x(static_cast<size_t>(num_elements(t.dims)));
    for (float& v : x) v = static_cast<float>(rng.normal());
    encode_rows(BlockType::bf16, x, t.dims.back(), {tensor.mutable_raw(), tensor.bytes()});
    all.emplace(t.name, tensor);
  }
  write_safetensors(folder / "model.safetensors", all);
}

TEST_F(LlmQuantize, AFolderIsTheModelItConvertsTo) {
  const fs::path folder = folder_.path() / "hf";
  write_folder(folder);
  LlmQuantizeJob convert = job("c.gguf", "");
  convert.model = folder;
  const WeightsReport converted = run_llm_quantize(convert);
  EXPECT_EQ(converted.format, "bf16");
  const GgufFile file = GgufFile::open(convert.output);
  EXPECT_EQ(file.tensor_at("blk.0.attn_q.weight").type->name, std::string("BF16"));
  EXPECT_EQ(file.tensor_at("blk.0.attn_norm.weight").type->name, std::string("F32"));
  LlmQuantizeJob direct = job("a.gguf");
  direct.model = folder;
  LlmQuantizeJob by_file = job("b.gguf");
  by_file.model = convert.output;
  run_llm_quantize(direct);
  run_llm_quantize(by_file);
  EXPECT_TRUE(bytes_of(direct.output) == bytes_of(by_file.output));
}

TEST(LlmQuantizeText, RulesAndSizes) {
  EXPECT_EQ(parse_tensor_rule("a=b=Q6_K").match, "a=b");
  EXPECT_EQ(parse_tensor_rule("x*=iq4_xs").type, BlockType::iq4_xs);
  EXPECT_EQ(parse_tensor_rule("x=float").type, std::nullopt);
  EXPECT_THROW(parse_tensor_rule("x"), Error);
  EXPECT_THROW(parse_tensor_rule("=q6_k"), Error);
  EXPECT_THROW(parse_tensor_rule("x=q6"), Error);
  EXPECT_EQ(parse_memory("65536"), 65536u);
  EXPECT_EQ(parse_memory("3M"), 3u << 20);
  EXPECT_EQ(parse_memory("2G"), uint64_t{2} << 30);
  for (const char* bad : {"", "G", "1T", "-1", "0", "1.5G", "99999999999999G"}) {
    EXPECT_THROW(parse_memory(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace narrow
