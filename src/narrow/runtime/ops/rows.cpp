// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/rows.h"

#include <fmt/format.h>

#include <vector>

#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

bool is_half(DType dtype) {
  return dtype == DType::float16 || dtype == DType::bfloat16;
}

void widen(const TensorView& from, float* to) {
  parallel_for(from.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    if (from.dtype == DType::float16) {
      for (int64_t i = begin; i < end; ++i) to[i] = to_float(from.as<Half>()[i]);
    } else {
      for (int64_t i = begin; i < end; ++i) to[i] = to_float(from.as<BFloat16>()[i]);
    }
  });
}

void shorten(const float* from, const TensorView& to) {
  parallel_for(to.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    if (to.dtype == DType::float16) {
      for (int64_t i = begin; i < end; ++i) to.as<Half>()[i] = to_half(from[i]);
    } else {
      for (int64_t i = begin; i < end; ++i) to.as<BFloat16>()[i] = to_bfloat16(from[i]);
    }
  });
}

size_t float_bytes(std::span<const Dims> operands) {
  size_t bytes = 0;
  for (const Dims& dims : operands) {
    bytes += aligned(static_cast<size_t>(num_elements(dims)) * sizeof(float));
  }
  return bytes;
}

/// Hands pieces of the scratch area out, front to back.
class Pieces {
 public:
  explicit Pieces(std::span<std::byte> area) : area_(area) {}
  std::byte* take(size_t bytes) {
    const size_t size = aligned(bytes);
    if (size > area_.size()) throw Error(ErrorCode::internal, "scratch memory is too small");
    std::byte* piece = area_.data();
    area_ = area_.subspan(size);
    return piece;
  }
  std::span<std::byte> rest() const { return area_; }

 private:
  std::span<std::byte> area_;
};

struct FloatContext final : RunContext {
  TensorView& allocate_output(size_t, Dims) override {
    throw Error(ErrorCode::internal, "a step with data-dependent shapes has no 16-bit float form");
  }
};

}  // namespace

void fail_dtype(DType dtype) {
  throw Error(ErrorCode::internal,
              fmt::format("element type {} reached a step that refused it", to_string(dtype)));
}

DType input_dtype(const Graph& graph, const Node& node, size_t i) {
  const ValueId id = node.input(i);
  return id == kNoId ? DType::undefined : graph.value(id).dtype;
}

Refusal refuse_dtype(const Graph& graph, const Node& node, size_t i) {
  if (node.input(i) == kNoId) return fmt::format("input {} is absent", i);
  const DType dtype = input_dtype(graph, node, i);
  if (dtype == DType::undefined) return fmt::format("the element type of input {} is unknown", i);
  return fmt::format("input {} is {}", i, to_string(dtype));
}

Refusal require_dtype(const Graph& graph, const Node& node, size_t i,
                      std::initializer_list<DType> wanted) {
  const DType dtype = input_dtype(graph, node, i);
  for (const DType w : wanted) {
    if (dtype == w) return {};
  }
  return refuse_dtype(graph, node, i);
}

Refusal accept_any(const Graph&, const Node&, const StepOptions&) {
  return {};
}

HalfStep::HalfStep(std::unique_ptr<Step> inner, const Graph&, const Node&)
    : inner_(std::move(inner)) {}

size_t HalfStep::scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const {
  return float_bytes(inputs) + float_bytes(outputs) + inner_->scratch_bytes(inputs, outputs);
}

void HalfStep::run(RunContext& context) const {
  Pieces pieces(context.scratch);
  std::vector<TensorView> inputs(context.inputs.begin(), context.inputs.end());
  std::vector<TensorView> outputs(context.outputs.begin(), context.outputs.end());
  const auto stand_in = [&](TensorView& view) {
    view.data = pieces.take(static_cast<size_t>(view.elements()) * sizeof(float));
    view.dtype = DType::float32;
  };
  for (TensorView& view : inputs) {
    if (view.data == nullptr || !is_half(view.dtype)) continue;
    const TensorView original = view;
    stand_in(view);
    widen(original, view.as<float>());
  }
  for (TensorView& view : outputs) {
    if (view.data != nullptr && is_half(view.dtype)) stand_in(view);
  }
  FloatContext inner;
  inner.inputs = inputs;
  inner.outputs = outputs;
  inner.scratch = pieces.rest();
  inner_->run(inner);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorView& original = context.outputs[i];
    if (original.data != outputs[i].data) shorten(outputs[i].as<float>(), original);
  }
}

TensorView& planned_output(RunContext& context, size_t i, const Dims& dims) {
  TensorView& view = context.outputs[i];
  if (view.dims != dims) {
    throw Error(ErrorCode::internal, fmt::format("output {} has shape {}, planned was {}", i,
                                                 to_string(dims), to_string(view.dims)));
  }
  return view;
}

Refusal accept_movable(const Graph& graph, const Node& node, const StepOptions&) {
  const DType dtype = input_dtype(graph, node, 0);
  if (dtype == DType::undefined || dtype == DType::string || is_sub_byte(dtype)) {
    return refuse_dtype(graph, node, 0);
  }
  return {};
}

Dims read_ints(const TensorView& view) {
  const auto count = static_cast<size_t>(view.elements());
  Dims out(count);
  visit(Indices{}, view.dtype, [&]<class T>(std::type_identity<T>) {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<int64_t>(view.as<T>()[i]);
  });
  return out;
}

int64_t read_int(const TensorView& view) {
  const Dims numbers = read_ints(view);
  if (numbers.empty()) throw Error(ErrorCode::invalid_argument, "a number is missing: empty input");
  return numbers[0];
}

}  // namespace narrow::ops
