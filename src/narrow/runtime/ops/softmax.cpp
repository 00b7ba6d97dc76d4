// SPDX-License-Identifier: Apache-2.0
// Softmax, LogSoftmax, Hardmax along one axis.
#include <algorithm>
#include <cmath>

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

struct SoftmaxLine {
  template <class T>
  void operator()(const T* x, T* y, int64_t stride, int64_t n) const {
    const T most = largest(x, stride, n);
    if (stride == 1) {
      NARROW_SIMD
      for (int64_t i = 0; i < n; ++i) y[i] = vec_exp(x[i] - most);
    } else {
      for (int64_t i = 0; i < n; ++i) y[i * stride] = vec_exp(x[i * stride] - most);
    }
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += y[i * stride];
    const T factor = T{1} / sum;
    for (int64_t i = 0; i < n; ++i) y[i * stride] *= factor;
  }
  /// Neighbouring lines side by side: the axis is not the last one.
  static void lanes(const float* x, float* y, int64_t stride, int64_t n, int64_t count,
                    const float* most, float* sum) {
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
  static void lanes(const float* x, float* y, int64_t stride, int64_t n, int64_t count,
                    const float* most, float* sum) {
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

/// Lines next to each other, kLanes at a time.
template <class Line>
void run_lanes(const float* x, float* y, const AxisView& view) {
  constexpr int64_t kLanes = 64;  // running maxima and sums stay in the L1 cache
  const int64_t groups = (view.inner + kLanes - 1) / kLanes;
  const int64_t work = kLanes * view.extent;
  parallel_for(view.outer * groups, std::max<int64_t>(1, kBlockElements / work),
               [&](int64_t begin, int64_t end) {
                 for (int64_t g = begin; g < end; ++g) {
                   const int64_t first = g % groups * kLanes;
                   const int64_t count = std::min(kLanes, view.inner - first);
                   const int64_t at = g / groups * view.extent * view.inner + first;
                   float most[kLanes];
                   float sum[kLanes] = {};
                   std::copy_n(x + at, count, most);
                   for (int64_t i = 1; i < view.extent; ++i) {
                     const float* from = x + at + i * view.inner;
                     NARROW_SIMD
                     for (int64_t l = 0; l < count; ++l) {
                       most[l] = from[l] > most[l] ? from[l] : most[l];
                     }
                   }
                   Line::lanes(x + at, y + at, view.inner, view.extent, count, most, sum);
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
