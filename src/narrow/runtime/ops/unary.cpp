// SPDX-License-Identifier: Apache-2.0
// Elementwise functions of one operand: activations, roundings, trigonometry, tests.
#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"
#include "narrow/runtime/ops/vec_math.h"

namespace narrow::ops {
namespace {

// Each function is a struct made from the node (its attributes), called per element.

struct Relu {
  explicit Relu(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return x < T{0} ? T{0} : x;  // NaN stays
  }
};
struct LeakyRelu {
  float alpha;
  explicit LeakyRelu(const Node& n) : alpha(n.float_or("alpha", 0.01F)) {}
  template <class T>
  T operator()(T x) const {
    return x < T{0} ? static_cast<T>(alpha) * x : x;
  }
};
struct ThresholdedRelu {
  float alpha;
  explicit ThresholdedRelu(const Node& n) : alpha(n.float_or("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return x > static_cast<T>(alpha) ? x : T{0};
  }
};
struct Elu {
  float alpha;
  explicit Elu(const Node& n) : alpha(n.float_or("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return x < T{0} ? static_cast<T>(alpha) * (vec_exp(x) - T{1}) : x;
  }
};
struct Celu {
  float alpha;
  explicit Celu(const Node& n) : alpha(n.float_or("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    const T a = static_cast<T>(alpha);
    return x < T{0} ? a * (vec_exp(x / a) - T{1}) : x;
  }
};
struct Selu {
  float alpha;
  float gamma;
  explicit Selu(const Node& n)  // defaults: ONNX Selu, from Klambauer et al. 2017
      : alpha(n.float_or("alpha", 1.67326319217681884765625F)),
        gamma(n.float_or("gamma", 1.05070102214813232421875F)) {}
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(gamma) * (x > T{0} ? x : static_cast<T>(alpha) * (vec_exp(x) - T{1}));
  }
};
struct Sigmoid {
  explicit Sigmoid(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return vec_sigmoid(x);
  }
};
struct HardSigmoid {
  float alpha;
  float beta;
  explicit HardSigmoid(const Node& n)
      : alpha(n.float_or("alpha", 0.2F)), beta(n.float_or("beta", 0.5F)) {}
  template <class T>
  T operator()(T x) const {
    const T y = static_cast<T>(alpha) * x + static_cast<T>(beta);
    return y < T{0} ? T{0} : (y > T{1} ? T{1} : y);
  }
};
struct HardSwish {
  explicit HardSwish(const Node&) {}
  template <class T>
  T operator()(T x) const {
    const T y = x / T{6} + T{0.5};
    return x * (y < T{0} ? T{0} : (y > T{1} ? T{1} : y));
  }
};
struct Swish {
  float alpha;
  explicit Swish(const Node& n) : alpha(n.float_or("alpha", 1.0F)) {}
  template <class T>
  T operator()(T x) const {
    return x * vec_sigmoid(static_cast<T>(alpha) * x);
  }
};
struct Mish {
  explicit Mish(const Node&) {}
  template <class T>
  T operator()(T x) const {
    // tanh(ln(1 + e^x)) = (e^2x + 2 e^x) / (e^2x + 2 e^x + 2), which is 1 in float above 20.
    const T e = vec_exp(x > T{20} ? T{20} : x);
    const T n = e * (e + T{2});
    return x * (n / (n + T{2}));
  }
};
struct Softplus {
  explicit Softplus(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return std::max(x, T{0}) + std::log1p(std::exp(-std::abs(x)));
  }
};
struct Softsign {
  explicit Softsign(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return x / (T{1} + (x < T{0} ? -x : x));
  }
};
struct Shrink {
  float bias;
  float lambd;
  explicit Shrink(const Node& n)
      : bias(n.float_or("bias", 0.0F)), lambd(n.float_or("lambd", 0.5F)) {}
  template <class T>
  T operator()(T x) const {
    const T l = static_cast<T>(lambd);
    const T b = static_cast<T>(bias);
    return x < -l ? x + b : (x > l ? x - b : T{0});
  }
};
struct GeluErf {
  explicit GeluErf(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return T{0.5} * x * (T{1} + vec_erf(x * static_cast<T>(0.70710678118654752)));
  }
};
struct GeluTanh {
  explicit GeluTanh(const Node&) {}
  template <class T>
  T operator()(T x) const {
    const T inner = static_cast<T>(0.7978845608028654) * (x + static_cast<T>(0.044715) * x * x * x);
    return T{0.5} * x * (T{1} + vec_tanh(inner));
  }
};
struct Abs {
  explicit Abs(const Node&) {}
  template <class T>
  T operator()(T x) const {
    if constexpr (std::is_unsigned_v<T>) return x;
    if constexpr (std::is_floating_point_v<T>) return std::abs(x);
    using U = std::make_unsigned_t<std::conditional_t<std::is_integral_v<T>, T, int>>;
    return x < T{0} ? static_cast<T>(U{0} - static_cast<U>(x)) : x;
  }
};
struct Neg {
  explicit Neg(const Node&) {}
  template <class T>
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>) {
      return -x;
    } else {
      using U = std::make_unsigned_t<T>;  // wraps: the smallest integer is its own negative
      return static_cast<T>(U{0} - static_cast<U>(x));
    }
  }
};
struct Sign {
  explicit Sign(const Node&) {}
  template <class T>
  T operator()(T x) const {
    if (x != x) return x;
    return static_cast<T>(static_cast<int>(x > T{0}) - static_cast<int>(x < T{0}));
  }
};
struct Reciprocal {
  explicit Reciprocal(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return T{1} / x;
  }
};
struct Tanh {
  explicit Tanh(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return vec_tanh(x);
  }
};
struct Erf {
  explicit Erf(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return vec_erf(x);
  }
};
struct Exp {
  explicit Exp(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return vec_exp(x);
  }
};

#define NARROW_STD_FUNCTION(name, function) \
  struct name {                             \
    explicit name(const Node&) {}           \
    template <class T>                      \
    T operator()(T x) const {               \
      return function(x);                   \
    }                                       \
  }
NARROW_STD_FUNCTION(Sqrt, std::sqrt);
NARROW_STD_FUNCTION(Log, std::log);
NARROW_STD_FUNCTION(Floor, std::floor);
NARROW_STD_FUNCTION(Ceil, std::ceil);
NARROW_STD_FUNCTION(Round, std::nearbyint);  // half to even, the mode every thread starts in
NARROW_STD_FUNCTION(Sin, std::sin);
NARROW_STD_FUNCTION(Cos, std::cos);
NARROW_STD_FUNCTION(Tan, std::tan);
NARROW_STD_FUNCTION(Asin, std::asin);
NARROW_STD_FUNCTION(Acos, std::acos);
NARROW_STD_FUNCTION(Atan, std::atan);
NARROW_STD_FUNCTION(Sinh, std::sinh);
NARROW_STD_FUNCTION(Cosh, std::cosh);
NARROW_STD_FUNCTION(Asinh, std::asinh);
NARROW_STD_FUNCTION(Acosh, std::acosh);
NARROW_STD_FUNCTION(Atanh, std::atanh);
#undef NARROW_STD_FUNCTION

struct Not {
  explicit Not(const Node&) {}
  bool operator()(bool x) const { return !x; }
};
struct BitwiseNot {
  explicit BitwiseNot(const Node&) {}
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(~x);
  }
};
struct IsNaN {
  explicit IsNaN(const Node&) {}
  template <class T>
  bool operator()(T x) const {
    return x != x;
  }
};
struct IsInf {
  bool negative;
  bool positive;
  explicit IsInf(const Node& n)
      : negative(n.int_or("detect_negative", 1) != 0),
        positive(n.int_or("detect_positive", 1) != 0) {}
  template <class T>
  bool operator()(T x) const {
    return std::isinf(x) && (x < T{0} ? negative : positive);
  }
};

/// Works on memory order as it lies: every layout is as good as another.
class Elementwise : public Step {
 public:
  bool layout_agnostic() const override { return true; }
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
};

template <class F, class List>
class UnaryStep final : public Elementwise {
 public:
  UnaryStep(const Graph&, const Node& node) : function_(node) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& y = context.outputs[0];
    visit(List{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      using Out = std::decay_t<decltype(function_(T{}))>;
      const T* src = x.as<T>();
      Out* dst = y.as<Out>();
      const F f = function_;
      parallel_for(x.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
        if constexpr (std::is_same_v<T, float>) {
          NARROW_SIMD
          for (int64_t i = begin; i < end; ++i) dst[i] = f(src[i]);
        } else {
          for (int64_t i = begin; i < end; ++i) dst[i] = f(src[i]);
        }
      });
    });
  }

 private:
  F function_;
};

/// Bounds from constant or run-time scalars.
class ClipStep final : public Elementwise {
 public:
  ClipStep(const Graph&, const Node&) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    visit(Numeric{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      const T lo = present(context.inputs, 1) ? *context.inputs[1].as<T>()
                                              : std::numeric_limits<T>::lowest();
      const T hi =
          present(context.inputs, 2) ? *context.inputs[2].as<T>() : std::numeric_limits<T>::max();
      const bool below = present(context.inputs, 1);
      const bool above = present(context.inputs, 2);
      const T* src = x.as<T>();
      T* dst = context.outputs[0].as<T>();
      parallel_for(x.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
        NARROW_SIMD
        for (int64_t i = begin; i < end; ++i) {
          T v = src[i];
          v = below && v < lo ? lo : v;
          dst[i] = above && v > hi ? hi : v;  // lo > hi gives hi
        }
      });
    });
  }
};

using Gelu = UnaryStep<GeluErf, Floating>;
std::unique_ptr<Step> make_gelu(const Graph& graph, const Node& node, const StepOptions&) {
  if (node.string_or("approximate", "none") == "tanh") {
    return std::make_unique<UnaryStep<GeluTanh, Floating>>(graph, node);
  }
  return std::make_unique<Gelu>(graph, node);
}
std::unique_ptr<Step> make_half_gelu(const Graph& graph, const Node& node,
                                     const StepOptions& options) {
  return std::make_unique<HalfStep>(make_gelu(graph, node, options), graph, node);
}
Refusal accept_gelu(const Graph& graph, const Node& node, const StepOptions& options) {
  const std::string form = node.string_or("approximate", "none");
  if (form != "none" && form != "tanh") return "approximate = \"" + form + "\"";
  return accept<Floating>(graph, node, options);
}
Refusal accept_half_gelu(const Graph& graph, const Node& node, const StepOptions& options) {
  const std::string form = node.string_or("approximate", "none");
  if (form != "none" && form != "tanh") return "approximate = \"" + form + "\"";
  return accept_half<>(graph, node, options);
}

#define NARROW_UNARY(op, function, types)                                                \
  {"", op, "reference:float16", accept_half<>, make_half<UnaryStep<function, types>>}, { \
    "", op, "reference", accept<types>, make<UnaryStep<function, types>>                 \
  }

using Bools = Types<bool>;

const OpImpl kRows[] = {
    NARROW_UNARY("Relu", Relu, Numeric),
    NARROW_UNARY("LeakyRelu", LeakyRelu, Floating),
    NARROW_UNARY("ThresholdedRelu", ThresholdedRelu, Floating),
    NARROW_UNARY("Elu", Elu, Floating),
    NARROW_UNARY("Celu", Celu, Floating),
    NARROW_UNARY("Selu", Selu, Floating),
    NARROW_UNARY("Sigmoid", Sigmoid, Floating),
    NARROW_UNARY("HardSigmoid", HardSigmoid, Floating),
    NARROW_UNARY("HardSwish", HardSwish, Floating),
    NARROW_UNARY("Swish", Swish, Floating),
    NARROW_UNARY("Mish", Mish, Floating),
    NARROW_UNARY("Softplus", Softplus, Floating),
    NARROW_UNARY("Softsign", Softsign, Floating),
    NARROW_UNARY("Shrink", Shrink, Floating),
    {"", "Gelu", "reference:float16", accept_half_gelu, make_half_gelu},
    {"", "Gelu", "reference", accept_gelu, make_gelu},
    NARROW_UNARY("Tanh", Tanh, Floating),
    NARROW_UNARY("Erf", Erf, Floating),
    NARROW_UNARY("Exp", Exp, Floating),
    NARROW_UNARY("Log", Log, Floating),
    NARROW_UNARY("Sqrt", Sqrt, Floating),
    NARROW_UNARY("Reciprocal", Reciprocal, Floating),
    NARROW_UNARY("Floor", Floor, Floating),
    NARROW_UNARY("Ceil", Ceil, Floating),
    NARROW_UNARY("Round", Round, Floating),
    NARROW_UNARY("Sin", Sin, Floating),
    NARROW_UNARY("Cos", Cos, Floating),
    NARROW_UNARY("Tan", Tan, Floating),
    NARROW_UNARY("Asin", Asin, Floating),
    NARROW_UNARY("Acos", Acos, Floating),
    NARROW_UNARY("Atan", Atan, Floating),
    NARROW_UNARY("Sinh", Sinh, Floating),
    NARROW_UNARY("Cosh", Cosh, Floating),
    NARROW_UNARY("Asinh", Asinh, Floating),
    NARROW_UNARY("Acosh", Acosh, Floating),
    NARROW_UNARY("Atanh", Atanh, Floating),
    NARROW_UNARY("Abs", Abs, Numeric),
    NARROW_UNARY("Neg", Neg, Numeric),
    NARROW_UNARY("Sign", Sign, Numeric),
    {"", "Clip", "reference:float16", accept_half<>, make_half<ClipStep>},
    {"", "Clip", "reference", accept<Numeric>, make<ClipStep>},
    {"", "Not", "reference", accept<Bools>, make<UnaryStep<Not, Bools>>},
    {"", "BitwiseNot", "reference", accept<Integers>, make<UnaryStep<BitwiseNot, Integers>>},
    {"", "IsNaN", "reference:float16", accept_half<>, make_half<UnaryStep<IsNaN, Floating>>},
    {"", "IsNaN", "reference", accept<Floating>, make<UnaryStep<IsNaN, Floating>>},
    {"", "IsInf", "reference:float16", accept_half<>, make_half<UnaryStep<IsInf, Floating>>},
    {"", "IsInf", "reference", accept<Floating>, make<UnaryStep<IsInf, Floating>>},
};

}  // namespace

std::span<const OpImpl> unary_rows() {
  return kRows;
}

}  // namespace narrow::ops
