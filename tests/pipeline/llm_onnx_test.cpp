// SPDX-License-Identifier: Apache-2.0
// Language models as ONNX files: against what `transformers` computed with the model, and what
// onnxruntime computed with the same file (tests/goldens/make_llm_onnx.py).
#include "narrow/pipeline/llm_onnx.h"

#include <fmt/format.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/data/npz.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/pipeline/llm_folder.h"
#include "narrow/runtime/session.h"
#include "support.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using Arrays = std::map<std::string, Tensor>;

const fs::path kGoldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens/llm";
const char* const kDecoders[] = {"llama2", "llama3", "mistral",       "qwen2",
                                 "qwen3",  "gemma3", "gemma3_scaled", "gpt2"};

LlmOnnxJob job_of(const fs::path& model, const fs::path& output, const char* format) {
  LlmOnnxJob job;
  job.model = model;
  job.output = output;
  job.format = format;
  return job;
}

double relative_error(const Tensor& got, const Tensor& wanted) {
  EXPECT_EQ(got.dims(), wanted.dims());
  double difference = 0;
  double magnitude = 0;
  for (size_t i = 0; i < wanted.data<float>().size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(got.data<float>()[i]) -
                                               static_cast<double>(wanted.data<float>()[i])));
    magnitude = std::max(magnitude, std::abs(static_cast<double>(wanted.data<float>()[i])));
    if (std::isnan(got.data<float>()[i])) return INFINITY;
  }
  return difference / magnitude;
}

Tensor ones(Dims dims) {
  Tensor t(DType::int64, std::move(dims));
  for (int64_t& x : t.mutable_data<int64_t>()) x = 1;
  return t;
}

/// Tokens [begin, end) of every row.
Tensor columns(const Tensor& ids, int64_t begin, int64_t end) {
  Tensor part(DType::int64, {ids.dim(0), end - begin});
  for (int64_t r = 0; r < ids.dim(0); ++r) {
    for (int64_t c = begin; c < end; ++c) {
      part.mutable_data<int64_t>()[static_cast<size_t>(r * (end - begin) + c - begin)] =
          ids.data<int64_t>()[static_cast<size_t>(r * ids.dim(1) + c)];
    }
  }
  return part;
}

/// Outputs by name of tokens [begin, end), with what came before in `past`.
Arrays run_tokens(const Session& session, const Tensor& ids, int64_t begin, int64_t end,
                  const Arrays& past) {
  std::vector<Tensor> inputs;
  const Graph& graph = session.graph();
  for (const std::string& name : session.input_names()) {
    const SymbolicShape& shape = *graph.value(*graph.find_value(name)).shape;
    if (name == "input_ids") {
      inputs.push_back(columns(ids, begin, end));
    } else if (name == "attention_mask") {
      inputs.push_back(ones({ids.dim(0), end}));
    } else if (name == "position_ids") {
      Tensor positions(DType::int64, {ids.dim(0), end - begin});
      for (size_t i = 0; i < static_cast<size_t>(positions.elements()); ++i) {
        positions.mutable_data<int64_t>()[i] = begin + static_cast<int64_t>(i) % (end - begin);
      }
      inputs.push_back(positions);
    } else if (past.count(name) > 0) {
      inputs.push_back(past.at(name));
    } else {
      inputs.emplace_back(DType::float32, Dims{ids.dim(0), shape[1].value, 0, shape[3].value});
    }
  }
  const std::vector<Tensor> results = session.run(inputs);
  Arrays outputs;
  for (size_t i = 0; i < results.size(); ++i) outputs[session.output_names()[i]] = results[i];
  return outputs;
}

Arrays as_past(const Arrays& outputs) {
  Arrays past;
  for (const auto& [name, tensor] : outputs) {
    if (name.starts_with("present")) past["past_key_values" + name.substr(7)] = tensor;
  }
  return past;
}

Tensor joined(const Tensor& a, const Tensor& b) {
  Tensor out(DType::float32, {a.dim(0), a.dim(1) + b.dim(1), a.dim(2)});
  auto* to = out.mutable_data<float>().data();
  for (int64_t r = 0; r < a.dim(0); ++r) {
    for (const Tensor* part : {&a, &b}) {
      const int64_t size = part->dim(1) * part->dim(2);
      to = std::copy_n(part->data<float>().data() + r * size, size, to);
    }
  }
  return out;
}

TEST(LlmOnnx, FloatDecodersAgreeWithTransformersAtEveryOpset) {
  for (const char* family : kDecoders) {
    const auto golden = read_npz(kGoldens / family / "golden.npz");
    const Tensor& ids = golden.at("ids");
    for (const int opset : {0, 22, 13}) {
      SCOPED_TRACE(fmt::format("{} at opset {}", family, opset));
      const TemporaryFolder folder;
      LlmOnnxJob job = job_of(kGoldens / family, folder / "m.onnx", "f32");
      job.opset = opset;
      run_llm_onnx(job);
      const Graph graph = read_onnx(folder / "m.onnx");
      EXPECT_EQ(graph.source_opsets.at(""), opset == 0 ? 23 : opset);
      const Session session(graph);
      const Arrays whole = run_tokens(session, ids, 0, ids.dim(1), {});
      EXPECT_LT(relative_error(whole.at("logits"), golden.at("logits")), 1e-5);
      const Arrays first = run_tokens(session, ids, 0, 7, {});
      const Arrays second = run_tokens(session, ids, 7, ids.dim(1), as_past(first));
      EXPECT_LT(
          relative_error(joined(first.at("logits"), second.at("logits")), golden.at("logits")),
          1e-5);
    }
  }
}

/// Left padding: the mask hides it, and positions count from the first token that does.
TEST(LlmOnnx, PaddingChangesNothing) {
  const TemporaryFolder folder;
  run_llm_onnx(job_of(kGoldens / "llama3", folder / "m.onnx", ""));
  const Session session(read_onnx(folder / "m.onnx"));
  const auto golden = read_npz(kGoldens / "llama3" / "golden.npz");
  const Tensor& ids = golden.at("ids");
  const int64_t length = ids.dim(1);
  constexpr int64_t kPad = 3;
  std::vector<Tensor> inputs;
  for (const std::string& name : session.input_names()) {
    if (name.starts_with("past")) {
      inputs.emplace_back(DType::float32, Dims{2, 1, 0, 16});
      continue;
    }
    Tensor t(DType::int64, {2, length + kPad});
    for (int64_t i = 0; i < t.elements(); ++i) {
      const int64_t r = i / (length + kPad);
      const int64_t c = i % (length + kPad) - kPad;
      int64_t& x = t.mutable_data<int64_t>()[static_cast<size_t>(i)];
      if (name == "attention_mask") x = c >= 0 ? 1 : 0;
      if (name == "position_ids") x = std::max<int64_t>(c, 0);
      if (name == "input_ids" && c >= 0) {
        x = ids.data<int64_t>()[static_cast<size_t>(r * length + c)];
      }
    }
    inputs.push_back(t);
  }
  const Tensor logits = session.run(inputs).front();
  const int64_t vocab = logits.dim(2);
  Tensor tail(DType::float32, {2, length, vocab});
  for (int64_t r = 0; r < 2; ++r) {
    std::copy_n(logits.data<float>().data() + (r * (length + kPad) + kPad) * vocab, length * vocab,
                tail.mutable_data<float>().data() + r * length * vocab);
  }
  EXPECT_LT(relative_error(tail, golden.at("logits")), 1e-5);
}

Arrays bert_outputs(const fs::path& file, const Arrays& golden) {
  const Session session(read_onnx(file));
  std::vector<Tensor> inputs;
  for (const std::string& name : session.input_names()) {
    inputs.push_back(golden.at(name == "input_ids" ? "ids" : name));
  }
  return {{"last_hidden_state", session.run(inputs).front()}};
}

/// Rows of padding are 0 on both sides: they mean nothing.
void expect_same_hidden(Tensor got, Tensor wanted, const Tensor& mask, double limit) {
  got = got.clone();
  wanted = wanted.clone();
  const int64_t width = got.dim(2);
  for (int64_t row = 0; row < mask.elements(); ++row) {
    if (mask.data<int64_t>()[static_cast<size_t>(row)] != 0) continue;
    for (Tensor* t : {&got, &wanted}) {
      std::fill_n(t->mutable_data<float>().data() + row * width, width, 0.0F);
    }
  }
  EXPECT_LT(relative_error(got, wanted), limit);
}

TEST(LlmOnnx, BertAgreesWithTransformersAtEveryOpset) {
  const auto golden = read_npz(kGoldens / "bert" / "golden.npz");
  for (const char* source : {"bert", "bert/model.gguf"}) {
    for (const int opset : {0, 19, 14}) {
      const TemporaryFolder folder;
      LlmOnnxJob job = job_of(kGoldens / source, folder / "m.onnx", "f32");
      job.opset = opset;
      run_llm_onnx(job);
      expect_same_hidden(bert_outputs(folder / "m.onnx", golden).at("last_hidden_state"),
                         golden.at("last_hidden_state"), golden.at("attention_mask"), 1e-5);
    }
  }
}

TEST(LlmOnnx, QuantizedFilesAgreeWithOnnxruntime) {
  const auto theirs = read_npz(fs::path(NARROW_SOURCE_DIR) / "tests/goldens/llm_onnx.npz");
  ASSERT_GE(theirs.size(), 8U);
  for (const auto& [key, wanted] : theirs) {
    SCOPED_TRACE(key);
    const std::string family = key.substr(0, key.find('.'));
    const std::string format = key.substr(key.find('.') + 1);
    const TemporaryFolder folder;
    const WeightsReport report =
        run_llm_onnx(job_of(kGoldens / family, folder / "m.onnx", format.c_str()));
    EXPECT_EQ(report.method, "mse");
    EXPECT_GT(report.relative_rmse, 0);
    EXPECT_LT(report.nominal_bits, report.stored_bits);
    const auto golden = read_npz(kGoldens / family / "golden.npz");
    if (family == "bert") {
      expect_same_hidden(bert_outputs(folder / "m.onnx", golden).at("last_hidden_state"), wanted,
                         golden.at("attention_mask"), 1e-5);
      continue;
    }
    const Tensor& ids = golden.at("ids");
    const Session session(read_onnx(folder / "m.onnx"));
    EXPECT_LT(relative_error(run_tokens(session, ids, 0, ids.dim(1), {}).at("logits"), wanted),
              1e-5);
  }
}

TEST(LlmOnnx, CarriesConfigAndTokenizer) {
  const fs::path model = fs::path(NARROW_SOURCE_DIR) / "assets/novels-7m";
  const TemporaryFolder folder;
  run_llm_onnx(job_of(model, folder / "m.onnx", "w8"));
  const Graph graph = read_onnx(folder / "m.onnx");
  const auto& metadata = graph.metadata;
  EXPECT_EQ(metadata.at("narrow.format"), "w8");
  EXPECT_EQ(metadata.at("hf/tokenizer.json"), testing::bytes_of(model / "tokenizer.json"));
  const auto config = llm::config_from_hf(metadata.at("hf/config.json"));
  EXPECT_EQ(config.architecture, llm::Checkpoint::open(model).config().architecture);
  const llm::Tokenizer tokenizer(llm::tokenizer_data_from_json(metadata.at("hf/tokenizer.json")));
  EXPECT_EQ(tokenizer.encode("the sea", {.add_special = false}),
            llm::Checkpoint::open(model).tokenizer().encode("the sea", {.add_special = false}));
}

TEST(LlmOnnx, KeepsWhatItIsToldTo) {
  const TemporaryFolder folder;
  LlmOnnxJob job = job_of(kGoldens / "llama2", folder / "m.onnx", "w4g32");
  job.keep_float = {"blk.0.attn_*", "token_embd.*"};
  const WeightsReport report = run_llm_onnx(job);
  std::map<std::string, std::string> types;
  for (const WeightReport& t : report.tensors) types[t.name] = t.type;
  EXPECT_EQ(types.at("blk.0.attn_q.weight"), "F32");
  EXPECT_EQ(types.at("blk.1.attn_q.weight"), "INT4 g32");
  EXPECT_EQ(types.at("token_embd.weight"), "F32");
  EXPECT_EQ(types.at("output.weight"), "INT8 g32");
}

TEST(LlmOnnx, RefusesWhatMakesNoSense) {
  const TemporaryFolder folder;
  const auto refusal = [&](LlmOnnxJob job) {
    try {
      run_llm_onnx(job);
    } catch (const Error& e) {
      return e.message() + "|" + e.hint();
    }
    return std::string("nothing");
  };
  const fs::path out = folder / "m.onnx";
  EXPECT_NE(refusal(job_of(kGoldens / "gpt2", out, "q4_k_m")).find("w4g32"), std::string::npos);
  EXPECT_NE(refusal(job_of(kGoldens / "gpt2", out, "w5")).find("w5"), std::string::npos);
  LlmOnnxJob importance = job_of(kGoldens / "gpt2", out, "w8");
  importance.method = WeightMethod::importance;
  EXPECT_NE(refusal(importance).find("importance"), std::string::npos);
  LlmOnnxJob old = job_of(kGoldens / "gpt2", out, "w4g32");
  old.opset = 17;
  EXPECT_NE(refusal(old).find("opset 21"), std::string::npos);
  LlmQuantizeJob gguf;
  gguf.model = kGoldens / "llama2";
  gguf.output = folder / "q.gguf";
  gguf.format = "q8_0";
  run_llm_quantize(gguf);
  EXPECT_NE(refusal(job_of(folder / "q.gguf", out, "w8")).find("--requantize"), std::string::npos);
  EXPECT_FALSE(fs::exists(out));
}

/// What one node becomes at an old opset computes the same.
void expect_same_at(int opset, Graph graph, const std::vector<Tensor>& inputs) {
  const TemporaryFolder folder;
  infer_shapes(graph);
  OnnxWriteOptions options;
  options.opset = opset;
  write_onnx(graph, folder / "m.onnx", options);
  const Graph older = read_onnx(folder / "m.onnx");
  EXPECT_EQ(older.source_opsets.at(""), opset);
  EXPECT_LT(relative_error(Session(older).run(inputs).front(), Session(graph).run(inputs).front()),
            2e-6);
}

Tensor waves(Dims dims) {
  Tensor x(DType::float32, std::move(dims));
  for (size_t i = 0; i < static_cast<size_t>(x.elements()); ++i) {
    x.mutable_data<float>()[i] = 3 * std::sin(static_cast<float>(i * i % 97));
  }
  return x;
}

TEST(LlmOnnx, SingleOperatorsAtOldOpsets) {
  const auto unary = [](const char* op, const Attributes& attributes) {
    Graph graph;
    const ValueId x = graph.add_input("x", DType::float32, SymbolicShape{2, 5, 16});
    graph.add_output(graph.node(graph.add_node(op, {x}, {"y"}, attributes)).outputs[0]);
    return graph;
  };
  expect_same_at(13, unary("Swish", {{"alpha", 1.5F}}), {waves({2, 5, 16})});
  expect_same_at(13, unary("Gelu", {}), {waves({2, 5, 16})});
  expect_same_at(13, unary("Gelu", {{"approximate", std::string("tanh")}}), {waves({2, 5, 16})});
  for (const int64_t interleaved : {0, 1}) {
    Graph graph;
    const ValueId x = graph.add_input("x", DType::float32, SymbolicShape{2, 5, 16});
    const ValueId c = graph.add_initializer("c", waves({9, 3}));
    const ValueId s = graph.add_initializer("s", waves({9, 3}));
    const ValueId p = graph.add_input("p", DType::int64, SymbolicShape{2, 5});
    const NodeId node = graph.add_node("RotaryEmbedding", {x, c, s, p}, {"y"},
                                       {{"num_heads", int64_t{2}},
                                        {"rotary_embedding_dim", int64_t{6}},
                                        {"interleaved", interleaved}});
    graph.add_output(graph.node(node).outputs[0]);
    const Tensor positions = Tensor::from<int64_t>({0, 1, 2, 3, 4, 4, 5, 6, 7, 8}, {2, 5});
    expect_same_at(13, graph, {waves({2, 5, 16}), positions});
  }
}

TEST(LlmOnnx, SoftcapAtOldOpsets) {
  Graph graph;
  const ValueId q = graph.add_input("q", DType::float32, SymbolicShape{2, 5, 16});
  const ValueId k = graph.add_input("k", DType::float32, SymbolicShape{2, 5, 8});
  const ValueId v = graph.add_input("v", DType::float32, SymbolicShape{2, 5, 8});
  const NodeId node = graph.add_node("Attention", {q, k, v}, {"y"},
                                     {{"q_num_heads", int64_t{4}},
                                      {"kv_num_heads", int64_t{2}},
                                      {"scale", 0.7F},
                                      {"softcap", 2.0F}});
  graph.add_output(graph.node(node).outputs[0]);
  expect_same_at(13, graph, {waves({2, 5, 16}), waves({2, 5, 8}), waves({2, 5, 8})});
}

}  // namespace
}  // namespace narrow
