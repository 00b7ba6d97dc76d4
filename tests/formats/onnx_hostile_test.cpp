// SPDX-License-Identifier: Apache-2.0
// Files that lie: every one ends in an Error that says what and where, none in a crash, a hang or
// an allocation that the file's size does not justify.
#include <chrono>

#include "formats/onnx_testing.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

using namespace testing;  // NOLINT: the tests' own words
using onnx::ProtoModel;
using onnx::WireWriter;

void expect_corrupt(const ProtoModel& m, const std::string& part) {
  expect_error([&] { read_model(m); }, ErrorCode::corrupt_data, part);
}

/// Reads and, if that works, writes: either may only end in a narrow::Error.
bool survives(const std::string& bytes) {
  try {
    OnnxReadOptions options;
    options.allow_unknown_ops = true;
    read_bytes(bytes, options, corpus());
    return true;
  } catch (const Error& e) {
    EXPECT_STRNE(to_string(e.code()), "internal") << e.what();
    return false;
  }
}

TEST(OnnxHostile, truncated_files) {
  for (const fs::path& path : corpus_files()) {
    SCOPED_TRACE(path.filename().string());
    const std::string bytes = bytes_of(path);
    for (size_t i = 0; i < 50; ++i) survives(bytes.substr(0, bytes.size() * i / 50));
  }
  // Cut inside of the graph it cannot be read.
  const std::string bytes = bytes_of(corpus("qdq_13"));
  for (size_t i = 0; i < 45; ++i) {
    EXPECT_FALSE(survives(bytes.substr(0, bytes.size() * i / 50))) << i;
  }
}

TEST(OnnxHostile, flipped_bits) {
  Rng rng(20240607);
  int refused = 0;
  for (const fs::path& path : corpus_files()) {
    SCOPED_TRACE(path.filename().string());
    const std::string bytes = bytes_of(path);
    for (int i = 0; i < 60; ++i) {
      std::string broken = bytes;
      for (uint64_t flips = 1 + rng.below(3); flips > 0; --flips) {
        broken[rng.below(broken.size())] ^= static_cast<char>(1u << rng.below(8));
      }
      refused += survives(broken) ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(OnnxHostile, other_files) {
  for (const std::string& text :
       {std::string(), std::string("hello, world"), std::string(4096, '\0'),
        std::string(4096, '\xff'), std::string("PK\3\4 a zip archive")}) {
    EXPECT_FALSE(survives(text));
  }
  WireWriter only_version;
  only_version.integer(1, 8);
  expect_error([&] { read_bytes(encode(only_version)); }, ErrorCode::corrupt_data,
               "there is no graph");
}

// --- structure
// -------------------------------------------------------------------------------------

TEST(OnnxHostile, duplicate_names) {
  expect_corrupt(make_model({make_node("Neg", {"x"}, {"y"}), make_node("Abs", {"x"}, {"y"})}),
                 "the name 'y' is given twice");
  expect_corrupt(make_model({make_node("Neg", {"x"}, {"x"})}), "the name 'x' is given twice");
  ProtoModel m = make_model({make_node("Add", {"x", "w"}, {"y"})});
  m.graph.initializers.assign(2, {"w", Tensor::scalar(1.0f), {}});
  expect_corrupt(m, "the name 'w' is given twice");
  m = make_model({make_node("Neg", {"x"}, {"y"})});
  m.graph.inputs.push_back(m.graph.inputs[0]);
  expect_corrupt(m, "the name 'x' is given twice");
}

TEST(OnnxHostile, cycles) {
  expect_corrupt(make_model({make_node("Add", {"x", "b"}, {"a"}), make_node("Neg", {"a"}, {"b"}),
                             make_node("Abs", {"b"}, {"y"})}),
                 "the graph has a cycle at node 'a' (Add)");
  // Through a body: it reads what its own node computes.
  ProtoModel m = make_model({make_node("If", {"c"}, {"y"})});
  m.graph.inputs.push_back(make_info("c", {}, DType::boolean));
  for (const char* branch : {"then_branch", "else_branch"}) {
    auto body = std::make_shared<onnx::ProtoGraph>();
    body->name = branch;
    body->nodes = {make_node("Neg", {"y"}, {"o"})};
    body->outputs = {make_info("o", {2})};
    m.graph.nodes[0].set(branch, body);
  }
  expect_corrupt(m, "cycle at node 'y' (If)");
}

TEST(OnnxHostile, missing_pieces) {
  expect_corrupt(make_model({make_node("Neg", {"nowhere"}, {"y"})}),
                 "node 'y' (Neg): reads 'nowhere', which nothing computes");
  expect_corrupt(make_model({make_node("Neg", {"x"}, {"z"})}),
                 "nothing computes the graph output 'y'");
  expect_corrupt(make_model({make_node("", {"x"}, {"y"})}), "has no operator");
  expect_corrupt(make_model({make_node("Add", {"x"}, {"y"})}), "node 'y' (Add): 1 inputs");
  expect_corrupt(make_model({make_node("Add", {"", "x"}, {"y"})}),
                 "the required input 0 is absent");
  expect_corrupt(make_model({make_node("Add", {"x", "x"}, {}), make_node("Neg", {"x"}, {"y"})}),
                 "0 outputs, the operator has 1 to 1");
  ProtoModel m = make_model({make_node("Neg", {"x"}, {"y"})});
  m.graph.outputs.clear();
  expect_corrupt(m, "graph 'test' has no outputs");
}

TEST(OnnxHostile, words_of_the_graph_in_a_file) {
  ProtoModel m = make_model({make_node("Neg", {"x"}, {"y"})});
  m.graph.nodes[0].set(kCaptures, int64_t{100});
  const Graph g = read_model(m);
  EXPECT_FALSE(only(g, "Neg").has(kCaptures));
}

TEST(OnnxHostile, shapes_that_cannot_be) {
  ProtoModel m = make_model({make_node("Add", {"x", "w"}, {"y"})});
  m.graph.initializers.push_back({"w", Tensor(DType::float32, {3}), {}});
  expect_corrupt(m, "'Add_y'");
  m = make_model({make_node("Neg", {"x"}, {"y"})});
  m.graph.outputs[0].dtype = DType::int64;
  expect_corrupt(m, "'y' is declared int64 but is float32");
  m = make_model({make_node("Transpose", {"x"}, {"y"})});
  m.graph.nodes[0].set("perm", std::string("no integers"));
  expect_corrupt(m, "'perm' has the wrong type");
}

// --- claims
// ----------------------------------------------------------------------------------------

WireWriter tensor_message(std::vector<int64_t> dims, int64_t type) {
  WireWriter t;
  for (const int64_t d : dims) t.integer(1, d);
  t.integer(2, type);
  t.bytes(8, "w");
  return t;
}

std::string model_with_initializer(WireWriter tensor) {
  WireWriter graph;
  graph.message(5, std::move(tensor));
  WireWriter model;
  model.message(7, std::move(graph));
  return encode(model);
}

void expect_corrupt_tensor(WireWriter tensor, const std::string& part) {
  const std::string bytes = model_with_initializer(std::move(tensor));
  expect_error([&] { read_bytes(bytes, {}, corpus()); }, ErrorCode::corrupt_data, part);
}

TEST(OnnxHostile, tensors_that_claim_what_they_have_not) {
  constexpr int64_t kHuge = int64_t{1} << 40;
  constexpr int kFloat = 1;
  constexpr int kInt32 = 6;
  constexpr int kInt4 = 22;
  WireWriter t = tensor_message({kHuge, 1000}, kFloat);
  t.bytes(9, "abcd");
  expect_corrupt_tensor(std::move(t),
                        "tensor 'w': float32[1099511627776, 1000] needs "
                        "4398046511104000 bytes, the file has 4");
  expect_corrupt_tensor(tensor_message({kHuge}, kFloat), "needs 1099511627776 entries");
  expect_corrupt_tensor(tensor_message({kHuge, kHuge}, kFloat), "more than 2^62 elements");
  // Four bits times 2^62 is 0 in 64 bits.
  t = tensor_message({int64_t{1} << 62}, kInt4);
  t.bytes(9, "");
  expect_corrupt_tensor(std::move(t), "needs 2305843009213693952");
  expect_corrupt_tensor(tensor_message({-2}, kFloat), "negative dimension");
  expect_corrupt_tensor(tensor_message({1}, 77), "unknown data type 77");
  expect_corrupt_tensor(tensor_message({1}, kFloat), "needs 1 entries in float_data");
  t = tensor_message({1}, kFloat);
  t.bytes(9, "abcd");
  t.packed_floats(4, std::vector<float>{1});
  expect_corrupt_tensor(std::move(t), "stand in two places");
  t = tensor_message({2}, kInt32);
  t.packed_integers(7, std::vector<int64_t>{1, 2});  // int64_data for int32
  expect_corrupt_tensor(std::move(t), "needs 2 entries in int32_data, the file has 0");
}

TEST(OnnxHostile, sparse_initializers_are_refused_by_name) {
  WireWriter sparse;
  WireWriter values = tensor_message({1}, 1);
  values.bytes(9, "abcd");
  sparse.message(1, std::move(values));
  WireWriter graph;
  graph.message(15, std::move(sparse));
  WireWriter model;
  model.message(7, std::move(graph));
  expect_error([&] { read_bytes(encode(model)); }, ErrorCode::unsupported,
               "initializer 'w' is sparse");
}

TEST(OnnxHostile, deep_nesting) {
  auto body = std::make_shared<onnx::ProtoGraph>();
  body->nodes = {make_node("Neg", {"x"}, {"o"})};
  body->outputs = {make_info("o", {2})};
  for (int depth = 0; depth < 200; ++depth) {
    auto outer = std::make_shared<onnx::ProtoGraph>();
    outer->nodes = {make_node("If", {"c"}, {"o"})};
    outer->nodes[0].set("then_branch", body);
    outer->outputs = {make_info("o", {2})};
    body = outer;
  }
  ProtoModel m = make_model({make_node("If", {"c"}, {"y"})});
  m.graph.nodes[0].set("then_branch", body);
  expect_corrupt(m, "subgraphs are nested deeper than 8");
}

// Every round of inference widens a state's shape at every level: rounds multiply with depth.
TEST(OnnxHostile, loops_in_loops) {
  onnx::ProtoNode inner = make_node("Concat", {"v", "v"}, {"w"});
  inner.set("axis", int64_t{0});
  for (int depth = 0; depth < 8; ++depth) {
    auto body = std::make_shared<onnx::ProtoGraph>();
    body->name = "body";
    body->inputs = {make_info("i", {}, DType::int64), make_info("go", {}, DType::boolean),
                    make_info("v", {2})};
    body->inputs[2].shape.reset();
    body->nodes = {make_node("Identity", {"go"}, {"on"}), std::move(inner)};
    body->outputs = {make_info("on", {}, DType::boolean), make_info("w", {2})};
    body->outputs[1].shape.reset();
    inner = make_node("Loop", {"n", "", depth == 7 ? "x" : "v"}, {depth == 7 ? "y" : "w"});
    inner.set("body", body);
  }
  ProtoModel m = make_model({inner});
  m.graph.initializers.push_back({"n", Tensor::scalar(int64_t{3}), {}});
  m.graph.outputs[0].shape.reset();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(read_model(m).num_nodes(), 1u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

/// A FunctionProto `local::name` of the operators given, each from the last value to the next.
WireWriter function_message(const std::string& name, const std::vector<std::string>& ops) {
  WireWriter f;
  f.bytes(1, name);
  f.bytes(10, "local");
  f.bytes(4, "v0");
  f.bytes(5, "v" + std::to_string(ops.size()));
  for (size_t i = 0; i < ops.size(); ++i) {
    WireWriter n;
    n.bytes(1, "v" + std::to_string(i));
    n.bytes(2, "v" + std::to_string(i + 1));
    n.bytes(4, ops[i]);
    if (ops[i][0] == 'f') n.bytes(7, "local");
    f.message(7, std::move(n));
  }
  return f;
}

std::string model_with_functions(std::vector<WireWriter> functions) {
  onnx::ProtoNode call = make_node("f0", {"x"}, {"y"});
  call.domain = "local";
  ProtoModel m = make_model({call});
  m.opsets["local"] = 1;
  WireWriter w = onnx::encode_model(m, {});
  for (WireWriter& f : functions) w.message(25, std::move(f));
  return encode(w);
}

TEST(OnnxHostile, functions_that_never_end) {
  const auto refused = [](std::vector<WireWriter> functions, const std::string& part) {
    const std::string bytes = model_with_functions(std::move(functions));
    expect_error([&] { read_bytes(bytes); }, ErrorCode::corrupt_data, part);
  };
  std::vector<WireWriter> self;
  self.push_back(function_message("f0", {"f0"}));
  refused(std::move(self), "functions call each other deeper than 32");
  // Each calls the next sixteen times: 16^30 nodes from a few kilobytes.
  std::vector<WireWriter> bomb;
  for (int i = 0; i < 30; ++i) {
    bomb.push_back(function_message("f" + std::to_string(i),
                                    std::vector<std::string>(16, "f" + std::to_string(i + 1))));
  }
  bomb.push_back(function_message("f30", {"Neg"}));
  refused(std::move(bomb), "unfold to more than");
  std::vector<WireWriter> twice;
  for (int i = 0; i < 2; ++i) twice.push_back(function_message("f0", {"Neg"}));
  refused(std::move(twice), "function 'local::f0' is there twice");
}

TEST(OnnxHostile, opsets_that_contradict) {
  WireWriter w = onnx::encode_model(make_model({make_node("Neg", {"x"}, {"y"})}), {});
  WireWriter second;
  second.bytes(1, "ai.onnx");
  second.integer(2, 17);
  w.message(8, std::move(second));
  expect_error([&] { read_bytes(encode(w)); }, ErrorCode::corrupt_data,
               "the operator set '' is imported as 13 and as 17");
}

// --- external data
// ---------------------------------------------------------------------------------

WireWriter external_tensor(const std::map<std::string, std::string>& entries) {
  WireWriter t = tensor_message({2}, 1);
  for (const auto& [key, value] : entries) {
    WireWriter entry;
    entry.bytes(1, key);
    entry.bytes(2, value);
    t.message(13, std::move(entry));
  }
  t.integer(14, 1);
  return t;
}

TEST(OnnxHostile, external_data_that_lie_elsewhere) {
  const TemporaryFolder outside;
  write_bytes(outside / "secret", "01234567");
  const TemporaryFolder folder;
  write_bytes(folder / "data", "01234567");
  fs::create_directory(folder / "inner");
  fs::create_symlink(outside / "secret", folder / "link");
  fs::create_symlink(folder / "data", folder / "inner/back");
  const auto read = [&](const std::map<std::string, std::string>& entries) {
    const std::string bytes = model_with_initializer(external_tensor(entries));
    onnx::Source source;
    source.folder = folder.path();
    source.begin = bytes.data();
    return onnx::parse_model(bytes, source);
  };
  const auto refused = [&](const std::map<std::string, std::string>& entries, ErrorCode code,
                           const std::string& part) {
    expect_error([&] { read(entries); }, code, part);
  };
  constexpr ErrorCode kCorrupt = ErrorCode::corrupt_data;
  EXPECT_EQ(read({{"location", "data"}}).graph.initializers[0].tensor.bytes(), 8u);
  EXPECT_EQ(read({{"location", "inner/back"}}).graph.initializers[0].tensor.bytes(), 8u)
      << "a link that stays inside";
  refused({{"location", "../secret"}}, kCorrupt, "leaves the folder of the model");
  refused({{"location", "inner/../../secret"}}, kCorrupt, "leaves the folder of the model");
  refused({{"location", (outside / "secret").string()}}, kCorrupt, "the path is absolute");
  refused({{"location", "link"}}, kCorrupt, "a link leads out");
  refused({{"location", std::string("data\0x", 6)}}, kCorrupt, "external data in 'data");
  refused({{"location", ""}}, kCorrupt, "no file name");
  refused({}, kCorrupt, "without a location");
  refused({{"location", "missing"}}, ErrorCode::not_found, "missing");
  refused({{"location", "inner"}}, ErrorCode::invalid_argument, "not a file");
  refused({{"location", "data"}, {"offset", "1"}}, kCorrupt, "end at byte 1 + 8, 'data' has 8");
  refused({{"location", "data"}, {"offset", "18446744073709551615"}}, kCorrupt, "end at byte");
  refused({{"location", "data"}, {"offset", "-1"}}, kCorrupt, "'-1' is no offset");
  refused({{"location", "data"}, {"length", "4"}}, kCorrupt, "needs 8 bytes");
  refused({{"location", "data"}, {"length", "many"}}, kCorrupt, "'many' is no length");
}

}  // namespace
}  // namespace narrow
