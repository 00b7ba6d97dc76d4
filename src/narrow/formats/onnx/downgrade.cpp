// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/downgrade.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/opset.h"
#include "narrow/formats/onnx/tensor_proto.h"
#include "narrow/graph/op_table.h"

namespace narrow::onnx {
namespace {

// --- attributes whose default says nothing new ---------------------------------------------------

bool drop_if(ProtoNode& n, const char* key, int64_t fallback) {
  if (n.get_or<int64_t>(key, fallback) != fallback) return false;
  n.erase(key);
  return true;
}

bool drop_if(ProtoNode& n, const char* key, const std::string& fallback) {
  if (n.get_or<std::string>(key, fallback) != fallback) return false;
  n.erase(key);
  return true;
}

bool drop_if_all(ProtoNode& n, const char* key, int64_t fallback) {
  const auto values = n.get_or<std::vector<int64_t>>(key, {});
  for (const int64_t v : values) {
    if (v != fallback) return false;
  }
  n.erase(key);
  return true;
}

// --- inputs that were attributes -----------------------------------------------------------------

/// A constant input of integers becomes the attribute `key`; false if it is computed.
bool input_to_ints(ProtoNode& n, size_t index, const char* key, GraphExporter& graph) {
  if (!n.has_input(index)) return true;
  const Tensor* values = graph.constant_of(n.inputs[index]);
  if (values == nullptr) return false;
  n.set(key, values->to_ints());
  n.set_input(index, "");
  return true;
}

bool reduce_18(ProtoNode& n, GraphExporter& graph) {
  const bool noop = n.get_or<int64_t>("noop_with_empty_axes", 0) != 0;
  if (!input_to_ints(n, 1, "axes", graph)) return false;
  if (n.get_or<std::vector<int64_t>>("axes", {}).empty()) {
    if (noop) return false;  // an identity, which older operators cannot be
    n.erase("axes");
  }
  n.erase("noop_with_empty_axes");
  return true;
}

bool split_18(ProtoNode& n, GraphExporter& graph) {
  const auto parts = n.get<int64_t>("num_outputs");
  n.erase("num_outputs");
  if (n.has_input(1) || !parts) return true;
  // Without sizes the older operator only knows equal parts; the newer one makes the last one
  // small.
  const SymbolicShape* shape = n.has_input(0) ? graph.shape_of(n.inputs[0]) : nullptr;
  if (shape == nullptr) return false;
  int64_t axis = n.get_or<int64_t>("axis", 0);
  if (axis < 0) axis += static_cast<int64_t>(shape->size());
  if (axis < 0 || axis >= static_cast<int64_t>(shape->size())) return false;
  const Dim& dim = (*shape)[static_cast<size_t>(axis)];
  return dim.known() && *parts > 0 && dim.value % *parts == 0;
}

/// The rank of the first input, or nothing.
std::optional<int64_t> rank_of_data(const ProtoNode& n, const GraphExporter& graph) {
  const SymbolicShape* shape = n.has_input(0) ? graph.shape_of(n.inputs[0]) : nullptr;
  return shape == nullptr ? std::nullopt : std::optional(static_cast<int64_t>(shape->size()));
}

/// Axes made non-negative; nothing if one is out of range.
std::optional<std::vector<int64_t>> positive_axes(std::vector<int64_t> axes, int64_t rank) {
  for (int64_t& axis : axes) {
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return std::nullopt;
  }
  return axes;
}

bool pad_19(ProtoNode& n, GraphExporter&) {
  return n.get_or<std::string>("mode", "constant") != "wrap";
}

bool pad_18(ProtoNode& n, GraphExporter& graph) {
  if (!n.has_input(3)) return true;
  const Tensor* axes_input = graph.constant_of(n.inputs[3]);
  const Tensor* pads_input = graph.constant_of(n.input(1));
  const auto rank = rank_of_data(n, graph);
  if (axes_input == nullptr || pads_input == nullptr || !rank) return false;
  const auto axes = positive_axes(axes_input->to_ints(), *rank);
  const std::vector<int64_t> pads = pads_input->to_ints();
  if (!axes || pads.size() != 2 * axes->size()) return false;
  std::vector<int64_t> full(static_cast<size_t>(2 * *rank), 0);
  for (size_t i = 0; i < axes->size(); ++i) {
    full[static_cast<size_t>((*axes)[i])] = pads[i];
    full[static_cast<size_t>((*axes)[i] + *rank)] = pads[i + axes->size()];
  }
  n.set_input(1, graph.constant(n.inputs[1] + "_all_axes", Tensor::vector(full)));
  n.set_input(3, "");
  return true;
}

bool resize_19(ProtoNode& n, GraphExporter&) {
  return n.get_or<std::string>("coordinate_transformation_mode", "half_pixel") !=
         "half_pixel_symmetric";
}

bool resize_18(ProtoNode& n, GraphExporter& graph) {
  if (!drop_if(n, "antialias", 0)) return false;
  if (!drop_if(n, "keep_aspect_ratio_policy", "stretch")) return false;
  const auto axes_attribute = n.get<std::vector<int64_t>>("axes");
  if (!axes_attribute) return true;
  const auto rank = rank_of_data(n, graph);
  if (!rank) return false;
  const auto axes = positive_axes(*axes_attribute, *rank);
  if (!axes) return false;
  bool in_order = static_cast<int64_t>(axes->size()) == *rank;
  for (size_t i = 0; i < axes->size() && in_order; ++i) {
    in_order = (*axes)[i] == static_cast<int64_t>(i);
  }
  if (!in_order) {
    // Scales of the other axes are 1. Sizes would need their dimensions, a region its bounds.
    const Tensor* scales = graph.constant_of(n.input(2));
    if (scales == nullptr || n.has_input(1) || n.has_input(3)) return false;
    const std::vector<float> given = scales->to_floats();
    if (given.size() != axes->size()) return false;
    std::vector<float> full(static_cast<size_t>(*rank), 1.0f);
    for (size_t i = 0; i < given.size(); ++i) full[static_cast<size_t>((*axes)[i])] = given[i];
    n.set_input(2, graph.constant(n.inputs[2] + "_all_axes", Tensor::vector(full)));
  }
  n.erase("axes");
  return true;
}

// --- quantization --------------------------------------------------------------------------------

bool quantize_23(ProtoNode& n, GraphExporter& graph) {
  const int64_t precision = n.get_or<int64_t>("precision", 0);
  const DType scale = graph.dtype_of(n.input(1));
  if (precision != 0 && precision != data_type_of(scale)) return false;
  n.erase("precision");
  return true;
}

bool quantize_21(ProtoNode& n, GraphExporter& graph) {
  if (!drop_if(n, "block_size", 0)) return false;
  const int64_t output = n.get_or<int64_t>("output_dtype", 0);
  n.erase("output_dtype");
  if (output == 0 || n.has_input(2)) return true;
  // The type of the codes was an attribute: a zero point of zeros says it too.
  const auto dtype = dtype_of(output);
  const SymbolicShape* shape = graph.shape_of(n.input(1));
  const auto dims = shape == nullptr ? std::nullopt : concrete(*shape);
  if (!dtype || !dims) return false;
  n.set_input(2, graph.constant(n.inputs[1] + "_zero_point", Tensor(*dtype, *dims)));
  return true;
}

bool quantize_19(ProtoNode& n, GraphExporter&) {
  n.erase("saturate");  // for float8 only
  return true;
}

bool dequantize_23(ProtoNode& n, GraphExporter& graph) {
  const int64_t output = n.get_or<int64_t>("output_dtype", 0);
  if (output != 0 && output != data_type_of(graph.dtype_of(n.input(1)))) return false;
  n.erase("output_dtype");
  return true;
}

bool dequantize_21(ProtoNode& n, GraphExporter&) {
  return drop_if(n, "block_size", 0);
}

// --- others --------------------------------------------------------------------------------------

bool cast_24(ProtoNode& n, GraphExporter&) {
  n.erase("round_mode");  // for float8e8m0 only
  return true;
}

bool cast_19(ProtoNode& n, GraphExporter&) {
  n.erase("saturate");  // for float8 only
  return true;
}

bool scatter_18(ProtoNode& n, GraphExporter&) {
  const std::string reduction = n.get_or<std::string>("reduction", "none");
  return reduction != "min" && reduction != "max";
}

template <size_t input>
bool without_input(ProtoNode& n, GraphExporter&) {
  return !n.has_input(input);
}

bool attention_25(ProtoNode& n, GraphExporter&) {
  return drop_if(n, "left_window_size", -1) && drop_if(n, "right_window_size", -1);
}

bool space_to_depth_28(ProtoNode& n, GraphExporter&) {
  return drop_if(n, "mode", "DCR");
}

bool average_pool_19(ProtoNode& n, GraphExporter&) {
  return drop_if_all(n, "dilations", 1);
}

bool lp_pool_18(ProtoNode& n, GraphExporter&) {
  return drop_if_all(n, "dilations", 1) && drop_if(n, "ceil_mode", 0);
}

bool scatter_16(ProtoNode& n, GraphExporter&) {
  return drop_if(n, "reduction", "none");
}

bool shape_15(ProtoNode& n, GraphExporter&) {
  return !n.has("end") && drop_if(n, "start", 0);
}

bool batch_norm_14(ProtoNode& n, GraphExporter&) {
  return drop_if(n, "training_mode", 0);
}

bool reshape_14(ProtoNode& n, GraphExporter&) {
  return drop_if(n, "allowzero", 0);
}

constexpr std::array kRows = {
    DowngradeRow{"SpaceToDepth", 28, "'mode'", space_to_depth_28},
    DowngradeRow{"Attention", 25, "a window", attention_25},
    DowngradeRow{"Attention", 24, "input 'nonpad_kv_seqlen'", without_input<6>},
    DowngradeRow{"Cast", 24, "'round_mode'", cast_24},
    DowngradeRow{"CastLike", 24, "'round_mode'", cast_24},
    DowngradeRow{"QuantizeLinear", 23, "'precision'", quantize_23},
    DowngradeRow{"DequantizeLinear", 23, "'output_dtype'", dequantize_23},
    DowngradeRow{"QuantizeLinear", 21, "'block_size' or 'output_dtype'", quantize_21},
    DowngradeRow{"DequantizeLinear", 21, "'block_size'", dequantize_21},
    DowngradeRow{"AveragePool", 19, "'dilations'", average_pool_19},
    DowngradeRow{"Cast", 19, "'saturate'", cast_19},
    DowngradeRow{"CastLike", 19, "'saturate'", cast_19},
    DowngradeRow{"QuantizeLinear", 19, "'saturate'", quantize_19},
    DowngradeRow{"Pad", 19, "'mode' wrap", pad_19},
    DowngradeRow{"Resize", 19, "half_pixel_symmetric", resize_19},
    DowngradeRow{"LpPool", 18, "'dilations' or 'ceil_mode'", lp_pool_18},
    DowngradeRow{"Pad", 18, "input 'axes'", pad_18},
    DowngradeRow{"Resize", 18, "'antialias', 'axes' or 'keep_aspect_ratio_policy'", resize_18},
    DowngradeRow{"Split", 18, "'num_outputs'", split_18},
    DowngradeRow{"ReduceL1", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceL2", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceLogSum", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceLogSumExp", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceMax", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceMean", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceMin", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceProd", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ReduceSumSquare", 18, "input 'axes'", reduce_18},
    DowngradeRow{"ScatterElements", 18, "'reduction'", scatter_18},
    DowngradeRow{"ScatterND", 18, "'reduction'", scatter_18},
    DowngradeRow{"ScatterElements", 16, "'reduction'", scatter_16},
    DowngradeRow{"ScatterND", 16, "'reduction'", scatter_16},
    DowngradeRow{"Shape", 15, "'start' or 'end'", shape_15},
    DowngradeRow{"BatchNormalization", 14, "'training_mode'", batch_norm_14},
    DowngradeRow{"Reshape", 14, "'allowzero'", reshape_14},
};

constexpr bool rows_are_in_order() {
  for (size_t i = 1; i < kRows.size(); ++i) {
    if (kRows[i - 1].below < kRows[i].below) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

}  // namespace

std::span<const DowngradeRow> downgrade_rows() {
  return kRows;
}

void downgrade_node(ProtoNode& node, int64_t opset, GraphExporter& graph) {
  if (!node.domain.empty()) return;
  for (const DowngradeRow& row : kRows) {
    if (opset >= row.below || node.op != row.op) continue;
    if (!row.edit(node, graph)) {
      throw Error(ErrorCode::internal,
                  fmt::format("{} was to be written at opset {}", node.describe(), opset));
    }
  }
}

int64_t needed_opset(const ProtoNode& node, GraphExporter& graph, std::string* why) {
  if (!node.domain.empty()) return kLowestWrittenOpset;
  const auto because = [&](const char* what) {
    if (why != nullptr) *why = fmt::format("{} ({})", node.describe(), what);
  };
  const OpInfo* info = find_op("", node.op);
  if (info == nullptr) {
    throw Error(ErrorCode::unsupported,
                node.describe() + ": narrow does not know this operator, nor its opset");
  }
  int64_t needed = std::max<int64_t>(kLowestWrittenOpset, info->since);
  because("the operator");
  const int64_t types = opset_of_types(node, graph);
  if (types > needed) {
    needed = types;
    because("the types of its values");
  }
  ProtoNode trial = node;
  for (const DowngradeRow& row : kRows) {
    if (row.below <= needed) break;
    if (node.op != row.op || row.edit(trial, graph)) continue;
    needed = row.below;
    because(row.what);
    break;
  }
  return needed;
}

}  // namespace narrow::onnx
