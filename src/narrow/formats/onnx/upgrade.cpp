// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/upgrade.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/qoperator.h"

namespace narrow::onnx {
namespace {

using Ints = std::vector<int64_t>;

[[noreturn]] void unsupported(const ProtoNode& n, const std::string& what) {
  throw Error(ErrorCode::unsupported, fmt::format("{}: {}", n.describe(), what),
              "export the model again with a newer opset");
}

/// Attribute `key` of integers becomes input `index`.
void ints_to_input(ProtoNode& n, GraphBuilder& b, const char* key, size_t index) {
  const auto values = n.get<Ints>(key);
  if (!values) return;
  n.set_input(index, b.constant(result_name(n) + "_" + key, Tensor::vector(*values)));
  n.erase(key);
}

Tensor scalar_of(float value, DType dtype) {
  return Tensor::from_floats(std::span(&value, 1),
                             dtype == DType::undefined ? DType::float32 : dtype, {});
}

/// Float attribute `key` becomes a scalar input of the element type of the first input.
void float_to_input(ProtoNode& n, GraphBuilder& b, const char* key, size_t index) {
  const auto value = n.get<float>(key);
  if (!value) return;
  const DType dtype = b.dtype_of(n.input(0));
  n.set_input(index, b.constant(result_name(n) + "_" + key,
                                scalar_of(*value, is_float(dtype) ? dtype : DType::float32)));
  n.erase(key);
}

/// Output `index` and those behind it go; they must not be used.
void drop_outputs(ProtoNode& n, const GraphBuilder& b, size_t index, const char* why) {
  for (size_t i = index; i < n.outputs.size(); ++i) {
    if (!n.outputs[i].empty() && b.is_used(n.outputs[i])) {
      unsupported(n, fmt::format("its output '{}' is {}", n.outputs[i], why));
    }
  }
  if (n.outputs.size() > index) n.outputs.resize(index);
}

// --- attributes that became inputs ---------------------------------------------------------------

void axes_to_input(ProtoNode& n, GraphBuilder& b) {
  ints_to_input(n, b, "axes", 1);
}

void slice_10(ProtoNode& n, GraphBuilder& b) {
  ints_to_input(n, b, "starts", 1);
  ints_to_input(n, b, "ends", 2);
  ints_to_input(n, b, "axes", 3);
}

void pad_11(ProtoNode& n, GraphBuilder& b) {
  ints_to_input(n, b, "pads", 1);
  float_to_input(n, b, "value", 2);
}

void clip_11(ProtoNode& n, GraphBuilder& b) {
  float_to_input(n, b, "min", 1);
  float_to_input(n, b, "max", 2);
}

void dropout_12(ProtoNode& n, GraphBuilder& b) {
  drop_outputs(n, b, 1, "a mask of training");
  float_to_input(n, b, "ratio", 1);
}

void top_k_10(ProtoNode& n, GraphBuilder& b) {
  const auto k = n.get<int64_t>("k");
  if (!k) unsupported(n, "it has no 'k'");
  n.set_input(1, b.constant(result_name(n) + "_k", Tensor::vector(Ints{*k})));
  n.erase("k");
}

void split_13(ProtoNode& n, GraphBuilder& b) {
  ints_to_input(n, b, "split", 1);
}

void split_18(ProtoNode& n, GraphBuilder&) {
  if (!n.has_input(1)) n.set("num_outputs", static_cast<int64_t>(n.outputs.size()));
}

// --- resizing ------------------------------------------------------------------------------------

void upsample_9(ProtoNode& n, GraphBuilder& b) {
  const auto scales = n.get<std::vector<float>>("scales");
  if (!scales) unsupported(n, "it has no 'scales'");
  n.set_input(1, b.constant(result_name(n) + "_scales", Tensor::vector(*scales)));
  n.erase("scales");
}

/// From (x, scales) to (x, roi, scales), with the rule that was the only one before opset 11.
void resize_11(ProtoNode& n, GraphBuilder& b) {
  n.op = "Resize";
  const std::string scales = n.input(1);
  n.set_input(1, "");
  n.set_input(2, scales);
  n.set("coordinate_transformation_mode", std::string("asymmetric"));
  const std::string mode = n.get_or<std::string>("mode", "nearest");
  if (mode == "bilinear" || mode == "trilinear") n.set("mode", std::string("linear"));
  // Nearest rounded down when enlarging and up when reducing.
  bool enlarges = true;
  bool reduces = false;
  if (const Tensor* values = b.constant_of(scales); values != nullptr) {
    const std::vector<float> s = values->to_floats();
    enlarges = std::any_of(s.begin(), s.end(), [](float f) { return f > 1; });
    reduces = std::any_of(s.begin(), s.end(), [](float f) { return f < 1; });
  }
  if (mode == "nearest" && enlarges && reduces) {
    unsupported(n, "it enlarges one axis and reduces another, rounding in different ways");
  }
  n.set("nearest_mode", std::string(reduces ? "ceil" : "floor"));
}

void upsample_10(ProtoNode& n, GraphBuilder& b) {
  resize_11(n, b);
  n.opset = 11;  // past the row of Resize
}

/// Exporters pass empty tensors for scales and sizes that are not given, and regions that only one
/// mode reads.
void resize_inputs(ProtoNode& n, GraphBuilder& b) {
  const bool crops =
      n.get_or<std::string>("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize";
  if (n.has_input(1) && !crops) n.set_input(1, "");
  for (size_t i = 1; i < n.inputs.size(); ++i) {
    const Tensor* t = b.constant_of(n.inputs[i]);
    if (t != nullptr && t->elements() == 0) n.set_input(i, "");
  }
}

// --- normalization -------------------------------------------------------------------------------

void batch_norm_9(ProtoNode& n, GraphBuilder&) {
  if (n.get_or<int64_t>("spatial", 1) == 0) unsupported(n, "'spatial' is 0");
  n.erase("spatial");
}

void batch_norm_14(ProtoNode& n, GraphBuilder& b) {
  drop_outputs(n, b, 1, "a statistic of training");
}

/// Scale and bias were one value for each group, now for each channel.
void group_norm_21(ProtoNode& n, GraphBuilder& b) {
  const SymbolicShape* shape = b.shape_of(n.input(0));
  const int64_t groups = n.get_or<int64_t>("num_groups", 0);
  if (shape == nullptr || shape->size() < 2 || !(*shape)[1].known() || groups <= 0 ||
      (*shape)[1].value % groups != 0) {
    unsupported(n, "its number of channels is not known");
  }
  const int64_t channels = (*shape)[1].value;
  const std::string wide =
      b.constant(result_name(n) + "_per_group", Tensor::vector(Ints{groups, channels / groups}));
  const std::string one = b.constant(result_name(n) + "_axis", Tensor::vector(Ints{1}));
  const std::string flat = b.constant(result_name(n) + "_channels", Tensor::vector(Ints{channels}));
  for (size_t i = 1; i <= 2 && i < n.inputs.size(); ++i) {
    const std::string& from = n.inputs[i];
    const std::string column = b.emit_value(from + "_column", "Unsqueeze", {from, one});
    const std::string spread = b.emit_value(from + "_spread", "Expand", {column, wide});
    n.inputs[i] = b.emit_value(from + "_channels", "Reshape", {spread, flat});
  }
}

// --- softmax -------------------------------------------------------------------------------------

/// Before opset 13 everything from the axis on was one axis.
void softmax_13(ProtoNode& n, GraphBuilder& b) {
  const int64_t axis = n.get_or<int64_t>("axis", 1);
  n.set("axis", int64_t{-1});
  const SymbolicShape* shape = b.shape_of(n.input(0));
  if (shape != nullptr) {
    const auto rank = static_cast<int64_t>(shape->size());
    if (axis == -1 || axis == rank - 1) return;
    if (axis < -rank || axis > rank) unsupported(n, fmt::format("axis {} of rank {}", axis, rank));
    // All axes behind it are 1: the same thing on that axis alone.
    const int64_t first = axis < 0 ? axis + rank : axis;
    const bool alone = first < rank && std::all_of(shape->begin() + first + 1, shape->end(),
                                                   [](const Dim& d) { return d.value == 1; });
    if (alone) {
      n.set("axis", first);
      return;
    }
  } else if (axis == -1) {
    return;
  }
  const std::string y = result_name(n);
  const std::string x = n.input(0);
  ProtoNode back;
  back.op = "Reshape";
  back.outputs = {y};
  back.inputs = {b.fresh_name(y + "_flat"), b.emit_value(y + "_shape", "Shape", {x})};
  n.inputs = {b.emit_value(y + "_flat_input", "Flatten", {x}, {{"axis", axis}})};
  n.outputs = {back.inputs[0]};
  b.emit_after(std::move(back));
}

// --- others --------------------------------------------------------------------------------------

void scan_9(ProtoNode& n, GraphBuilder&) {
  unsupported(n, "Scan of opset 8, which runs over batches");
}

void scatter_11(ProtoNode& n, GraphBuilder&) {
  n.op = "ScatterElements";
}

void roi_align_16(ProtoNode& n, GraphBuilder&) {
  n.set("coordinate_transformation_mode", std::string("output_half_pixel"));
}

void grid_sample_20(ProtoNode& n, GraphBuilder&) {
  const std::string mode = n.get_or<std::string>("mode", "bilinear");
  n.set("mode", mode == "bilinear"  ? std::string("linear")
                : mode == "bicubic" ? std::string("cubic")
                                    : mode);
}

void scalar_grid(ProtoNode& n, GraphBuilder& b) {
  if (n.get_or<int64_t>("block_size", 0) != 0) return;
  for (size_t i = 1; i < n.inputs.size(); ++i) n.inputs[i] = as_scalar(n.inputs[i], b);
}

constexpr int kAlways = static_cast<int>(kNewestOpset) + 1;

constexpr std::array kRows = {
    UpgradeRow{"BatchNormalization", 9, batch_norm_9},
    UpgradeRow{"Scan", 9, scan_9},
    UpgradeRow{"Upsample", 9, upsample_9},
    UpgradeRow{"Slice", 10, slice_10},
    UpgradeRow{"TopK", 10, top_k_10},
    UpgradeRow{"Upsample", 10, upsample_10},
    UpgradeRow{"Clip", 11, clip_11},
    UpgradeRow{"Pad", 11, pad_11},
    UpgradeRow{"Resize", 11, resize_11},
    UpgradeRow{"Scatter", 11, scatter_11},
    UpgradeRow{"Dropout", 12, dropout_12},
    UpgradeRow{"Hardmax", 13, softmax_13},
    UpgradeRow{"LogSoftmax", 13, softmax_13},
    UpgradeRow{"ReduceSum", 13, axes_to_input},
    UpgradeRow{"Softmax", 13, softmax_13},
    UpgradeRow{"Split", 13, split_13},
    UpgradeRow{"Squeeze", 13, axes_to_input},
    UpgradeRow{"Unsqueeze", 13, axes_to_input},
    UpgradeRow{"BatchNormalization", 14, batch_norm_14},
    UpgradeRow{"RoiAlign", 16, roi_align_16},
    UpgradeRow{"ReduceL1", 18, axes_to_input},
    UpgradeRow{"ReduceL2", 18, axes_to_input},
    UpgradeRow{"ReduceLogSum", 18, axes_to_input},
    UpgradeRow{"ReduceLogSumExp", 18, axes_to_input},
    UpgradeRow{"ReduceMax", 18, axes_to_input},
    UpgradeRow{"ReduceMean", 18, axes_to_input},
    UpgradeRow{"ReduceMin", 18, axes_to_input},
    UpgradeRow{"ReduceProd", 18, axes_to_input},
    UpgradeRow{"ReduceSumSquare", 18, axes_to_input},
    UpgradeRow{"Split", 18, split_18},
    UpgradeRow{"GridSample", 20, grid_sample_20},
    UpgradeRow{"GroupNormalization", 21, group_norm_21},
    UpgradeRow{"DequantizeLinear", kAlways, scalar_grid},
    UpgradeRow{"QuantizeLinear", kAlways, scalar_grid},
    UpgradeRow{"Resize", kAlways, resize_inputs},
};

constexpr bool rows_are_in_order() {
  for (size_t i = 1; i < kRows.size(); ++i) {
    if (kRows[i - 1].below > kRows[i].below) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

}  // namespace

std::span<const UpgradeRow> upgrade_rows() {
  return kRows;
}

void upgrade_node(ProtoNode& node, GraphBuilder& builder) {
  for (const UpgradeRow& row : kRows) {
    if (!node.domain.empty()) return;
    if (node.opset < row.below && node.op == row.op) row.edit(node, builder);
  }
}

}  // namespace narrow::onnx
