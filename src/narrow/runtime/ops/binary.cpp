// SPDX-License-Identifier: Apache-2.0
// Elementwise operators of two and more operands: arithmetic, comparison, logic, selection.
#include "narrow/runtime/ops/binary.h"

#include <cmath>
#include <limits>

namespace narrow::ops {
namespace {

/// Integers wrap as two's complement, in arithmetic that defines it.
template <class T>
using Wrapping = std::make_unsigned_t<std::conditional_t<(sizeof(T) < sizeof(int)), int, T>>;

struct Add {
  explicit Add(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      return a + b;
    } else {
      using U = Wrapping<T>;
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    }
  }
};
struct Sub {
  explicit Sub(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      return a - b;
    } else {
      using U = Wrapping<T>;
      return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
    }
  }
};
struct Mul {
  explicit Mul(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      return a * b;
    } else {
      using U = Wrapping<T>;
      return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
    }
  }
};

struct Div {
  static constexpr bool kDivides = true;
  explicit Div(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      return a / b;
    } else {
      if (b == 0) return T{0};              // refused before, see BinaryStep::run
      if constexpr (std::is_signed_v<T>) {  // the smallest integer over -1 wraps, it must not trap
        if (b == -1) return static_cast<T>(Wrapping<T>{0} - static_cast<Wrapping<T>>(a));
      }
      return static_cast<T>(a / b);
    }
  }
};
struct Mod {
  static constexpr bool kDivides = true;
  bool like_c;  // fmod = 1: the sign of the dividend
  explicit Mod(const Node& n) : like_c(n.int_or("fmod", 0) != 0) {}
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      const T r = std::fmod(a, b);
      return !like_c && r != 0 && (r < 0) != (b < 0) ? r + b : r;
    } else {
      if (b == 0) return T{0};
      if constexpr (std::is_signed_v<T>) {
        if (b == -1) return T{0};
      }
      const T r = static_cast<T>(a % b);
      return !like_c && r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
    }
  }
};
struct Min {
  explicit Min(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    return a != a ? a : (a < b || b != b ? (b != b ? b : a) : b);  // NaN wins
  }
};
struct Max {
  explicit Max(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    return a != a ? a : (a > b || b != b ? (b != b ? b : a) : b);
  }
};
struct PRelu {
  explicit PRelu(const Node&) {}
  template <class T>
  T operator()(T x, T slope) const {
    return x < T{0} ? static_cast<T>(slope * x) : x;
  }
};

#define NARROW_COMPARE(name, test)    \
  struct name {                       \
    explicit name(const Node&) {}     \
    template <class T>                \
    bool operator()(T a, T b) const { \
      return test;                    \
    }                                 \
  }
NARROW_COMPARE(Equal, a == b);
NARROW_COMPARE(Less, a < b);
NARROW_COMPARE(LessOrEqual, a <= b);
NARROW_COMPARE(Greater, a > b);
NARROW_COMPARE(GreaterOrEqual, a >= b);
NARROW_COMPARE(And, a&& b);
NARROW_COMPARE(Or, a || b);
NARROW_COMPARE(Xor, a != b);
#undef NARROW_COMPARE

struct BitwiseAnd {
  explicit BitwiseAnd(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct BitwiseOr {
  explicit BitwiseOr(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct BitwiseXor {
  explicit BitwiseXor(const Node&) {}
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
/// Right shifts keep the sign; amounts outside of [0, bits) shift everything out.
struct BitShift {
  bool left;
  explicit BitShift(const Node& n) : left(n.string_or("direction", "LEFT") == "LEFT") {}
  template <class T>
  T operator()(T a, T b) const {
    using U = std::make_unsigned_t<T>;
    if (static_cast<U>(b) >= sizeof(T) * 8) return static_cast<T>(!left && a < T{0} ? -1 : 0);
    if (left) return static_cast<T>(static_cast<uint64_t>(a) << b);
    return static_cast<T>(a >> b);
  }
};

/// Base and exponent may have different types; the result has the base's.
template <class T, class E>
T power(T base, E exponent) {
  if constexpr (std::is_integral_v<T> && std::is_integral_v<E>) {
    if (exponent < 0) {  // 1 / base^n: 0 except for bases of magnitude 1
      if (base == 1) return T{1};
      if constexpr (std::is_signed_v<T>) {
        if (base == -1) return exponent % 2 == 0 ? T{1} : T{-1};
      }
      return T{0};
    }
    uint64_t result = 1;
    auto factor = static_cast<uint64_t>(base);
    for (auto n = static_cast<uint64_t>(exponent); n > 0; n >>= 1) {
      if (n & 1) result *= factor;
      factor *= factor;
    }
    return static_cast<T>(result);
  } else if constexpr (std::is_same_v<T, float> && std::is_same_v<E, float>) {
    return std::pow(base, exponent);
  } else {
    return static_cast<T>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
}

class PowStep final : public Step {
 public:
  using Bases = Types<float, double, int32_t, int64_t>;
  PowStep(const Graph&, const Node&) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[0];
    const TensorView& b = context.inputs[1];
    const TensorView& y = context.outputs[0];
    if (a.dtype == DType::float32 && b.dtype == DType::float32 && b.elements() == 1 &&
        *b.as<float>() == 2.0F) {  // the square in variances and norms
      return broadcast_binary<float, float, float>(a, b, y, [](float x, float) { return x * x; });
    }
    visit(Bases{}, a.dtype, [&]<class T>(std::type_identity<T>) {
      visit(Numeric{}, b.dtype, [&]<class E>(std::type_identity<E>) {
        broadcast_binary<T, E, T>(a, b, y, [](T x, E e) { return power(x, e); });
      });
    });
  }
};

Refusal accept_pow(const Graph& graph, const Node& node, const StepOptions&) {
  if (!contains(PowStep::Bases{}, input_dtype(graph, node, 0))) return refuse_dtype(graph, node, 0);
  if (!contains(Numeric{}, input_dtype(graph, node, 1))) return refuse_dtype(graph, node, 1);
  return {};
}

Refusal accept_half_pow(const Graph& graph, const Node& node, const StepOptions& options) {
  return accept_half<>(graph, node, options);
}

/// Sum, Mean, Max, Min: any number of operands, combined from the left.
template <class F, class List>
class VariadicStep final : public Step {
 public:
  VariadicStep(const Graph&, const Node& node) : function_(node), mean_(node.op == "Mean") {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    visit(List{}, y.dtype, [&]<class T>(std::type_identity<T>) {
      const auto first = [](T x, T) { return x; };
      const auto& in = context.inputs;
      if (in.size() == 1) {
        broadcast_binary<T, T, T>(in[0], in[0], y, first);
      } else {
        broadcast_binary<T, T, T>(in[0], in[1], y, function_);
      }
      for (size_t i = 2; i < in.size(); ++i) {
        broadcast_binary<T, T, T>(y, in[i], y, function_);
      }
      if (!mean_) return;
      const T count = static_cast<T>(in.size());
      broadcast_binary<T, T, T>(y, y, y, [count](T x, T) { return static_cast<T>(x / count); });
    });
  }

 private:
  F function_;
  bool mean_;
};

/// y = condition ? a : b, for every element type by its size.
class WhereStep final : public Step {
 public:
  WhereStep(const Graph&, const Node&) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    switch (bits(context.outputs[0].dtype)) {
      case 8:
        return select<uint8_t>(context);
      case 16:
        return select<uint16_t>(context);
      case 32:
        return select<uint32_t>(context);
      case 64:
        return select<uint64_t>(context);
      default:
        fail_dtype(context.outputs[0].dtype);
    }
  }

 private:
  template <class T>
  static void select(RunContext& context) {
    const TensorView& y = context.outputs[0];
    const Dims so = memory_strides(y);
    const Dims sc = broadcast_strides(context.inputs[0], y.dims);
    const Dims sa = broadcast_strides(context.inputs[1], y.dims);
    const Dims sb = broadcast_strides(context.inputs[2], y.dims);
    const auto nest = make_nest<4>(y.dims, {so, sc, sa, sb});
    const auto& row = nest.row_strides();
    for_rows(nest, [&](const std::array<int64_t, 4>& at, int64_t n) {
      T* out = y.as<T>() + at[0];
      const uint8_t* c = context.inputs[0].as<uint8_t>() + at[1];
      const T* a = context.inputs[1].as<T>() + at[2];
      const T* b = context.inputs[2].as<T>() + at[3];
      for (int64_t i = 0; i < n; ++i) {
        out[i * row[0]] = c[i * row[1]] != 0 ? a[i * row[2]] : b[i * row[3]];
      }
    });
  }
};

Refusal accept_where(const Graph& graph, const Node& node, const StepOptions&) {
  const DType dtype = input_dtype(graph, node, 1);
  if (dtype == DType::undefined || is_sub_byte(dtype) || dtype == DType::string) {
    return refuse_dtype(graph, node, 1);
  }
  return {};
}

using Bools = Types<bool>;

#define NARROW_BINARY(op, function, types)                                                \
  {"", op, "reference:float16", accept_half<>, make_half<BinaryStep<function, types>>}, { \
    "", op, "reference", accept<types>, make<BinaryStep<function, types>>                 \
  }
#define NARROW_VARIADIC(op, function, types)                                                \
  {"", op, "reference:float16", accept_half<>, make_half<VariadicStep<function, types>>}, { \
    "", op, "reference", accept<types>, make<VariadicStep<function, types>>                 \
  }

const OpImpl kRows[] = {
    NARROW_BINARY("Add", Add, Numeric),
    NARROW_BINARY("Sub", Sub, Numeric),
    NARROW_BINARY("Mul", Mul, Numeric),
    NARROW_BINARY("Div", Div, Numeric),
    NARROW_BINARY("Mod", Mod, Numeric),
    {"", "Pow", "reference:float16", accept_half_pow, make_half<PowStep>},
    {"", "Pow", "reference", accept_pow, make<PowStep>},
    NARROW_BINARY("PRelu", PRelu, Numeric),
    NARROW_BINARY("Equal", Equal, NumericBool),
    NARROW_BINARY("Less", Less, Numeric),
    NARROW_BINARY("LessOrEqual", LessOrEqual, Numeric),
    NARROW_BINARY("Greater", Greater, Numeric),
    NARROW_BINARY("GreaterOrEqual", GreaterOrEqual, Numeric),
    {"", "And", "reference", accept<Bools>, make<BinaryStep<And, Bools>>},
    {"", "Or", "reference", accept<Bools>, make<BinaryStep<Or, Bools>>},
    {"", "Xor", "reference", accept<Bools>, make<BinaryStep<Xor, Bools>>},
    {"", "BitwiseAnd", "reference", accept<Integers>, make<BinaryStep<BitwiseAnd, Integers>>},
    {"", "BitwiseOr", "reference", accept<Integers>, make<BinaryStep<BitwiseOr, Integers>>},
    {"", "BitwiseXor", "reference", accept<Integers>, make<BinaryStep<BitwiseXor, Integers>>},
    {"", "BitShift", "reference", accept<Integers>, make<BinaryStep<BitShift, Integers>>},
    NARROW_VARIADIC("Sum", Add, Numeric),
    NARROW_VARIADIC("Mean", Add, Floating),
    NARROW_VARIADIC("Max", Max, Numeric),
    NARROW_VARIADIC("Min", Min, Numeric),
    {"", "Where", "reference", accept_where, make<WhereStep>},
};

}  // namespace

std::span<const OpImpl> binary_rows() {
  return kRows;
}

}  // namespace narrow::ops
