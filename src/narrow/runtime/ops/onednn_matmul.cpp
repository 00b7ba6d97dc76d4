// SPDX-License-Identifier: Apache-2.0
// Gemm, narrow.FusedGemm and MatMul with a constant matrix B, as oneDNN's inner product.
#include "narrow/runtime/ops/rows.h"

#if defined(NARROW_ONEDNN)

#include <algorithm>
#include <cstring>

#include "narrow/core/parallel.h"
#include "narrow/runtime/ops/activation.h"
#include "narrow/runtime/ops/onednn.h"
#include "narrow/runtime/ops/onednn_post_ops.h"

namespace narrow::ops {
namespace {

using dnnl::memory;

constexpr size_t kBias = 2;
constexpr size_t kResidual = 3;

Tensor scaled(const Tensor& tensor, float factor) {
  if (factor == 1.0F) return tensor;
  Tensor result(DType::float32, tensor.dims());
  const auto from = tensor.data<float>();
  auto to = result.mutable_data<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = from[i] * factor;
  return result;
}

/// beta * C as a vector of n numbers.
Tensor bias_vector(const Tensor& c, float beta, int64_t n) {
  Tensor result(DType::float32, {n});
  const auto from = c.data<float>();
  auto to = result.mutable_data<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = beta * from[from.size() == 1 ? 0 : i];
  return result;
}

/// a [.., M, K] times a constant B: rows of all leading axes are one matrix.
class OneDnnGemm final : public Step {
 public:
  OneDnnGemm(const Graph& graph, const Node& node, bool bfloat16 = false)
      : bfloat16_(bfloat16), activation_(activation_of(node)) {
    const Tensor& b = *graph.constant(node.inputs[1]);
    const bool transposed = node.int_or("transB", 0) != 0;
    n_ = b.dim(transposed ? 0 : 1);
    k_ = b.dim(transposed ? 1 : 0);
    const Dims dims{n_, k_};
    const Dims strides = transposed ? Dims{k_, 1} : Dims{1, n_};
    const bool is_gemm = node.op != "MatMul";
    onednn::guarded([&] {
      weights_ = std::make_unique<onednn::PackedWeights>(
          scaled(b, is_gemm ? node.float_or("alpha", 1.0F) : 1.0F), onednn::strided(dims, strides));
    });
    if (is_gemm && node.input(kBias) != kNoId) {
      bias_ = bias_vector(*graph.constant(node.inputs[kBias]), node.float_or("beta", 1.0F), n_);
    }
    has_residual_ = node.input(kResidual) != kNoId;
  }

  int aliases(size_t output) const override {
    return output == 0 && has_residual_ ? static_cast<int>(kResidual) : -1;
  }
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return num_elements(inputs[0]) * n_;
  }
  size_t packed_bytes() const override { return weights_->packed_bytes(); }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const int64_t rows = rows_of(inputs[0]);
    return rows == 0 ? 0 : onednn::scratch_with_source(*prepared(rows), rows * k_);
  }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[0];
    const TensorView& y = context.outputs[0];
    if (y.elements() == 0) return;
    if (has_residual_ && context.inputs[kResidual].data != y.data) {
      std::memcpy(y.data, context.inputs[kResidual].data, view_bytes(y));
    }
    const auto primitive = prepared(rows_of(a.dims));
    std::span<std::byte> scratch = context.scratch;
    void* pointers[3] = {onednn::source(*primitive, a.as<float>(), a.elements(), scratch), y.data,
                         const_cast<std::byte*>(bias_.raw())};
    const size_t count = bias_.defined() ? 3 : 2;
    primitive->run({pointers, count}, scratch);
  }

 private:
  int64_t rows_of(const Dims& a) const { return num_elements(a) / std::max<int64_t>(k_, 1); }

  std::shared_ptr<const onednn::Prepared> prepared(int64_t rows) const {
    return cache_.find({rows, current_threads()}, [&] { return make_product(rows); });
  }

  std::shared_ptr<const onednn::Prepared> make_product(int64_t rows) const {
    const memory::desc dst = onednn::strided(Dims{rows, n_}, Dims{n_, 1});
    memory::desc bias;
    if (bias_.defined()) bias = {{n_}, memory::data_type::f32, memory::format_tag::a};
    using Product = dnnl::inner_product_forward;
    const auto attributes = onednn::attributes_of(
        activation_, has_residual_ ? onednn::Residual::yes : onednn::Residual::no);
    const auto pd = onednn::choose_type(bfloat16_, [&](onednn::DataType type) {
      const memory::desc src = onednn::strided(Dims{rows, k_}, Dims{k_, 1}, type);
      const memory::desc weights({n_, k_}, type, memory::format_tag::any);
      const Product::desc desc(dnnl::prop_kind::forward_inference, src, weights, bias, dst);
      return Product::primitive_desc(desc, attributes, onednn::engine());
    });
    std::vector<onednn::Argument> arguments{{DNNL_ARG_SRC, pd.src_desc()}, {DNNL_ARG_DST, dst}};
    if (bias_.defined()) arguments.push_back({DNNL_ARG_BIAS, bias});
    return std::make_shared<const onednn::Prepared>(
        Product(pd), std::move(arguments),
        std::vector<std::pair<int, memory>>{
            {DNNL_ARG_WEIGHTS, weights_->in_format(pd.weights_desc())}},
        pd.scratchpad_desc().get_size());
  }

  bool bfloat16_;
  Activation activation_;
  int64_t n_ = 0;
  int64_t k_ = 0;
  bool has_residual_ = false;
  std::unique_ptr<onednn::PackedWeights> weights_;
  Tensor bias_;
  onednn::PreparedCache cache_;
};

/// C must be one row (or one number) for the inner product's bias.
Refusal refuse_bias(const Graph& graph, const Node& node, int64_t n) {
  if (node.input(kBias) == kNoId) return {};
  const Tensor* c = graph.constant(node.input(kBias));
  if (c == nullptr) return "C is no constant";
  const bool is_row =
      c->elements() == 1 || (c->elements() == n && c->rank() > 0 && c->dim(-1) == n);
  return is_row ? Refusal{} : "C is not one row";
}

Refusal accept_product(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  const Tensor* b = graph.constant(node.input(1));
  if (b == nullptr) return "B is no constant";
  if (b->rank() != 2) return "B has rank " + std::to_string(b->rank());
  if (b->elements() == 0) return "B is empty";
  if (Refusal why = refuse_activation(node); !why.empty()) return why;
  if (node.op == "MatMul") return {};
  if (node.int_or("transA", 0) != 0) return "A is transposed";
  return refuse_bias(graph, node, b->dim(node.int_or("transB", 0) != 0 ? 0 : 1));
}

Refusal accept_bfloat16(const Graph& graph, const Node& node, const StepOptions& options) {
  return options.bfloat16 ? accept_product(graph, node, options) : "bfloat16 was not asked for";
}

std::unique_ptr<Step> make_bfloat16(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<OneDnnGemm>(graph, node, true);
}

const OpImpl kRows[] = {
    {"", "Gemm", "onednn:bfloat16", accept_bfloat16, make_bfloat16},
    {"narrow", "FusedGemm", "onednn:bfloat16", accept_bfloat16, make_bfloat16},
    {"", "MatMul", "onednn:bfloat16", accept_bfloat16, make_bfloat16},
    {"", "Gemm", "onednn", accept_product, make<OneDnnGemm>},
    {"narrow", "FusedGemm", "onednn", accept_product, make<OneDnnGemm>},
    {"", "MatMul", "onednn", accept_product, make<OneDnnGemm>},
};

}  // namespace

std::span<const OpImpl> onednn_matmul_rows() {
  return kRows;
}

}  // namespace narrow::ops

#else

namespace narrow::ops {
std::span<const OpImpl> onednn_matmul_rows() {
  return {};
}
}  // namespace narrow::ops

#endif  // NARROW_ONEDNN
