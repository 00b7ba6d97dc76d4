// SPDX-License-Identifier: Apache-2.0
// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear as ONNX defines them:
//   q = saturate(round_half_even(x / scale) + zero_point),   x = (q - zero_point) * scale
// per tensor, per axis or per block; codes of 2 to 32 bits, sub-byte codes packed.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/runtime/ops/packed.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

using Codes = Types<int8_t, uint8_t, int16_t, uint16_t, int32_t>;

/// One code of a packed or whole-byte tensor.
int32_t load_code(const std::byte* data, DType dtype, int64_t i) {
  if (is_sub_byte(dtype)) return load_packed(data, dtype, i);
  int32_t code = 0;
  visit(Codes{}, dtype, [&]<class T>(std::type_identity<T>) {
    code = static_cast<int32_t>(reinterpret_cast<const T*>(data)[i]);
  });
  return code;
}

/// Which scale an element has: dims as [outer, axis, inner], `block` indices of the axis share one.
struct Grid {
  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
  int64_t block = 1;
  int64_t units = 1;     // scales along the axis
  bool blocked = false;  // then scales run over outer and inner as well

  int64_t unit(int64_t o, int64_t a, int64_t i) const {
    return blocked ? (o * units + a / block) * inner + i : (units == 1 ? 0 : a);
  }
};

Grid grid_of(const Node& node, std::span<const TensorView> inputs) {
  const Dims& x = inputs[0].dims;
  const Dims& scale = inputs[1].dims;
  if (present(inputs, 2) && inputs[2].elements() != inputs[1].elements()) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{} zero_points for {} scales", inputs[2].elements(), inputs[1].elements()));
  }
  Grid g;
  if (num_elements(scale) == 1 && node.int_or("block_size", 0) == 0) {
    g.inner = num_elements(x);
    return g;
  }
  const auto axis = static_cast<size_t>(normalize_axis(node.int_or("axis", 1), x.size()));
  g.outer = num_elements(x, 0, axis);
  g.extent = x[axis];
  g.inner = num_elements(x, axis + 1, x.size());
  g.block = node.int_or("block_size", 0);
  g.blocked = g.block > 0;
  bool fits = scale.size() == (g.blocked ? x.size() : 1);
  if (g.blocked) {
    for (size_t i = 0; fits && i < x.size(); ++i) {
      fits = scale[i] == (i == axis ? (x[i] + g.block - 1) / g.block : x[i]);
    }
    g.units = fits ? scale[axis] : 1;
  } else {
    g.block = 1;
    fits = fits && scale[0] == g.extent;
    g.units = g.extent;
  }
  if (!fits) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a scale of shape {} does not fit a tensor of shape {} on axis {}",
                            to_string(scale), to_string(x), axis));
  }
  return g;
}

struct Limits {
  float lo;
  float hi;
};

Limits limits_of(DType dtype, int32_t zero_point) {
  return {static_cast<float>(integer_min(dtype) - zero_point),
          static_cast<float>(integer_max(dtype) - zero_point)};
}

/// round_half_even(x / scale) between the limits; NaN gives 0, the code of the zero_point.
inline float to_step(float x, float scale, const Limits& limits) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: the sum has no fraction bits left
  float t = x / scale;
  t = t < limits.lo ? limits.lo : t;
  t = t > limits.hi ? limits.hi : t;
  t = (t + kRound) - kRound;
  return t != t ? 0.0F : t;
}

template <class T>
void quantize_run(const float* x, T* q, int64_t n, float scale, int32_t zero_point,
                  const Limits& limits) {
  const Limits bounds = limits;
  NARROW_SIMD
  for (int64_t i = 0; i < n; ++i) {
    q[i] = static_cast<T>(static_cast<int32_t>(to_step(x[i], scale, bounds)) + zero_point);
  }
}

/// Constant parameters of one number: works in any memory order.
class GridStep : public Step {
 public:
  GridStep(const Graph& graph, const Node& node) : node_(node) {
    const Tensor* scale = graph.constant(node.input(1));
    per_tensor_ = scale != nullptr && scale->elements() == 1 && node.int_or("block_size", 0) == 0;
  }
  bool layout_agnostic() const override { return per_tensor_; }

 protected:
  static int32_t zero_point(RunContext& context, int64_t unit) {
    if (!present(context.inputs, 2)) return 0;
    return load_code(context.inputs[2].data, context.inputs[2].dtype, unit);
  }
  Node node_;
  bool per_tensor_;
};

class QuantizeStep final : public GridStep {
 public:
  using GridStep::GridStep;
  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    const Grid grid = grid_of(node_, context.inputs);
    if (is_sub_byte(y.dtype)) return run_packed(context, grid);
    visit(Types<int8_t, uint8_t, int16_t, uint16_t>{}, y.dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context, grid); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context, const Grid& g) const {
    const float* x = context.inputs[0].as<float>();
    const float* scale = context.inputs[1].as<float>();
    T* y = context.outputs[0].as<T>();
    if (g.extent == 1 && g.outer == 1) {
      const int32_t z = zero_point(context, 0);
      const Limits limits = limits_of(DTypeOf<T>::value, z);
      parallel_for(g.inner, kBlockElements, [&](int64_t begin, int64_t end) {
        quantize_run(x + begin, y + begin, end - begin, scale[0], z, limits);
      });
      return;
    }
    parallel_for(g.outer * g.extent, std::max<int64_t>(1, kBlockElements / (g.inner + 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t line = begin; line < end; ++line) {
                     quantize_line(context, g, line, x + line * g.inner, y + line * g.inner);
                   }
                 });
  }

  template <class T>
  static void quantize_line(RunContext& context, const Grid& g, int64_t line, const float* x,
                            T* y) {
    const float* scale = context.inputs[1].as<float>();
    const int64_t o = line / g.extent;
    const int64_t a = line % g.extent;
    const int64_t run = g.blocked ? 1 : g.inner;  // elements with one scale
    for (int64_t i = 0; i < g.inner; i += run) {
      const int64_t unit = g.unit(o, a, i);
      const int32_t z = zero_point(context, unit);
      quantize_run(x + i, y + i, run, scale[unit], z, limits_of(DTypeOf<T>::value, z));
    }
  }

  /// Neighbours share a byte: one thread.
  static void run_packed(RunContext& context, const Grid& g) {
    const float* x = context.inputs[0].as<float>();
    const float* scale = context.inputs[1].as<float>();
    const TensorView& y = context.outputs[0];
    for (int64_t at = 0; at < y.elements(); ++at) {
      const int64_t i = at % g.inner;
      const int64_t line = at / g.inner;
      const int64_t unit = g.unit(line / g.extent, line % g.extent, i);
      const int32_t z = zero_point(context, unit);
      const float step = to_step(x[at], scale[unit], limits_of(y.dtype, z));
      store_packed(y.data, y.dtype, at, static_cast<int32_t>(step) + z);
    }
  }
};

class DequantizeStep final : public GridStep {
 public:
  using GridStep::GridStep;
  void run(RunContext& context) const override {
    const Grid g = grid_of(node_, context.inputs);
    parallel_for(g.outer * g.extent, std::max<int64_t>(1, kBlockElements / (g.inner + 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t line = begin; line < end; ++line) run_line(context, g, line);
                 });
  }

 private:
  static void run_line(RunContext& context, const Grid& g, int64_t line) {
    const TensorView& x = context.inputs[0];
    const float* scale = context.inputs[1].as<float>();
    float* y = context.outputs[0].as<float>();
    const int64_t o = line / g.extent;
    const int64_t a = line % g.extent;
    const int64_t run = g.blocked ? 1 : g.inner;
    for (int64_t i = 0; i < g.inner; i += run) {
      const int64_t unit = g.unit(o, a, i);
      const int64_t begin = line * g.inner + i;
      dequantize_run(x, begin, run, scale[unit], zero_point(context, unit), y + begin);
    }
  }

  static void dequantize_run(const TensorView& x, int64_t begin, int64_t n, float scale,
                             int32_t zero, float* y) {
    if (is_sub_byte(x.dtype)) {
      for (int64_t i = 0; i < n; ++i) {
        y[i] = static_cast<float>(load_code(x.data, x.dtype, begin + i) - zero) * scale;
      }
      return;
    }
    visit(Codes{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      const T* q = x.as<T>() + begin;
      if constexpr (std::is_same_v<T, int32_t>) {  // a difference may need 33 bits
        const int64_t z = zero;
        for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(int64_t{q[i]} - z) * scale;
      } else {
        NARROW_SIMD
        for (int64_t i = 0; i < n; ++i) {
          y[i] = static_cast<float>(static_cast<int32_t>(q[i]) - zero) * scale;
        }
      }
    });
  }
};

/// Outputs (y uint8, scale, zero_point) from the range of x, widened to contain 0.
class DynamicQuantizeStep final : public Step {
 public:
  DynamicQuantizeStep(const Graph&, const Node& node)
      : wants_scale_(node.output(1) != kNoId), wants_zero_(node.output(2) != kNoId) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const float* src = x.as<float>();
    const int64_t n = x.elements();
    float lo = 0;
    float hi = 0;
    for (int64_t i = 0; i < n; ++i) {
      lo = src[i] < lo ? src[i] : lo;
      hi = src[i] > hi ? src[i] : hi;
    }
    const float scale = hi == lo ? 1.0F : (hi - lo) / 255.0F;
    const float real_zero = 0.0F - lo / scale;  // NaN where the range is infinite
    const float bounded = real_zero > 0 ? std::min(real_zero, 255.0F) : 0.0F;
    const auto code = static_cast<uint8_t>(std::nearbyint(bounded));
    const Limits limits = limits_of(DType::uint8, code);
    uint8_t* dst = planned_output(context, 0, x.dims).as<uint8_t>();
    parallel_for(n, kBlockElements, [&](int64_t begin, int64_t end) {
      quantize_run(src + begin, dst + begin, end - begin, scale, code, limits);
    });
    if (wants_scale_) *planned_output(context, 1, {}).as<float>() = scale;
    if (wants_zero_) *planned_output(context, 2, {}).as<uint8_t>() = code;
  }

 private:
  bool wants_scale_;
  bool wants_zero_;
};

bool has_code_type(const Graph& graph, const Node& node, ValueId id) {
  (void)node;
  const DType dtype = graph.value(id).dtype;
  return is_sub_byte(dtype) || contains(Codes{}, dtype);
}

Refusal accept_quantize(const Graph& graph, const Node& node, const StepOptions&) {
  if (!has_code_type(graph, node, node.outputs[0])) {
    return fmt::format("its codes are {}", to_string(graph.value(node.outputs[0]).dtype));
  }
  if (graph.value(node.outputs[0]).dtype == DType::int32) return "its codes are int32";
  return require_dtype(graph, node, 0, {DType::float32});
}
Refusal accept_half_quantize(const Graph& graph, const Node& node, const StepOptions& options) {
  if (!has_code_type(graph, node, node.outputs[0])) {
    return fmt::format("its codes are {}", to_string(graph.value(node.outputs[0]).dtype));
  }
  return accept_half<>(graph, node, options);
}
Refusal accept_dequantize(const Graph& graph, const Node& node, const StepOptions&) {
  if (!has_code_type(graph, node, node.inputs[0])) return refuse_dtype(graph, node, 0);
  return require_dtype(graph, node, 1, {DType::float32});
}
Refusal accept_half_dequantize(const Graph& graph, const Node& node, const StepOptions&) {
  if (!has_code_type(graph, node, node.inputs[0])) return refuse_dtype(graph, node, 0);
  return require_dtype(graph, node, 1, {DType::float16, DType::bfloat16});
}
Refusal accept_float32(const Graph& graph, const Node& node, const StepOptions&) {
  return require_dtype(graph, node, 0, {DType::float32});
}

const OpImpl kRows[] = {
    {"", "QuantizeLinear", "reference:float16", accept_half_quantize, make_half<QuantizeStep>},
    {"", "QuantizeLinear", "reference", accept_quantize, make<QuantizeStep>},
    {"", "DequantizeLinear", "reference:float16", accept_half_dequantize,
     make_half<DequantizeStep>},
    {"", "DequantizeLinear", "reference", accept_dequantize, make<DequantizeStep>},
    {"", "DynamicQuantizeLinear", "reference", accept_float32, make<DynamicQuantizeStep>},
};

}  // namespace

std::span<const OpImpl> quantize_rows() {
  return kRows;
}

}  // namespace narrow::ops
