// SPDX-License-Identifier: Apache-2.0
// ONNX's own integer operators, by their definition: ConvInteger, MatMulInteger, QLinearConv,
// QLinearMatMul. Lowered models run on narrow's operators instead; these serve what is left.
#include <fmt/format.h>

#include <algorithm>

#include "narrow/runtime/ops/matmul_shape.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/window.h"

namespace narrow::ops {
namespace {

using Codes = Types<int8_t, uint8_t>;

int32_t code_at(const TensorView& view, int64_t i) {
  return view.dtype == DType::int8 ? int32_t{view.as<int8_t>()[i]} : int32_t{view.as<uint8_t>()[i]};
}

/// A zero_point or scale per tensor or per index; absent zero_points are 0.
int32_t zero_at(std::span<const TensorView> inputs, size_t i, int64_t index) {
  if (!present(inputs, i)) return 0;
  return code_at(inputs[i], inputs[i].elements() == 1 ? 0 : index);
}
float scale_at(const TensorView& view, int64_t index) {
  return view.as<float>()[view.elements() == 1 ? 0 : index];
}

void require_count(std::span<const TensorView> inputs, size_t i, int64_t count) {
  if (!present(inputs, i) || inputs[i].elements() == 1 || inputs[i].elements() == count) return;
  throw Error(ErrorCode::invalid_argument, fmt::format("input {} has {} numbers, expected 1 or {}",
                                                       i, inputs[i].elements(), count));
}

/// clamp(round_half_even(acc * m) + z) with m = float32(double(s_a) * s_b / s_y).
struct Requantize {
  float multiplier;
  int32_t zero_point;
  float lo;
  float hi;

  Requantize(float sa, float sb, float sy, DType dtype, int32_t zero)
      : multiplier(static_cast<float>(static_cast<double>(sa) * static_cast<double>(sb) /
                                      static_cast<double>(sy))),
        zero_point(zero),
        lo(static_cast<float>(integer_min(dtype) - zero)),
        hi(static_cast<float>(integer_max(dtype) - zero)) {}
  int32_t operator()(int32_t acc) const {
    constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: the sum has no fraction bits left
    float t = static_cast<float>(acc) * multiplier;
    t = t < lo ? lo : t;
    t = t > hi ? hi : t;
    return static_cast<int32_t>((t + kRound) - kRound) + zero_point;
  }
};

void store(const TensorView& y, int64_t at, int32_t code) {
  if (y.dtype == DType::int8) {
    y.as<int8_t>()[at] = static_cast<int8_t>(code);
  } else {
    y.as<uint8_t>()[at] = static_cast<uint8_t>(code);
  }
}

/// Which inputs hold what.
struct ConvRoles {
  size_t w, x_zero, w_zero, bias;
};
constexpr ConvRoles kConvInteger{1, 2, 3, 99};
constexpr ConvRoles kQLinearConv{3, 2, 5, 8};
constexpr size_t kXScale = 1, kWScale = 4, kYScale = 6, kYZero = 7;

template <bool kQuantized>
class IntegerConvStep final : public Step {
 public:
  IntegerConvStep(const Graph&, const Node& node) : node_(node) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    const Dims& w = inputs[roles().w];
    return num_elements(outputs[0]) * num_elements(w, 1, w.size());
  }
  bool integer_macs() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& w = context.inputs[roles().w];
    require_count(context.inputs, roles().w_zero, w.dims[0]);
    if (kQuantized) require_count(context.inputs, kWScale, w.dims[0]);
    visit(Codes{}, x.dtype, [&]<class X>(std::type_identity<X>) {
      visit(Codes{}, w.dtype,
            [&]<class W>(std::type_identity<W>) { run_typed<X, W>(context, x, w); });
    });
  }

 private:
  static constexpr ConvRoles roles() { return kQuantized ? kQLinearConv : kConvInteger; }

  template <class X, class W>
  void run_typed(RunContext& context, const TensorView& x, const TensorView& w) const {
    const TensorView& y = context.outputs[0];
    const ConvGeometry geometry = conv_geometry(node_, x.dims, w.dims);
    const Window window = make_window(geometry, x.dims);
    const int64_t channels = w.dims[0];
    const int64_t per_group = channels / geometry.group;
    const int64_t plane = num_elements(geometry.output);
    const int64_t image = num_elements(x.dims, 2, x.dims.size());
    parallel_for(x.dims[0] * channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t m = i % channels;
        const int64_t first = i / channels * x.dims[1] + m / per_group * w.dims[1];
        const int32_t xz = zero_at(context.inputs, roles().x_zero, 0);
        const int32_t wz = zero_at(context.inputs, roles().w_zero, m);
        const W* weights = w.as<W>() + m * num_elements(w.dims, 1, w.dims.size());
        for (int64_t p = 0; p < plane; ++p) {
          const Triple o{p / (window.out[1] * window.out[2]), p / window.out[2] % window.out[1],
                         p % window.out[2]};
          const int32_t acc =
              dot(window, o, x.as<X>() + first * image, image, weights, w.dims[1], xz, wz);
          finish(context, y, i * plane + p, m, acc);
        }
      }
    });
  }

  template <class X, class W>
  static int32_t dot(const Window& w, const Triple& o, const X* src, int64_t image,
                     const W* weights, int64_t channels, int32_t xz, int32_t wz) {
    Triple first;
    Triple last;
    for (size_t s = 0; s < 3; ++s) w.clip(s, o[s], first[s], last[s]);
    const auto at = [&](size_t s, int64_t k) {
      return o[s] * w.stride[s] - w.pad_begin[s] + k * w.dilation[s];
    };
    uint32_t acc = 0;  // wraps
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t a = first[0]; a < last[0]; ++a) {
        for (int64_t b = first[1]; b < last[1]; ++b) {
          for (int64_t d = first[2]; d < last[2]; ++d) {
            const int64_t from = (at(0, a) * w.in[1] + at(1, b)) * w.in[2] + at(2, d);
            const int64_t tap = ((c * w.kernel[0] + a) * w.kernel[1] + b) * w.kernel[2] + d;
            acc += static_cast<uint32_t>((src[c * image + from] - xz) * (weights[tap] - wz));
          }
        }
      }
    }
    return static_cast<int32_t>(acc);
  }

  static void finish(RunContext& context, const TensorView& y, int64_t at, int64_t m, int32_t acc) {
    if constexpr (!kQuantized) {
      y.as<int32_t>()[at] = acc;
    } else {
      const auto& in = context.inputs;
      if (present(in, roles().bias)) {
        acc = static_cast<int32_t>(static_cast<uint32_t>(acc) +
                                   static_cast<uint32_t>(in[roles().bias].as<int32_t>()[m]));
      }
      const Requantize to_code(scale_at(in[kXScale], 0), scale_at(in[kWScale], m),
                               scale_at(in[kYScale], 0), y.dtype, zero_at(in, kYZero, 0));
      store(y, at, to_code(acc));
    }
  }

  Node node_;
};

/// a [.., M, K] and b [.., K, N]; zero_points (and scales) of a per row, of b per column.
template <bool kQuantized>
class IntegerMatMulStep final : public Step {
 public:
  IntegerMatMulStep(const Graph&, const Node&) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const MatMulShape s = matmul_shape(inputs[0], inputs[kB]);
    return s.items() * s.m * s.n * s.k;
  }
  bool integer_macs() const override { return true; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return static_cast<size_t>(matmul_shape(inputs[0], inputs[kB]).n) * sizeof(int32_t);
  }
  void run(RunContext& context) const override {
    const auto& in = context.inputs;
    const MatMulShape s = matmul_shape(in[0].dims, in[kB].dims);
    require_count(in, kAZero, s.m);
    require_count(in, kBZero, s.n);
    if (kQuantized) {
      require_count(in, kXScale, s.m);
      require_count(in, kWScale, s.n);
    }
    visit(Codes{}, in[0].dtype, [&]<class A>(std::type_identity<A>) {
      visit(Codes{}, in[kB].dtype,
            [&]<class B>(std::type_identity<B>) { run_typed<A, B>(context, s); });
    });
  }

 private:
  static constexpr size_t kB = kQuantized ? 3 : 1;
  static constexpr size_t kAZero = 2;
  static constexpr size_t kBZero = kQuantized ? 5 : 3;

  template <class A, class B>
  void run_typed(RunContext& context, const MatMulShape& s) const {
    auto* row = reinterpret_cast<uint32_t*>(context.scratch.data());
    for (int64_t i = 0; i < s.items() * s.m; ++i) {
      const auto item = static_cast<size_t>(i / s.m);
      const A* a = context.inputs[0].as<A>() + (s.a_item[item] * s.m + i % s.m) * s.k;
      const B* b = context.inputs[kB].as<B>() + s.b_item[item] * s.k * s.n;
      const int32_t az = zero_at(context.inputs, kAZero, i % s.m);
      std::fill_n(row, s.n, 0U);
      for (int64_t p = 0; p < s.k; ++p) {
        for (int64_t j = 0; j < s.n; ++j) {
          const int32_t bz = zero_at(context.inputs, kBZero, j);
          row[j] += static_cast<uint32_t>((a[p] - az) * (b[p * s.n + j] - bz));
        }
      }
      for (int64_t j = 0; j < s.n; ++j) {
        finish(context, i * s.n + j, i % s.m, j, static_cast<int32_t>(row[j]));
      }
    }
  }

  static void finish(RunContext& context, int64_t at, int64_t row, int64_t column, int32_t acc) {
    const TensorView& y = context.outputs[0];
    if constexpr (!kQuantized) {
      y.as<int32_t>()[at] = acc;
    } else {
      const auto& in = context.inputs;
      const Requantize to_code(scale_at(in[kXScale], row), scale_at(in[kWScale], column),
                               scale_at(in[kYScale], 0), y.dtype, zero_at(in, kYZero, 0));
      store(y, at, to_code(acc));
    }
  }
};

template <size_t kWeights>
Refusal accept_codes(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept<Codes, 0>(graph, node, options); !why.empty()) return why;
  return accept<Codes, kWeights>(graph, node, options);
}
Refusal refuse_scales(const Graph& graph, const Node& node, std::initializer_list<DType> wanted) {
  for (const size_t i : {kXScale, kWScale, kYScale}) {
    if (Refusal why = require_dtype(graph, node, i, wanted); !why.empty()) return why;
  }
  return {};
}
Refusal accept_qlinear(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = refuse_scales(graph, node, {DType::float32}); !why.empty()) return why;
  return accept_codes<3>(graph, node, options);
}
Refusal accept_half_qlinear(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = refuse_scales(graph, node, {DType::float16, DType::bfloat16}); !why.empty()) {
    return why;
  }
  return accept_codes<3>(graph, node, options);
}

const OpImpl kRows[] = {
    {"", "ConvInteger", "reference", accept_codes<1>, make<IntegerConvStep<false>>},
    {"", "MatMulInteger", "reference", accept_codes<1>, make<IntegerMatMulStep<false>>},
    {"", "QLinearConv", "reference", accept_qlinear, make<IntegerConvStep<true>>},
    {"", "QLinearMatMul", "reference:float16", accept_half_qlinear,
     make_half<IntegerMatMulStep<true>>},
    {"", "QLinearMatMul", "reference", accept_qlinear, make<IntegerMatMulStep<true>>},
};

}  // namespace

std::span<const OpImpl> qlinear_rows() {
  return kRows;
}

}  // namespace narrow::ops
