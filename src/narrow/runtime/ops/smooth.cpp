// SPDX-License-Identifier: Apache-2.0
// Swish and Gelu in float32 through the vector kernels.
#include "narrow/core/parallel.h"
#include "narrow/kernels/kernel_set.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

constexpr int64_t kBlock = 16384;  // elements; some 5 us of work

kernels::SmoothUnit unit_of(const Node& node) {
  if (node.is("Swish")) return kernels::SmoothUnit::silu;
  const bool tanh = node.string_or("approximate", "none") == "tanh";
  return tanh ? kernels::SmoothUnit::gelu_tanh : kernels::SmoothUnit::gelu;
}

class SmoothStep final : public Step {
 public:
  SmoothStep(const Graph&, const Node& node) : unit_(unit_of(node)) {}
  bool layout_agnostic() const override { return true; }
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
  void run(RunContext& context) const override {
    const float* x = context.inputs[0].as<float>();
    float* y = context.outputs[0].as<float>();
    parallel_for(context.inputs[0].elements(), kBlock, [&](int64_t begin, int64_t end) {
      kernels_.activate(unit_, x + begin, y + begin, end - begin);
    });
  }

 private:
  kernels::SmoothUnit unit_;
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
};

Refusal accept_smooth(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (node.is("Swish") && node.float_or("alpha", 1) != 1) return "alpha is not 1";
  return require_dtype(graph, node, 0, {DType::float32});
}

const OpImpl kRows[] = {
    {"", "Swish", "vector", accept_smooth, make<SmoothStep>},
    {"", "Gelu", "vector", accept_smooth, make<SmoothStep>},
};

}  // namespace

std::span<const OpImpl> smooth_rows() {
  return kRows;
}

}  // namespace narrow::ops
