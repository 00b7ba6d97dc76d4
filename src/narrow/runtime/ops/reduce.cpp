// SPDX-License-Identifier: Apache-2.0
// Reductions over axes, positions of extremes, running sums.
#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/runtime/ops/lines.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

/// Wide enough to sum in: double for floats, 64 bits for integers (which wrap).
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;

template <class A>
A wrap_add(A a, A b) {
  if constexpr (std::is_integral_v<A>) {
    return static_cast<A>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  } else {
    return a + b;
  }
}
template <class A>
A wrap_mul(A a, A b) {
  if constexpr (std::is_integral_v<A>) {
    return static_cast<A>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  } else {
    return a * b;
  }
}

// Each reduction: the value before the first element, what an element adds, the end.

struct Sum {
  template <class T>
  static constexpr Wide<T> start() {
    return 0;
  }
  template <class A>
  static A join(A total, A x) {
    return wrap_add(total, x);
  }
  template <class A>
  static A finish(A total, int64_t) {
    return total;
  }
};
struct Mean : Sum {
  template <class A>
  static A finish(A total, int64_t count) {
    return count == 0 ? std::numeric_limits<A>::quiet_NaN() : total / static_cast<A>(count);
  }
};
struct Prod : Sum {
  template <class T>
  static constexpr Wide<T> start() {
    return 1;
  }
  template <class A>
  static A join(A total, A x) {
    return wrap_mul(total, x);
  }
};
struct Max : Sum {
  template <class T>
  static constexpr Wide<T> start() {
    if constexpr (std::is_floating_point_v<T>) return -std::numeric_limits<double>::infinity();
    return static_cast<Wide<T>>(std::numeric_limits<T>::lowest());
  }
  template <class A>
  static A join(A total, A x) {
    return x > total || x != x ? x : total;
  }
};
struct Min : Sum {
  template <class T>
  static constexpr Wide<T> start() {
    if constexpr (std::is_floating_point_v<T>) return std::numeric_limits<double>::infinity();
    return static_cast<Wide<T>>(std::numeric_limits<T>::max());
  }
  template <class A>
  static A join(A total, A x) {
    return x < total || x != x ? x : total;
  }
};
struct L1 : Sum {
  template <class A>
  static A join(A total, A x) {
    return wrap_add(total, x < 0 ? wrap_mul(x, A{-1}) : x);
  }
};
struct SumSquare : Sum {
  template <class A>
  static A join(A total, A x) {
    return wrap_add(total, wrap_mul(x, x));
  }
};
struct L2 : SumSquare {
  template <class A>
  static A finish(A total, int64_t) {
    return static_cast<A>(std::sqrt(static_cast<double>(total)));
  }
};
struct LogSum : Sum {
  template <class A>
  static A finish(A total, int64_t) {
    return static_cast<A>(std::log(static_cast<double>(total)));
  }
};

/// The axes that a node reduces: input 1, all of them without it (unless noop_with_empty_axes).
std::vector<bool> reduced_axes(const TensorView* axes, bool noop, size_t rank) {
  std::vector<bool> reduced(rank, false);
  const Dims listed = axes == nullptr ? Dims{} : read_ints(*axes);
  for (const int64_t axis : listed) {
    reduced[static_cast<size_t>(normalize_axis(axis, rank))] = true;
  }
  if (listed.empty() && !noop) reduced.assign(rank, true);
  return reduced;
}

/// Kept and reduced axes as two loop nests: operands (output, input) and (input).
struct ReducePlan {
  LoopNest<2> kept;
  LoopNest<1> inside;
  int64_t count = 1;  // elements behind each result
};

ReducePlan plan_of(const TensorView& x, const std::vector<bool>& reduced) {
  const Dims strides = memory_strides(x);
  Dims kept = x.dims;
  Dims inside = x.dims;
  for (size_t i = 0; i < kept.size(); ++i) (reduced[i] ? kept : inside)[i] = 1;
  const Dims out = row_major_strides(kept);  // keepdims or not: the same bytes
  ReducePlan plan{make_nest<2>(kept, {out, strides}), make_nest<1>(inside, {strides}),
                  num_elements(inside)};
  return plan;
}

/// Calls body(offset, length) for every row of a nest, on this thread.
template <class Body>
void each_row(const LoopNest<1>& nest, const Body& body) {
  std::array<int64_t, kMaxRank> index{};
  std::array<int64_t, 1> offset{};
  for (int64_t row = nest.rows(); row > 0; --row) {
    body(offset[0], nest.row_length());
    detail::next_row(nest, index, offset);
  }
}

template <class R, class T>
T reduce_one(const T* x, const ReducePlan& plan) {
  Wide<T> total = R::template start<T>();
  const int64_t stride = plan.inside.row_strides()[0];
  if (plan.count > 0) {
    each_row(plan.inside, [&](int64_t at, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        total = R::join(total, static_cast<Wide<T>>(x[at + i * stride]));
      }
    });
  }
  return static_cast<T>(R::finish(total, plan.count));
}

/// Rows of neighbouring results at a time, so that memory is read in order.
template <class R>
void reduce_row(const float* x, float* y, int64_t n, const ReducePlan& plan) {
  constexpr int64_t kLanes = 256;  // doubles on the stack
  double totals[kLanes];
  const int64_t stride = plan.inside.row_strides()[0];
  for (int64_t first = 0; first < n; first += kLanes) {
    const int64_t lanes = std::min(kLanes, n - first);
    std::fill_n(totals, lanes, R::template start<float>());
    each_row(plan.inside, [&](int64_t at, int64_t length) {
      for (int64_t i = 0; i < length; ++i) {
        const float* row = x + first + at + i * stride;
        NARROW_SIMD
        for (int64_t l = 0; l < lanes; ++l) {
          totals[l] = R::join(totals[l], static_cast<double>(row[l]));
        }
      }
    });
    for (int64_t l = 0; l < lanes; ++l) {
      y[first + l] = static_cast<float>(R::finish(totals[l], plan.count));
    }
  }
}

template <class R, class T>
void reduce_all(const T* x, T* y, const ReducePlan& plan) {
  const auto& row = plan.kept.row_strides();
  const auto body = [&](const std::array<int64_t, 2>& at, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
      if (row[0] == 1 && row[1] == 1 && n > 1 && plan.count > 0) {
        return reduce_row<R>(x + at[1], y + at[0], n, plan);
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      y[at[0] + i * row[0]] = reduce_one<R>(x + at[1] + i * row[1], plan);
    }
  };
  for_rows_weighted(plan.kept, plan.count, body);
}

/// log(sum of e^x), with the largest x taken out first.
struct LogSumExp {
  template <class T>
  static T reduce(const T* x, const ReducePlan& plan) {
    const double most = static_cast<double>(reduce_one<Max>(x, plan));
    if (!std::isfinite(most)) return static_cast<T>(most);
    double total = 0;
    const int64_t stride = plan.inside.row_strides()[0];
    each_row(plan.inside, [&](int64_t at, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        total += std::exp(static_cast<double>(x[at + i * stride]) - most);
      }
    });
    return static_cast<T>(most + std::log(total));
  }
};

template <class R, class T>
void run_reduction(const T* x, T* y, const ReducePlan& plan) {
  if constexpr (std::is_same_v<R, LogSumExp>) {
    const auto& row = plan.kept.row_strides();
    for_rows_weighted(plan.kept, plan.count, [&](const std::array<int64_t, 2>& at, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        y[at[0] + i * row[0]] = LogSumExp::reduce(x + at[1] + i * row[1], plan);
      }
    });
  } else {
    reduce_all<R>(x, y, plan);
  }
}

template <class R, class List>
class ReduceStep final : public Step {
 public:
  ReduceStep(const Graph& graph, const Node& node)
      : noop_(node.int_or("noop_with_empty_axes", 0) != 0) {
    // Means over images come behind convolutions: channels_last is what those write.
    const Tensor* axes = graph.constant(node.input(1));
    const auto& shape = graph.value(node.inputs[0]).shape;
    if (axes == nullptr || !shape || shape->size() < 3) return;
    Dims spatial = axes->to_ints();
    for (int64_t& axis : spatial) axis += axis < 0 ? static_cast<int64_t>(shape->size()) : 0;
    std::sort(spatial.begin(), spatial.end());
    whole_image_ = spatial.size() == shape->size() - 2 && spatial.front() == 2 &&
                   spatial.back() == static_cast<int64_t>(shape->size()) - 1;
  }
  Layout input_layout(size_t i) const override {
    return i == 0 && whole_image_ ? Layout::channels_last : Layout::plain;
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView* axes = present(context.inputs, 1) ? &context.inputs[1] : nullptr;
    const std::vector<bool> reduced = reduced_axes(axes, noop_, x.dims.size());
    visit(List{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      T* y = context.outputs[0].as<T>();
      run_reduction<R>(x.as<T>(), y, plan_of(x, reduced));
    });
  }

 private:
  bool noop_;
  bool whole_image_ = false;
};

/// Positions of the largest or smallest element along an axis; NaN does not count.
template <bool kLargest>
class ArgStep final : public Step {
 public:
  ArgStep(const Graph&, const Node& node)
      : axis_(node.int_or("axis", 0)), last_(node.int_or("select_last_index", 0) != 0) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const AxisView view = axis_view(x.dims, normalize_axis(axis_, x.dims.size()));
    auto* y = context.outputs[0].as<int64_t>();
    visit(Numeric{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      for_lines(view, [&](int64_t at, int64_t stride, int64_t n, int64_t line) {
        const T* from = x.as<T>() + at;
        int64_t best = 0;
        for (int64_t i = 1; i < n; ++i) {
          const T a = from[i * stride];
          const T b = from[best * stride];
          const bool better = kLargest ? a > b : a < b;
          best = better || (last_ && a == b) ? i : best;
        }
        y[line] = best;
      });
    });
  }

 private:
  int64_t axis_;
  bool last_;
};

/// CumSum, CumProd: the axis is input 1.
template <class R>
class CumulativeStep final : public Step {
 public:
  using List = Types<float, double, int32_t, uint32_t, int64_t, uint64_t>;
  CumulativeStep(const Graph&, const Node& node)
      : exclusive_(node.int_or("exclusive", 0) != 0), reverse_(node.int_or("reverse", 0) != 0) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const int64_t axis = normalize_axis(read_int(context.inputs[1]), x.dims.size());
    visit(List{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      const T* src = x.as<T>();
      T* dst = context.outputs[0].as<T>();
      for_lines(axis_view(x.dims, axis), [&](int64_t at, int64_t stride, int64_t n, int64_t) {
        Wide<T> total = R::template start<T>();
        for (int64_t k = 0; k < n; ++k) {
          const int64_t i = at + (reverse_ ? n - 1 - k : k) * stride;
          const Wide<T> next = R::join(total, static_cast<Wide<T>>(src[i]));
          dst[i] = static_cast<T>(exclusive_ ? total : next);
          total = next;
        }
      });
    });
  }

 private:
  bool exclusive_;
  bool reverse_;
};

using Sums = Types<float, double, int32_t, uint32_t, int64_t, uint64_t>;
using Extremes = Types<float, double, int8_t, uint8_t, int32_t, uint32_t, int64_t, uint64_t, bool>;

#define NARROW_REDUCE(op, reduction, types)                                                   \
  {"", op, "reference:float16", accept_half<>, make_half<ReduceStep<reduction, Floating>>}, { \
    "", op, "reference", accept<types>, make<ReduceStep<reduction, types>>                    \
  }

const OpImpl kRows[] = {
    NARROW_REDUCE("ReduceSum", Sum, Sums),
    NARROW_REDUCE("ReduceMean", Mean, Floating),
    NARROW_REDUCE("ReduceMax", Max, Extremes),
    NARROW_REDUCE("ReduceMin", Min, Extremes),
    NARROW_REDUCE("ReduceProd", Prod, Sums),
    NARROW_REDUCE("ReduceL1", L1, Sums),
    NARROW_REDUCE("ReduceL2", L2, Sums),
    NARROW_REDUCE("ReduceLogSum", LogSum, Floating),
    NARROW_REDUCE("ReduceLogSumExp", LogSumExp, Floating),
    NARROW_REDUCE("ReduceSumSquare", SumSquare, Sums),
    {"", "ArgMax", "reference:float16", accept_half<>, make_half<ArgStep<true>>},
    {"", "ArgMax", "reference", accept<Numeric>, make<ArgStep<true>>},
    {"", "ArgMin", "reference:float16", accept_half<>, make_half<ArgStep<false>>},
    {"", "ArgMin", "reference", accept<Numeric>, make<ArgStep<false>>},
    {"", "CumSum", "reference:float16", accept_half<>, make_half<CumulativeStep<Sum>>},
    {"", "CumSum", "reference", accept<Sums>, make<CumulativeStep<Sum>>},
    {"", "CumProd", "reference:float16", accept_half<>, make_half<CumulativeStep<Prod>>},
    {"", "CumProd", "reference", accept<Sums>, make<CumulativeStep<Prod>>},
};

}  // namespace

std::span<const OpImpl> reduce_rows() {
  return kRows;
}

}  // namespace narrow::ops
