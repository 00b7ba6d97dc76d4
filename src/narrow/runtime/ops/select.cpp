// SPDX-License-Identifier: Apache-2.0
// Operators that choose by value or position: TopK, OneHot, NonZero, Compress, Unique, Trilu,
// ReverseSequence.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "narrow/runtime/ops/lines.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

/// (x, k) -> (values, indices). Equal elements come in the order of their positions.
class TopKStep final : public Step {
 public:
  TopKStep(const Graph&, const Node& node)
      : axis_(node.int_or("axis", -1)),
        largest_(node.int_or("largest", 1) != 0),
        values_(node.output(0) != kNoId),
        indices_(node.output(1) != kNoId) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const int64_t axis = normalize_axis(axis_, x.dims.size());
    const AxisView view = axis_view(x.dims, axis);
    const int64_t k = read_int(context.inputs[1]);
    if (k < 0 || k > view.extent) {
      throw Error(ErrorCode::invalid_argument, fmt::format("k is {} of {}", k, view.extent));
    }
    Dims dims = x.dims;
    dims[static_cast<size_t>(axis)] = k;
    if (values_) planned_output(context, 0, dims);
    if (indices_) planned_output(context, 1, dims);
    if (k == 0) return;
    visit(Numeric{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      for_lines(view, [&](int64_t at, int64_t stride, int64_t n, int64_t line) {
        const int64_t to = line / stride * k * stride + line % stride;
        select<T>(context, x.as<T>() + at, stride, n, k, to);
      });
    });
  }

 private:
  template <class T>
  void select(RunContext& context, const T* x, int64_t stride, int64_t n, int64_t k,
              int64_t to) const {
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto before = [&](int64_t a, int64_t b) {
      const T va = x[a * stride];
      const T vb = x[b * stride];
      const bool nan_a = va != va;  // NaN counts as the largest
      const bool nan_b = vb != vb;
      if (nan_a != nan_b) return largest_ ? nan_a : nan_b;
      if (nan_a || va == vb) return a < b;
      return largest_ ? va > vb : va < vb;
    };
    std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t from = order[static_cast<size_t>(i)];
      if (values_) context.outputs[0].as<T>()[to + i * stride] = x[from * stride];
      if (indices_) context.outputs[1].as<int64_t>()[to + i * stride] = from;
    }
  }

  int64_t axis_;
  bool largest_;
  bool values_;
  bool indices_;
};

/// (indices, depth, [off, on]).
class OneHotStep final : public Step {
 public:
  OneHotStep(const Graph&, const Node& node) : axis_(node.int_or("axis", -1)) {}
  void run(RunContext& context) const override {
    const TensorView& indices = context.inputs[0];
    const int64_t depth = number_at(context.inputs[1], 0);
    const int64_t axis = normalize_axis(axis_, indices.dims.size() + 1);
    if (depth < 0) throw Error(ErrorCode::invalid_argument, fmt::format("depth is {}", depth));
    Dims dims = indices.dims;
    dims.insert(dims.begin() + axis, depth);
    const TensorView& y = planned_output(context, 0, dims);
    const TensorView& values = context.inputs[2];
    const size_t bytes = element_bytes(values.dtype);
    const int64_t inner = num_elements(dims, static_cast<size_t>(axis) + 1, dims.size());
    for (int64_t i = 0; i < y.elements(); ++i) {
      std::memcpy(y.data + static_cast<size_t>(i) * bytes, values.data, bytes);
    }
    for (int64_t i = 0; i < indices.elements(); ++i) {
      int64_t index = number_at(indices, i);
      if (index < -depth || index >= depth) continue;  // all off, says ONNX
      if (index < 0) index += depth;
      const int64_t at = (i / inner * depth + index) * inner + i % inner;
      std::memcpy(y.data + static_cast<size_t>(at) * bytes, values.data + bytes, bytes);
    }
  }

 private:
  /// Indices and depth may be of any numeric type.
  static int64_t number_at(const TensorView& view, int64_t i) {
    int64_t number = 0;
    visit(Numeric{}, view.dtype, [&]<class T>(std::type_identity<T>) {
      const T value = view.as<T>()[i];
      if constexpr (std::is_floating_point_v<T>) {
        number = value > T{-1e9} && value < T{1e9} ? static_cast<int64_t>(value) : -1;
      } else {
        number = static_cast<int64_t>(value);
      }
    });
    return number;
  }
  int64_t axis_;
};

Refusal accept_one_hot(const Graph& graph, const Node& node, const StepOptions&) {
  for (const size_t i : {size_t{0}, size_t{1}}) {
    if (!contains(Numeric{}, input_dtype(graph, node, i))) return refuse_dtype(graph, node, i);
  }
  const DType dtype = input_dtype(graph, node, 2);
  const bool whole = dtype != DType::undefined && dtype != DType::string && !is_sub_byte(dtype);
  return whole ? Refusal{} : refuse_dtype(graph, node, 2);
}

/// Positions of what is not zero, one column each, in row-major order.
class NonZeroStep final : public Step {
 public:
  using List = Types<float, double, int8_t, uint8_t, int32_t, int64_t, bool>;
  NonZeroStep(const Graph&, const Node&) {}
  bool dynamic_outputs() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    std::vector<int64_t> found;
    visit(List{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      for (int64_t i = 0; i < x.elements(); ++i) {
        if (x.as<T>()[i] != T{}) found.push_back(i);
      }
    });
    const auto count = static_cast<int64_t>(found.size());
    const auto rank = std::max<int64_t>(1, static_cast<int64_t>(x.dims.size()));
    auto* y = context.allocate_output(0, {rank, count}).as<int64_t>();
    for (int64_t k = 0; k < count; ++k) {
      int64_t rest = found[static_cast<size_t>(k)];
      for (size_t i = x.dims.size(); i-- > 0;) {
        y[static_cast<int64_t>(i) * count + k] = rest % x.dims[i];
        rest /= x.dims[i];
      }
      if (x.dims.empty()) y[k] = 0;
    }
  }
};

/// (x, condition): the slices (without axis: elements) whose condition holds.
class CompressStep final : public Step {
 public:
  CompressStep(const Graph&, const Node& node)
      : flat_(!node.has("axis")), axis_(node.int_or("axis", 0)) {}
  bool dynamic_outputs() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& condition = context.inputs[1];
    Dims dims = flat_ ? Dims{x.elements()} : x.dims;
    const int64_t axis = flat_ ? 0 : normalize_axis(axis_, dims.size());
    const AxisView view = axis_view(dims, axis);
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < std::min(view.extent, condition.elements()); ++i) {
      if (condition.as<uint8_t>()[i] != 0) kept.push_back(i);
    }
    dims[static_cast<size_t>(axis)] = static_cast<int64_t>(kept.size());
    const TensorView& y = context.allocate_output(0, dims);
    const int64_t bytes = view.inner * static_cast<int64_t>(element_bytes(x.dtype));
    std::byte* to = y.data;
    for (int64_t o = 0; o < view.outer && bytes > 0; ++o) {
      for (const int64_t i : kept) {
        std::memcpy(to, x.data + (o * view.extent + i) * bytes, static_cast<size_t>(bytes));
        to += bytes;
      }
    }
  }

 private:
  bool flat_;
  int64_t axis_;
};

/// x -> (unique slices, first positions, which unique slice each one is, counts).
class UniqueStep final : public Step {
 public:
  using List = Types<float, double, int8_t, uint8_t, int32_t, int64_t, bool>;
  UniqueStep(const Graph&, const Node& node)
      : flat_(!node.has("axis")),
        axis_(node.int_or("axis", 0)),
        sorted_(node.int_or("sorted", 1) != 0) {
    for (size_t i = 0; i < 4; ++i) used_[i] = node.output(i) != kNoId;
  }
  bool dynamic_outputs() const override { return true; }
  void run(RunContext& context) const override {
    visit(List{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    Dims dims = flat_ ? Dims{x.elements()} : x.dims;
    const int64_t axis = flat_ ? 0 : normalize_axis(axis_, dims.size());
    const AxisView view = axis_view(dims, axis);
    const T* data = x.as<T>();
    const auto compare = [&](int64_t a, int64_t b) {  // slices in row-major order: -1, 0, 1
      for (int64_t line = 0; line < view.lines(); ++line) {
        const T va = data[view.begin(line) + a * view.inner];
        const T vb = data[view.begin(line) + b * view.inner];
        const bool nan_a = va != va;  // one value, behind all others
        const bool nan_b = vb != vb;
        if (nan_a != nan_b) return nan_a ? 1 : -1;
        if (!nan_a && va != vb) return va < vb ? -1 : 1;
      }
      return 0;
    };
    std::vector<int64_t> order(static_cast<size_t>(view.extent));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return compare(a, b) < 0; });
    std::vector<int64_t> firsts;  // first position of each unique slice
    std::vector<int64_t> group(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      if (i == 0 || compare(order[i - 1], order[i]) != 0) firsts.push_back(order[i]);
      group[static_cast<size_t>(order[i])] = static_cast<int64_t>(firsts.size()) - 1;
    }
    if (!sorted_) by_position(firsts, group);
    dims[static_cast<size_t>(axis)] = static_cast<int64_t>(firsts.size());
    write_slices(context, dims, view, data, firsts);
    write_positions(context, firsts, group);
  }

  /// Groups renumbered in the order in which they first occur.
  static void by_position(std::vector<int64_t>& firsts, std::vector<int64_t>& group) {
    std::vector<int64_t> order(firsts.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return firsts[static_cast<size_t>(a)] < firsts[static_cast<size_t>(b)];
    });
    std::vector<int64_t> rank(firsts.size());
    for (size_t i = 0; i < order.size(); ++i) {
      rank[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
    }
    for (int64_t& g : group) g = rank[static_cast<size_t>(g)];
    std::sort(firsts.begin(), firsts.end());
  }

  template <class T>
  void write_slices(RunContext& context, const Dims& dims, const AxisView& view, const T* data,
                    const std::vector<int64_t>& firsts) const {
    if (!used_[0]) return;
    T* y = context.allocate_output(0, dims).template as<T>();
    for (int64_t o = 0; o < view.outer; ++o) {
      for (const int64_t first : firsts) {
        const T* from = data + (o * view.extent + first) * view.inner;
        y = std::copy_n(from, view.inner, y);
      }
    }
  }

  void write_positions(RunContext& context, const std::vector<int64_t>& firsts,
                       const std::vector<int64_t>& group) const {
    std::vector<int64_t> counts(firsts.size(), 0);
    for (const int64_t g : group) ++counts[static_cast<size_t>(g)];
    const std::vector<int64_t>* results[] = {&firsts, &group, &counts};
    for (size_t i = 0; i < 3; ++i) {
      if (!used_[i + 1]) continue;
      const auto count = static_cast<int64_t>(results[i]->size());
      auto* y = context.allocate_output(i + 1, {count}).as<int64_t>();
      std::copy(results[i]->begin(), results[i]->end(), y);
    }
  }

  bool flat_;
  int64_t axis_;
  bool sorted_;
  bool used_[4] = {};
};

/// The upper or lower triangle of each matrix; the rest becomes 0.
class TriluStep final : public Step {
 public:
  TriluStep(const Graph&, const Node& node) : upper_(node.int_or("upper", 1) != 0) {}
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& y = planned_output(context, 0, x.dims);
    copy_view(y, x);
    if (y.elements() == 0) return;
    const int64_t columns = x.dims.back();
    const int64_t rows = x.dims[x.dims.size() - 2];
    const int64_t asked = present(context.inputs, 1) ? read_int(context.inputs[1]) : 0;
    const int64_t k = std::clamp(asked, -rows - 1, columns + 1);
    const auto bytes = static_cast<int64_t>(element_bytes(x.dtype));
    for (int64_t row = 0; row < y.elements() / columns; ++row) {
      const int64_t diagonal = row % rows + k;  // column of the diagonal in this row
      const int64_t begin = upper_ ? 0 : std::clamp<int64_t>(diagonal + 1, 0, columns);
      const int64_t end = upper_ ? std::clamp<int64_t>(diagonal, 0, columns) : columns;
      std::memset(y.data + (row * columns + begin) * bytes, 0,
                  static_cast<size_t>((end - begin) * bytes));
    }
  }

 private:
  bool upper_;
};

/// (x, lengths): the first lengths[b] steps of each batch item turned around.
class ReverseSequenceStep final : public Step {
 public:
  ReverseSequenceStep(const Graph&, const Node& node)
      : batch_axis_(node.int_or("batch_axis", 1)), time_axis_(node.int_or("time_axis", 0)) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const Dims lengths = read_ints(context.inputs[1]);
    const bool batch_first = batch_axis_ == 0 && time_axis_ == 1;
    if (x.dims.size() < 2 || (!batch_first && !(batch_axis_ == 1 && time_axis_ == 0))) {
      throw Error(ErrorCode::invalid_argument, "batch and time must be the first two axes");
    }
    const TensorView& y = planned_output(context, 0, x.dims);
    const int64_t batch = x.dims[batch_first ? 0 : 1];
    const int64_t time = x.dims[batch_first ? 1 : 0];
    const int64_t bytes =
        num_elements(x.dims, 2, x.dims.size()) * static_cast<int64_t>(element_bytes(x.dtype));
    if (static_cast<int64_t>(lengths.size()) != batch) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} lengths for {} sequences", lengths.size(), batch));
    }
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t length = lengths[static_cast<size_t>(b)];
      if (length < 0 || length > time) {
        throw Error(ErrorCode::invalid_argument, fmt::format("length {} of {}", length, time));
      }
      for (int64_t t = 0; t < time; ++t) {
        const int64_t source = t < length ? length - 1 - t : t;
        const auto place = [&](int64_t step) {
          return (batch_first ? b * time + step : step * batch + b) * bytes;
        };
        std::memcpy(y.data + place(t), x.data + place(source), static_cast<size_t>(bytes));
      }
    }
  }

 private:
  int64_t batch_axis_;
  int64_t time_axis_;
};

const OpImpl kRows[] = {
    {"", "TopK", "reference:float16", accept_half<>, make_half<TopKStep>},
    {"", "TopK", "reference", accept<Numeric>, make<TopKStep>},
    {"", "OneHot", "reference", accept_one_hot, make<OneHotStep>},
    {"", "NonZero", "reference", accept<NonZeroStep::List>, make<NonZeroStep>},
    {"", "Compress", "reference", accept_movable, make<CompressStep>},
    {"", "Unique", "reference", accept<UniqueStep::List>, make<UniqueStep>},
    {"", "Trilu", "reference", accept_movable, make<TriluStep>},
    {"", "ReverseSequence", "reference", accept_movable, make<ReverseSequenceStep>},
};

}  // namespace

std::span<const OpImpl> select_rows() {
  return kRows;
}

}  // namespace narrow::ops
