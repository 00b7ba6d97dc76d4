// SPDX-License-Identifier: Apache-2.0
// Selecting and replacing elements by index. Indices come from data: each is checked.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/runtime/ops/lines.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

[[noreturn]] void fail_index(int64_t index, int64_t extent) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("index {} is outside of {} elements", index, extent));
}

/// An index in [-extent, extent) made non-negative.
int64_t resolve(int64_t index, int64_t extent) {
  if (index < -extent || index >= extent) fail_index(index, extent);
  return index < 0 ? index + extent : index;
}

/// Element i of an int32 or int64 tensor.
int64_t index_at(const TensorView& indices, int64_t i) {
  return indices.dtype == DType::int32 ? int64_t{indices.as<int32_t>()[i]}
                                       : indices.as<int64_t>()[i];
}

class GatherStep final : public Step {
 public:
  GatherStep(const Graph&, const Node& node) : axis_(node.int_or("axis", 0)) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& indices = context.inputs[1];
    const int64_t axis = normalize_axis(axis_, x.dims.size());
    const AxisView view = axis_view(x.dims, axis);
    Dims dims(x.dims.begin(), x.dims.begin() + axis);
    dims.insert(dims.end(), indices.dims.begin(), indices.dims.end());
    dims.insert(dims.end(), x.dims.begin() + axis + 1, x.dims.end());
    const TensorView& y = planned_output(context, 0, dims);
    const int64_t count = indices.elements();
    const int64_t bytes = view.inner * static_cast<int64_t>(element_bytes(x.dtype));
    if (bytes == 0) return;
    parallel_for(view.outer * count, std::max<int64_t>(1, 4 * kBlockElements / bytes),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t at = resolve(index_at(indices, i % count), view.extent);
                     std::memcpy(y.data + i * bytes,
                                 x.data + (i / count * view.extent + at) * bytes,
                                 static_cast<size_t>(bytes));
                   }
                 });
  }

 private:
  int64_t axis_;
};

/// Calls body(flat, offset) for each element of `indices`: its flat number, and the offset in data
/// of the element that stands at the same place but for the axis, where the index says.
template <class Body>
void for_indexed(const Dims& data, const TensorView& indices, size_t axis, const Body& body) {
  const Dims strides = row_major_strides(data);
  const int64_t count = indices.elements();
  for (int64_t flat = 0; flat < count; ++flat) {
    int64_t rest = flat;
    int64_t offset = 0;
    for (size_t i = indices.dims.size(); i-- > 0;) {
      const int64_t position = rest % indices.dims[i];
      rest /= indices.dims[i];
      offset += (i == axis ? resolve(index_at(indices, flat), data[i]) : position) * strides[i];
    }
    body(flat, offset);
  }
}

void require_within(const Dims& indices, const Dims& data, size_t axis) {
  bool fits = indices.size() == data.size();
  for (size_t i = 0; fits && i < data.size(); ++i) fits = i == axis || indices[i] <= data[i];
  if (!fits) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("indices of shape {} do not fit data of shape {} along axis {}",
                            to_string(indices), to_string(data), axis));
  }
}

class GatherElementsStep final : public Step {
 public:
  GatherElementsStep(const Graph&, const Node& node) : axis_(node.int_or("axis", 0)) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& indices = context.inputs[1];
    const auto axis = static_cast<size_t>(normalize_axis(axis_, x.dims.size()));
    require_within(indices.dims, x.dims, axis);
    const TensorView& y = planned_output(context, 0, indices.dims);
    const size_t bytes = element_bytes(x.dtype);
    for_indexed(x.dims, indices, axis, [&](int64_t flat, int64_t offset) {
      std::memcpy(y.data + static_cast<size_t>(flat) * bytes,
                  x.data + static_cast<size_t>(offset) * bytes, bytes);
    });
  }

 private:
  int64_t axis_;
};

/// The slices that rows of an index matrix [.., depth] name in data behind `batch` leading axes.
struct SliceIndex {
  int64_t slice;  // elements of one slice
  int64_t depth;
  Dims strides;
  const Dims& data;
  size_t batch;

  SliceIndex(const Dims& dims, const Dims& indices, size_t batch_dims)
      : depth(indices.empty() ? 0 : indices.back()),
        strides(row_major_strides(dims)),
        data(dims),
        batch(batch_dims) {
    const auto d = static_cast<size_t>(std::max<int64_t>(depth, 0));
    if (indices.empty() || depth < 1 || batch + d > dims.size() || batch >= indices.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("indices of shape {} do not fit data of shape {}", to_string(indices),
                              to_string(dims)));
    }
    slice = num_elements(dims, batch + d, dims.size());
  }
  /// Offset in elements from the begin of the batch item.
  int64_t offset(const TensorView& indices, int64_t row) const {
    int64_t at = 0;
    for (int64_t k = 0; k < depth; ++k) {
      const size_t axis = batch + static_cast<size_t>(k);
      at += resolve(index_at(indices, row * depth + k), data[axis]) * strides[axis];
    }
    return at;
  }
};

class GatherNdStep final : public Step {
 public:
  GatherNdStep(const Graph&, const Node& node)
      : batch_(static_cast<size_t>(std::max<int64_t>(0, node.int_or("batch_dims", 0)))) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& indices = context.inputs[1];
    const SliceIndex slices(x.dims, indices.dims, batch_);
    Dims dims(indices.dims.begin(), indices.dims.end() - 1);
    const auto first = static_cast<std::ptrdiff_t>(batch_) + slices.depth;
    dims.insert(dims.end(), x.dims.begin() + first, x.dims.end());
    const TensorView& y = planned_output(context, 0, dims);
    const auto bytes = static_cast<int64_t>(element_bytes(x.dtype));
    const int64_t items = num_elements(x.dims, 0, batch_);
    const int64_t rows = items == 0 ? 0 : indices.elements() / slices.depth / items;
    const int64_t item = num_elements(x.dims, batch_, x.dims.size());
    for (int64_t i = 0; i < items * rows; ++i) {
      const int64_t from = i / rows * item + slices.offset(indices, i);
      std::memcpy(y.data + i * slices.slice * bytes, x.data + from * bytes,
                  static_cast<size_t>(slices.slice * bytes));
    }
  }

 private:
  size_t batch_;
};

enum class Reduction { none, add, mul, max, min };

Reduction reduction_of(const Node& node) {
  const std::string name = node.string_or("reduction", "none");
  if (name == "add") return Reduction::add;
  if (name == "mul") return Reduction::mul;
  if (name == "max") return Reduction::max;
  return name == "min" ? Reduction::min : Reduction::none;
}

template <class T>
T combine(Reduction how, T old, T update) {
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  switch (how) {
    case Reduction::add:
      return static_cast<T>(static_cast<U>(old) + static_cast<U>(update));
    case Reduction::mul:
      return static_cast<T>(static_cast<U>(old) * static_cast<U>(update));
    case Reduction::max:
      return update > old ? update : old;
    case Reduction::min:
      return update < old ? update : old;
    case Reduction::none:
      break;
  }
  return update;
}

/// Copies data into the output (unless they share memory); scatters update it there, in order.
class ScatterStep : public Step {
 public:
  ScatterStep(const Graph&, const Node& node) : how_(reduction_of(node)) {}
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }

 protected:
  static const TensorView& start(RunContext& context) {
    const TensorView& y = planned_output(context, 0, context.inputs[0].dims);
    copy_view(y, context.inputs[0]);
    return y;
  }
  /// y[to + i] = combine(y[to + i], updates[from + i]) for n elements.
  void update(const TensorView& y, int64_t to, const TensorView& updates, int64_t from,
              int64_t n) const {
    const size_t bytes = element_bytes(y.dtype);
    if (how_ == Reduction::none) {
      std::memcpy(y.data + static_cast<size_t>(to) * bytes,
                  updates.data + static_cast<size_t>(from) * bytes, static_cast<size_t>(n) * bytes);
      return;
    }
    visit(Numeric{}, y.dtype, [&]<class T>(std::type_identity<T>) {
      T* target = y.as<T>() + to;
      const T* source = updates.as<T>() + from;
      for (int64_t i = 0; i < n; ++i) target[i] = combine(how_, target[i], source[i]);
    });
  }

 private:
  Reduction how_;
};

class ScatterElementsStep final : public ScatterStep {
 public:
  ScatterElementsStep(const Graph& graph, const Node& node)
      : ScatterStep(graph, node), axis_(node.int_or("axis", 0)) {}
  void run(RunContext& context) const override {
    const TensorView& indices = context.inputs[1];
    const TensorView& updates = context.inputs[2];
    const Dims& data = context.inputs[0].dims;
    const auto axis = static_cast<size_t>(normalize_axis(axis_, data.size()));
    require_within(indices.dims, data, axis);
    if (updates.dims != indices.dims) {
      throw Error(ErrorCode::invalid_argument, "updates and indices differ in shape");
    }
    const TensorView& y = start(context);
    for_indexed(data, indices, axis,
                [&](int64_t flat, int64_t offset) { update(y, offset, updates, flat, 1); });
  }

 private:
  int64_t axis_;
};

class ScatterNdStep final : public ScatterStep {
 public:
  using ScatterStep::ScatterStep;
  void run(RunContext& context) const override {
    const TensorView& indices = context.inputs[1];
    const TensorView& updates = context.inputs[2];
    const SliceIndex slices(context.inputs[0].dims, indices.dims, 0);
    const int64_t rows = indices.elements() / slices.depth;
    const Dims pair{rows, slices.slice};
    if (updates.elements() != num_elements(pair)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("updates of shape {} do not fit", to_string(updates.dims)));
    }
    const TensorView& y = start(context);
    for (int64_t i = 0; i < rows; ++i) {
      update(y, slices.offset(indices, i), updates, i * slices.slice, slices.slice);
    }
  }
};

Refusal accept_indices(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept_movable(graph, node, options); !why.empty()) return why;
  return require_dtype(graph, node, 1, {DType::int32, DType::int64});
}

Refusal accept_scatter(const Graph& graph, const Node& node, const StepOptions& options) {
  const std::string how = node.string_or("reduction", "none");
  if (how != "none" && how != "add" && how != "mul" && how != "max" && how != "min") {
    return "reduction \"" + how + "\"";
  }
  if (how != "none") {
    if (Refusal why = accept<Numeric>(graph, node, options); !why.empty()) return why;
  }
  return accept_indices(graph, node, options);
}

const OpImpl kRows[] = {
    {"", "Gather", "reference", accept_indices, make<GatherStep>},
    {"", "GatherElements", "reference", accept_indices, make<GatherElementsStep>},
    {"", "GatherND", "reference", accept_indices, make<GatherNdStep>},
    {"", "ScatterElements", "reference:float16", accept_half<>, make_half<ScatterElementsStep>},
    {"", "ScatterElements", "reference", accept_scatter, make<ScatterElementsStep>},
    {"", "ScatterND", "reference:float16", accept_half<>, make_half<ScatterNdStep>},
    {"", "ScatterND", "reference", accept_scatter, make<ScatterNdStep>},
};

}  // namespace

std::span<const OpImpl> gather_rows() {
  return kRows;
}

}  // namespace narrow::ops
