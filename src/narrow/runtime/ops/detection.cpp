// SPDX-License-Identifier: Apache-2.0
// Heads of detectors: NonMaxSuppression, RoiAlign; and GridSample.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

// --- NonMaxSuppression --------------------------------------------------------------------------

struct Box {
  float y0, x0, y1, x1;
  float area() const { return (y1 - y0) * (x1 - x0); }
};

float intersection_over_union(const Box& a, const Box& b) {
  const float height = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  const float width = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  if (height <= 0 || width <= 0) return 0;
  const float common = height * width;
  const float all = a.area() + b.area() - common;
  return all <= 0 ? 0 : common / all;
}

/// (boxes [B, N, 4], scores [B, C, N], max per class?, iou threshold?, score threshold?) ->
/// [selected, 3]: batch, class, box. Greedy by score; of equal scores the lower box first.
class NonMaxSuppressionStep final : public Step {
 public:
  NonMaxSuppressionStep(const Graph&, const Node& node)
      : centers_(node.int_or("center_point_box", 0) != 0) {}
  bool dynamic_outputs() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& boxes = context.inputs[0];
    const TensorView& scores = context.inputs[1];
    const auto& in = context.inputs;
    const int64_t limit = present(in, 2) ? read_int(in[2]) : 0;
    const float overlap = present(in, 3) ? *in[3].as<float>() : 0;
    const int64_t count = boxes.dims[1];
    const int64_t classes = scores.dims[1];
    std::vector<int64_t> selected;
    std::vector<Box> corners(static_cast<size_t>(count));
    for (int64_t b = 0; b < boxes.dims[0] && limit > 0; ++b) {
      for (int64_t i = 0; i < count; ++i) {
        corners[static_cast<size_t>(i)] = corners_of(boxes.as<float>() + (b * count + i) * 4);
      }
      for (int64_t c = 0; c < classes; ++c) {
        const float* score = scores.as<float>() + (b * classes + c) * count;
        for (const int64_t box :
             select(corners, candidates(context, score, count), limit, overlap)) {
          selected.insert(selected.end(), {b, c, box});
        }
      }
    }
    const auto rows = static_cast<int64_t>(selected.size()) / 3;
    const TensorView& y = context.allocate_output(0, {rows, 3});
    std::copy(selected.begin(), selected.end(), y.as<int64_t>());
  }

 private:
  Box corners_of(const float* p) const {
    if (centers_) {  // x, y of the centre, width, height
      return {p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2};
    }
    return {std::min(p[0], p[2]), std::min(p[1], p[3]), std::max(p[0], p[2]), std::max(p[1], p[3])};
  }

  static std::vector<int64_t> candidates(RunContext& context, const float* score, int64_t count) {
    const bool bounded = present(context.inputs, 4);
    const float least = bounded ? *context.inputs[4].as<float>() : 0;
    std::vector<int64_t> order;
    for (int64_t i = 0; i < count; ++i) {
      if (score[i] == score[i] && (!bounded || score[i] > least)) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    return order;
  }

  static std::vector<int64_t> select(const std::vector<Box>& corners,
                                     const std::vector<int64_t>& order, int64_t limit,
                                     float overlap) {
    std::vector<int64_t> kept;
    for (const int64_t i : order) {
      if (static_cast<int64_t>(kept.size()) == limit) break;
      const Box& box = corners[static_cast<size_t>(i)];
      const bool covered = std::any_of(kept.begin(), kept.end(), [&](int64_t k) {
        return intersection_over_union(box, corners[static_cast<size_t>(k)]) > overlap;
      });
      if (!covered) kept.push_back(i);
    }
    return kept;
  }

  bool centers_;
};

// --- RoiAlign -----------------------------------------------------------------------------------

/// Four neighbours of a sample and their weights; all weights 0 outside of the image.
struct Sample {
  int64_t at[4] = {};
  float weight[4] = {};
};

Sample sample_at(float y, float x, int64_t height, int64_t width) {
  Sample s;
  const auto h = static_cast<float>(height);
  const auto w = static_cast<float>(width);
  if (!(y >= -1 && y <= h && x >= -1 && x <= w)) return s;
  y = std::clamp(y, 0.0F, h - 1);
  x = std::clamp(x, 0.0F, w - 1);
  const auto y0 = static_cast<int64_t>(y);
  const auto x0 = static_cast<int64_t>(x);
  const int64_t y1 = std::min(y0 + 1, height - 1);
  const int64_t x1 = std::min(x0 + 1, width - 1);
  const float ly = y - static_cast<float>(y0);
  const float lx = x - static_cast<float>(x0);
  return {{y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1},
          {(1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx}};
}

/// (x [N, C, H, W], rois [R, 4], batch index [R]) -> [R, C, output_height, output_width].
class RoiAlignStep final : public Step {
 public:
  static Refusal refuse(const Node& node) {
    const int64_t ratio = node.int_or("sampling_ratio", 0);
    return ratio <= kMostRatio ? Refusal{} : fmt::format("a sampling_ratio of {}", ratio);
  }
  RoiAlignStep(const Graph&, const Node& node)
      : height_(node.int_or("output_height", 1)),
        width_(node.int_or("output_width", 1)),
        ratio_(node.int_or("sampling_ratio", 0)),
        scale_(node.float_or("spatial_scale", 1.0F)),
        maximum_(node.string_or("mode", "avg") == "max"),
        half_pixel_(node.string_or("coordinate_transformation_mode", "half_pixel") ==
                    "half_pixel") {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& rois = context.inputs[1];
    const int64_t count = rois.dims[0];
    const int64_t channels = x.dims[1];
    const Dims batches = read_ints(context.inputs[2]);
    const TensorView& y = planned_output(context, 0, {count, channels, height_, width_});
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t batch = batches[static_cast<size_t>(r)];
        if (batch < 0 || batch >= x.dims[0]) {
          throw Error(ErrorCode::invalid_argument,
                      fmt::format("region {} is in image {} of {}", r, batch, x.dims[0]));
        }
        align(x, batch, rois.as<float>() + r * 4, y.as<float>() + r * channels * height_ * width_);
      }
    });
  }

 private:
  static constexpr int64_t kMostRatio = 1024;
  static constexpr float kMostSamples = static_cast<float>(kMostRatio);

  /// Samples along one axis of a bin; bounded, as regions come from data.
  int64_t grid(float bin) const {
    if (ratio_ > 0) return ratio_;
    return bin > 0 ? static_cast<int64_t>(std::ceil(std::min(bin, kMostSamples))) : 0;
  }

  void align(const TensorView& x, int64_t batch, const float* roi, float* y) const {
    const float offset = half_pixel_ ? 0.5F : 0.0F;
    const float x0 = roi[0] * scale_ - offset;
    const float y0 = roi[1] * scale_ - offset;
    float w = roi[2] * scale_ - offset - x0;
    float h = roi[3] * scale_ - offset - y0;
    if (!half_pixel_) {
      w = std::max(w, 1.0F);
      h = std::max(h, 1.0F);
    }
    const float bin_h = h / static_cast<float>(height_);
    const float bin_w = w / static_cast<float>(width_);
    const int64_t grid_h = grid(bin_h);
    const int64_t grid_w = grid(bin_w);
    const int64_t channels = x.dims[1];
    const int64_t plane = x.dims[2] * x.dims[3];
    const float* image = x.as<float>() + batch * channels * plane;
    std::vector<Sample> samples;
    for (int64_t ph = 0; ph < height_; ++ph) {
      for (int64_t pw = 0; pw < width_; ++pw) {
        samples.clear();
        for (int64_t i = 0; i < grid_h; ++i) {
          for (int64_t j = 0; j < grid_w; ++j) {
            samples.push_back(sample_at(position(y0, bin_h, ph, i, grid_h),
                                        position(x0, bin_w, pw, j, grid_w), x.dims[2], x.dims[3]));
          }
        }
        for (int64_t c = 0; c < channels; ++c) {
          y[(c * height_ + ph) * width_ + pw] = pool(samples, image + c * plane);
        }
      }
    }
  }

  static float position(float start, float bin, int64_t p, int64_t i, int64_t grid) {
    return start + static_cast<float>(p) * bin +
           (static_cast<float>(i) + 0.5F) * bin / static_cast<float>(grid);
  }

  /// "max" takes the largest weighted neighbour, as the reference of the operator does.
  float pool(const std::vector<Sample>& samples, const float* plane) const {
    float sum = 0;
    float most = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      const Sample& s = samples[i];
      float term[4];
      for (int k = 0; k < 4; ++k) term[k] = s.weight[k] * plane[s.at[k]];
      sum += term[0] + term[1] + term[2] + term[3];
      const float local = *std::max_element(term, term + 4);
      most = i == 0 ? local : std::max(most, local);
    }
    if (maximum_) return most;
    return samples.empty() ? 0.0F : sum / static_cast<float>(samples.size());
  }

  int64_t height_;
  int64_t width_;
  int64_t ratio_;
  float scale_;
  bool maximum_;
  bool half_pixel_;
};

// --- GridSample ---------------------------------------------------------------------------------

enum class Padding { zeros, border, reflection };
enum class Sampling { nearest, linear, cubic };

/// Input positions (-1: zero) and weights along one axis.
struct AxisTaps {
  int count = 0;
  int64_t at[4] = {};
  float weight[4] = {};
};

/// (x [N, C, spatial...], grid [N, out..., axes]) -> [N, C, out...].
class GridSampleStep final : public Step {
 public:
  GridSampleStep(const Graph&, const Node& node)
      : padding_(padding_of(node)),
        sampling_(sampling_of(node)),
        corners_(node.int_or("align_corners", 0) != 0) {}

  static Padding padding_of(const Node& node) {
    const std::string name = node.string_or("padding_mode", "zeros");
    if (name == "border") return Padding::border;
    return name == "reflection" ? Padding::reflection : Padding::zeros;
  }
  static Sampling sampling_of(const Node& node) {
    const std::string name = node.string_or("mode", "linear");
    if (name == "nearest") return Sampling::nearest;
    return name == "cubic" ? Sampling::cubic : Sampling::linear;
  }

  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& grid = context.inputs[1];
    const TensorView& y = context.outputs[0];
    const size_t axes = x.dims.size() - 2;
    const int64_t plane = num_elements(x.dims, 2, x.dims.size());
    const int64_t places = num_elements(y.dims, 2, y.dims.size());
    const int64_t channels = x.dims[1];
    if (plane == 0 || y.elements() == 0) {
      std::fill_n(y.as<float>(), y.elements(), 0.0F);
      return;
    }
    parallel_for(x.dims[0] * places, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        AxisTaps taps[3];
        const float* point = grid.as<float>() + i * static_cast<int64_t>(axes);
        for (size_t a = 0; a < axes; ++a) {  // the grid counts from the last axis
          taps[a] = taps_at(point[axes - 1 - a], x.dims[2 + a]);
        }
        const int64_t n = i / places;
        const float* src = x.as<float>() + n * channels * plane;
        float* dst = y.as<float>() + n * channels * places + i % places;
        for (int64_t c = 0; c < channels; ++c) {
          dst[c * places] = mix({taps, axes}, x.dims, src + c * plane);
        }
      }
    });
  }

 private:
  AxisTaps taps_at(float g, int64_t extent) const {
    const auto n = static_cast<float>(extent);
    float x = corners_ ? (g + 1) / 2 * (n - 1) : ((g + 1) * n - 1) / 2;
    constexpr float kFar = 1e7F;  // also where NaN goes
    x = x > -kFar ? std::min(x, kFar) : -kFar;
    AxisTaps taps;
    if (sampling_ == Sampling::nearest) {
      taps.count = 1;
      taps.at[0] = place(static_cast<int64_t>(std::nearbyint(x)), extent);
      taps.weight[0] = 1;
      return taps;
    }
    const float floor = std::floor(x);
    const float t = x - floor;
    const auto first = static_cast<int64_t>(floor);
    if (sampling_ == Sampling::linear) {
      taps = {2, {place(first, extent), place(first + 1, extent)}, {1 - t, t}};
      return taps;
    }
    taps.count = 4;
    for (int k = 0; k < 4; ++k) {
      taps.at[k] = place(first - 1 + k, extent);
      taps.weight[k] = cubic(static_cast<float>(k - 1) - t);
    }
    return taps;
  }

  /// Keys' kernel with a = -0.75, which ONNX fixes for this operator.
  static float cubic(float d) {
    constexpr float kA = -0.75F;
    d = std::abs(d);
    if (d <= 1) return ((kA + 2) * d - (kA + 3)) * d * d + 1;
    return ((kA * d - 5 * kA) * d + 8 * kA) * d - 4 * kA;
  }

  /// The input position for a tap, -1 for a zero.
  int64_t place(int64_t i, int64_t n) const {
    if (i >= 0 && i < n) return i;
    if (padding_ == Padding::zeros) return -1;
    if (padding_ == Padding::border) return i < 0 ? 0 : n - 1;
    // About the centres of the border pixels, or about their outer edges.
    const int64_t period = corners_ ? std::max<int64_t>(2 * (n - 1), 1) : 2 * n;
    const int64_t last = corners_ ? period : period - 1;
    const int64_t r = ((i % period) + period) % period;
    return r < n ? r : last - r;
  }

  static float mix(std::span<const AxisTaps> taps, const Dims& dims, const float* plane) {
    float sum = 0;
    int index[3] = {};
    while (true) {
      float weight = 1;
      int64_t at = 0;
      bool zero = false;
      for (size_t a = 0; a < taps.size(); ++a) {
        const int64_t position = taps[a].at[index[a]];
        zero = zero || position < 0;
        weight *= taps[a].weight[index[a]];
        at = at * dims[2 + a] + position;
      }
      if (!zero) sum += weight * plane[at];
      size_t a = taps.size();
      while (a > 0 && ++index[a - 1] == taps[a - 1].count) index[--a] = 0;
      if (a == 0) return sum;
    }
  }

  Padding padding_;
  Sampling sampling_;
  bool corners_;
};

Refusal accept_float32(const Graph& graph, const Node& node, const StepOptions&) {
  return require_dtype(graph, node, 0, {DType::float32});
}

Refusal accept_roi_align(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = RoiAlignStep::refuse(node); !why.empty()) return why;
  return accept_float32(graph, node, options);
}
Refusal accept_half_roi_align(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = RoiAlignStep::refuse(node); !why.empty()) return why;
  return accept_half<>(graph, node, options);
}

Refusal refuse_rank(const Graph& graph, const Node& node) {
  const auto& shape = graph.value(node.inputs[0]).shape;
  if (!shape) return "the rank of input 0 is unknown";
  const bool fits = shape->size() >= 3 && shape->size() <= 5;
  return fits ? Refusal{} : fmt::format("input 0 has rank {}", shape->size());
}

Refusal accept_grid_sample(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = refuse_rank(graph, node); !why.empty()) return why;
  return accept_float32(graph, node, options);
}
Refusal accept_half_grid_sample(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = refuse_rank(graph, node); !why.empty()) return why;
  return accept_half<>(graph, node, options);
}

const OpImpl kRows[] = {
    {"", "NonMaxSuppression", "reference", accept_float32, make<NonMaxSuppressionStep>},
    {"", "RoiAlign", "reference:float16", accept_half_roi_align, make_half<RoiAlignStep>},
    {"", "RoiAlign", "reference", accept_roi_align, make<RoiAlignStep>},
    {"", "GridSample", "reference:float16", accept_half_grid_sample, make_half<GridSampleStep>},
    {"", "GridSample", "reference", accept_grid_sample, make<GridSampleStep>},
};

}  // namespace

std::span<const OpImpl> detection_rows() {
  return kRows;
}

}  // namespace narrow::ops
