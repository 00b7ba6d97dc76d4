// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/conv_shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string>

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr int64_t kMaxAttribute = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxExtent = int64_t{1} << 40;

enum class AutoPad { none, valid, same_upper, same_lower };

[[noreturn]] void fail(const Node& node, const std::string& message) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): {}", node.name, node.op, message));
}

AutoPad auto_pad_of(const Node& node) {
  const std::string mode = node.string_or("auto_pad", "NOTSET");
  if (mode == "NOTSET" || mode.empty()) return AutoPad::none;
  if (mode == "VALID") return AutoPad::valid;
  if (mode == "SAME_UPPER") return AutoPad::same_upper;
  if (mode == "SAME_LOWER") return AutoPad::same_lower;
  fail(node, fmt::format("auto_pad '{}' is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER", mode));
}

/// The attribute, or `fallback` everywhere, each entry in [low, 2^31 - 1].
Dims bounded_ints(const Node& node, const char* name, size_t count, int64_t fallback, int64_t low) {
  Dims values = node.ints_or(name, {});
  if (values.empty()) return Dims(count, fallback);
  if (values.size() != count) {
    fail(node, fmt::format("{} has {} entries, expected {}", name, values.size(), count));
  }
  for (const int64_t v : values) {
    if (v < low || v > kMaxAttribute) {
      fail(node, fmt::format("{} {} must lie between {} and {}", name, to_string(values), low,
                             kMaxAttribute));
    }
  }
  return values;
}

void check_extents(const Node& node, std::span<const int64_t> dims) {
  for (const int64_t d : dims) {
    if (d > kMaxExtent) fail(node, fmt::format("shape {} is too large", to_string(dims)));
  }
}

/// strides, dilations and declared pads; kernel and output are left to the caller.
ConvGeometry read_attributes(const Node& node, size_t spatial) {
  ConvGeometry g;
  g.strides = bounded_ints(node, "strides", spatial, 1, 1);
  g.dilations = bounded_ints(node, "dilations", spatial, 1, 1);
  g.pads_begin.assign(spatial, 0);
  g.pads_end.assign(spatial, 0);
  g.output.assign(spatial, -1);
  if (auto_pad_of(node) == AutoPad::none) {
    const Dims pads = bounded_ints(node, "pads", 2 * spatial, 0, 0);
    const auto middle = pads.begin() + static_cast<std::ptrdiff_t>(spatial);
    g.pads_begin.assign(pads.begin(), middle);
    g.pads_end.assign(middle, pads.end());
  }
  return g;
}

void split_padding(int64_t total, bool more_at_end, int64_t& begin, int64_t& end) {
  const int64_t half = total / 2;
  begin = more_at_end ? half : total - half;
  end = total - begin;
}

/// Output extent and auto_pad of a window that moves over the input.
void place_windows(const Node& node, ConvGeometry& g, std::span<const int64_t> extents,
                   bool ceil_mode) {
  const AutoPad mode = auto_pad_of(node);
  for (size_t i = 0; i < extents.size(); ++i) {
    const int64_t in = extents[i];
    if (in < 0 || g.kernel[i] < 0) continue;
    const int64_t stride = g.strides[i];
    const int64_t reach = g.reach(i);
    if (mode == AutoPad::same_upper || mode == AutoPad::same_lower) {
      g.output[i] = in / stride + (in % stride != 0 ? 1 : 0);
      const int64_t total =
          in == 0 ? 0 : std::max<int64_t>((g.output[i] - 1) * stride + reach - in, 0);
      split_padding(total, mode == AutoPad::same_upper, g.pads_begin[i], g.pads_end[i]);
      continue;
    }
    const int64_t room = in + g.pads_begin[i] + g.pads_end[i] - reach;
    if (room < 0) {
      fail(node, fmt::format("the kernel reaches {} along spatial axis {}, more than the padded "
                             "input of {}",
                             reach, i, in + g.pads_begin[i] + g.pads_end[i]));
    }
    g.output[i] = room / stride + 1;
    if (ceil_mode && room % stride != 0) {
      // One more window, unless it would start in the padding behind the input.
      if (g.output[i] * stride < in + g.pads_begin[i]) ++g.output[i];
    }
  }
}

/// Kernel extents from the weight, checked against the attribute kernel_shape.
Dims kernel_of(const Node& node, std::span<const int64_t> weight_spatial) {
  const Dims declared = bounded_ints(node, "kernel_shape", weight_spatial.size(), -1, 1);
  Dims kernel(weight_spatial.begin(), weight_spatial.end());
  for (size_t i = 0; i < kernel.size(); ++i) {
    if (kernel[i] < 0) kernel[i] = declared[i];
    if (declared[i] >= 0 && kernel[i] != declared[i]) {
      fail(node, fmt::format("kernel_shape {} differs from the weight's {}", to_string(declared),
                             to_string(weight_spatial)));
    }
    if (kernel[i] == 0 || kernel[i] > kMaxAttribute) {
      fail(node, fmt::format("kernel {} is out of range", to_string(kernel)));
    }
  }
  return kernel;
}

int64_t group_of(const Node& node) {
  const int64_t group = node.int_or("group", 1);
  if (group < 1 || group > kMaxAttribute) {
    fail(node, fmt::format("group {} must lie between 1 and {}", group, kMaxAttribute));
  }
  return group;
}

void check_ranks(const Node& node, std::span<const int64_t> x, std::span<const int64_t> w) {
  if (x.size() < 3) {
    fail(node, fmt::format("input {} has no spatial axis", to_string(x)));
  }
  if (w.size() != x.size()) {
    fail(node, fmt::format("input {} and weight {} differ in rank", to_string(x), to_string(w)));
  }
  check_extents(node, x);
  check_extents(node, w);
}

}  // namespace

std::vector<int64_t> ConvGeometry::pads() const {
  std::vector<int64_t> all = pads_begin;
  all.insert(all.end(), pads_end.begin(), pads_end.end());
  return all;
}

ConvGeometry conv_geometry(const Node& node, std::span<const int64_t> x,
                           std::span<const int64_t> w) {
  check_ranks(node, x, w);
  ConvGeometry g = read_attributes(node, x.size() - 2);
  g.group = group_of(node);
  g.kernel = kernel_of(node, w.subspan(2));
  if (x[1] >= 0 && w[1] >= 0 && x[1] != w[1] * g.group) {
    fail(node, fmt::format("input {} has {} channels, weight {} with group {} wants {}",
                           to_string(x), x[1], to_string(w), g.group, w[1] * g.group));
  }
  if (w[0] >= 0 && w[0] % g.group != 0) {
    fail(node, fmt::format("group {} does not divide the {} output channels", g.group, w[0]));
  }
  place_windows(node, g, x.subspan(2), false);
  return g;
}

ConvGeometry pool_geometry(const Node& node, std::span<const int64_t> x) {
  if (x.size() < 3) fail(node, fmt::format("input {} has no spatial axis", to_string(x)));
  check_extents(node, x);
  ConvGeometry g = read_attributes(node, x.size() - 2);
  if (!node.has("kernel_shape")) fail(node, "attribute kernel_shape is missing");
  g.kernel = bounded_ints(node, "kernel_shape", x.size() - 2, 1, 1);
  place_windows(node, g, x.subspan(2), node.int_or("ceil_mode", 0) != 0);
  return g;
}

ConvGeometry conv_transpose_geometry(const Node& node, std::span<const int64_t> x,
                                     std::span<const int64_t> w) {
  check_ranks(node, x, w);
  const size_t spatial = x.size() - 2;
  ConvGeometry g = read_attributes(node, spatial);
  g.group = group_of(node);
  g.kernel = kernel_of(node, w.subspan(2));
  if (x[1] >= 0 && w[0] >= 0 && x[1] != w[0]) {
    fail(node, fmt::format("input {} has {} channels, weight {} wants {}", to_string(x), x[1],
                           to_string(w), w[0]));
  }
  if (w[0] >= 0 && w[0] % g.group != 0) {
    fail(node, fmt::format("group {} does not divide the {} input channels", g.group, w[0]));
  }
  const AutoPad mode = auto_pad_of(node);
  const bool same = mode == AutoPad::same_upper || mode == AutoPad::same_lower;
  const Dims extra = bounded_ints(node, "output_padding", spatial, 0, 0);
  const Dims wanted = bounded_ints(node, "output_shape", spatial, -1, 1);
  for (size_t i = 0; i < spatial; ++i) {
    const int64_t in = x[i + 2];
    if (in < 0 || g.kernel[i] < 0) {
      g.output[i] = wanted[i];
      continue;
    }
    // A whole, unpadded output; output_shape and SAME_* say how much of it to cut.
    const int64_t whole = std::max<int64_t>(in - 1, 0) * g.strides[i] + g.reach(i) + extra[i];
    if (wanted[i] >= 0 || same) {
      g.output[i] = wanted[i] >= 0 ? wanted[i] : in * g.strides[i];
      const int64_t total = std::max<int64_t>(whole - g.output[i], 0);
      split_padding(total, mode == AutoPad::same_upper, g.pads_begin[i], g.pads_end[i]);
    } else {
      g.output[i] = whole - g.pads_begin[i] - g.pads_end[i];
    }
    if (g.output[i] < 0) {
      fail(node, fmt::format("pads cut more than the whole output along spatial axis {}", i));
    }
  }
  return g;
}

}  // namespace narrow
