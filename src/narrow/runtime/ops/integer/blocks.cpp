// SPDX-License-Identifier: Apache-2.0
// Weights in blocks: DecodeBlocks, DynamicQuantize, and the products with both.
#include <algorithm>

#include "narrow/core/parallel.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/kernels/block_rows.h"
#include "narrow/kernels/ref/block_gemm.h"
#include "narrow/runtime/ops/integer/operands.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::integer {
namespace {

using namespace ops;

using kernels::PackedBlocks;

BlockType type_of(const Node& node) {
  return find_codec(node.string_or("type", ""))->type;  // shape inference has checked it
}

/// Blocks of rows [rows][columns] as floats.
void decode_rows_at(BlockType type, const TensorView& w, int64_t row, int64_t rows, int64_t columns,
                    float* out) {
  const BlockCodec& c = codec(type);
  const int64_t blocks = columns / c.block_values;
  const auto* bytes = reinterpret_cast<const uint8_t*>(w.data);
  c.decode(bytes + row * blocks * c.block_bytes, rows * blocks, out);
}

class DecodeBlocks final : public Step {
 public:
  DecodeBlocks(const Graph&, const Node& node)
      : type_(type_of(node)), columns_(node.int_or("columns", 0)) {}
  void run(RunContext& context) const override {
    const TensorView& w = context.inputs[0];
    Dims dims = w.dims;
    dims.back() = columns_;
    float* y = planned_output(context, 0, dims).as<float>();
    constexpr int64_t kBlockValues = 16384;
    parallel_for(num_elements(dims, 0, dims.size() - 1),
                 std::max<int64_t>(1, kBlockValues / std::max<int64_t>(columns_, 1)),
                 [&](int64_t begin, int64_t end) {
                   decode_rows_at(type_, w, begin, end - begin, columns_, y + begin * columns_);
                 });
  }

 private:
  BlockType type_;
  int64_t columns_;
};

class DynamicQuantize final : public Step {
 public:
  DynamicQuantize(const Graph&, const Node& node)
      : block_(node.int_or("block_size", kActivationBlock)) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const int64_t k = x.dims.back();
    const int64_t blocks = (k + block_ - 1) / block_;
    Dims dims = x.dims;
    int8_t* codes = planned_output(context, 0, dims).as<int8_t>();
    dims.back() = blocks;
    float* scales = planned_output(context, 1, dims).as<float>();
    const float* values = x.as<float>();
    constexpr int64_t kBlockValues = 32768;  // some 10 us
    const int64_t grain = std::max<int64_t>(1, kBlockValues / (k + 1));
    parallel_for(
        num_elements(x.dims, 0, x.dims.size() - 1), grain, [&](int64_t begin, int64_t end) {
          if (block_ == kActivationBlock && k % kActivationBlock == 0) {
            for (int64_t r = begin; r < end; ++r) {
              kernels::QuantizeBlocksArgs args{values + r * k, 0, 1, k, kActivationBlock, 0, {}};
              args.rows = {codes + r * k, scales + r * blocks, nullptr, nullptr, 1, 1};
              kernels_.quantize_blocks(args);
            }
            return;
          }
          for (int64_t r = begin; r < end; ++r) {
            for (int64_t b = 0; b < blocks; ++b) {
              const int64_t at = r * k + b * block_;
              const auto n = static_cast<size_t>(std::min(block_, k - b * block_));
              scales[r * blocks + b] =
                  kernels::ref::quantize_block({values + at, n}, {codes + at, n});
            }
          }
        });
  }

 private:
  int64_t block_;
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
};

/// What the products with weights in blocks share: x [.., k], w [n, row_bytes].
class BlockProduct : public Step {
 public:
  BlockProduct(const Graph& graph, const Node& node)
      : type_(type_of(node)),
        n_(graph.constant(node.inputs[1])->dim(0)),
        k_(node.int_or("columns", 0)) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return num_elements(inputs[0]) * n_;
  }

 protected:
  int64_t rows(const Dims& x) const {
    if (x.empty() || x.back() != k_) {
      throw Error(
          ErrorCode::invalid_argument,
          "a product of " + to_string(x) + " with a matrix of " + std::to_string(k_) + " columns");
    }
    return num_elements(x, 0, x.size() - 1);
  }
  float* output(RunContext& context) const {
    Dims dims = context.inputs[0].dims;
    dims.back() = n_;
    return planned_output(context, 0, dims).as<float>();
  }
  BlockType type_;
  int64_t n_;
  int64_t k_;
};

class ReferenceBlockGemm final : public BlockProduct {
 public:
  using BlockProduct::BlockProduct;
  bool integer_macs() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& w = context.inputs[1];
    const int64_t m = rows(context.inputs[0].dims);
    const float* x = context.inputs[0].as<float>();
    float* y = output(context);
    kernels::ref::block_gemm(type_, {w.data, view_bytes(w)}, {x, static_cast<size_t>(m * k_)}, m,
                             n_, k_, {y, static_cast<size_t>(m * n_)});
  }
};

class KernelBlockGemm final : public BlockProduct {
 public:
  KernelBlockGemm(const Graph& graph, const Node& node) : BlockProduct(graph, node) {
    const Tensor& w = *graph.constant(node.inputs[1]);
    packed_ = kernels::pack_blocks(type_, {w.raw(), w.bytes()}, n_, k_);
  }
  bool integer_macs() const override { return true; }
  size_t packed_bytes() const override { return packed_.weights.bytes(); }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return kernels::block_gemm_scratch_bytes(kernels_, packed_, rows(inputs[0]));
  }
  void run(RunContext& context) const override {
    const int64_t m = rows(context.inputs[0].dims);
    float* y = output(context);
    kernels::run_block_gemm(kernels_, packed_, context.inputs[0].as<float>(), m, y,
                            context.scratch);
  }

 private:
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
  PackedBlocks packed_;
};

/// Weights stay in the mapped file.
class StoredBlockGemm final : public BlockProduct {
 public:
  StoredBlockGemm(const Graph& graph, const Node& node) : BlockProduct(graph, node) {
    const Tensor& w = *graph.constant(node.inputs[1]);
    layout_ = kernels::layout_blocks(type_, {w.raw(), w.bytes()}, n_, k_);
  }
  bool integer_macs() const override { return true; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return kernels::stored_gemm_scratch_bytes(kernels_, layout_, rows(inputs[0]));
  }
  void run(RunContext& context) const override {
    const TensorView& w = context.inputs[1];
    const int64_t m = rows(context.inputs[0].dims);
    float* y = output(context);
    kernels::run_stored_gemm(kernels_, layout_, {w.data, view_bytes(w)},
                             context.inputs[0].as<float>(), m, y, context.scratch);
  }

 private:
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
  PackedBlocks layout_;
};

class ReferenceFloatProduct final : public BlockProduct {
 public:
  using BlockProduct::BlockProduct;
  void run(RunContext& context) const override {
    const TensorView& w = context.inputs[1];
    const int64_t m = rows(context.inputs[0].dims);
    const float* x = context.inputs[0].as<float>();
    float* y = output(context);
    parallel_for(n_, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(k_));
      for (int64_t c = begin; c < end; ++c) {
        decode_rows_at(type_, w, c, 1, k_, row.data());
        for (int64_t r = 0; r < m; ++r) {
          double sum = 0;
          for (int64_t i = 0; i < k_; ++i) {
            sum += static_cast<double>(x[r * k_ + i]) * static_cast<double>(row[i]);
          }
          y[r * n_ + c] = static_cast<float>(sum);
        }
      }
    });
  }
};

class PanelFloatProduct final : public BlockProduct {
 public:
  PanelFloatProduct(const Graph& graph, const Node& node) : BlockProduct(graph, node) {
    const Tensor& w = *graph.constant(node.inputs[1]);
    packed_ = kernels::pack_blocks(type_, {w.raw(), w.bytes()}, n_, k_);
  }
  size_t packed_bytes() const override { return packed_.weights.bytes(); }
  void run(RunContext& context) const override {
    const int64_t m = rows(context.inputs[0].dims);
    float* y = output(context);
    kernels::run_block_float(kernels_, packed_, context.inputs[0].as<float>(), m, y);
  }

 private:
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
  PackedBlocks packed_;
};

/// Some rows of w at a time become floats: for types that are no blocks.
class KernelFloatProduct final : public BlockProduct {
 public:
  using BlockProduct::BlockProduct;
  void run(RunContext& context) const override {
    const TensorView& w = context.inputs[1];
    const int64_t m = rows(context.inputs[0].dims);
    const float* x = context.inputs[0].as<float>();
    float* y = output(context);
    // Floats of a block stay in the second-level cache while the rows of x pass.
    constexpr int64_t kBlockBytes = int64_t{1} << 18;
    const int64_t columns = std::clamp<int64_t>(kBlockBytes / (k_ * 4 + 1) / 4 * 4, 4, 64);
    parallel_for(n_, columns, [&](int64_t begin, int64_t end) {
      std::vector<float> decoded(static_cast<size_t>((end - begin) * k_));
      decode_rows_at(type_, w, begin, end - begin, k_, decoded.data());
      kernels::HalfGemmArgs args{};
      args.a = x;
      args.lda = k_;
      args.m = m;
      args.b = decoded.data();
      args.ldb = k_;
      args.n = end - begin;
      args.k = k_;
      args.stored = 2;
      args.dst = y + begin;
      args.ldc = n_;
      kernels_.half_gemm(args);
    });
  }

 private:
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
};

Refusal accept_decode(const Graph& graph, const Node& node, const StepOptions&) {
  return require_dtype(graph, node, 0, {DType::uint8});
}

Refusal accept_quantize(const Graph& graph, const Node& node, const StepOptions&) {
  return require_dtype(graph, node, 0, {DType::float32});
}

Refusal accept_product(const Graph& graph, const Node& node, const StepOptions&) {
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  const Tensor* w = graph.constant(node.inputs[1]);
  if (w == nullptr || w->rank() != 2) return "the weights are no constant matrix";
  return require_dtype(graph, node, 1, {DType::uint8});
}

Refusal accept_codes(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept_product(graph, node, options); !why.empty()) return why;
  return kernels::refuse_blocks(type_of(node));
}

Refusal accept_float(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  return accept_product(graph, node, options);
}

Refusal accept_kernel(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  return accept_codes(graph, node, options);
}

Refusal accept_panels(const Graph& graph, const Node& node, const StepOptions& options) {
  if (!options.repack) return "weights stay as they are stored";
  return accept_kernel(graph, node, options);
}

const OpImpl kRows[] = {
    {kDomain, kDecodeBlocks, "reference", accept_decode, make<DecodeBlocks>},
    {kDomain, kDynamicQuantize, "reference", accept_quantize, make<DynamicQuantize>},
    {kDomain, kBlockGemm, "panels", accept_panels, make<KernelBlockGemm>},
    {kDomain, kBlockGemm, "rows", accept_kernel, make<StoredBlockGemm>},
    {kDomain, kBlockGemm, "reference", accept_codes, make<ReferenceBlockGemm>},
    {kDomain, kWBlockGemm, "panels", accept_panels, make<PanelFloatProduct>},
    {kDomain, kWBlockGemm, "dot", accept_float, make<KernelFloatProduct>},
    {kDomain, kWBlockGemm, "reference", accept_product, make<ReferenceFloatProduct>},
};

}  // namespace

std::span<const OpImpl> block_rows() {
  return kRows;
}

}  // namespace narrow::integer
