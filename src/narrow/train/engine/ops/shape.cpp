// SPDX-License-Identifier: Apache-2.0
// Rules of what moves values and computes with shapes.
#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/ops/rule_util.h"

namespace narrow::train {
namespace {

Forward make_reshape(const Graph&, const Node& node) {
  const bool zero_is_zero = node.int_or("allowzero", 0) != 0;
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    std::vector<int64_t> dims = ints_of(in[1]);
    for (size_t i = 0; i < dims.size(); ++i) {
      if (dims[i] == 0 && !zero_is_zero) dims[i] = in[0].size(static_cast<int64_t>(i));
    }
    return {in[0].reshape(dims)};
  };
}

Forward make_flatten(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", 1);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const int64_t split = axis < 0 ? axis + in[0].dim() : axis;
    int64_t rows = 1;
    for (int64_t a = 0; a < split; ++a) rows *= in[0].size(a);
    return {in[0].reshape({rows, rows == 0 ? 0 : in[0].numel() / rows})};
  };
}

Forward make_transpose(const Graph&, const Node& node) {
  const std::vector<int64_t> perm = node.ints_or("perm", {});
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    std::vector<int64_t> order = perm;
    for (int64_t a = in[0].dim() - 1; perm.empty() && a >= 0; --a) order.push_back(a);
    return {in[0].permute(order)};
  };
}

Forward make_concat(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", 0);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::cat(together(in), axis)};
  };
}

Forward make_split(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", 0);
  const auto parts = static_cast<int64_t>(node.outputs.size());
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    if (given(in, 1)) return torch::split_with_sizes(in[0], ints_of(in[1]), axis);
    return torch::split(in[0], (in[0].size(axis) + parts - 1) / parts, axis);
  };
}

Forward make_squeeze(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    if (!given(in, 1)) return {in[0].squeeze()};
    std::vector<int64_t> axes = ints_of(in[1]);
    for (int64_t& a : axes) a = a < 0 ? a + in[0].dim() : a;
    std::sort(axes.rbegin(), axes.rend());
    torch::Tensor y = in[0];
    for (const int64_t a : axes) y = y.squeeze(a);
    return {y};
  };
}

Forward make_unsqueeze(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    std::vector<int64_t> axes = ints_of(in[1]);
    const int64_t rank = in[0].dim() + static_cast<int64_t>(axes.size());
    for (int64_t& a : axes) a = a < 0 ? a + rank : a;
    std::sort(axes.begin(), axes.end());
    torch::Tensor y = in[0];
    for (const int64_t a : axes) y = y.unsqueeze(a);
    return {y};
  };
}

Forward make_slice(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    const std::vector<int64_t> starts = ints_of(in[1]);
    const std::vector<int64_t> ends = ints_of(in[2]);
    torch::Tensor y = in[0];
    for (size_t i = 0; i < starts.size(); ++i) {
      const int64_t axis = given(in, 3) ? ints_of(in[3])[i] : static_cast<int64_t>(i);
      const int64_t step = given(in, 4) ? ints_of(in[4])[i] : 1;
      if (step < 0) throw Error(ErrorCode::unsupported, "training slices forward only");
      y = y.slice(axis, starts[i], ends[i], step);
    }
    return {y};
  };
}

Forward make_gather(const Graph&, const Node& node) {
  const int64_t axis = node.int_or("axis", 0);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    torch::Tensor index = beside(in[1], in[0]).to(torch::kInt64);
    const int64_t extent = in[0].size(axis);
    index = torch::where(index < 0, index + extent, index);
    if (axis == 0 && in[0].dim() == 2) return {torch::embedding(in[0], index)};
    const int64_t at = axis < 0 ? axis + in[0].dim() : axis;
    const torch::Tensor rows = in[0].index_select(at, index.reshape({-1}));
    std::vector<int64_t> dims(in[0].sizes().begin(), in[0].sizes().begin() + at);
    dims.insert(dims.end(), index.sizes().begin(), index.sizes().end());
    dims.insert(dims.end(), in[0].sizes().begin() + at + 1, in[0].sizes().end());
    return {rows.reshape(dims)};
  };
}

Forward make_shape(const Graph&, const Node& node) {
  const int64_t start = node.int_or("start", 0);
  const int64_t end = node.int_or("end", 1 << 20);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const torch::Tensor all = torch::tensor(in[0].sizes(), torch::kInt64);
    return {all.slice(0, start, end)};
  };
}

Forward make_range(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::arange(in[0].item(), in[1].item(), in[2].item(), in[0].options())};
  };
}

Forward make_expand(const Graph&, const Node&) {
  return [](const Tensors& in, const RunMode&) -> Tensors {
    const torch::Tensor like = torch::empty(ints_of(in[1]), in[0].options());
    return {torch::broadcast_tensors({in[0], like})[0]};
  };
}

Forward make_cast(const Graph&, const Node& node) {
  // ONNX's numbers of element types; 16-bit floats are computed in float32.
  const int64_t to = node.int_or("to", 1);
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    switch (to) {
      case 6:
        return {in[0].to(torch::kInt32)};
      case 7:
        return {in[0].to(torch::kInt64)};
      case 9:
        return {in[0].to(torch::kBool)};
      default:
        return {in[0].to(torch::kFloat32)};
    }
  };
}

Forward make_pad(const Graph&, const Node& node) {
  const std::string mode = node.string_or("mode", "constant");
  if (mode != "constant") throw Error(ErrorCode::unsupported, "training pads with constants only");
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    const std::vector<int64_t> pads = ints_of(in[1]);
    const auto rank = static_cast<size_t>(in[0].dim());
    std::vector<int64_t> begin(rank);
    std::vector<int64_t> end(rank);
    const size_t count = pads.size() / 2;
    for (size_t i = 0; i < count; ++i) {
      int64_t axis = given(in, 3) ? ints_of(in[3])[i] : static_cast<int64_t>(i);
      if (axis < 0) axis += in[0].dim();
      begin[static_cast<size_t>(axis)] = pads[i];
      end[static_cast<size_t>(axis)] = pads[count + i];
    }
    const double value = given(in, 2) ? in[2].item<double>() : 0;
    return {torch::constant_pad_nd(in[0], pad_pairs(begin, end), value)};
  };
}

Forward make_resize(const Graph&, const Node& node) {
  if (node.string_or("mode", "nearest") != "nearest" ||
      node.string_or("coordinate_transformation_mode", "half_pixel") == "align_corners") {
    throw Error(ErrorCode::unsupported, "training resizes by whole factors, mode nearest");
  }
  return [name = node.name](const Tensors& in, const RunMode&) -> Tensors {
    torch::Tensor y = in[0];
    for (int64_t axis = 0; axis < in[0].dim(); ++axis) {
      double factor = 1;
      if (given(in, 3)) {
        factor = static_cast<double>(ints_of(in[3])[static_cast<size_t>(axis)]) /
                 static_cast<double>(in[0].size(axis));
      } else if (given(in, 2)) {
        factor = in[2][axis].item<double>();
      }
      if (factor < 1 || factor != std::floor(factor)) {
        throw Error(ErrorCode::unsupported, "node '" + name + "' resizes by no whole factor");
      }
      if (factor > 1) y = y.repeat_interleave(static_cast<int64_t>(factor), axis);
    }
    return {y};
  };
}

Forward make_depth_to_space(const Graph&, const Node& node) {
  const int64_t block = node.int_or("blocksize", 1);
  if (node.string_or("mode", "DCR") != "CRD") {
    throw Error(ErrorCode::unsupported, "training has DepthToSpace of mode CRD only");
  }
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {torch::pixel_shuffle(in[0], block)};
  };
}

Forward make_constant_of_shape(const Graph&, const Node& node) {
  const Tensor* value = node.tensor("value");
  const torch::Tensor filler = value != nullptr ? to_torch(*value) : torch::zeros({1});
  return [=](const Tensors& in, const RunMode&) -> Tensors {
    return {filler.reshape({}).expand(ints_of(in[0])).contiguous()};
  };
}

const OpRule kRules[] = {
    {"Reshape", make_reshape},
    {"Flatten", make_flatten},
    {"Transpose", make_transpose},
    {"Concat", make_concat},
    {"Split", make_split},
    {"Squeeze", make_squeeze},
    {"Unsqueeze", make_unsqueeze},
    {"Slice", make_slice},
    {"Gather", make_gather},
    {"Shape", make_shape},
    {"Range", make_range},
    {"Expand", make_expand},
    {"Cast", make_cast},
    {"Pad", make_pad},
    {"Resize", make_resize},
    {"DepthToSpace", make_depth_to_space},
    {"ConstantOfShape", make_constant_of_shape},
};

}  // namespace

std::span<const OpRule> shape_rules() {
  return kRules;
}

}  // namespace narrow::train
