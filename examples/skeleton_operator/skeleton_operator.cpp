// SPDX-License-Identifier: Apache-2.0
#include "skeleton_operator.h"

#include <fmt/format.h>

#include "narrow/runtime/ops/binary.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::examples {
namespace {

/// The definition, for every numeric type. BinaryStep brings broadcasting, memory orders, threads
/// and running in place; an operator of another kind derives from Step itself, as below.
struct SquaredDifference {
  explicit SquaredDifference(const Node&) {}  // attributes would be read here, once
  template <class T>
  T operator()(T a, T b) const {
    const T d = static_cast<T>(a - b);
    return static_cast<T>(d * d);
  }
};
using Reals = ops::Types<float, double>;
using ReferenceStep = ops::BinaryStep<SquaredDifference, Reals>;

/// A faster way for a case that matters: b is one constant number, known when the step is made.
/// A step is made once and run by several threads at once: what it holds never changes.
class ConstantStep final : public Step {
 public:
  ConstantStep(const Graph& graph, const Node& node)
      : b_(graph.constant(node.inputs[1])->item<float>()) {}
  /// Element by element: any memory order will do, and the output may take the input's memory.
  bool layout_agnostic() const override { return true; }
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const float* src = x.as<float>();
    float* dst = context.outputs[0].as<float>();
    // Blocks do not depend on the number of threads, so results do not either.
    parallel_for(x.elements(), ops::kBlockElements, [&](int64_t begin, int64_t end) {
      NARROW_SIMD
      for (int64_t i = begin; i < end; ++i) dst[i] = (src[i] - b_) * (src[i] - b_);
    });
  }

 private:
  float b_;
};

/// Empty: accepted. Otherwise the reason, which `narrow kernels` shows to people.
Refusal accept_constant(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  const Tensor* b = graph.constant(node.input(1));
  if (b == nullptr) return "b is no constant";
  if (b->elements() != 1 || b->rank() > 0) return "b is " + b->describe() + ", not a scalar";
  return ops::require_dtype(graph, node, 0, {DType::float32});
}

const OpImpl kRows[] = {
    {"example", "SquaredDifference", "constant", accept_constant, ops::make<ConstantStep>},
    {"example", "SquaredDifference", "reference:float16", ops::accept_half<>,
     ops::make_half<ReferenceStep>},
    {"example", "SquaredDifference", "reference", ops::accept<Reals>, ops::make<ReferenceStep>},
};

}  // namespace

std::span<const OpImpl> squared_difference_rows() {
  return kRows;
}

}  // namespace narrow::examples
