// SPDX-License-Identifier: Apache-2.0
// Softmax, LogSoftmax, Hardmax along one axis.
#include <algorithm>
#include <cmath>

#include "narrow/core/clones.h"
#include "narrow/runtime/ops/lines.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/vec_math.h"

namespace narrow::ops {
namespace {

template <class T>
T largest(const T* x, int64_t stride, int64_t n) {
  T most = x[0];
  for (int64_t i = 1; i < n; ++i) most = x[i * stride] > most ? x[i * stride] : most;
  return most;
}

/// A line of neighbours. Partial results per lane: the same on every instruction set.
NARROW_CLONES void softmax_of_neighbours(const float* x, float* y, int64_t n) {
  constexpr int64_t kParts = 16;
  float part[kParts];
  const int64_t whole = n / kParts * kParts;
  float most = x[0];
  if (whole > 0) {
    std::copy_n(x, kParts, part);
    for (int64_t i = kParts; i < whole; i += kParts) {
      NARROW_SIMD
      for (int64_t l = 0; l < kParts; ++l) part[l] = x[i + l] > part[l] ? x[i + l] : part[l];
    }
    for (int64_t l = 0; l < kParts; ++l) most = part[l] > most ? part[l] : most;
  }
  for (int64_t i = whole; i < n; ++i) most = x[i] > most ? x[i] : most;
  std::fill_n(part, kParts, 0.0F);
  for (int64_t i = 0; i < whole; i += kParts) {
    NARROW_SIMD
    for (int64_t l = 0; l < kParts; ++l) {
      y[i + l] = vec_exp(x[i + l] - most);
      part[l] += y[i + l];
    }
  }
  float sum = 0;
  for (int64_t i = whole; i < n; ++i) sum += y[i] = vec_exp(x[i] - most);
  for (int64_t l = 0; l < kParts; ++l) sum += part[l];
  const float factor = 1.0F / sum;
  NARROW_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

struct SoftmaxLine {
  template <class T>
  void operator()(const T* x, T* y, int64_t stride, int64_t n) const {
    if constexpr (std::is_same_v<T, float>) {
      if (stride == 1) return softmax_of_neighbours(x, y, n);
    }
    const T most = largest(x, stride, n);
    for (int64_t i = 0; i < n; ++i) y[i * stride] = vec_exp(x[i * stride] - most);
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += y[i * stride];
    const T factor = T{1} / sum;
    for (int64_t i = 0; i < n; ++i) y[i * stride] *= factor;
  }
  /// Neighbouring lines side by side: the axis is not the last one.
  NARROW_CLONES static void lanes(const float* x, float* y, int64_t stride, int64_t n,
                                  int64_t count, const float* most, float* sum) {
    for (int64_t i = 0; i < n; ++i) {
      const float* from = x + i * stride;
      float* to = y + i * stride;
      NARROW_SIMD
      for (int64_t l = 0; l < count; ++l) {
        to[l] = vec_exp(from[l] - most[l]);
        sum[l] += to[l];
      }
    }
    for (int64_t l = 0; l < count; ++l) sum[l] = 1.0F / sum[l];
    for (int64_t i = 0; i < n; ++i) {
      float* to = y + i * stride;
      NARROW_SIMD
      for (int64_t l = 0; l < count; ++l) to[l] *= sum[l];
    }
  }
};

struct LogSoftmaxLine {
  template <class T>
  void operator()(const T* x, T* y, int64_t stride, int64_t n) const {
    const T most = largest(x, stride, n);
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += vec_exp(x[i * stride] - most);
    const T log_sum = std::log(sum);
    for (int64_t i = 0; i < n; ++i) y[i * stride] = (x[i * stride] - most) - log_sum;
  }
  NARROW_CLONES static void lanes(const float* x, float* y, int64_t stride, int64_t n,
                                  int64_t count, const float* most, float* sum) {
    for (int64_t i = 0; i < n; ++i) {
      const float* from = x + i * stride;
      NARROW_SIMD
      for (int64_t l = 0; l < count; ++l) sum[l] += vec_exp(from[l] - most[l]);
    }
    for (int64_t l = 0; l < count; ++l) sum[l] = std::log(sum[l]);
    for (int64_t i = 0; i < n; ++i) {
      const float* from = x + i * stride;
      float* to = y + i * stride;
      NARROW_SIMD
      for (int64_t l = 0; l < count; ++l) to[l] = (from[l] - most[l]) - sum[l];
    }
  }
};

constexpr int64_t kLanes = 64;  // running maxima and sums stay in the L1 cache

/// `count` lines next to each other, their elements `stride` apart.
template <class Line>
void run_side_by_side(const float* x, float* y, int64_t stride, int64_t extent, int64_t count) {
  float most[kLanes];
  float sum[kLanes] = {};
  std::copy_n(x, count, most);
  for (int64_t i = 1; i < extent; ++i) {
    const float* from = x + i * stride;
    NARROW_SIMD
    for (int64_t l = 0; l < count; ++l) most[l] = from[l] > most[l] ? from[l] : most[l];
  }
  Line::lanes(x, y, stride, extent, count, most, sum);
}

/// The axis is not the last one.
template <class Line>
void run_lanes(const float* x, float* y, const AxisView& view) {
  const int64_t groups = (view.inner + kLanes - 1) / kLanes;
  const int64_t work = kLanes * view.extent;
  parallel_for(view.outer * groups, std::max<int64_t>(1, kBlockElements / work),
               [&](int64_t begin, int64_t end) {
                 for (int64_t g = begin; g < end; ++g) {
                   const int64_t first = g % groups * kLanes;
                   const int64_t at = g / groups * view.extent * view.inner + first;
                   run_side_by_side<Line>(x + at, y + at, view.inner, view.extent,
                                          std::min(kLanes, view.inner - first));
                 }
               });
}

// Lines too short to fill vectors: face or no face.
constexpr int64_t kShort = 8;

/// Between `count` lines of `extent` behind each other and the same side by side, kLanes apart.
NARROW_CLONES void lay_beside(const float* x, float* side, int64_t extent, int64_t count) {
  if (extent == 2) {  // a stride that compilers have instructions for
    NARROW_SIMD
    for (int64_t l = 0; l < count; ++l) {
      side[l] = x[2 * l];
      side[kLanes + l] = x[2 * l + 1];
    }
    return;
  }
  for (int64_t l = 0; l < count; ++l) {
    for (int64_t i = 0; i < extent; ++i) side[i * kLanes + l] = x[l * extent + i];
  }
}
NARROW_CLONES void lay_behind(const float* side, float* y, int64_t extent, int64_t count) {
  if (extent == 2) {
    NARROW_SIMD
    for (int64_t l = 0; l < count; ++l) {
      y[2 * l] = side[l];
      y[2 * l + 1] = side[kLanes + l];
    }
    return;
  }
  for (int64_t l = 0; l < count; ++l) {
    for (int64_t i = 0; i < extent; ++i) y[l * extent + i] = side[i * kLanes + l];
  }
}

/// Short lines behind each other are laid side by side first.
template <class Line>
void run_short(const float* x, float* y, int64_t lines, int64_t extent) {
  const int64_t groups = (lines + kLanes - 1) / kLanes;
  const int64_t work = kLanes * extent;
  parallel_for(groups, std::max<int64_t>(1, kBlockElements / work),
               [&](int64_t begin, int64_t end) {
                 float in[kShort * kLanes];
                 float out[kShort * kLanes];
                 for (int64_t g = begin; g < end; ++g) {
                   const int64_t at = g * work;
                   const int64_t count = std::min(kLanes, lines - g * kLanes);
                   lay_beside(x + at, in, extent, count);
                   run_side_by_side<Line>(in, out, kLanes, extent, count);
                   lay_behind(out, y + at, extent, count);
                 }
               });
}

/// 1 at the first largest element, 0 elsewhere.
struct HardmaxLine {
  template <class T>
  void operator()(const T* x, T* y, int64_t stride, int64_t n) const {
    int64_t best = 0;
    for (int64_t i = 1; i < n; ++i) best = x[i * stride] > x[best * stride] ? i : best;
    for (int64_t i = 0; i < n; ++i) y[i * stride] = T{0};
    y[best * stride] = T{1};
  }
};

template <class Line>
class LineStep final : public Step {
 public:
  LineStep(const Graph&, const Node& node) : axis_(node.int_or("axis", -1)) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const int64_t axis = normalize_axis(axis_, x.dims.size());
    visit(Floating{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      const T* src = x.as<T>();
      T* dst = context.outputs[0].as<T>();
      if (x.elements() == 0) return;
      const AxisView view = axis_view(x.dims, axis);
      if constexpr (std::is_same_v<T, float> && requires { &Line::lanes; }) {
        if (view.inner > 1) return run_lanes<Line>(src, dst, view);
        if (view.extent <= kShort) return run_short<Line>(src, dst, view.lines(), view.extent);
      }
      for_lines(view, [&](int64_t at, int64_t stride, int64_t n, int64_t) {
        Line{}(src + at, dst + at, stride, n);
      });
    });
  }

 private:
  int64_t axis_;
};

const OpImpl kRows[] = {
    {"", "Softmax", "reference:float16", accept_half<>, make_half<LineStep<SoftmaxLine>>},
    {"", "Softmax", "reference", accept<Floating>, make<LineStep<SoftmaxLine>>},
    {"", "LogSoftmax", "reference:float16", accept_half<>, make_half<LineStep<LogSoftmaxLine>>},
    {"", "LogSoftmax", "reference", accept<Floating>, make<LineStep<LogSoftmaxLine>>},
    {"", "Hardmax", "reference:float16", accept_half<>, make_half<LineStep<HardmaxLine>>},
    {"", "Hardmax", "reference", accept<Floating>, make<LineStep<HardmaxLine>>},
};

}  // namespace

std::span<const OpImpl> softmax_rows() {
  return kRows;
}

}  // namespace narrow::ops
