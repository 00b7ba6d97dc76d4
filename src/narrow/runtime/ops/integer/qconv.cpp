// SPDX-License-Identifier: Apache-2.0
// QConv: depthwise and general convolutions on channels-last codes. QConvAdd and
// QConvLookup: with codes added to them, or a table that replaces them.
#include "narrow/core/error.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/kernels/ref/reference.h"
#include "narrow/quant/requantize.h"
#include "narrow/runtime/ops/integer/conv_form.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Inputs of QConv.
constexpr size_t kX = 0;
constexpr size_t kW = 3;
constexpr size_t kY = 6;  // y_scale
constexpr size_t kBias = 8;
// And of QConvAdd.
constexpr size_t kOther = 9;
constexpr size_t kConvScale = 12;
constexpr size_t kSum = 14;
// And of QConvLookup.
constexpr size_t kTable = 9;

/// What both ways of running share.
class QConvStep : public Step {
 public:
  QConvStep(const Graph& graph, const Node& node)
      : x_(read_grid(graph, node, kX)),
        out_(read_output(graph, node, kY)),
        form_(node, graph.constant(node.input(kW))->dims()) {}
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return form_.macs(outputs);
  }
  bool integer_macs() const override { return true; }

 protected:
  CodeGrid x_;
  OutputSpec out_;
  ConvForm form_;
};

class KernelConvStep : public QConvStep {
 public:
  KernelConvStep(const Graph& graph, const Node& node, Isa isa)
      : QConvStep(graph, node), kernels_(kernels_for(isa)) {}
  Layout input_layout(size_t i) const override {
    return i == kX ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return kernels::conv_scratch_bytes(form_.problem(inputs[kX], outputs[0]));
  }

 protected:
  kernels::ConvInput input(const RunContext& context) const {
    return {context.inputs[kX].as<uint8_t>(), x_.flip(), static_cast<uint8_t>(x_.byte_zero())};
  }
  const kernels::KernelSet& kernels_;
};

class IgemmConvStep : public KernelConvStep {
 public:
  IgemmConvStep(const Graph& graph, const Node& node, Isa isa) : KernelConvStep(graph, node, isa) {
    const WeightCodes w = read_weights(graph, node, kW, 0);
    packed_ = kernels::pack_conv(form_.fixed(), w.codes, w.zero);
    const std::vector<int32_t> bias = read_bias(graph, node, kBias, w.channels);
    const std::vector<float> m = multipliers(out_, x_.scale, w.scale, w.channels);
    const auto n = static_cast<size_t>(form_.fixed().group_filters());
    for (size_t g = 0; g < packed_.groups.size(); ++g) {
      const std::span<const int32_t> b(bias);
      packed_.columns.push_back(kernels::make_columns(packed_.groups[g], x_.byte_zero(),
                                                      b.empty() ? b : b.subspan(g * n, n),
                                                      std::span<const float>(m).subspan(g * n, n)));
    }
  }
  void run(RunContext& context) const override {
    run_to(out_.target(context.outputs[0].data), context);
  }
  size_t packed_bytes() const override { return packed_.bytes(); }

 protected:
  void run_to(const kernels::ConvOutput& target, RunContext& context) const {
    const auto problem = form_.problem(context.inputs[kX].dims, context.outputs[0].dims);
    kernels::run_conv(kernels_, problem, packed_, input(context), target, context.scratch);
  }

 private:
  kernels::PackedConv packed_{kernels::ConvRuns({}), {}, {}};
};

/// The sum of QConvAdd.
struct Sum {
  Sum(const Graph& graph, const Node& node)
      : conv(read_output_grid(graph, node, kConvScale)),
        other(read_grid(graph, node, kOther)),
        y(read_output(graph, node, kSum, "sum_")),
        args(binary_args(kernels::Binary::add, conv, other, y)) {}
  CodeGrid conv;
  CodeGrid other;
  OutputSpec y;
  kernels::BinaryArgs args;
};

class ConvAddStep final : public IgemmConvStep {
 public:
  ConvAddStep(const Graph& graph, const Node& node, Isa isa)
      : IgemmConvStep(graph, node, isa), sum_(graph, node) {}
  Layout input_layout(size_t i) const override {
    return i == kOther ? Layout::channels_last : IgemmConvStep::input_layout(i);
  }
  void run(RunContext& context) const override {
    kernels::ConvOutput target = out_.target(context.outputs[0].data);
    target.addend = context.inputs[kOther].as<uint8_t>();
    target.sum = sum_.args;
    run_to(target, context);
  }

 private:
  Sum sum_;
};

class ConvLookupStep final : public IgemmConvStep {
 public:
  using IgemmConvStep::IgemmConvStep;
  void run(RunContext& context) const override {
    kernels::ConvOutput target = out_.target(context.outputs[0].data);
    target.table = context.inputs[kTable].as<uint8_t>();
    run_to(target, context);
  }
};

class DepthwiseConvStep final : public KernelConvStep {
 public:
  DepthwiseConvStep(const Graph& graph, const Node& node, Isa isa)
      : KernelConvStep(graph, node, isa) {
    const WeightCodes w = read_weights(graph, node, kW, 0);
    packed_ = kernels::pack_depthwise_conv(form_.fixed(), w.codes);
    columns_ = kernels::make_depthwise_columns(packed_, x_.byte_zero(),
                                               read_bias(graph, node, kBias, w.channels),
                                               multipliers(out_, x_.scale, w.scale, w.channels));
  }
  void run(RunContext& context) const override {
    const auto problem = form_.problem(context.inputs[kX].dims, context.outputs[0].dims);
    kernels::run_depthwise(kernels_, problem, packed_, columns_, input(context),
                           out_.target(context.outputs[0].data), context.scratch);
  }
  size_t packed_bytes() const override { return packed_.bytes(); }

 private:
  kernels::PackedMatrix packed_;
  kernels::Columns columns_;
};

/// The specification: plain layout, sums in 64 bits.
class ReferenceConvStep : public QConvStep {
 public:
  ReferenceConvStep(const Graph& graph, const Node& node)
      : QConvStep(graph, node), bias_(read_bias(graph, node, kBias, form_.fixed().filters)) {
    w_ = centered_weights(graph, node, kW, 0);
    multiplier_ =
        multipliers(out_, x_.scale, read_scales(graph, node, kW + 1), form_.fixed().filters);
  }
  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    const auto p = form_.problem(context.inputs[kX].dims, y.dims);
    std::vector<int64_t> acc(static_cast<size_t>(y.elements()));
    kernels::ref::conv(p, centered(context.inputs[kX], x_.zero_point), w_, bias_, acc);
    const int64_t pixels = p.out[0] * p.out[1] * p.out[2];
    for (size_t i = 0; i < acc.size(); ++i) {
      const float m = multiplier_[static_cast<int64_t>(i) / pixels % p.filters];
      store(y, static_cast<int64_t>(i), acc[i], m);
    }
  }

 private:
  void store(const TensorView& y, int64_t i, int64_t acc, float m) const {
    if (out_.quantized) {
      y.as<uint8_t>()[i] = static_cast<uint8_t>(
          kernels::ref::to_code(acc, {m, out_.grid.zero_point, out_.qmin, out_.qmax}));
    } else {
      y.as<float>()[i] = kernels::ref::to_real(acc, m, nullptr, out_.min, out_.max);
    }
  }
  std::vector<int32_t> w_;
  std::vector<int32_t> bias_;
  std::vector<float> multiplier_;
};

class ReferenceConvAddStep final : public ReferenceConvStep {
 public:
  ReferenceConvAddStep(const Graph& graph, const Node& node)
      : ReferenceConvStep(graph, node), sum_(graph, node) {}
  void run(RunContext& context) const override {
    ReferenceConvStep::run(context);
    const TensorView& y = context.outputs[0];
    const std::vector<int32_t> a = centered(y, sum_.conv.zero_point);
    const std::vector<int32_t> b = centered(context.inputs[kOther], sum_.other.zero_point);
    for (size_t i = 0; i < a.size(); ++i) {
      const float t = static_cast<float>(a[i]) * sum_.args.scale_a +
                      static_cast<float>(b[i]) * sum_.args.scale_b;
      const OutputSpec& out = sum_.y;
      y.as<uint8_t>()[i] =
          static_cast<uint8_t>(round_to_code(t, out.grid.zero_point, out.qmin, out.qmax));
    }
  }

 private:
  Sum sum_;
};

class ReferenceConvLookupStep final : public ReferenceConvStep {
 public:
  using ReferenceConvStep::ReferenceConvStep;
  void run(RunContext& context) const override {
    ReferenceConvStep::run(context);
    auto* y = context.outputs[0].as<uint8_t>();
    const auto* table = context.inputs[kTable].as<uint8_t>();
    for (int64_t i = 0; i < context.outputs[0].elements(); ++i) y[i] = table[y[i]];
  }
};

Refusal accept_operands(const Graph& graph, const Node& node) {
  if (Refusal r = refuse_grid(graph, node, kX); !r.empty()) return r;
  if (Refusal r = refuse_weights(graph, node, kW, 0); !r.empty()) return r;
  if (node.is(ops::kQConvAdd, ops::kDomain)) {
    if (Refusal r = refuse_grid(graph, node, kOther); !r.empty()) return r;
    if (node.input(kSum) == kNoId) return "the sum has no grid";
  }
  if (node.inputs.size() > kOther && node.input(kY) == kNoId) return "the output has no grid";
  const Tensor& w = *graph.constant(node.input(kW));
  if (Refusal r = refuse_bias(graph, node, kBias, w.dim(0)); !r.empty()) return r;
  return refuse_conv_form(w);
}

template <Isa isa>
Refusal accept_igemm(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  if (Refusal r = accept_operands(graph, node); !r.empty()) return r;
  const Tensor& w = *graph.constant(node.input(kW));
  const kernels::ConvProblem form = ConvForm(node, w.dims()).fixed();
  const kernels::MatrixShape shape = kernels::ConvRuns(form).shape;
  if (shape.taps * shape.read_bytes() > kernels::kMaxK) return "the window is too large";
  return refuse_overflow(graph, node, code_range(read_grid(graph, node, kX)), kW, 0, kBias);
}

template <Isa isa>
Refusal accept_depthwise(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal r = accept_igemm<isa>(graph, node, options); !r.empty()) return r;
  const Tensor& w = *graph.constant(node.input(kW));
  const ConvForm form(node, w.dims());
  if (Refusal r = kernels::refuse_depthwise(form.fixed(), {}); !r.empty()) return r;
  return kernels::refuse_depthwise(form.fixed(), read_weights(graph, node, kW, 0).zero);
}

Refusal accept_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return accept_operands(graph, node);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

template <class S>
std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node);
}

#define NARROW_DEPTHWISE(isa)                                         \
  {                                                                   \
    "narrow", "QConv", #isa ":depthwise", accept_depthwise<Isa::isa>, \
        make<DepthwiseConvStep, Isa::isa>                             \
  }
#define NARROW_IGEMM(isa) \
  { "narrow", "QConv", #isa ":igemm", accept_igemm<Isa::isa>, make<IgemmConvStep, Isa::isa> }
#define NARROW_FOLLOWED(isa)                                                                       \
  {"narrow", "QConvAdd", #isa ":igemm", accept_igemm<Isa::isa>, make<ConvAddStep, Isa::isa>}, {    \
    "narrow", "QConvLookup", #isa ":igemm", accept_igemm<Isa::isa>, make<ConvLookupStep, Isa::isa> \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_DEPTHWISE(avx512_vnni),
    NARROW_IGEMM(amx_int8),
    NARROW_IGEMM(avx512_vnni),
    NARROW_DEPTHWISE(avx_vnni),
    NARROW_IGEMM(avx_vnni),
    NARROW_DEPTHWISE(avx2),
    NARROW_IGEMM(avx2),
    NARROW_FOLLOWED(amx_int8),
    NARROW_FOLLOWED(avx512_vnni),
    NARROW_FOLLOWED(avx_vnni),
    NARROW_FOLLOWED(avx2),
#endif
    NARROW_DEPTHWISE(scalar),
    NARROW_IGEMM(scalar),
    NARROW_FOLLOWED(scalar),
    {"narrow", "QConv", "reference", accept_reference, make_reference<ReferenceConvStep>},
    {"narrow", "QConvAdd", "reference", accept_reference, make_reference<ReferenceConvAddStep>},
    {"narrow", "QConvLookup", "reference", accept_reference,
     make_reference<ReferenceConvLookupStep>},
};
#undef NARROW_DEPTHWISE
#undef NARROW_FOLLOWED
#undef NARROW_IGEMM

}  // namespace

std::span<const OpImpl> conv_rows() {
  return kRows;
}

}  // namespace narrow::integer
