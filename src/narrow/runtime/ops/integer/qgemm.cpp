// SPDX-License-Identifier: Apache-2.0
// QGemm: products of codes with constant weights, or of two activations.
#include "narrow/core/error.h"
#include "narrow/kernels/gemm.h"
#include "narrow/kernels/ref/reference.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Inputs of QGemm.
constexpr size_t kA = 0;
constexpr size_t kB = 3;
constexpr size_t kY = 6;  // y_scale
constexpr size_t kBias = 8;

bool transposed(const Node& node) {
  return node.int_or("transB", 0) != 0;
}
int64_t column_axis(const Node& node) {
  return transposed(node) ? 0 : 1;
}

class QGemmStep : public Step {
 public:
  QGemmStep(const Graph& graph, const Node& node)
      : a_(read_grid(graph, node, kA)), out_(read_output(graph, node, kY)) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return inputs[kA].empty() ? 0 : num_elements(outputs[0]) * inputs[kA].back();
  }
  bool integer_macs() const override { return true; }

 protected:
  CodeGrid a_;
  OutputSpec out_;
};

/// Constant weights, packed.
class PackedGemmStep final : public QGemmStep {
 public:
  PackedGemmStep(const Graph& graph, const Node& node, Isa isa)
      : QGemmStep(graph, node), kernels_(kernels_for(isa)) {
    const WeightCodes w = read_weights(graph, node, kB, column_axis(node));
    const int64_t n = w.channels;
    packed_ = pack_gemm_weights(w, transposed(node));
    columns_ = kernels::make_columns(packed_, a_.byte_zero(), read_bias(graph, node, kBias, n),
                                     multipliers(out_, a_.scale, w.scale, n));
  }
  size_t scratch_bytes(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return kernels::gemm_scratch_bytes(rows(outputs[0]), packed_.shape.run_bytes);
  }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[kA];
    if (a.dims.empty() || a.dims.back() != packed_.shape.run_bytes) {
      throw Error(ErrorCode::invalid_argument, "the input does not fit the weights");
    }
    const kernels::ConvOutput target = out_.target(context.outputs[0].data);
    kernels::GemmProblem g;
    g.m = rows(context.outputs[0].dims);
    g.a = a.as<uint8_t>();
    g.flip = a_.flip();
    g.w = &packed_;
    g.epilogue.corr = columns_.corr.data();
    g.epilogue.multiplier = columns_.multiplier.data();
    g.epilogue.weight_zero = packed_.weight_zero.empty() ? nullptr : packed_.weight_zero.data();
    g.epilogue.lo = target.lo;
    g.epilogue.hi = target.hi;
    g.epilogue.zero_point = target.zero_point;
    g.epilogue.out = target.out;
    g.dst = target.data;
    kernels::run_gemm(kernels_, g, context.scratch);
  }
  size_t packed_bytes() const override { return packed_.bytes(); }

 private:
  int64_t rows(const Dims& y) const {
    return packed_.shape.n == 0 ? 0 : num_elements(y) / packed_.shape.n;
  }
  const kernels::KernelSet& kernels_;
  kernels::PackedMatrix packed_;
  kernels::Columns columns_;
};

/// Where the matrices of a product of two activations start: `y` runs over the broadcast leading
/// dimensions.
class BatchWalk {
 public:
  BatchWalk(const Dims& a, const Dims& b, const Dims& y) : y_(y.begin(), y.end() - 2) {
    a_ = strides(a);
    b_ = strides(b);
  }
  int64_t count() const { return num_elements(y_); }
  /// Indices of the matrices of a and b that make matrix i of y.
  std::pair<int64_t, int64_t> at(int64_t i) const {
    int64_t a = 0;
    int64_t b = 0;
    for (size_t d = y_.size(); d-- > 0;) {
      const int64_t at = i % y_[d];
      i /= y_[d];
      a += at * a_[d];
      b += at * b_[d];
    }
    return {a, b};
  }

 private:
  Dims strides(const Dims& dims) const {
    Dims out(y_.size(), 0);
    int64_t stride = 1;
    for (size_t i = dims.size() - 2; i-- > 0;) {
      const size_t d = i + y_.size() + 2 - dims.size();
      out[d] = dims[i] == 1 ? 0 : stride;
      stride *= dims[i];
    }
    return out;
  }
  Dims y_;
  Dims a_;
  Dims b_;
};

/// The specification: sums in 64 bits; b constant or not.
class ReferenceGemmStep final : public QGemmStep {
 public:
  ReferenceGemmStep(const Graph& graph, const Node& node)
      : QGemmStep(graph, node), trans_b_(transposed(node)) {
    const Tensor* b = graph.constant(node.input(kB));
    if (b != nullptr && b->rank() == 2) {
      weights_ = centered_weights(graph, node, kB, column_axis(node));
      n_ = b->dim(column_axis(node));
      bias_ = read_bias(graph, node, kBias, n_);
      multiplier_ = multipliers(out_, a_.scale, read_scales(graph, node, kB + 1), n_);
    } else {
      b_ = read_grid(graph, node, kB);
      multiplier_ = {out_.multiplier(a_.scale, b_.scale)};
    }
  }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[kA];
    const TensorView& b = context.inputs[kB];
    const TensorView& y = context.outputs[0];
    const std::vector<int32_t> left = centered(a, a_.zero_point);
    const bool packed = n_ >= 0;
    const int64_t n = packed ? n_ : b.dims.back();
    const int64_t k = a.dims.back();
    std::vector<int64_t> acc(static_cast<size_t>(y.elements()));
    if (packed) {
      const int64_t m = n == 0 ? 0 : y.elements() / n;
      kernels::ref::gemm({m, n, k, trans_b_}, left, weights_, bias_, acc);
    } else {
      const std::vector<int32_t> right = centered(b, b_.zero_point);
      const BatchWalk walk(a.dims, b.dims, y.dims);
      const int64_t m = a.dims[a.dims.size() - 2];
      for (int64_t i = 0; i < walk.count(); ++i) {
        const auto [ia, ib] = walk.at(i);
        kernels::ref::gemm({m, n, k, false}, std::span(left).subspan(ia * m * k, m * k),
                           std::span(right).subspan(ib * k * n, k * n), bias_,
                           std::span(acc).subspan(i * m * n, m * n));
      }
    }
    for (size_t i = 0; i < acc.size(); ++i) {
      const auto column = static_cast<size_t>(static_cast<int64_t>(i) % n);
      store(y, i, acc[i], multiplier_[multiplier_.size() == 1 ? 0 : column]);
    }
  }

 private:
  void store(const TensorView& y, size_t i, int64_t acc, float m) const {
    if (out_.quantized) {
      y.as<uint8_t>()[i] = static_cast<uint8_t>(
          kernels::ref::to_code(acc, {m, out_.grid.zero_point, out_.qmin, out_.qmax}));
    } else {
      y.as<float>()[i] = kernels::ref::to_real(acc, m, nullptr, out_.min, out_.max);
    }
  }
  bool trans_b_;
  int64_t n_ = -1;  // columns of constant weights
  std::vector<int32_t> weights_;
  CodeGrid b_;
  std::vector<int32_t> bias_;
  std::vector<float> multiplier_;
};

bool constant_weights(const Graph& graph, const Node& node) {
  const Tensor* b = graph.constant(node.input(kB));
  return b != nullptr && b->rank() == 2;
}

Refusal accept_operands(const Graph& graph, const Node& node) {
  if (Refusal r = refuse_grid(graph, node, kA); !r.empty()) return r;
  if (constant_weights(graph, node)) {
    if (Refusal r = refuse_weights(graph, node, kB, column_axis(node)); !r.empty()) return r;
    const Tensor& b = *graph.constant(node.input(kB));
    return refuse_bias(graph, node, kBias, b.dim(column_axis(node)));
  }
  if (transposed(node)) return "transB with an activation on the right";
  if (node.input(kBias) != kNoId) return "a bias behind two activations";
  return refuse_grid(graph, node, kB);
}

template <Isa isa>
Refusal accept_packed(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  if (Refusal r = accept_operands(graph, node); !r.empty()) return r;
  if (!constant_weights(graph, node)) return "the right-hand side is not constant";
  if (graph.constant(node.input(kB))->dim(1 - column_axis(node)) > kernels::kMaxK) {
    return "the reduction is too long";
  }
  return refuse_overflow(graph, node, code_range(read_grid(graph, node, kA)), kB, column_axis(node),
                         kBias);
}

Refusal accept_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return accept_operands(graph, node);
}

template <Isa isa>
std::unique_ptr<Step> make_packed(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<PackedGemmStep>(graph, node, isa);
}

std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<ReferenceGemmStep>(graph, node);
}

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    {"narrow", "QGemm", "avx512_vnni:igemm", accept_packed<Isa::avx512_vnni>,
     make_packed<Isa::avx512_vnni>},
    {"narrow", "QGemm", "avx2:igemm", accept_packed<Isa::avx2>, make_packed<Isa::avx2>},
#endif
    {"narrow", "QGemm", "scalar:igemm", accept_packed<Isa::scalar>, make_packed<Isa::scalar>},
    {"narrow", "QGemm", "reference", accept_reference, make_reference},
};

}  // namespace

std::span<const OpImpl> gemm_rows() {
  return kRows;
}

}  // namespace narrow::integer
