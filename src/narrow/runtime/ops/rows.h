// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share to write their rows: makers of steps, refusals by element
// type, dispatch from DType to a C++ type, and the wrapper that runs 16-bit floats through a
// float32 step.
//
//   const OpImpl kRows[] = {
//       {"", "Relu", "reference", accept<Numeric>, make<ReluStep>},
//   };
#pragma once

#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include "narrow/core/error.h"
#include "narrow/runtime/op_impl.h"

namespace narrow::ops {

/// Tables of the families, one function per file; collected by float_op_impls().
std::span<const OpImpl> smooth_rows();
std::span<const OpImpl> unary_rows();
std::span<const OpImpl> binary_rows();
std::span<const OpImpl> onednn_conv_rows();
std::span<const OpImpl> onednn_matmul_rows();
std::span<const OpImpl> depthwise_rows();
std::span<const OpImpl> conv_rows();
std::span<const OpImpl> matmul_rows();
std::span<const OpImpl> pool_rows();
std::span<const OpImpl> norm_rows();
std::span<const OpImpl> softmax_rows();
std::span<const OpImpl> reduce_rows();
std::span<const OpImpl> movement_rows();
std::span<const OpImpl> reshape_rows();
std::span<const OpImpl> space_rows();
std::span<const OpImpl> gather_rows();
std::span<const OpImpl> select_rows();
std::span<const OpImpl> einsum_rows();
std::span<const OpImpl> shape_rows();
std::span<const OpImpl> cast_rows();
std::span<const OpImpl> resize_rows();
std::span<const OpImpl> detection_rows();
std::span<const OpImpl> quantize_rows();
std::span<const OpImpl> qlinear_rows();
std::span<const OpImpl> attention_rows();
std::span<const OpImpl> half_gemm_rows();
std::span<const OpImpl> tiled_attention_rows();

// --- element types ------------------------------------------------------------------------------

template <class... Ts>
struct Types {};
using Floating = Types<float, double>;
using Integers = Types<int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t>;
using Numeric =
    Types<float, double, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t>;
using NumericBool = Types<float, double, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t,
                          int64_t, uint64_t, bool>;
using Indices = Types<int32_t, int64_t>;

template <class... Ts>
bool contains(Types<Ts...>, DType dtype) {
  return ((DTypeOf<Ts>::value == dtype) || ...);
}

[[noreturn]] void fail_dtype(DType dtype);

/// Calls visitor(std::type_identity<T>{}) for the T of the list that `dtype` names.
template <class... Ts, class Visitor>
void visit(Types<Ts...>, DType dtype, Visitor&& visitor) {
  const bool found =
      ((DTypeOf<Ts>::value == dtype ? (visitor(std::type_identity<Ts>{}), true) : false) || ...);
  if (!found) fail_dtype(dtype);
}

/// undefined when the input is absent or its type unknown.
DType input_dtype(const Graph& graph, const Node& node, size_t i);
/// "input 0 is int64": the reason of a refusal by element type.
Refusal refuse_dtype(const Graph& graph, const Node& node, size_t i);
/// Why the input's type is none of `wanted`; empty if it is one.
Refusal require_dtype(const Graph& graph, const Node& node, size_t i,
                      std::initializer_list<DType> wanted);

Refusal accept_any(const Graph&, const Node&, const StepOptions&);
/// Input `Index` has a type of the list.
template <class List, size_t Index = 0>
Refusal accept(const Graph& graph, const Node& node, const StepOptions&) {
  if (contains(List{}, input_dtype(graph, node, Index))) return {};
  return refuse_dtype(graph, node, Index);
}

// --- steps --------------------------------------------------------------------------------------

template <class S>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node);
}

/// Runs a step written for float32 on float16 or bfloat16 operands: converts inputs into scratch,
/// runs, converts back. Operands of other types go through untouched.
class HalfStep final : public Step {
 public:
  explicit HalfStep(std::unique_ptr<Step> inner, const Graph& graph, const Node& node);
  void run(RunContext& context) const override;
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override;
  Layout input_layout(size_t i) const override { return inner_->input_layout(i); }
  Layout output_layout(size_t i) const override { return inner_->output_layout(i); }
  bool layout_agnostic() const override { return inner_->layout_agnostic(); }
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return inner_->macs(inputs, outputs);
  }

 private:
  std::unique_ptr<Step> inner_;
};

template <size_t Index = 0>
Refusal accept_half(const Graph& graph, const Node& node, const StepOptions&) {
  return require_dtype(graph, node, Index, {DType::float16, DType::bfloat16});
}
template <class S>
std::unique_ptr<Step> make_half(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<HalfStep>(std::make_unique<S>(graph, node), graph, node);
}

/// Rounds a byte count up to whole cache lines, so that parts of a scratch area stay aligned.
inline size_t aligned(size_t bytes) {
  return (bytes + 63) & ~size_t{63};
}

/// The elements of a small constant or run-time tensor of int32 or int64 (axes, sizes, indices).
Dims read_ints(const TensorView& view);
/// Its first element; throws invalid_argument when it is empty.
int64_t read_int(const TensorView& view);

inline bool present(std::span<const TensorView> views, size_t i) {
  return i < views.size() && views[i].data != nullptr;
}

/// Output i, checked against the dims that the step computed from its inputs. Throws internal where
/// the plan had others: nothing is ever written outside of planned memory.
TensorView& planned_output(RunContext& context, size_t i, const Dims& dims);

/// Input 0 is of whole bytes, so that elements can be moved without knowing what they mean.
Refusal accept_movable(const Graph&, const Node&, const StepOptions&);
inline size_t element_bytes(DType dtype) {
  return static_cast<size_t>(bits(dtype)) / 8;
}

inline size_t view_bytes(const TensorView& view) {
  return packed_bytes(view.dtype, view.elements());
}

}  // namespace narrow::ops
