// SPDX-License-Identifier: Apache-2.0
#include "formats/onnx_testing.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

using namespace testing;  // NOLINT: the tests' own words
using Strings = std::vector<std::string>;

const Tensor& constant(const Graph& g, const std::string& name) {
  const auto id = g.find_value(name);
  if (!id || g.constant(*id) == nullptr) throw Error(ErrorCode::not_found, name);
  return *g.constant(*id);
}

// --- tensors
// ---------------------------------------------------------------------------------------

// The same values in the typed fields and as raw bytes; the values are those of make_onnx.py.
TEST(OnnxRead, typed_fields_and_raw_bytes_are_the_same) {
  const Graph typed = read_onnx(corpus("typed_data"));
  const Graph raw = read_onnx(corpus("raw_data"));
  const Strings names = {"f32", "f64", "f16", "bf16", "i8", "u8", "i16", "u16", "i32",
                         "u32", "i64", "u64", "b",    "i4", "u4", "i2",  "u2"};
  for (const std::string& name : names) {
    EXPECT_TRUE(identical(constant(typed, name), constant(raw, name))) << name;
  }
  using Floats = std::vector<float>;
  using Ints = std::vector<int64_t>;
  EXPECT_EQ(constant(typed, "f32").to_floats(), (Floats{1.5f, -2.0f, 0.25f}));
  EXPECT_EQ(constant(typed, "f64").to_floats(), (Floats{1.5f, -2.0f}));
  EXPECT_EQ(constant(typed, "f16").to_floats(), (Floats{1.0f, -0.5f, 65504.0f}));
  EXPECT_EQ(constant(typed, "bf16").to_floats(), (Floats{1.0f, -2.0f}));
  EXPECT_EQ(constant(typed, "i8").to_ints(), (Ints{-128, 127}));
  EXPECT_EQ(constant(typed, "u16").to_ints(), (Ints{0, 65535}));
  EXPECT_EQ(constant(typed, "i32").to_ints(), (Ints{INT32_MIN, INT32_MAX}));
  EXPECT_EQ(constant(typed, "u32").to_ints(), (Ints{0, UINT32_MAX}));
  EXPECT_EQ(constant(typed, "i64").to_ints(), (Ints{INT64_MIN, INT64_MAX}));
  EXPECT_EQ(constant(typed, "u64").data<uint64_t>()[1], UINT64_MAX);
  EXPECT_EQ(constant(typed, "b").to_ints(), (Ints{1, 0, 1}));
  EXPECT_EQ(constant(typed, "i4").to_ints(), (Ints{-8, 7, 3}));
  EXPECT_EQ(constant(typed, "u4").to_ints(), (Ints{15, 0, 9}));
  EXPECT_EQ(constant(typed, "i2").to_ints(), (Ints{-2, 1, 0, -1, 1}));
  EXPECT_EQ(constant(typed, "u2").to_ints(), (Ints{3, 0, 2}));
}

// Tensors point into the file where it is aligned for them and are copied where it is not.
TEST(OnnxRead, tensors_are_views_where_they_are_aligned) {
  int views = 0;
  int copies = 0;
  for (size_t padding = 0; padding < 4; ++padding) {
    onnx::ProtoModel m = make_model({make_node("Add", {"x", "w"}, {"y"})});
    m.graph.name.append(padding, '_');
    const Tensor w = Tensor::vector(std::vector<float>{1, 2});
    m.graph.initializers.push_back({"w", w, {}});
    const auto bytes = std::make_shared<std::string>(encode(m));
    const Graph g =
        read_onnx_bytes(bytes, std::as_bytes(std::span(bytes->data(), bytes->size())), {});
    const Tensor& read = constant(g, "w");
    EXPECT_TRUE(identical(read, w));
    const auto address = reinterpret_cast<uintptr_t>(read.raw());
    EXPECT_EQ(address % 4, 0u);
    const auto begin = reinterpret_cast<uintptr_t>(bytes->data());
    ++(address >= begin && address < begin + bytes->size() ? views : copies);
  }
  EXPECT_EQ(views, 1);
  EXPECT_EQ(copies, 3);
}

TEST(OnnxRead, tensors_keep_the_file_alive) {
  const Graph g = read_onnx(corpus("gemm_7"));
  EXPECT_EQ(constant(g, "b").to_floats(), (std::vector<float>{1, 2, 3, 4}));
}

TEST(OnnxRead, booleans_become_0_and_1) {
  onnx::WireWriter t;
  t.integer(1, 3);
  t.integer(2, 9);
  t.bytes(9, std::string_view("\0\1\7", 3));
  const TemporaryFolder folder;
  write_bytes(folder / "t.pb", encode(t));
  EXPECT_EQ(read_onnx_tensor(folder / "t.pb").to_ints(), (std::vector<int64_t>{0, 1, 1}));
}

TEST(OnnxRead, constant_nodes_become_initializers) {
  const Graph g = read_onnx(corpus("constants"));
  EXPECT_EQ(op_names(g), (Strings{"Sum", "Reshape", "Identity"}));
  EXPECT_EQ(constant(g, "c0").to_floats(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(constant(g, "c1").describe(), "float32[]");
  EXPECT_EQ(constant(g, "c2").describe(), "float32[3]");
  EXPECT_EQ(constant(g, "shape").to_ints(), (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(constant(g, "k").describe(), "int64[]");
}

TEST(OnnxRead, strings_and_foreign_types_matter_only_where_they_are_used) {
  EXPECT_FALSE(read_onnx(corpus("unused_strings")).find_value("labels"));
  EXPECT_FALSE(read_onnx(corpus("unused_float8")).find_value("f8"));
  onnx::ProtoModel m = make_model({make_node("Add", {"x", "w"}, {"y"})});
  m.graph.initializers.push_back({"w", Tensor::vector(std::vector<float>{1, 2}), {}});
  std::string bytes = encode(m);
  // The initializer's data_type (field 2) becomes STRING, which has no raw data: only its type is
  // looked at.
  const size_t at = bytes.find(std::string("\x08\x02\x10\x01", 4));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 3] = 8;
  expect_error([&] { read_bytes(bytes); }, ErrorCode::unsupported,
               "reads 'w', which is a tensor of strings");
}

// --- names, order, types
// ---------------------------------------------------------------------------

TEST(OnnxRead, names_are_kept_and_made_unique) {
  const Graph g = read_onnx(corpus("duplicate_names"));
  Strings names;
  for (const NodeId id : g.nodes()) names.push_back(g.node(id).name);
  EXPECT_EQ(names, (Strings{"same", "Neg_b", "same_1", "Relu_c"}));
  EXPECT_TRUE(g.find_value("a") && g.find_value("b") && g.find_value("c"));
}

// A thousand nodes of one name: finding free names must not take a square of them.
TEST(OnnxRead, many_equal_names) {
  std::vector<onnx::ProtoNode> nodes;
  constexpr int kNodes = 20000;
  for (int i = 0; i < kNodes; ++i) {
    const std::string in = i == 0 ? "x" : "v" + std::to_string(i - 1);
    nodes.push_back(make_node("Neg", {in}, {i + 1 == kNodes ? "y" : "v" + std::to_string(i)}));
    nodes.back().name = "n";
  }
  const Graph g = read_model(make_model(std::move(nodes)));
  EXPECT_EQ(g.num_nodes(), static_cast<size_t>(kNodes));
  EXPECT_TRUE(g.find_node("n_19999"));
}

TEST(OnnxRead, nodes_are_sorted) {
  EXPECT_EQ(op_names(read_onnx(corpus("unsorted"))), (Strings{"Abs", "Neg", "Relu"}));
}

TEST(OnnxRead, metadata_docs_and_producer_are_kept) {
  const Graph g = read_onnx(corpus("metadata"));
  EXPECT_EQ(g.metadata, (std::map<std::string, std::string>{{"answer", "42"}, {"key", "value"}}));
  EXPECT_EQ(g.doc, "two nodes");
  EXPECT_EQ(g.producer_name, "corpus");
  EXPECT_EQ(g.producer_version, "1.2");
  EXPECT_EQ(g.source_opsets.at(""), 13);
  EXPECT_EQ(only(g, "Relu").doc, "the first");
}

TEST(OnnxRead, docs_of_the_model_and_of_its_graph_are_joined) {
  onnx::ProtoModel m = make_model({make_node("Neg", {"x"}, {"y"})});
  m.doc = "the model";
  EXPECT_EQ(read_model(m).doc, "the model");
  m.graph.doc = "its graph";
  const Graph g = read_model(m);
  EXPECT_EQ(g.doc, "the model\nits graph");
  const TemporaryFolder folder;
  write_onnx(g, folder / "m.onnx");
  EXPECT_EQ(read_onnx(folder / "m.onnx").doc, g.doc);
}

TEST(OnnxRead, shapes_are_inferred_with_symbols_and_stale_ones_ignored) {
  for (const char* name : {"metadata", "stale_value_info"}) {
    const Graph g = read_onnx(corpus(name));
    const Value& h = g.value(*g.find_value("h"));
    EXPECT_EQ(h.dtype, DType::float32) << name;
    ASSERT_TRUE(h.shape);
    EXPECT_EQ(to_string(*h.shape), "[batch, 4]") << name;
  }
}

TEST(OnnxRead, initializers_of_old_files_are_no_inputs) {
  const Graph g = read_onnx(corpus("inputs_ir3"));
  ASSERT_EQ(g.inputs().size(), 1u);
  EXPECT_EQ(g.value(g.inputs()[0]).name, "x");
  EXPECT_EQ(constant(g, "w").dims(), (Dims{1, 2}));
}

TEST(OnnxRead, optional_inputs_and_outputs_are_absent) {
  const Graph g = read_onnx(corpus("optional_inputs"));
  EXPECT_EQ(input_texts(g, only(g, "Clip")), (Strings{"x", "-", "float32[]{0.5}"}));
  const Graph h = read_onnx(corpus("optional_outputs"));
  const Node& n = only(h, "LayerNormalization");
  ASSERT_EQ(n.outputs.size(), 3u);
  EXPECT_EQ(n.outputs[1], kNoId);
}

TEST(OnnxRead, unknown_operators_are_listed_at_once) {
  expect_error([] { read_onnx(corpus("unknown_ops")); }, ErrorCode::unsupported,
               "2 nodes have operators that narrow does not know: 'Foo_a' (example::Foo), "
               "'Bar_y' (example::Bar)");
  OnnxReadOptions inspect;
  inspect.allow_unknown_ops = true;
  const Graph g = read_onnx(corpus("unknown_ops"), inspect);
  EXPECT_EQ(op_names(g), (Strings{"Foo", "Neg", "Bar"}));
  EXPECT_EQ(only(g, "Foo").int_or("k", 0), 1);
  EXPECT_EQ(unsupported_nodes(g).size(), 2u);
}

TEST(OnnxRead, the_error_names_the_file) {
  const Error missing = error_of([] { read_onnx("/no/such/model.onnx"); });
  EXPECT_EQ(missing.code(), ErrorCode::not_found);
  const TemporaryFolder folder;
  write_bytes(folder / "empty.onnx", "");
  expect_error([&] { read_onnx(folder / "empty.onnx"); }, ErrorCode::corrupt_data, "empty.onnx");
}

// --- external data
// ---------------------------------------------------------------------------------

TEST(OnnxRead, external_data_lie_beside_the_model) {
  const Graph g = read_onnx(corpus("external"));
  EXPECT_EQ(constant(g, "b").to_floats(), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(constant(g, "w").dims(), (Dims{4, 4}));
  const std::string bytes = bytes_of(corpus("external"));
  expect_error([&] { read_bytes(bytes); }, ErrorCode::corrupt_data, "may not have external data");
}

// --- subgraphs and functions
// -----------------------------------------------------------------------

TEST(OnnxRead, bodies_are_closed) {
  const Graph g = read_onnx(corpus("if_captures"));
  const Node& n = only(g, "If");
  // h and x are read by the bodies; the constant w is copied into them.
  EXPECT_EQ(n.int_or(kCaptures, 0), 2);
  EXPECT_EQ(input_texts(g, n), (Strings{"c", "x", "h"}));
  for (const char* branch : {"then_branch", "else_branch"}) {
    const Graph& body = *n.graph(branch);
    ASSERT_EQ(body.inputs().size(), 2u) << branch;
    EXPECT_EQ(body.value(body.inputs()[0]).name, "x");
    EXPECT_EQ(body.value(body.inputs()[1]).name, "h");
    EXPECT_EQ(body.value(body.inputs()[1]).dtype, DType::float32);
    EXPECT_EQ(constant(body, "w").raw(), constant(g, "w").raw()) << "the storage is shared";
  }
}

TEST(OnnxRead, bodies_of_bodies_capture_through_the_one_between) {
  const Graph g = read_onnx(corpus("if_nested"));
  const Node& outer = only(g, "If");
  EXPECT_EQ(input_texts(g, outer), (Strings{"c", "x", "h", "d"}));
  const Graph& body = *outer.graph("then_branch");
  const Node& inner = only(body, "If");
  EXPECT_EQ(input_texts(body, inner), (Strings{"d", "x", "k", "h"}));
  EXPECT_EQ(inner.int_or(kCaptures, 0), 3);
}

TEST(OnnxRead, loop_and_scan_capture_behind_their_own_inputs) {
  const Graph g = read_onnx(corpus("loop"));
  EXPECT_EQ(input_texts(g, only(g, "Loop")), (Strings{"n", "-", "x", "h"}));
  EXPECT_EQ(only(g, "Loop").graph("body")->inputs().size(), 4u);
  const Graph s = read_onnx(corpus("scan"));
  EXPECT_EQ(input_texts(s, only(s, "Scan")), (Strings{"a", "x", "k"}));
}

TEST(OnnxRead, bodies_are_upgraded_too) {
  const Graph g = read_onnx(corpus("if_old_body"));
  const Graph& body = *only(g, "If").graph("then_branch");
  EXPECT_EQ(input_text(body, only(body, "ReduceSum"), 1), "int64[1]{1}");
}

TEST(OnnxRead, functions_are_inlined) {
  const Graph g = read_onnx(corpus("function"));
  EXPECT_EQ(op_names(g),
            (Strings{"LeakyRelu", "Neg", "LeakyRelu", "LeakyRelu", "Neg", "LeakyRelu"}));
  std::vector<float> alphas;
  for (const NodeId id : g.nodes()) {
    if (g.node(id).op == "LeakyRelu") alphas.push_back(g.node(id).float_or("alpha", 0));
  }
  // The first call gives the attribute, the second leaves the function's default.
  EXPECT_EQ(alphas, (std::vector<float>{0.5f, 0.5f, 0.25f, 0.25f}));
}

TEST(OnnxRead, function_bodies_keep_their_names_apart) {
  const Graph g = read_onnx(corpus("function_body"));
  const Node& n = only(g, "If");
  EXPECT_EQ(input_texts(g, n), (Strings{"c", "t"}));
  const Graph& body = *n.graph("then_branch");
  EXPECT_EQ(input_text(body, only(body, "Neg"), 0), "t");
  EXPECT_NE(input_text(body, only(body, "Abs"), 0), "t");
}

TEST(OnnxRead, functions_have_their_own_opset) {
  const Graph g = read_onnx(corpus("function_old_opset"));
  EXPECT_EQ(input_text(g, only(g, "ReduceSum"), 1), "int64[1]{0}");
  EXPECT_EQ(input_text(g, only(g, "Unsqueeze"), 1), "int64[1]{1}");
}

}  // namespace
}  // namespace narrow
