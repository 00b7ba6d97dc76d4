// SPDX-License-Identifier: Apache-2.0
// QBinary: Add, Sub, Mul, Div of codes with numpy broadcasting, in any one layout.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/requantize.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Inputs of QBinary.
constexpr size_t kA = 0;
constexpr size_t kB = 3;
constexpr size_t kY = 6;

// Elements of one parallel block: some 10 us.
constexpr int64_t kBlock = 32768;

std::optional<kernels::Binary> operation(const Node& node) {
  const std::string op = node.string_or("op", "");
  if (op == "Add") return kernels::Binary::add;
  if (op == "Sub") return kernels::Binary::sub;
  if (op == "Mul") return kernels::Binary::mul;
  if (op == "Div") return kernels::Binary::div;
  return std::nullopt;
}

/// One axis of the elementwise walk: extent and how far each operand moves.
struct Axis {
  int64_t extent;
  int64_t a;
  int64_t b;
};

/// The dims in memory order, with ones in front up to `rank`.
Dims memory_dims(const TensorView& v, size_t rank) {
  Dims dims = v.dims;
  if (v.layout == Layout::channels_last && dims.size() >= 3) {
    std::rotate(dims.begin() + 1, dims.begin() + 2, dims.end());
  }
  dims.insert(dims.begin(), rank - dims.size(), 1);
  return dims;
}

/// The walk over y, outermost first: axes of extent 1 are dropped, neighbours that move together
/// become one. The last axis has steps of 0 or 1.
std::vector<Axis> plan_walk(const TensorView& a, const TensorView& b, const TensorView& y) {
  const Dims da = memory_dims(a, y.dims.size());
  const Dims db = memory_dims(b, y.dims.size());
  const Dims dy = memory_dims(y, y.dims.size());
  std::vector<Axis> walk;
  int64_t stride_a = 1;
  int64_t stride_b = 1;
  for (size_t i = dy.size(); i-- > 0;) {
    const Axis axis{dy[i], da[i] == 1 ? 0 : stride_a, db[i] == 1 ? 0 : stride_b};
    stride_a *= da[i];
    stride_b *= db[i];
    if (axis.extent == 1) continue;
    if (!walk.empty() && axis.a == walk.back().a * walk.back().extent &&
        axis.b == walk.back().b * walk.back().extent) {
      walk.back().extent *= axis.extent;
    } else {
      walk.push_back(axis);
    }
  }
  if (walk.empty()) walk.push_back({1, 1, 1});
  std::reverse(walk.begin(), walk.end());
  return walk;
}

class QBinaryStep : public Step {
 public:
  QBinaryStep(const Graph& graph, const Node& node)
      : a_(read_grid(graph, node, kA)),
        b_(read_grid(graph, node, kB)),
        y_(read_output(graph, node, kY)) {
    args_ = binary_args(*operation(node), a_, b_, y_);
    const auto& shape = graph.value(node.input(kA)).shape;
    same_shape_ = shape && shape == graph.value(node.output(0)).shape;
  }

 protected:
  CodeGrid a_;
  CodeGrid b_;
  OutputSpec y_;
  kernels::BinaryArgs args_ = {};
  bool same_shape_ = false;  // a and y: then y may overwrite a
};

class KernelBinaryStep final : public QBinaryStep {
 public:
  KernelBinaryStep(const Graph& graph, const Node& node, Isa isa)
      : QBinaryStep(graph, node), kernels_(kernels_for(isa)) {}
  bool layout_agnostic() const override { return true; }
  int aliases(size_t) const override { return same_shape_ ? static_cast<int>(kA) : -1; }
  void run(RunContext& context) const override {
    const TensorView& a = context.inputs[kA];
    const TensorView& b = context.inputs[kB];
    const TensorView& y = context.outputs[0];
    if (y.elements() == 0) return;
    std::vector<Axis> walk = plan_walk(a, b, y);
    const Axis inner = walk.back();
    walk.pop_back();
    const auto run = [&](int64_t row, int64_t first, int64_t count) {
      int64_t at_a = first * inner.a;
      int64_t at_b = first * inner.b;
      int64_t rest = row;
      for (size_t i = walk.size(); i-- > 0;) {
        const int64_t index = rest % walk[i].extent;
        rest /= walk[i].extent;
        at_a += index * walk[i].a;
        at_b += index * walk[i].b;
      }
      kernels_.binary(y.as<uint8_t>() + row * inner.extent + first, a.as<uint8_t>() + at_a, inner.a,
                      b.as<uint8_t>() + at_b, inner.b, count, args_);
    };
    if (walk.empty()) {
      parallel_for(inner.extent, kBlock,
                   [&](int64_t begin, int64_t end) { run(0, begin, end - begin); });
      return;
    }
    const int64_t rows = y.elements() / inner.extent;
    parallel_for(rows, std::max<int64_t>(kBlock / inner.extent, 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) run(row, 0, inner.extent);
                 });
  }

 private:
  const kernels::KernelSet& kernels_;
};

class ReferenceBinaryStep final : public QBinaryStep {
 public:
  using QBinaryStep::QBinaryStep;
  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    const std::vector<int32_t> a = centered(context.inputs[kA], a_.zero_point);
    const std::vector<int32_t> b = centered(context.inputs[kB], b_.zero_point);
    for (int64_t i = 0; i < y.elements(); ++i) {
      const float t = real(a[source(i, y.dims, context.inputs[kA].dims)],
                           b[source(i, y.dims, context.inputs[kB].dims)]);
      y.as<uint8_t>()[i] =
          static_cast<uint8_t>(round_to_code(t, y_.grid.zero_point, y_.qmin, y_.qmax));
    }
  }

 private:
  float real(int32_t a, int32_t b) const {
    const auto x = static_cast<float>(a);
    const auto y = static_cast<float>(b);
    switch (args_.op) {
      case kernels::Binary::add:
        return x * args_.scale_a + y * args_.scale_b;
      case kernels::Binary::sub:
        return x * args_.scale_a - y * args_.scale_b;
      case kernels::Binary::mul:
        return static_cast<float>(a * b) * args_.scale_a;
      case kernels::Binary::div:
        break;
    }
    const float t = x / y * args_.scale_a;
    return t == t ? t : 0.0f;
  }
  /// The element of an operand of shape `dims` that element i of y sees.
  static int64_t source(int64_t i, const Dims& y, const Dims& dims) {
    int64_t index = 0;
    int64_t stride = 1;
    for (size_t d = 0; d < y.size(); ++d) {
      const int64_t at = i % y[y.size() - 1 - d];
      i /= y[y.size() - 1 - d];
      if (d >= dims.size()) continue;
      const int64_t extent = dims[dims.size() - 1 - d];
      index += extent == 1 ? 0 : at * stride;
      stride *= extent;
    }
    return index;
  }
};

Refusal accept_reference(const Graph& graph, const Node& node, const StepOptions&) {
  if (!operation(node)) return fmt::format("op '{}'", node.string_or("op", ""));
  if (Refusal r = refuse_grid(graph, node, kA); !r.empty()) return r;
  if (Refusal r = refuse_grid(graph, node, kB); !r.empty()) return r;
  return node.input(kY) == kNoId ? "the output has no grid" : Refusal{};
}

template <Isa isa>
Refusal accept(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  return accept_reference(graph, node, options);
}

template <Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<KernelBinaryStep>(graph, node, isa);
}

std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<ReferenceBinaryStep>(graph, node);
}

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    {"narrow", "QBinary", "avx512_vnni", accept<Isa::avx512_vnni>, make<Isa::avx512_vnni>},
    {"narrow", "QBinary", "avx2", accept<Isa::avx2>, make<Isa::avx2>},
#endif
    {"narrow", "QBinary", "scalar", accept<Isa::scalar>, make<Isa::scalar>},
    {"narrow", "QBinary", "reference", accept_reference, make_reference},
};

}  // namespace

std::span<const OpImpl> binary_rows() {
  return kRows;
}

}  // namespace narrow::integer
