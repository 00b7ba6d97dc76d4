// SPDX-License-Identifier: Apache-2.0
// Each row of the upgrade and import tables on a file of its kind. That the written forms compute
// the same as the originals is checked with onnxruntime by tests/goldens/make_onnx.py check.
#include "formats/onnx_testing.h"
#include "narrow/formats/onnx/downgrade.h"
#include "narrow/formats/onnx/qoperator.h"
#include "narrow/formats/onnx/upgrade.h"

namespace narrow {
namespace {

using namespace testing;  // NOLINT: the tests' own words
using Strings = std::vector<std::string>;

struct Upgraded {
  const char* file;
  const char* op;  // the only one in the graph
  Strings inputs;
  Strings gone;  // attributes that must not be left
};

std::string text_of(const Graph& g, const char* op) {
  std::string text;
  for (const std::string& input : input_texts(g, only(g, op))) text += input + "; ";
  return text;
}

TEST(OnnxUpgrade, attributes_become_inputs) {
  const std::vector<Upgraded> rows = {
      {"squeeze_7", "Squeeze", {"x", "int64[2]{1, 3}"}, {"axes"}},
      {"squeeze_all_9", "Squeeze", {"x"}, {}},
      {"unsqueeze_11", "Unsqueeze", {"x", "int64[2]{0, -1}"}, {"axes"}},
      {"slice_9",
       "Slice",
       {"x", "int64[2]{1, -3}", "int64[2]{3, 9999}", "int64[2]{0, 2}"},
       {"starts", "ends", "axes"}},
      {"slice_no_axes_7", "Slice", {"x", "int64[2]{1, 1}", "int64[2]{3, -1}"}, {}},
      {"pad_9",
       "Pad",
       {"x", "int64[8]{0, 0, 1, 1, 0, 0, 1, 1}", "float32[]{0.5}"},
       {"pads", "value"}},
      {"clip_half_10", "Clip", {"h", "float16[]{0}"}, {"min"}},
      {"dropout_7", "Dropout", {"x", "float32[]{0.3}"}, {"ratio"}},
      {"split_11", "Split", {"x", "int64[2]{1, 5}"}, {"split"}},
      {"topk_9", "TopK", {"x", "int64[1]{3}"}, {"k"}},
      {"topk_10", "TopK", {"x", "int64[1]{2}"}, {}},
      {"upsample_7", "Resize", {"x", "-", "float32[4]{1, 1, 2, 3}"}, {"scales"}},
      {"upsample_9", "Resize", {"x", "-", "float32[4]{1, 1, 2, 2}"}, {}},
      {"resize_10", "Resize", {"x", "-", "float32[4]{1, 1, 2, 2}"}, {}},
      {"resize_empty_11", "Resize", {"x", "-", "-", "int64[4]{1, 1, 5, 4}"}, {}},
      {"reduce_mean_18", "ReduceMean", {"x", "int64[1]{1}"}, {}},
      {"scatter_9", "ScatterElements", {"x", "int64[3, 1]{1, 0, 2}", "float32[3, 1]{9, 8, 7}"}, {}},
  };
  for (const Upgraded& row : rows) {
    SCOPED_TRACE(row.file);
    const Graph g = read_onnx(corpus(row.file));
    EXPECT_EQ(input_texts(g, only(g, row.op)), row.inputs);
    for (const std::string& attribute : row.gone) {
      EXPECT_FALSE(only(g, row.op).has(attribute)) << attribute;
    }
  }
}

TEST(OnnxUpgrade, reductions_take_axes_as_input) {
  for (const char* op :
       {"Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"}) {
    SCOPED_TRACE(op);
    std::string file = std::string("reduce_") + op + "_11";
    for (char& c : file) c = static_cast<char>(std::tolower(c));
    const Graph g = read_onnx(corpus(file));
    const std::vector<NodeId> nodes = g.nodes();
    ASSERT_EQ(nodes.size(), 2u);
    EXPECT_EQ(input_texts(g, g.node(nodes[0])), (Strings{"x", "int64[1]{-2}"}));
    EXPECT_EQ(input_texts(g, g.node(nodes[1])), (Strings{"x"})) << "no axes: all of them";
    EXPECT_FALSE(g.node(nodes[0]).has("axes"));
  }
}

TEST(OnnxUpgrade, clip_keeps_bounds_apart) {
  const Graph g = read_onnx(corpus("clip_6"));
  const auto nodes = g.nodes();
  EXPECT_EQ(input_texts(g, g.node(nodes[0])), (Strings{"x", "float32[]{-0.5}", "float32[]{0.5}"}));
  EXPECT_EQ(input_texts(g, g.node(nodes[1])), (Strings{"x", "-", "float32[]{0.25}"}));
  EXPECT_EQ(input_texts(g, g.node(nodes[2])), (Strings{"x"}));
}

TEST(OnnxUpgrade, split_into_equal_parts_says_how_many) {
  EXPECT_EQ(only(read_onnx(corpus("split_equal_9")), "Split").int_or("num_outputs", 0), 2);
  EXPECT_FALSE(only(read_onnx(corpus("split_11")), "Split").has("num_outputs"));
}

TEST(OnnxUpgrade, resize_keeps_its_old_rules) {
  struct Row {
    const char* file;
    const char* mode;
    const char* coordinates;
    const char* nearest;
  };
  const std::vector<Row> rows = {{"upsample_7", "nearest", "asymmetric", "floor"},
                                 {"upsample_9", "linear", "asymmetric", "floor"},
                                 {"resize_10", "nearest", "asymmetric", "floor"},
                                 {"resize_down_10", "nearest", "asymmetric", "ceil"},
                                 {"resize_empty_11", "linear", "align_corners", "-"},
                                 {"resize_13", "cubic", "-", "-"}};
  for (const Row& row : rows) {
    const Graph g = read_onnx(corpus(row.file));
    const Node& n = only(g, "Resize");
    EXPECT_EQ(n.string_or("mode", "-"), row.mode) << row.file;
    EXPECT_EQ(n.string_or("coordinate_transformation_mode", "-"), row.coordinates) << row.file;
    EXPECT_EQ(n.string_or("nearest_mode", "-"), row.nearest) << row.file;
  }
  onnx::ProtoModel m = make_model({make_node("Resize", {"x", "s"}, {"y"})}, 10);
  m.graph.inputs = {make_info("x", {1, 1, 4, 4})};
  m.graph.outputs = {make_info("y", {1, 1, 8, 2})};
  m.graph.initializers.push_back({"s", Tensor::vector(std::vector<float>{1, 1, 2, 0.5}), {}});
  expect_error([&] { read_model(m); }, ErrorCode::unsupported, "rounding in different ways");
}

// Softmax over everything from the axis on: plain where that is one axis, otherwise flattened.
TEST(OnnxUpgrade, softmax_keeps_its_flattening) {
  const auto axis = [](const char* file, const char* op) {
    const Graph g = read_onnx(corpus(file));
    EXPECT_EQ(g.num_nodes(), 1u) << file;
    return only(g, op).int_or("axis", -99);
  };
  EXPECT_EQ(axis("softmax_last_11", "Softmax"), -1);
  EXPECT_EQ(axis("softmax_ones_9", "Softmax"), 1) << "the axes behind it are 1";
  const std::vector<std::pair<const char*, const char*>> flattened = {
      {"softmax_flat_9", "Softmax"},
      {"softmax_zero_axis_7", "Softmax"},
      {"softmax_dynamic_9", "Softmax"},
      {"log_softmax_11", "LogSoftmax"},
      {"hardmax_11", "Hardmax"}};
  for (const auto& [file, op] : flattened) {
    const Graph g = read_onnx(corpus(file));
    EXPECT_EQ(op_names(g), (Strings{"Shape", "Flatten", op, "Reshape"})) << file;
    EXPECT_EQ(only(g, op).int_or("axis", 0), -1) << file;
    EXPECT_EQ(g.value(g.outputs()[0]).name, "y") << file;
  }
  EXPECT_EQ(only(read_onnx(corpus("log_softmax_11")), "Flatten").int_or("axis", 0), -2);
}

TEST(OnnxUpgrade, outputs_of_training_go) {
  for (const char* file : {"batch_norm_7", "batch_norm_9", "batch_norm_15"}) {
    const Graph g = read_onnx(corpus(file));
    EXPECT_EQ(only(g, "BatchNormalization").outputs.size(), 1u) << file;
    EXPECT_FALSE(only(g, "BatchNormalization").has("spatial")) << file;
  }
  EXPECT_EQ(only(read_onnx(corpus("dropout_7")), "Dropout").outputs.size(), 1u);
  // Where something reads them they cannot go.
  onnx::ProtoModel m = make_model(
      {make_node("Dropout", {"x"}, {"h", "mask"}), make_node("Mul", {"h", "mask"}, {"y"})}, 9);
  expect_error([&] { read_model(m); }, ErrorCode::unsupported, "'mask' is a mask of training");
}

TEST(OnnxUpgrade, refuses_what_it_cannot_say) {
  onnx::ProtoModel m =
      make_model({make_node("BatchNormalization", {"x", "s", "s", "s", "s"}, {"y"})}, 7);
  m.graph.nodes[0].set("spatial", int64_t{0});
  m.graph.initializers.push_back({"s", Tensor::vector(std::vector<float>{1, 2}), {}});
  expect_error([&] { read_model(m); }, ErrorCode::unsupported, "'spatial' is 0");
  expect_error([&] { read_model(make_model({make_node("Neg", {"x"}, {"y"})}, 6)); },
               ErrorCode::unsupported, "opset 6; 7 to 28 are read");
  expect_error([&] { read_model(make_model({make_node("Neg", {"x"}, {"y"})}, 99)); },
               ErrorCode::unsupported, "opset 99");
}

TEST(OnnxUpgrade, modes_take_their_new_names) {
  EXPECT_EQ(only(read_onnx(corpus("grid_sample_16")), "GridSample").string_or("mode", ""),
            "linear");
  EXPECT_EQ(only(read_onnx(corpus("roi_align_10")), "RoiAlign")
                .string_or("coordinate_transformation_mode", ""),
            "output_half_pixel");
}

TEST(OnnxUpgrade, group_norm_spreads_scale_and_bias_over_channels) {
  const Graph g = read_onnx(corpus("group_norm_18"));
  const Node& n = only(g, "GroupNormalization");
  EXPECT_EQ(to_string(*g.value(n.inputs[1]).shape), "[4]");
  EXPECT_EQ(to_string(*g.value(n.inputs[2]).shape), "[4]");
}

TEST(OnnxUpgrade, every_row_is_used_by_the_corpus) {
  // A row that no file exercises is a row that nobody has run.
  std::vector<bool> used(onnx::upgrade_rows().size(), false);
  for (const fs::path& path : corpus_files()) {
    const std::string bytes = bytes_of(path);
    onnx::Source source;
    source.begin = bytes.data();
    source.folder = corpus();
    const onnx::ProtoModel m = onnx::parse_model(bytes, source);
    const int64_t opset = m.opsets.count("") > 0 ? m.opsets.at("") : 0;
    for (const onnx::ProtoNode& node : m.graph.nodes) {
      for (size_t i = 0; i < used.size(); ++i) {
        const onnx::UpgradeRow& row = onnx::upgrade_rows()[i];
        if (node.op == row.op && opset < row.below) used[i] = true;
      }
    }
  }
  for (size_t i = 0; i < used.size(); ++i) {
    const onnx::UpgradeRow& row = onnx::upgrade_rows()[i];
    if (std::string(row.op) == "Scan") continue;  // only refuses
    EXPECT_TRUE(used[i]) << row.op << " below " << row.below;
  }
}

// --- QOperator form
// --------------------------------------------------------------------------------

TEST(OnnxImport, qlinear_conv_becomes_qdq) {
  const Graph g = read_onnx(corpus("qlinear_conv_bias"));
  EXPECT_EQ(op_names(g), (Strings{"DequantizeLinear", "DequantizeLinear", "DequantizeLinear",
                                  "Conv", "QuantizeLinear"}));
  const Node& conv = only(g, "Conv");
  const Node& x = *g.producer(conv.inputs[0]);
  EXPECT_EQ(input_texts(g, x), (Strings{"x", "float32[]{0.02}", "uint8[]{120}"}));
  const Node& w = *g.producer(conv.inputs[1]);
  EXPECT_EQ(w.int_or("axis", 9), 0);
  EXPECT_EQ(input_text(g, w, 1), "float32[4]{0.01, 0.02, 0.03, 0.04}");
  // The bias has the scale of the accumulator, to the bit.
  const Node& b = *g.producer(conv.inputs[2]);
  EXPECT_EQ(b.int_or("axis", 9), 0);
  EXPECT_EQ(input_text(g, b, 0), "int32[4]{100, -200, 300, 0}");
  const Tensor* scale = g.constant(b.inputs[1]);
  ASSERT_NE(scale, nullptr);
  const std::vector<float> w_scales = {0.01f, 0.02f, 0.03f, 0.04f};
  for (size_t i = 0; i < w_scales.size(); ++i) {
    EXPECT_EQ(scale->data<float>()[i], static_cast<float>(double{0.02f} * double{w_scales[i]}));
  }
  EXPECT_EQ(b.inputs.size(), 2u) << "a bias has no zero point";
  const Node& y = only(g, "QuantizeLinear");
  EXPECT_EQ(g.value(y.outputs[0]).name, "y");
  EXPECT_EQ(input_text(g, y, 1), "float32[]{0.05}");
}

TEST(OnnxImport, one_zero_point_is_spread_over_all_channels) {
  const Graph g = read_onnx(corpus("qlinear_conv"));
  const Node& w = *g.producer(only(g, "Conv").inputs[1]);
  EXPECT_EQ(input_text(g, w, 1), "float32[]{0.01}");
  EXPECT_EQ(input_text(g, w, 2), "int8[]{3}");
  onnx::ProtoModel m = make_model(
      {make_node("QLinearMatMul", {"x", "s", "z", "w", "ws", "wz", "s", "z"}, {"y"})}, 13);
  m.graph.inputs = {make_info("x", {1, 2}, DType::uint8)};
  m.graph.outputs = {make_info("y", {1, 3}, DType::uint8)};
  const auto add = [&m](const char* name, Tensor t) {
    m.graph.initializers.push_back({name, std::move(t), {}});
  };
  add("s", Tensor::vector(std::vector<float>{0.5f}));  // rank 1 of one element
  add("z", Tensor::scalar(uint8_t{7}));
  add("w", Tensor(DType::int8, {2, 3}));
  add("ws", Tensor::vector(std::vector<float>{1, 2, 3}));
  add("wz", Tensor::scalar(int8_t{5}));
  const Graph h = read_model(m);
  const Node& matmul = only(h, "MatMul");
  EXPECT_EQ(input_texts(h, *h.producer(matmul.inputs[0])),
            (Strings{"x", "float32[]{0.5}", "uint8[]{7}"}));
  const Node& dq = *h.producer(matmul.inputs[1]);
  EXPECT_EQ(dq.int_or("axis", 9), 1);
  EXPECT_EQ(input_text(h, dq, 2), "int8[3]{5, 5, 5}");
}

TEST(OnnxImport, gemm_bias_has_alpha_in_its_scale_and_output_may_be_float) {
  const Graph g = read_onnx(corpus("qgemm"));
  const Node& gemm = only(g, "Gemm");
  EXPECT_EQ(gemm.int_or("transB", 0), 1);
  EXPECT_EQ(g.producer(gemm.inputs[1])->int_or("axis", 9), 0);
  EXPECT_EQ(only(g, "QuantizeLinear").op, "QuantizeLinear");
  const Graph h = read_onnx(corpus("qgemm_float"));
  EXPECT_EQ(h.value(h.outputs()[0]).dtype, DType::float32);
  EXPECT_EQ(h.producer(h.outputs()[0])->op, "Gemm");
}

TEST(OnnxImport, elementwise_pools_and_concat) {
  const std::vector<std::pair<const char*, const char*>> rows = {
      {"qlinear_add", "Add"},
      {"qlinear_mul", "Mul"},
      {"qlinear_concat", "Concat"},
      {"qlinear_average_pool", "AveragePool"},
      {"qlinear_global_average_pool", "GlobalAveragePool"},
      {"qlinear_leaky_relu", "LeakyRelu"},
      {"qlinear_sigmoid", "Sigmoid"},
      {"qlinear_softmax", "Softmax"}};
  for (const auto& [file, op] : rows) {
    SCOPED_TRACE(file);
    const Graph g = read_onnx(corpus(file));
    const Node& n = only(g, op);
    for (const ValueId in : n.inputs) EXPECT_EQ(g.producer(in)->op, "DequantizeLinear");
    const Node& y = *g.producer(g.outputs()[0]);
    EXPECT_EQ(y.op, "QuantizeLinear");
    EXPECT_EQ(y.inputs[0], n.outputs[0]);
    EXPECT_FALSE(n.has("channels_last"));
    EXPECT_FALSE(n.has("opset"));
  }
  // The Softmax that it stands for is that of opset 12.
  EXPECT_EQ(
      op_names(read_onnx(corpus("qlinear_softmax_flat"))),
      (Strings{"DequantizeLinear", "Shape", "Flatten", "Softmax", "Reshape", "QuantizeLinear"}));
}

TEST(OnnxImport, stays_as_it_is_on_request) {
  OnnxReadOptions options;
  options.qoperator_to_qdq = false;
  EXPECT_EQ(op_names(read_onnx(corpus("qlinear_conv"), options)), (Strings{"QLinearConv"}));
  EXPECT_EQ(op_names(read_onnx(corpus("qgemm"), options)), (Strings{"QGemm"}));
  EXPECT_EQ(op_names(read_onnx(corpus("microsoft_qdq"), options)),
            (Strings{"QuantizeLinear", "DequantizeLinear"}));
}

TEST(OnnxImport, integer_operators_stay) {
  EXPECT_EQ(op_names(read_onnx(corpus("dynamic"))),
            (Strings{"DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul"}));
}

TEST(OnnxImport, fused_activations_are_split_out) {
  const Graph g = read_onnx(corpus("fused_conv"));
  EXPECT_EQ(op_names(g), (Strings{"Conv", "Relu", "Conv", "Clip", "Conv", "LeakyRelu"}));
  EXPECT_EQ(text_of(g, "Clip").substr(text_of(g, "Clip").find(';')),
            "; float32[]{-0.25}; float32[]{0.75}; ");
  EXPECT_FLOAT_EQ(only(g, "LeakyRelu").float_or("alpha", 0), 0.1f);
  EXPECT_EQ(g.value(only(g, "Relu").outputs[0]).name, "h");
  const Graph sum = read_onnx(corpus("fused_conv_sum"));
  EXPECT_EQ(op_names(sum), (Strings{"Conv", "Add", "Relu"}));
  EXPECT_EQ(input_text(sum, only(sum, "Add"), 1), "x");
}

TEST(OnnxImport, other_fusions_are_taken_apart) {
  const Graph gemm = read_onnx(corpus("fused_gemm"));
  EXPECT_EQ(op_names(gemm), (Strings{"Gemm", "LeakyRelu"}));
  EXPECT_FLOAT_EQ(only(gemm, "LeakyRelu").float_or("alpha", 0), 0.2f);
  EXPECT_EQ(only(gemm, "Gemm").attributes.size(), 1u) << "transB alone is left";
  const Graph matmul = read_onnx(corpus("fused_matmul"));
  EXPECT_EQ(op_names(matmul), (Strings{"Transpose", "MatMul", "Mul"}));
  EXPECT_EQ(input_text(matmul, only(matmul, "Mul"), 1), "float32[]{0.5}");
  EXPECT_EQ(op_names(read_onnx(corpus("gelus"))), (Strings{"Gelu", "Mul", "Sigmoid", "Mul"}));
}

TEST(OnnxImport, parameters_of_one_element_become_scalars) {
  const Graph g = read_onnx(corpus("qdq_shapes_13"));
  EXPECT_EQ(input_texts(g, only(g, "DequantizeLinear")),
            (Strings{"x", "float32[]{0.25}", "int32[]{0}"}));
}

TEST(OnnxImport, domain_of_microsoft_becomes_onnx) {
  const Graph g = read_onnx(corpus("microsoft_qdq"));
  EXPECT_EQ(only(g, "QuantizeLinear").domain, "");
  EXPECT_EQ(input_text(g, only(g, "QuantizeLinear"), 2), "uint16[]{30000}");
}

TEST(OnnxImport, refuses_channels_last) {
  onnx::ProtoNode n = make_node("QLinearAveragePool", {"x", "s", "z", "s", "z"}, {"y"});
  n.domain = "com.microsoft";
  n.set("channels_last", int64_t{1});
  onnx::ProtoModel m = make_model({n});
  m.opsets["com.microsoft"] = 1;
  m.graph.inputs = {make_info("x", {1, 2, 4, 4}, DType::uint8)};
  m.graph.initializers = {{"s", Tensor::scalar(0.5f), {}}, {"z", Tensor::scalar(uint8_t{0}), {}}};
  expect_error([&] { read_model(m); }, ErrorCode::unsupported, "'channels_last' is 1");
}

}  // namespace
}  // namespace narrow
