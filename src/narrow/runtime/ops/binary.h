// SPDX-License-Identifier: Apache-2.0
// The loop of every elementwise operator with two operands and numpy broadcasting, in any mix of
// memory orders.
#pragma once

#include <algorithm>
#include <array>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {

/// One row. Strides of a and b are 0 or 1 in nearly all of them, which is what vectorises; only
/// float is worth the code.
template <class A, class B, class Out, class F>
void binary_row(const A* a, int64_t sa, const B* b, int64_t sb, Out* out, int64_t so, int64_t n,
                const F& f) {
  if constexpr (std::is_same_v<A, float> && std::is_same_v<B, float>) {
    if (so == 1 && sa == 1 && sb == 1) {
      NARROW_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(a[i], b[i]);
      return;
    }
    if (so == 1 && sa == 1 && sb == 0) {
      const B fixed = *b;
      NARROW_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(a[i], fixed);
      return;
    }
    if (so == 1 && sa == 0 && sb == 1) {
      const A fixed = *a;
      NARROW_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(fixed, b[i]);
      return;
    }
  }
  for (int64_t i = 0; i < n; ++i) out[i * so] = f(a[i * sa], b[i * sb]);
}

/// out = f(a, b) with broadcasting.
template <class A, class B, class Out, class F>
void broadcast_binary(const TensorView& a, const TensorView& b, const TensorView& out, const F& f) {
  const Dims so = memory_strides(out);
  const Dims sa = broadcast_strides(a, out.dims);
  const Dims sb = broadcast_strides(b, out.dims);
  const auto nest = make_nest<3>(out.dims, {so, sa, sb});
  const auto& row = nest.row_strides();
  for_rows(nest, [&](const std::array<int64_t, 3>& at, int64_t n) {
    binary_row(a.as<A>() + at[1], row[1], b.as<B>() + at[2], row[2], out.as<Out>() + at[0], row[0],
               n, f);
  });
}

/// y = f(a, b) for a functor of one element type.
template <class F, class List>
class BinaryStep final : public Step {
 public:
  BinaryStep(const Graph&, const Node& node) : function_(node) {}
  bool layout_agnostic() const override { return true; }
  /// Where a has the size of the result; the plan looks at that.
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[0];
    visit(List{}, a.dtype, [&]<class T>(std::type_identity<T>) {
      using Out = std::decay_t<decltype(function_(T{}, T{}))>;
      if constexpr (requires { F::kDivides; } && std::is_integral_v<T>) {
        const T* divisors = context.inputs[1].as<T>();
        const auto end = divisors + context.inputs[1].elements();
        if (std::find(divisors, end, T{0}) != end) {
          throw Error(ErrorCode::numeric_failure, "integer division by zero");
        }
      }
      broadcast_binary<T, T, Out>(a, context.inputs[1], context.outputs[0], function_);
    });
  }

 private:
  F function_;
};

}  // namespace narrow::ops
