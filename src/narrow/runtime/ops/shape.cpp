// SPDX-License-Identifier: Apache-2.0
// Shapes as values, and tensors made from numbers: Shape, Size, ConstantOfShape, Constant, Range,
// EyeLike.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

class ShapeStep final : public Step {
 public:
  ShapeStep(const Graph&, const Node& node)
      : start_(node.int_or("start", 0)), end_(node.int_or("end", int64_t{1} << 32)) {}
  void run(RunContext& context) const override {
    const Dims& x = context.inputs[0].dims;
    const auto rank = static_cast<int64_t>(x.size());
    const auto position = [&](int64_t p) {
      return std::clamp<int64_t>(p < 0 ? p + rank : p, 0, rank);
    };
    const int64_t begin = position(start_);
    const int64_t end = std::max(begin, position(end_));
    const TensorView& y = planned_output(context, 0, {end - begin});
    std::copy(x.begin() + begin, x.begin() + end, y.as<int64_t>());
  }

 private:
  int64_t start_;
  int64_t end_;
};

class SizeStep final : public Step {
 public:
  SizeStep(const Graph&, const Node&) {}
  void run(RunContext& context) const override {
    *context.outputs[0].as<int64_t>() = context.inputs[0].elements();
  }
};

class ConstantOfShapeStep final : public Step {
 public:
  ConstantOfShapeStep(const Graph&, const Node& node) {
    const Tensor* value = node.tensor("value");
    value_ = value != nullptr ? *value : Tensor(DType::float32, {1});
  }
  void run(RunContext& context) const override {
    const Dims dims = read_ints(context.inputs[0]);
    const TensorView& y = planned_output(context, 0, dims);
    copy_strided(y.data, row_major_strides(dims), value_.raw(), Dims(dims.size(), 0), dims,
                 element_bytes(y.dtype));
  }

 private:
  Tensor value_;
};

Refusal accept_fill(const Graph&, const Node& node, const StepOptions&) {
  const Tensor* value = node.tensor("value");
  if (value == nullptr) return {};
  if (value->elements() != 1 || is_sub_byte(value->dtype())) return "value is " + value->describe();
  return {};
}

/// Readers make Constant nodes initializers; one that an edit left behind is a copy.
class ConstantStep final : public Step {
 public:
  ConstantStep(const Graph&, const Node& node) : value_(value_of(node)) {}
  void run(RunContext& context) const override {
    const TensorView& y = planned_output(context, 0, value_.dims());
    if (value_.bytes() > 0) std::memcpy(y.data, value_.raw(), value_.bytes());
  }
  static Tensor value_of(const Node& node) {
    if (const Tensor* t = node.tensor("value")) return *t;
    if (node.has("value_float")) return Tensor::scalar(node.float_or("value_float", 0));
    if (node.has("value_int")) return Tensor::scalar(node.int_or("value_int", 0));
    if (node.has("value_floats")) return Tensor::vector(node.floats_or("value_floats", {}));
    if (node.has("value_ints")) return Tensor::vector(node.ints_or("value_ints", {}));
    return {};
  }

 private:
  Tensor value_;
};

Refusal accept_constant(const Graph&, const Node& node, const StepOptions&) {
  return ConstantStep::value_of(node).defined() ? Refusal{} : "its value has no stored type";
}

class RangeStep final : public Step {
 public:
  using List = Types<float, double, int16_t, int32_t, int64_t>;
  RangeStep(const Graph&, const Node&) {}
  void run(RunContext& context) const override {
    visit(List{}, context.inputs[0].dtype, [&]<class T>(std::type_identity<T>) {
      const T start = *context.inputs[0].as<T>();
      const T delta = *context.inputs[2].as<T>();
      const TensorView& y =
          planned_output(context, 0, {length(start, *context.inputs[1].as<T>(), delta)});
      T* to = y.as<T>();
      using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;  // sums may wrap
      for (int64_t i = 0; i < y.dims[0]; ++i) {
        to[i] = static_cast<T>(static_cast<U>(start) + static_cast<U>(i) * static_cast<U>(delta));
      }
    });
  }

 private:
  template <class T>
  static int64_t length(T start, T limit, T delta) {
    const double count = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) /
                                   static_cast<double>(delta));
    if (!(count < 1e15)) {  // also NaN, as of a step of 0
      throw Error(ErrorCode::invalid_argument, fmt::format("a range of {} elements", count));
    }
    return count > 0 ? static_cast<int64_t>(count) : 0;
  }
};

class EyeLikeStep final : public Step {
 public:
  EyeLikeStep(const Graph&, const Node& node) : k_(node.int_or("k", 0)) {}
  void run(RunContext& context) const override {
    const TensorView& y = planned_output(context, 0, context.inputs[0].dims);
    const int64_t rows = y.dims[0];
    const int64_t columns = y.dims[1];
    visit(NumericBool{}, y.dtype, [&]<class T>(std::type_identity<T>) {
      std::fill_n(y.as<T>(), y.elements(), T{});
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t j = i + std::clamp(k_, -rows, columns);
        if (j >= 0 && j < columns) y.as<T>()[i * columns + j] = T{1};
      }
    });
  }

 private:
  int64_t k_;
};

Refusal accept_eye(const Graph& graph, const Node& node, const StepOptions&) {
  const DType dtype = graph.value(node.outputs[0]).dtype;
  if (contains(NumericBool{}, dtype)) return {};
  return std::string("the result is ") + to_string(dtype);
}

const OpImpl kRows[] = {
    {"", "Shape", "reference", accept_any, make<ShapeStep>},
    {"", "Size", "reference", accept_any, make<SizeStep>},
    {"", "ConstantOfShape", "reference", accept_fill, make<ConstantOfShapeStep>},
    {"", "Constant", "reference", accept_constant, make<ConstantStep>},
    {"", "Range", "reference:float16", accept_half<>, make_half<RangeStep>},
    {"", "Range", "reference", accept<RangeStep::List>, make<RangeStep>},
    {"", "EyeLike", "reference", accept_eye, make<EyeLikeStep>},
};

}  // namespace

std::span<const OpImpl> shape_rows() {
  return kRows;
}

}  // namespace narrow::ops
