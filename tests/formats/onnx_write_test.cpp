// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <map>

#include "formats/onnx_testing.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

using namespace testing;  // NOLINT: the tests' own words

int opset_of(const std::string& name) {
  const TemporaryFolder folder;
  return write_onnx(read_onnx(corpus(name)), folder / "m.onnx").opset;
}

/// Where the written graph says the same in other words: constants that the downgrade rows made, or
/// attributes whose default they left out.
const std::map<std::string, const char*> kReworded = {
    {"pad_axes_18", "pads of all axes"},
    {"qdq_no_zero_point_21", "a zero point instead of output_dtype"},
    {"resize_axes_18", "scales of all axes"},
};

// Every file: what is read, written and read again is the same graph, and writing that gives the
// same bytes. With NARROW_KEEP_DIR the files stay for tests/goldens/make_onnx.py check.
TEST(OnnxCorpus, round_trip) {
  const TemporaryFolder temporary;
  const char* keep = std::getenv("NARROW_KEEP_DIR");
  const fs::path folder = keep != nullptr ? fs::path(keep) : temporary.path();
  int files = 0;
  for (const fs::path& path : corpus_files()) {
    if (path.stem() == "unknown_ops") continue;
    SCOPED_TRACE(path.filename().string());
    const Graph first = read_onnx(path);
    const fs::path written = folder / path.filename();
    write_onnx(first, written);
    const Graph second = read_onnx(written);
    if (kReworded.count(path.stem().string()) == 0) {
      EXPECT_EQ(first_difference(graph_text(first), graph_text(second)), "");
    }
    const fs::path again = temporary / "again.onnx";
    write_onnx(second, again);
    EXPECT_EQ(first_difference(graph_text(second), graph_text(read_onnx(again))), "");
    write_onnx(read_onnx(again), temporary / "last.onnx");
    EXPECT_TRUE(bytes_of(again) == bytes_of(temporary / "last.onnx"));
    ++files;
  }
  EXPECT_GT(files, 100);
}

TEST(OnnxAssets, round_trip) {
  if (!fs::exists(assets())) GTEST_SKIP() << "no folder " << assets();
  const TemporaryFolder folder;
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(assets())) {
    if (entry.path().extension() != ".onnx") continue;
    SCOPED_TRACE(entry.path().string());
    const Graph first = read_onnx(entry.path());
    const OnnxWriteReport report = write_onnx(first, folder / "m.onnx");
    EXPECT_EQ(report.opset, 13);
    EXPECT_EQ(report.bytes, fs::file_size(folder / "m.onnx"));
    EXPECT_EQ(first_difference(graph_text(first), graph_text(read_onnx(folder / "m.onnx"))), "");
    ++files;
  }
  EXPECT_GE(files, 7);
}

TEST(OnnxWrite, takes_the_lowest_opset_that_says_it) {
  EXPECT_EQ(opset_of("qdq_13"), 13);
  EXPECT_EQ(opset_of("dynamic"), 13);
  EXPECT_EQ(opset_of("reduce_mean_18"), 13);  // the axes become an attribute
  EXPECT_EQ(opset_of("pad_axes_18"), 13);
  EXPECT_EQ(opset_of("qdq_no_zero_point_21"), 13);
  EXPECT_EQ(opset_of("add_int8_14"), 14);
  EXPECT_EQ(opset_of("relu_int32_14"), 14);
  EXPECT_EQ(opset_of("reshape_zero_14"), 14);
  EXPECT_EQ(opset_of("shape_15"), 15);
  EXPECT_EQ(opset_of("reduce_noop_18"), 18);
  EXPECT_EQ(opset_of("split_uneven_18"), 18);
  EXPECT_EQ(opset_of("resize_antialias_18"), 18);
  EXPECT_EQ(opset_of("pad_wrap_19"), 19);
  EXPECT_EQ(opset_of("average_pool_19"), 19);
  EXPECT_EQ(opset_of("gelu_20"), 20);
  EXPECT_EQ(opset_of("qdq_int16_21"), 21);
  EXPECT_EQ(opset_of("blocked_int4_21"), 21);
  EXPECT_EQ(opset_of("int2_25"), 25);
}

TEST(OnnxWrite, states_ir_version_opset_and_producer) {
  const TemporaryFolder folder;
  const std::map<std::string, std::pair<int64_t, int64_t>> wanted = {
      {"names", {7, 13}}, {"shape_15", {8, 15}}, {"gelu_20", {9, 20}}, {"int2_25", {13, 25}}};
  for (const auto& [name, versions] : wanted) {
    write_onnx(read_onnx(corpus(name)), folder / "m.onnx");
    const std::string bytes = bytes_of(folder / "m.onnx");
    onnx::Source source;
    source.begin = bytes.data();
    const onnx::ProtoModel m = onnx::parse_model(bytes, source);
    EXPECT_EQ(m.ir_version, versions.first) << name;
    EXPECT_EQ(m.opsets, (onnx::OpsetImports{{"", versions.second}})) << name;
    EXPECT_EQ(m.producer_name, "narrow");
  }
}

TEST(OnnxWrite, imports_the_domains_it_needs) {
  const TemporaryFolder folder;
  OnnxReadOptions as_it_is;
  as_it_is.qoperator_to_qdq = false;
  write_onnx(read_onnx(corpus("qlinear_add"), as_it_is), folder / "m.onnx");
  const Graph g = read_onnx(folder / "m.onnx", as_it_is);
  EXPECT_EQ(g.source_opsets, (std::map<std::string, int64_t>{{"", 13}, {"com.microsoft", 1}}));
  EXPECT_EQ(op_names(g), (std::vector<std::string>{"QLinearAdd"}));
}

TEST(OnnxWrite, honours_the_opset_asked_for) {
  const TemporaryFolder folder;
  const Graph g = read_onnx(corpus("reduce_max_11"));
  OnnxWriteOptions options;
  for (const int opset : {13, 17, 18, 21, 25, 28}) {
    options.opset = opset;
    EXPECT_EQ(write_onnx(g, folder / "m.onnx", options).opset, opset);
    const Graph back = read_onnx(folder / "m.onnx");
    EXPECT_EQ(back.source_opsets.at(""), opset);
    EXPECT_EQ(graph_text(back), graph_text(g));
  }
  options.opset = 12;
  expect_error([&] { write_onnx(g, folder / "m.onnx", options); }, ErrorCode::invalid_argument,
               "13 to 28");
}

TEST(OnnxWrite, says_what_needs_a_newer_opset) {
  const TemporaryFolder folder;
  OnnxWriteOptions options;
  options.opset = 17;
  const auto refused = [&](const std::string& name, const std::string& part) {
    expect_error([&] { write_onnx(read_onnx(corpus(name)), folder / "m.onnx", options); },
                 ErrorCode::unsupported, part);
  };
  refused("average_pool_19", "'AveragePool_y' (AveragePool) ('dilations') needs opset 19");
  refused("group_norm_18", "(GroupNormalization) (the operator) needs opset 21");
  refused("int2_25", "(the types of its values) needs opset 25");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(OnnxWrite, says_in_older_operators_what_an_old_opset_lacks) {
  const TemporaryFolder folder;
  OnnxWriteOptions options;
  options.opset = 17;
  EXPECT_EQ(write_onnx(read_onnx(corpus("gelu_20")), folder / "m.onnx", options).opset, 17);
  const Graph graph = read_onnx(folder / "m.onnx");
  for (const NodeId id : graph.nodes()) EXPECT_NE(graph.node(id).op, "Gelu");
  EXPECT_EQ(graph.value(graph.outputs()[0]).name,
            read_onnx(corpus("gelu_20")).value(read_onnx(corpus("gelu_20")).outputs()[0]).name);
}

TEST(OnnxWrite, refuses_lowered_operators_by_name_and_keeps_the_old_file) {
  const TemporaryFolder folder;
  write_bytes(folder / "m.onnx", "the old file");
  Graph g;
  const ValueId x = g.add_input("x", DType::uint8, SymbolicShape{4});
  const ValueId table = g.add_initializer("t", Tensor::vector(std::vector<uint8_t>(256)));
  const NodeId n = g.add_node(ops::kQLookup, {x, table}, {"y"}, {}, ops::kDomain, "lookup");
  g.add_output(g.node(n).outputs[0]);
  expect_error([&] { write_onnx(g, folder / "m.onnx"); }, ErrorCode::unsupported,
               "'lookup' (narrow::QLookup)");
  EXPECT_EQ(bytes_of(folder / "m.onnx"), "the old file");
}

TEST(OnnxWrite, refuses_types_that_an_operator_cannot_have) {
  const TemporaryFolder folder;
  Graph g;
  const ValueId x = g.add_input("x", DType::int4, SymbolicShape{4});
  const NodeId n = g.add_node("Concat", {x, x}, {"y"}, {{"axis", int64_t{0}}});
  g.mutable_value(g.node(n).outputs[0]).dtype = DType::int4;
  g.add_output(g.node(n).outputs[0]);
  expect_error([&] { write_onnx(g, folder / "m.onnx"); }, ErrorCode::unsupported,
               "ONNX has no Concat for int4");
}

TEST(OnnxWrite, refuses_outputs_without_type) {
  const TemporaryFolder folder;
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{4});
  g.add_output(g.node(g.add_node("Neg", {x}, {"y"})).outputs[0]);
  expect_error([&] { write_onnx(g, folder / "m.onnx"); }, ErrorCode::unsupported,
               "'y' is to be written and has no element type");
  infer_shapes(g);
  EXPECT_EQ(write_onnx(g, folder / "m.onnx").opset, 13);
}

TEST(OnnxWrite, is_the_same_whatever_the_order_of_attributes) {
  const TemporaryFolder folder;
  for (int i = 0; i < 2; ++i) {
    Graph g;
    const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 1, 4, 4});
    Attributes attributes;
    const std::vector<int64_t> twos = {2, 2};
    if (i == 0) attributes["strides"] = twos;
    attributes["kernel_shape"] = twos;
    if (i == 1) attributes["strides"] = twos;
    const NodeId n = g.add_node("MaxPool", {x}, {"y"}, attributes);
    g.add_output(g.node(n).outputs[0]);
    infer_shapes(g);
    g.metadata = {{"b", "2"}, {"a", "1"}};
    write_onnx(g, folder / std::to_string(i));
  }
  EXPECT_EQ(bytes_of(folder / "0"), bytes_of(folder / "1"));
}

// --- external data
// ---------------------------------------------------------------------------------

TEST(OnnxExternal, large_tensors_go_to_the_data_file) {
  const TemporaryFolder folder;
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 64});
  Tensor w(DType::float32, {64, 64});
  for (int i = 0; i < 64 * 64; ++i) w.mutable_data<float>()[i] = static_cast<float>(i);
  const ValueId weights = g.add_initializer("w", w);
  const ValueId twin = g.add_initializer("same_storage", w);
  const ValueId small = g.add_initializer("small", Tensor(DType::float32, {64}));
  const auto mul = [&](ValueId a, ValueId b) {
    return g.node(g.add_node("MatMul", {a, b}, {"v"})).outputs[0];
  };
  const NodeId add = g.add_node("Add", {mul(mul(x, weights), twin), small}, {"y"});
  g.add_output(g.node(add).outputs[0]);
  infer_shapes(g);
  OnnxWriteOptions options;
  options.external_threshold = 1;
  const OnnxWriteReport report = write_onnx(g, folder / "m.onnx", options);
  EXPECT_EQ(report.external_bytes, 64u * 64 * 4) << "equal storage is written once";
  EXPECT_EQ(fs::file_size(folder / "m.onnx.data"), report.external_bytes);
  EXPECT_LT(report.bytes, 1000u);
  const Graph back = read_onnx(folder / "m.onnx");
  EXPECT_TRUE(identical(*back.constant(*back.find_value("w")), w));
  EXPECT_TRUE(identical(*back.constant(*back.find_value("same_storage")), w));
  // Zero-copy: both point into the one mapping.
  EXPECT_EQ(back.constant(*back.find_value("w"))->raw(),
            back.constant(*back.find_value("same_storage"))->raw());
  fs::remove(folder / "m.onnx.data");
  expect_error([&] { read_onnx(folder / "m.onnx"); }, ErrorCode::not_found, "m.onnx.data");
}

TEST(OnnxExternal, a_file_can_be_written_over_itself) {
  const TemporaryFolder folder;
  OnnxWriteOptions options;
  options.external_threshold = 16;
  write_onnx(read_onnx(corpus("external")), folder / "m.onnx", options);
  const Graph first = read_onnx(folder / "m.onnx");
  write_onnx(first, folder / "m.onnx", options);
  EXPECT_EQ(graph_text(read_onnx(folder / "m.onnx")), graph_text(first));
}

// Past 2 GB the tensors go outside by themselves. The bytes are pages that were never touched, but
// the file is real: only on request.
TEST(OnnxExternal, models_above_2_gb) {
  if (std::getenv("NARROW_LARGE_TESTS") == nullptr) {
    GTEST_SKIP() << "writes 3 GB; set NARROW_LARGE_TESTS";
  }
  const TemporaryFolder folder;
  constexpr int64_t kColumns = int64_t{3} << 28;
  constexpr size_t kBytes = size_t{kColumns} * 4;
  void* pages =
      ::mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  const std::shared_ptr<void> owner(pages, [](void* p) { ::munmap(p, kBytes); });
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 1});
  const ValueId w =
      g.add_initializer("w", Tensor::view(owner, pages, kBytes, DType::float32, {1, kColumns}));
  const NodeId n = g.add_node("MatMul", {x, w}, {"y"});
  g.mutable_value(g.node(n).outputs[0]).dtype = DType::float32;
  g.add_output(g.node(n).outputs[0]);
  const OnnxWriteReport report = write_onnx(g, folder / "m.onnx");
  EXPECT_LT(report.bytes, 1000u);
  EXPECT_EQ(report.external_bytes, kBytes);
  const Graph back = read_onnx(folder / "m.onnx");
  EXPECT_EQ(back.constant(*back.find_value("w"))->bytes(), kBytes);
}

// --- tensors
// ---------------------------------------------------------------------------------------

TEST(OnnxTensor, every_type_survives_a_pb_file) {
  const TemporaryFolder folder;
  const std::vector<int64_t> values = {1, 0, 1, 1, 0};
  for (const DType dtype : {DType::int8, DType::uint8, DType::int16, DType::uint16, DType::int32,
                            DType::uint32, DType::int64, DType::uint64, DType::boolean, DType::int4,
                            DType::uint4, DType::uint2, DType::int2}) {
    const Tensor t = Tensor::from_ints(values, dtype, {5});
    write_onnx_tensor(t, "codes", folder / "t.pb");
    std::string name;
    const Tensor back = read_onnx_tensor(folder / "t.pb", &name);
    EXPECT_TRUE(identical(t, back)) << to_string(dtype);
    EXPECT_EQ(name, "codes");
  }
  const std::vector<float> floats = {1.5f, -2.0f, 0.0f, 65504.0f};
  for (const DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16}) {
    const Tensor t = Tensor::from_floats(floats, dtype, {2, 2});
    write_onnx_tensor(t, "", folder / "t.pb");
    EXPECT_TRUE(identical(t, read_onnx_tensor(folder / "t.pb"))) << to_string(dtype);
  }
  write_onnx_tensor(Tensor::scalar(3.0f), "s", folder / "t.pb");
  EXPECT_EQ(read_onnx_tensor(folder / "t.pb").dims(), Dims{});
}

}  // namespace
}  // namespace narrow
