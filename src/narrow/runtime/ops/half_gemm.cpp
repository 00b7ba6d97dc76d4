// SPDX-License-Identifier: Apache-2.0
// narrow.HalfGemm: float32 activations times a constant matrix of 16-bit floats. Rows of K are read
// as they are stored; a matrix [K, N] is transposed once.
#include <algorithm>

#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/kernels/kernel_set.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

struct Form {
  int64_t n;
  int64_t k;
  bool transposed;  // stored [N, K]
};

Form form_of(const Graph& graph, const Node& node) {
  const Dims& dims = graph.constant(node.inputs[1])->dims();
  const bool transposed = node.int_or("transB", 0) != 0;
  return {dims[transposed ? 0 : 1], dims[transposed ? 1 : 0], transposed};
}

class HalfGemm : public Step {
 public:
  HalfGemm(const Graph& graph, const Node& node)
      : form_(form_of(graph, node)), brain_(input_dtype(graph, node, 1) == DType::bfloat16) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return num_elements(inputs[0]) * form_.n;
  }

 protected:
  int64_t rows(const TensorView& a) const {
    if (a.dims.empty() || a.dims.back() != form_.k) {
      throw Error(ErrorCode::invalid_argument, "a product of " + to_string(a.dims) +
                                                   " with a matrix of " + std::to_string(form_.k) +
                                                   " rows");
    }
    return num_elements(a.dims, 0, a.dims.size() - 1);
  }
  Form form_;
  bool brain_;
};

class ReferenceHalfGemm final : public HalfGemm {
 public:
  using HalfGemm::HalfGemm;
  void run(RunContext& context) const override {
    const float* a = context.inputs[0].as<float>();
    const uint16_t* b = context.inputs[1].as<uint16_t>();
    float* y = context.outputs[0].as<float>();
    const int64_t n = form_.n;
    const int64_t k = form_.k;
    parallel_for(rows(context.inputs[0]), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t p = 0; p < k; ++p) {
            const uint16_t bits = b[form_.transposed ? j * k + p : p * n + j];
            const float w = brain_ ? to_float(BFloat16{bits}) : to_float(Half{bits});
            sum += static_cast<double>(a[i * k + p]) * static_cast<double>(w);
          }
          if (present(context.inputs, 2)) sum += static_cast<double>(bias_at(context, j));
          y[i * n + j] = static_cast<float>(sum);
        }
      }
    });
  }

 private:
  static float bias_at(const RunContext& context, int64_t j) {
    const TensorView& bias = context.inputs[2];
    return bias.as<float>()[bias.elements() == 1 ? 0 : j];
  }
};

class KernelHalfGemm final : public HalfGemm {
 public:
  KernelHalfGemm(const Graph& graph, const Node& node, const StepOptions& options)
      : HalfGemm(graph, node) {
    if (form_.transposed || !options.repack) return;
    const Tensor& b = *graph.constant(node.inputs[1]);
    packed_ = Tensor(b.dtype(), {form_.n, form_.k});
    const auto* from = reinterpret_cast<const uint16_t*>(b.raw());
    auto* to = reinterpret_cast<uint16_t*>(packed_.mutable_raw());
    parallel_for(form_.n, kTile, [&](int64_t begin, int64_t end) {
      transpose(from, begin, end, to + begin * form_.k);
    });
  }
  size_t packed_bytes() const override { return packed_.defined() ? packed_.bytes() : 0; }
  void run(RunContext& context) const override {
    const int64_t m = rows(context.inputs[0]);
    const std::byte* b = packed_.defined() ? packed_.raw() : context.inputs[1].data;
    const bool as_stored = !form_.transposed && !packed_.defined();
    const float* bias = present(context.inputs, 2) ? context.inputs[2].as<float>() : nullptr;
    // Weights of a block stay in the second-level cache while pieces of the rows pass.
    constexpr int64_t kBlockBytes = int64_t{1} << 16;
    constexpr int64_t kPiece = 32;
    const int64_t row_bytes = form_.k * 2;
    const int64_t columns = std::clamp<int64_t>(kBlockBytes / (row_bytes + 1) / 4 * 4, 4, 256);
    parallel_for(form_.n, columns, [&](int64_t begin, int64_t end) {
      kernels::HalfGemmArgs args{};
      std::vector<uint16_t> rows;
      if (as_stored) {
        rows.resize(static_cast<size_t>((end - begin) * form_.k));
        transpose(reinterpret_cast<const uint16_t*>(b), begin, end, rows.data());
        args.b = rows.data();
      } else {
        args.b = b + static_cast<size_t>(begin * row_bytes);
      }
      args.lda = form_.k;
      args.ldb = form_.k;
      args.n = end - begin;
      args.k = form_.k;
      args.stored = brain_ ? 1 : 0;
      args.bias = bias == nullptr ? nullptr : bias + begin;
      args.ldc = form_.n;
      for (int64_t i = 0; i < m; i += kPiece) {
        args.a = context.inputs[0].as<float>() + i * form_.k;
        args.m = std::min(kPiece, m - i);
        args.dst = context.outputs[0].as<float>() + i * form_.n + begin;
        kernels_.half_gemm(args);
      }
    });
  }

 private:
  static constexpr int64_t kTile = 32;

  /// Columns [begin, end) of a stored [K, N] as rows of K.
  void transpose(const uint16_t* from, int64_t begin, int64_t end, uint16_t* to) const {
    for (int64_t p = 0; p < form_.k; p += kTile) {
      for (int64_t j = begin; j < end; ++j) {
        for (int64_t q = p; q < std::min(form_.k, p + kTile); ++q) {
          to[(j - begin) * form_.k + q] = from[q * form_.n + j];
        }
      }
    }
  }

  const kernels::KernelSet& kernels_ = kernels::best_kernels();
  Tensor packed_;
};

Refusal accept_half_gemm(const Graph& graph, const Node& node, const StepOptions&) {
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  const Tensor* b = graph.constant(node.inputs[1]);
  if (b == nullptr || b->rank() != 2) return "the matrix is no constant";
  return require_dtype(graph, node, 1, {DType::float16, DType::bfloat16});
}

Refusal accept_kernel(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = accept_half_gemm(graph, node, options); !why.empty()) return why;
  if (node.input(2) == kNoId) return {};
  const auto& shape = graph.value(node.input(2)).shape;
  const auto dims = shape ? concrete(*shape) : std::nullopt;
  if (!dims || num_elements(*dims) != form_of(graph, node).n) return "the bias is no row";
  return {};
}

std::unique_ptr<Step> make_kernel(const Graph& graph, const Node& node,
                                  const StepOptions& options) {
  return std::make_unique<KernelHalfGemm>(graph, node, options);
}

const OpImpl kRows[] = {
    {kDomain, kHalfGemm, "dot", accept_kernel, make_kernel},
    {kDomain, kHalfGemm, "reference", accept_half_gemm, make<ReferenceHalfGemm>},
};

}  // namespace

std::span<const OpImpl> half_gemm_rows() {
  return kRows;
}

}  // namespace narrow::ops
