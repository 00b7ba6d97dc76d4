// SPDX-License-Identifier: Apache-2.0
// MatMul and Gemm: the plain definition for every numeric type, and float32 through packed panels.
// narrow.FusedGemm is Gemm with an activation (and narrow.FusedGemm's inputs (a, b, c?,
// residual?)).
#include <algorithm>

#include "narrow/runtime/ops/activation.h"
#include "narrow/runtime/ops/gemm.h"
#include "narrow/runtime/ops/matmul_shape.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

using Products = Types<float, double, int32_t, uint32_t, int64_t, uint64_t>;

/// Strides of A' and B' in Gemm: (row, column) of the matrix that is multiplied.
struct GemmForm {
  bool trans_a;
  bool trans_b;
  float alpha;
  float beta;
  explicit GemmForm(const Node& n)
      : trans_a(n.int_or("transA", 0) != 0),
        trans_b(n.int_or("transB", 0) != 0),
        alpha(n.float_or("alpha", 1.0F)),
        beta(n.float_or("beta", 1.0F)) {}
  int64_t m(const Dims& a) const { return a[trans_a ? 1 : 0]; }
  int64_t k(const Dims& a) const { return a[trans_a ? 0 : 1]; }
  int64_t n(const Dims& b) const { return b[trans_b ? 0 : 1]; }
};

int64_t matmul_macs(std::span<const Dims> inputs) {
  const MatMulShape s = matmul_shape(inputs[0], inputs[1]);
  return s.items() * s.m * s.n * s.k;
}

class ReferenceMatMul final : public Step {
 public:
  ReferenceMatMul(const Graph&, const Node&) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return matmul_macs(inputs);
  }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[0];
    const TensorView& b = context.inputs[1];
    const MatMulShape s = matmul_shape(a.dims, b.dims);
    visit(Products{}, a.dtype, [&]<class T>(std::type_identity<T>) {
      parallel_for(s.items() * s.m, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const auto item = static_cast<size_t>(row / s.m);
          multiply_row(a.as<T>() + (s.a_item[item] * s.m + row % s.m) * s.k,
                       b.as<T>() + s.b_item[item] * s.k * s.n,
                       context.outputs[0].as<T>() + row * s.n, s);
        }
      });
    });
  }

 private:
  template <class T>
  static void multiply_row(const T* a, const T* b, T* y, const MatMulShape& s) {
    std::fill_n(y, s.n, T{0});
    for (int64_t p = 0; p < s.k; ++p) {
      const T factor = a[p];
      for (int64_t j = 0; j < s.n; ++j) y[j] = wrap_add(y[j], factor, b[p * s.n + j]);
    }
  }
  /// sum + a * b; integers wrap.
  template <class T>
  static T wrap_add(T sum, T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return sum + a * b;
    } else {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(sum) + static_cast<U>(a) * static_cast<U>(b));
    }
  }
};

/// float32; a constant matrix B is packed once.
class PackedMatMul final : public Step {
 public:
  PackedMatMul(const Graph& graph, const Node& node) {
    const Tensor* b = graph.constant(node.inputs[1]);
    if (b == nullptr || b->rank() != 2) return;
    const int64_t k = b->dim(0);
    const int64_t n = b->dim(1);
    b_ = Tensor(DType::float32, {static_cast<int64_t>(packed_columns_elements(kernel_, n, k))});
    pack_columns(kernel_, {b->data<float>().data(), n, 1}, n, k, b_.mutable_data<float>().data());
  }
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return matmul_macs(inputs);
  }
  size_t packed_bytes() const override { return b_.defined() ? b_.bytes() : 0; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const MatMulShape s = matmul_shape(inputs[0], inputs[1]);
    const int64_t rows = b_.defined() ? s.m * s.items() : s.m;
    const size_t b = b_.defined() ? 0 : packed_columns_elements(kernel_, s.n, s.k);
    return aligned(packed_rows_elements(kernel_, rows, s.k) * sizeof(float)) +
           aligned(b * sizeof(float));
  }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[0];
    const TensorView& b = context.inputs[1];
    float* y = context.outputs[0].as<float>();
    const MatMulShape s = matmul_shape(a.dims, b.dims);
    auto* rows = reinterpret_cast<float*>(context.scratch.data());
    if (b_.defined()) {  // all batch items are rows of one product
      const int64_t m = s.m * s.items();
      pack_rows(kernel_, {a.as<float>(), s.k, 1}, m, s.k, 1.0F, rows);
      multiply_packed(kernel_, rows, b_.data<float>().data(), m, s.n, s.k, y, s.n,
                      GemmInto::overwrite);
      return;
    }
    auto* columns = reinterpret_cast<float*>(
        context.scratch.data() + aligned(packed_rows_elements(kernel_, s.m, s.k) * sizeof(float)));
    for (size_t i = 0; i < s.a_item.size(); ++i) {
      pack_rows(kernel_, {a.as<float>() + s.a_item[i] * s.m * s.k, s.k, 1}, s.m, s.k, 1.0F, rows);
      pack_columns(kernel_, {b.as<float>() + s.b_item[i] * s.k * s.n, s.n, 1}, s.n, s.k, columns);
      multiply_packed(kernel_, rows, columns, s.m, s.n, s.k,
                      y + static_cast<int64_t>(i) * s.m * s.n, s.n, GemmInto::overwrite);
    }
  }

 private:
  const GemmKernel& kernel_ = gemm_kernel();
  Tensor b_;
};

/// y = beta * c broadcast to [m, n]; 0 without c.
template <class T>
void fill_addend(std::span<const TensorView> inputs, float beta, const TensorView& y) {
  if (!present(inputs, 2)) {
    std::fill_n(y.as<T>(), y.elements(), T{0});
    return;
  }
  const TensorView& c = inputs[2];
  const Dims so = memory_strides(y);
  const Dims sc = broadcast_strides(c, y.dims);
  const T factor = static_cast<T>(beta);
  const auto nest = make_nest<2>(y.dims, {so, sc});
  const auto& row = nest.row_strides();
  for_rows(nest, [&](const std::array<int64_t, 2>& at, int64_t n) {
    T* to = y.as<T>() + at[0];
    const T* from = c.as<T>() + at[1];
    for (int64_t i = 0; i < n; ++i) {
      const T value = from[i * row[1]];
      to[i * row[0]] = beta == 1.0F ? value : static_cast<T>(factor * value);
    }
  });
}

class GemmStep : public Step {
 public:
  GemmStep(const Graph&, const Node& node) : form_(node), activation_(activation_of(node)) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return form_.m(inputs[0]) * form_.k(inputs[0]) * form_.n(inputs[1]);
  }

 protected:
  /// Residual and activation, where the node is fused.
  void finish(RunContext& context) const {
    const TensorView& y = context.outputs[0];
    if (y.dtype != DType::float32) return;
    float* to = y.as<float>();
    const float* residual = present(context.inputs, 3) ? context.inputs[3].as<float>() : nullptr;
    parallel_for(y.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
      if (residual != nullptr) {
        for (int64_t i = begin; i < end; ++i) to[i] += residual[i];
      }
      activation_.apply(to + begin, end - begin);
    });
  }
  GemmForm form_;
  Activation activation_;
};

class ReferenceGemm final : public GemmStep {
 public:
  using GemmStep::GemmStep;
  void run(RunContext& context) const override {
    visit(Products{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
    finish(context);
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& a = context.inputs[0];
    const TensorView& b = context.inputs[1];
    const TensorView& y = context.outputs[0];
    fill_addend<T>(context.inputs, form_.beta, y);
    const int64_t m = form_.m(a.dims);
    const int64_t k = form_.k(a.dims);
    const int64_t n = form_.n(b.dims);
    const int64_t a_row = form_.trans_a ? 1 : k;
    const int64_t a_col = form_.trans_a ? m : 1;
    const int64_t b_row = form_.trans_b ? 1 : n;
    const int64_t b_col = form_.trans_b ? k : 1;
    const T alpha = static_cast<T>(form_.alpha);
    parallel_for(m, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          T sum = 0;
          for (int64_t p = 0; p < k; ++p) {
            sum += a.as<T>()[i * a_row + p * a_col] * b.as<T>()[p * b_row + j * b_col];
          }
          y.as<T>()[i * n + j] += alpha * sum;
        }
      }
    });
  }
};

class PackedGemm final : public GemmStep {
 public:
  PackedGemm(const Graph& graph, const Node& node) : GemmStep(graph, node) {
    const Tensor* b = graph.constant(node.inputs[1]);
    if (b == nullptr) return;
    const int64_t n = form_.n(b->dims());
    const int64_t k = b->dim(form_.trans_b ? 1 : 0);
    b_ = Tensor(DType::float32, {static_cast<int64_t>(packed_columns_elements(kernel_, n, k))});
    pack_b(b->data<float>().data(), n, k, b_.mutable_data<float>().data());
  }
  size_t packed_bytes() const override { return b_.defined() ? b_.bytes() : 0; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const int64_t k = form_.k(inputs[0]);
    const size_t b = b_.defined() ? 0 : packed_columns_elements(kernel_, form_.n(inputs[1]), k);
    return aligned(packed_rows_elements(kernel_, form_.m(inputs[0]), k) * sizeof(float)) +
           aligned(b * sizeof(float));
  }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[0];
    const TensorView& y = context.outputs[0];
    const int64_t m = form_.m(a.dims);
    const int64_t k = form_.k(a.dims);
    const int64_t n = form_.n(context.inputs[1].dims);
    auto* rows = reinterpret_cast<float*>(context.scratch.data());
    const MatrixView view{a.as<float>(), form_.trans_a ? 1 : k, form_.trans_a ? m : 1};
    pack_rows(kernel_, view, m, k, form_.alpha, rows);
    const float* columns = b_.defined() ? b_.data<float>().data() : nullptr;
    if (columns == nullptr) {
      auto* packed = reinterpret_cast<float*>(
          context.scratch.data() + aligned(packed_rows_elements(kernel_, m, k) * sizeof(float)));
      pack_b(context.inputs[1].as<float>(), n, k, packed);
      columns = packed;
    }
    fill_addend<float>(context.inputs, form_.beta, y);
    multiply_packed(kernel_, rows, columns, m, n, k, y.as<float>(), n, GemmInto::add);
    finish(context);
  }

 private:
  void pack_b(const float* b, int64_t n, int64_t k, float* panels) const {
    pack_columns(kernel_, {b, form_.trans_b ? 1 : n, form_.trans_b ? k : 1}, n, k, panels);
  }
  const GemmKernel& kernel_ = gemm_kernel();
  Tensor b_;
};

Refusal accept_packed(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = refuse_activation(node); !why.empty()) return why;
  return require_dtype(graph, node, 0, {DType::float32});
}

Refusal accept_gemm(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = refuse_activation(node); !why.empty()) return why;
  return accept<Products>(graph, node, options);
}

const OpImpl kRows[] = {
    {"", "MatMul", "packed", accept_packed, make<PackedMatMul>},
    {"", "MatMul", "reference:float16", accept_half<>, make_half<ReferenceMatMul>},
    {"", "MatMul", "reference", accept<Products>, make<ReferenceMatMul>},
    {"", "Gemm", "packed", accept_packed, make<PackedGemm>},
    {"", "Gemm", "reference:float16", accept_half<>, make_half<ReferenceGemm>},
    {"", "Gemm", "reference", accept_gemm, make<ReferenceGemm>},
    {"narrow", "FusedGemm", "packed", accept_packed, make<PackedGemm>},
    {"narrow", "FusedGemm", "reference:float16", accept_half<>, make_half<ReferenceGemm>},
    {"narrow", "FusedGemm", "reference", accept_gemm, make<ReferenceGemm>},
};

}  // namespace

std::span<const OpImpl> matmul_rows() {
  return kRows;
}

}  // namespace narrow::ops
