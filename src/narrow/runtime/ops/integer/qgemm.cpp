// SPDX-License-Identifier: Apache-2.0
// QGemm: products of codes with constant weights, or of two activations.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
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
    packed_ = pack_gemm_weights(w, transposed(node), isa);
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
    g.w = packed_.view();
    g.epilogue.corr = columns_.corr.data();
    g.epilogue.multiplier = columns_.multiplier.data();
    g.epilogue.lo = target.lo;
    g.epilogue.hi = target.hi;
    g.epilogue.zero_point = target.zero_point;
    g.epilogue.flip = target.flip;
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

/// Two activations: the right-hand side is packed as it comes, matrix after matrix.
class ActivationGemmStep final : public QGemmStep {
 public:
  ActivationGemmStep(const Graph& graph, const Node& node, Isa isa)
      : QGemmStep(graph, node),
        kernels_(kernels_for(isa)),
        b_(read_grid(graph, node, kB)),
        multiplier_(out_.multiplier(a_.scale, b_.scale)),
        reference_(graph, node) {}

  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    const Sizes s(inputs[kA], inputs[kB], outputs[0]);
    return static_cast<size_t>(s.slots * s.slot_bytes());
  }

  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    const Dims& a = context.inputs[kA].dims;
    const Dims& b = context.inputs[kB].dims;
    const Sizes s(a, b, y.dims);
    if (y.elements() == 0) return;
    if (s.k > kLongest) return reference_.run(context);
    const BatchWalk walk(a, b, y.dims);
    // Each slot of scratch serves a fixed part of the matrices.
    const int64_t per_slot = (s.count + s.slots - 1) / s.slots;
    const auto serve = [&](int64_t slot) {
      std::byte* memory = context.scratch.data() + slot * s.slot_bytes();
      for (int64_t i = slot * per_slot; i < std::min((slot + 1) * per_slot, s.count); ++i) {
        multiply(context, s, walk.at(i), i, memory);
      }
    };
    if (s.slots == 1 || s.m * s.n * s.k * s.count < kernels::kOneThreadMacs) {
      for (int64_t slot = 0; slot < s.slots; ++slot) serve(slot);
    } else {
      parallel_blocks(s.slots, serve);
    }
  }

 private:
  static constexpr int64_t kSlots = 8;
  /// Differences of codes reach 255 on both sides; longer sums may pass int32.
  static constexpr int64_t kLongest = std::numeric_limits<int32_t>::max() / (255 * 255);
  /// Bits of a code as int8: the right-hand side of the kernels is signed.
  static constexpr uint8_t kSign = 0x80;

  struct Sizes {
    int64_t m, n, k, count, slots;
    Sizes(const Dims& a, const Dims& b, const Dims& y) {
      if (a.size() < 2 || b.size() < 2 || y.size() < 2 || a.back() != b[b.size() - 2]) {
        throw Error(
            ErrorCode::invalid_argument,
            fmt::format("{} and {} are no matrices to multiply", to_string(a), to_string(b)));
      }
      m = a[a.size() - 2];
      n = b.back();
      k = a.back();
      count = num_elements(y, 0, y.size() - 2);
      slots = std::clamp<int64_t>(count, 1, kSlots);
    }
    kernels::MatrixShape shape() const { return {n, 1, k}; }
    int64_t columns() const { return shape().panels() * kernels::kPanel; }
    int64_t packed_bytes() const {
      return static_cast<int64_t>(kernels::packed_matrix_bytes(shape()));
    }
    /// Packed b, then sums, corrections, zero_points and multipliers of its columns, then what the
    /// product itself wants. All parts are multiples of 64 bytes.
    int64_t slot_bytes() const {
      return packed_bytes() + 4 * columns() * 4 +
             static_cast<int64_t>(kernels::gemm_scratch_bytes(m, k));
    }
  };

  void multiply(RunContext& context, const Sizes& s, std::pair<int64_t, int64_t> matrices,
                int64_t index, std::byte* memory) const {
    auto* weights = reinterpret_cast<int8_t*>(memory);
    auto* sums = reinterpret_cast<int32_t*>(memory + s.packed_bytes());
    int32_t* corr = sums + s.columns();
    int32_t* zero = corr + s.columns();
    auto* multiplier = reinterpret_cast<float*>(zero + s.columns());
    const auto flip = static_cast<uint8_t>(b_.flip() ^ kSign);
    kernels_.pack(context.inputs[kB].as<uint8_t>() + matrices.second * s.k * s.n, s.n, s.k, s.n,
                  flip, weights, sums);
    const int32_t z_b = b_.byte_zero() - 128;
    const auto k = static_cast<int32_t>(s.k);
    for (int64_t c = 0; c < s.columns(); ++c) {
      corr[c] = a_.byte_zero() * (k * z_b - sums[c]);
      zero[c] = z_b;
      multiplier[c] = multiplier_;
    }
    const kernels::ConvOutput target = out_.target(nullptr);
    kernels::GemmProblem g;
    g.m = s.m;
    g.a = context.inputs[kA].as<uint8_t>() + matrices.first * s.m * s.k;
    g.flip = a_.flip();
    g.w = {s.shape(), 8, weights, z_b == 0 ? nullptr : zero};
    g.epilogue = {corr,      multiplier,        nullptr,     nullptr,   target.lo,
                  target.hi, target.zero_point, target.flip, target.out};
    g.dst = context.outputs[0].data + index * s.m * s.n * (out_.quantized ? 1 : 4);
    kernels::run_gemm(kernels_, g,
                      {reinterpret_cast<std::byte*>(multiplier + s.columns()),
                       kernels::gemm_scratch_bytes(s.m, s.k)});
  }

  const kernels::KernelSet& kernels_;
  CodeGrid b_;
  float multiplier_;
  ReferenceGemmStep reference_;
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

template <Isa isa>
Refusal accept_activations(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  if (Refusal r = accept_operands(graph, node); !r.empty()) return r;
  if (constant_weights(graph, node)) return "the right-hand side is constant";
  return {};
}

Refusal accept_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return accept_operands(graph, node);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<ReferenceGemmStep>(graph, node);
}

#define NARROW_GEMM(isa)                                                                         \
  {"narrow", "QGemm", #isa ":igemm", accept_packed<Isa::isa>, make<PackedGemmStep, Isa::isa>}, { \
    "narrow", "QGemm", #isa ":igemm_activations", accept_activations<Isa::isa>,                  \
        make<ActivationGemmStep, Isa::isa>                                                       \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_GEMM(amx_int8), NARROW_GEMM(avx512_vnni),
    NARROW_GEMM(avx_vnni), NARROW_GEMM(avx2),
#endif
    NARROW_GEMM(scalar),   {"narrow", "QGemm", "reference", accept_reference, make_reference},
};
#undef NARROW_GEMM

}  // namespace

std::span<const OpImpl> gemm_rows() {
  return kRows;
}

}  // namespace narrow::integer
