// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/resize_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>

#include "narrow/core/error.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

template <class Enum, size_t N>
Enum parse(const Node& node, std::string_view key, const std::string& fallback,
           const std::array<std::string_view, N>& names) {
  const std::string name = node.string_or(key, fallback);
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is \"{}\"", key, name));
  }
  return static_cast<Enum>(found - names.begin());
}

constexpr std::array<std::string_view, 3> kModes{"nearest", "linear", "cubic"};
constexpr std::array<std::string_view, 6> kCoordinates{"half_pixel",         "half_pixel_symmetric",
                                                       "pytorch_half_pixel", "align_corners",
                                                       "asymmetric",         "tf_crop_and_resize"};
constexpr std::array<std::string_view, 4> kNearest{"round_prefer_floor", "round_prefer_ceil",
                                                   "floor", "ceil"};

/// The input coordinate of an output position, in float as onnxruntime computes it: ties in
/// "nearest" hang on the rounding.
float coordinate(Coordinates how, const AxisResize& a, int64_t position) {
  const auto x = static_cast<float>(position);
  const auto in = static_cast<float>(a.in);
  const auto out = static_cast<float>(a.out);
  switch (how) {
    case Coordinates::half_pixel:
      return (x + 0.5F) / a.scale - 0.5F;
    case Coordinates::half_pixel_symmetric: {
      const float adjustment = out / (a.scale * in);
      const float offset = in / 2 * (1 - adjustment);
      return offset + (x + 0.5F) / a.scale - 0.5F;
    }
    case Coordinates::pytorch_half_pixel:
      return a.out > 1 ? (x + 0.5F) / a.scale - 0.5F : 0.0F;
    case Coordinates::align_corners:
      return a.out == 1 ? 0.0F : x * (in - 1) / (out - 1);
    case Coordinates::asymmetric:
      return x / a.scale;
    case Coordinates::tf_crop_and_resize:
      return a.out > 1 ? a.start * (in - 1) + x * (a.end - a.start) * (in - 1) / (out - 1)
                       : 0.5F * (a.start + a.end) * (in - 1);
  }
  return x;
}

int64_t nearest_of(Nearest how, float x) {
  switch (how) {
    case Nearest::round_prefer_floor:
      return static_cast<int64_t>(x == std::floor(x) + 0.5F ? std::floor(x) : std::round(x));
    case Nearest::round_prefer_ceil:
      return static_cast<int64_t>(std::floor(x + 0.5F));
    case Nearest::floor:
      return static_cast<int64_t>(std::floor(x));
    case Nearest::ceil:
      return static_cast<int64_t>(std::ceil(x));
  }
  return 0;
}

float triangle(float d) {
  return std::max(0.0F, 1 - std::abs(d));
}

/// Keys' cubic kernel with parameter a.
float cubic(float d, float a) {
  d = std::abs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0.0F;
}

/// Weights of the inputs around x; antialiasing stretches the kernel by 1 / scale when shrinking.
void add_taps(const ResizeForm& form, const AxisResize& a, float x, AxisMap& map) {
  const float squeeze = form.antialias ? std::min(a.scale, 1.0F) : 1.0F;
  const float radius = (form.mode == ResizeMode::linear ? 1.0F : 2.0F) / squeeze;
  const auto first = static_cast<int64_t>(std::floor(x - radius)) + 1;
  const size_t begin = map.weight.size();
  float sum = 0;
  for (int64_t t = 0; t < map.taps; ++t) {
    const int64_t i = first + t;
    const float d = (static_cast<float>(i) - x) * squeeze;
    float w = form.mode == ResizeMode::linear ? triangle(d) : cubic(d, form.cubic_a);
    if (form.exclude_outside && (i < 0 || i >= a.in)) w = 0;
    map.index.push_back(std::clamp<int64_t>(i, 0, a.in - 1));
    map.weight.push_back(w);
    sum += w;
  }
  if (sum == 0 || (!form.antialias && !form.exclude_outside)) return;
  for (size_t i = begin; i < map.weight.size(); ++i) map.weight[i] /= sum;
}

int64_t count_taps(const ResizeForm& form, const AxisResize& a) {
  if (form.mode == ResizeMode::nearest) return 1;
  const float base = form.mode == ResizeMode::linear ? 1.0F : 2.0F;
  const float squeeze = form.antialias ? std::min(a.scale, 1.0F) : 1.0F;
  return static_cast<int64_t>(std::ceil(2 * base / squeeze));
}

/// An extent computed from data; throws where it is none.
int64_t checked_extent(float x) {
  constexpr float kMost = 1e12F;
  if (!(x >= 0 && x < kMost)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("an extent of {}", x));
  }
  return static_cast<int64_t>(std::floor(x));
}

void apply_sizes(const ResizeForm& form, const std::vector<size_t>& axes, const Dims& sizes,
                 std::vector<AxisResize>& all) {
  float scale = 0;
  for (size_t k = 0; k < axes.size(); ++k) {
    AxisResize& a = all[axes[k]];
    a.out = sizes[k];
    a.scale = static_cast<float>(a.out) / static_cast<float>(a.in);
    const bool first = k == 0;
    scale = form.policy == "not_larger" ? (first ? a.scale : std::min(scale, a.scale))
                                        : std::max(scale, a.scale);
  }
  if (form.policy == "stretch") return;
  for (const size_t axis : axes) {
    all[axis].scale = scale;
    // Half up, as ONNX says for this policy.
    all[axis].out = checked_extent(scale * static_cast<float>(all[axis].in) + 0.5F);
  }
}

}  // namespace

ResizeForm::ResizeForm(const Node& node)
    : mode(parse<ResizeMode>(node, "mode", "nearest", kModes)),
      coordinates(
          parse<Coordinates>(node, "coordinate_transformation_mode", "half_pixel", kCoordinates)),
      nearest(parse<Nearest>(node, "nearest_mode", "round_prefer_floor", kNearest)),
      cubic_a(node.float_or("cubic_coeff_a", -0.75F)),
      exclude_outside(node.int_or("exclude_outside", 0) != 0),
      antialias(node.int_or("antialias", 0) != 0),
      extrapolation(node.float_or("extrapolation_value", 0.0F)),
      policy(node.string_or("keep_aspect_ratio_policy", "stretch")),
      axes(node.ints_or("axes", {})) {}

std::vector<AxisResize> resize_axes(const ResizeForm& form, std::span<const TensorView> inputs) {
  const Dims& x = inputs[0].dims;
  std::vector<AxisResize> all(x.size());
  for (size_t i = 0; i < x.size(); ++i) all[i].in = all[i].out = x[i];
  std::vector<size_t> axes;
  for (const int64_t a : form.axes)
    axes.push_back(static_cast<size_t>(normalize_axis(a, x.size())));
  if (axes.empty()) {
    axes.resize(x.size());
    std::iota(axes.begin(), axes.end(), size_t{0});
  }
  const auto given = [&](size_t i) { return present(inputs, i) && inputs[i].elements() > 0; };
  const auto require_count = [&](size_t i, size_t count) {
    if (inputs[i].elements() == static_cast<int64_t>(count)) return;
    throw Error(ErrorCode::invalid_argument, fmt::format("input {} has {} numbers for {} axes", i,
                                                         inputs[i].elements(), axes.size()));
  };
  if (given(3)) {
    require_count(3, axes.size());
    apply_sizes(form, axes, read_ints(inputs[3]), all);
  } else {
    if (!given(2)) throw Error(ErrorCode::invalid_argument, "neither scales nor sizes are given");
    require_count(2, axes.size());
    for (size_t k = 0; k < axes.size(); ++k) {
      AxisResize& a = all[axes[k]];
      a.scale = inputs[2].as<float>()[k];
      a.out = checked_extent(static_cast<float>(a.in) * a.scale);
    }
  }
  if (form.coordinates == Coordinates::tf_crop_and_resize && given(1)) {
    require_count(1, 2 * axes.size());
    for (size_t k = 0; k < axes.size(); ++k) {
      all[axes[k]].start = inputs[1].as<float>()[k];
      all[axes[k]].end = inputs[1].as<float>()[axes.size() + k];
    }
  }
  return all;
}

bool AxisMap::is_identity() const {
  if (in != out || taps != 1 || !outside.empty()) return false;
  for (int64_t o = 0; o < out; ++o) {
    if (index[static_cast<size_t>(o)] != o) return false;
  }
  return true;
}

AxisMap make_axis_map(const ResizeForm& form, const AxisResize& a) {
  AxisMap map;
  map.in = a.in;
  map.out = a.out;
  const bool untouched = a.in == a.out && a.scale == 1.0F && a.start == 0 && a.end == 1;
  map.taps = untouched ? 1 : count_taps(form, a);
  const bool crop = form.coordinates == Coordinates::tf_crop_and_resize;
  for (int64_t o = 0; o < a.out; ++o) {
    if (untouched) {
      map.index.push_back(o);
      map.weight.push_back(1.0F);
      continue;
    }
    float x = coordinate(form.coordinates, a, o);
    const auto last = static_cast<float>(a.in - 1);
    if (crop && !(x >= 0 && x <= last)) map.outside.push_back(o);
    // Far outside only the border is seen; this also keeps conversions to integers defined.
    x = x > -1e6F ? std::min(x, last + 1e6F) : -1e6F;
    if (form.mode == ResizeMode::nearest) {
      map.index.push_back(std::clamp<int64_t>(nearest_of(form.nearest, x), 0, a.in - 1));
      map.weight.push_back(1.0F);
    } else {
      add_taps(form, a, x, map);
    }
  }
  return map;
}

}  // namespace narrow::ops
