// SPDX-License-Identifier: Apache-2.0
// QLookup and QConcat: bytes through tables of 256 entries, and bytes moved.
#include <algorithm>
#include <array>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/requantize.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Bytes of one parallel block: some 10 us.
constexpr int64_t kBlock = 65536;
using Table = std::array<uint8_t, 256>;

// --- QLookup ------------------------------------------------------------------------------------

class LookupStep final : public Step {
 public:
  LookupStep(const Graph& graph, const Node& node, Isa isa) : kernels_(kernels_for(isa)) {
    const Tensor& table = *graph.constant(node.input(1));
    std::memcpy(table_.data(), table.raw(), table_.size());
  }
  bool layout_agnostic() const override { return true; }
  int aliases(size_t) const override { return 0; }
  void run(RunContext& context) const override {
    const auto* x = context.inputs[0].as<uint8_t>();
    auto* y = context.outputs[0].as<uint8_t>();
    parallel_for(context.inputs[0].elements(), kBlock, [&](int64_t begin, int64_t end) {
      kernels_.lookup(y + begin, x + begin, end - begin, table_.data());
    });
  }

 private:
  const kernels::KernelSet& kernels_;
  Table table_;
};

/// The specification; the table may be computed at run time.
class ReferenceLookupStep final : public Step {
 public:
  ReferenceLookupStep(const Graph&, const Node&) {}
  void run(RunContext& context) const override {
    const auto* table = context.inputs[1].as<uint8_t>();
    for (int64_t i = 0; i < context.inputs[0].elements(); ++i) {
      context.outputs[0].as<uint8_t>()[i] = table[context.inputs[0].as<uint8_t>()[i]];
    }
  }
};

Refusal accept_table(const Graph& graph, const Node& node, const StepOptions&) {
  if (!is_code_dtype(dtype_of(graph, node, 0))) return "the input has no 8-bit codes";
  if (!is_code_dtype(dtype_of(graph, node, 1))) return "the table has no 8-bit codes";
  const Tensor* table = graph.constant(node.input(1));
  if (table != nullptr && table->elements() != 256) return "the table has not 256 entries";
  return table == nullptr ? "the table is not constant" : Refusal{};
}

// --- QConcat ------------------------------------------------------------------------------------

// Inputs of QConcat: y_scale, y_zero_point, then (x, scale, zero_point) for each part.
constexpr size_t kFirstPart = 2;

class ConcatStep : public Step {
 public:
  ConcatStep(const Graph& graph, const Node& node)
      : axis_(node.int_or("axis", 0)), y_(read_output(graph, node, 0)) {
    for (size_t i = kFirstPart; i < node.inputs.size(); i += 3) {
      const CodeGrid x = read_grid(graph, node, i);
      const bool same = x.dtype == y_.grid.dtype && x.scale == y_.grid.scale &&
                        x.zero_point == y_.grid.zero_point && y_.qmin == integer_min(x.dtype) &&
                        y_.qmax == integer_max(x.dtype);
      tables_.push_back(table(x));
      copied_.push_back(same);
    }
  }

 protected:
  Table table(const CodeGrid& x) const {
    const float m = requant_multiplier(x.scale, y_.grid.scale);
    Table t;
    for (int i = 0; i < 256; ++i) {
      const int code = x.dtype == DType::int8 ? static_cast<int8_t>(i) : i;
      const float real = static_cast<float>(code - x.zero_point) * m;
      t[i] = static_cast<uint8_t>(round_to_code(real, y_.grid.zero_point, y_.qmin, y_.qmax));
    }
    return t;
  }
  int64_t axis_;
  OutputSpec y_;
  std::vector<Table> tables_;  // per part
  std::vector<bool> copied_;   // the output's own grid
};

class KernelConcatStep final : public ConcatStep {
 public:
  KernelConcatStep(const Graph& graph, const Node& node, Isa isa)
      : ConcatStep(graph, node), kernels_(kernels_for(isa)) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    const size_t rank = y.dims.size();
    const size_t axis = normalize_axis(axis_, rank);
    // Bytes of everything before and behind the axis, in memory order.
    const bool last = y.layout == Layout::channels_last && rank >= 3;
    int64_t outer = num_elements(y.dims, 0, axis);
    int64_t inner = num_elements(y.dims, axis + 1, rank);
    if (last && axis == 1) {
      outer *= inner;
      inner = 1;
    } else if (last && axis > 1) {
      outer /= y.dims[1];
      inner *= y.dims[1];
    }
    if (y.elements() == 0) return;
    const int64_t pitch = y.dims[axis] * inner;
    parallel_for(outer, std::max<int64_t>(kBlock / pitch, 1), [&](int64_t begin, int64_t end) {
      int64_t offset = 0;
      for (size_t part = 0; part < tables_.size(); ++part) {
        const TensorView& x = context.inputs[kFirstPart + 3 * part];
        const int64_t bytes = x.dims[axis] * inner;
        if (bytes == 0) continue;
        move(part, y.as<uint8_t>() + begin * pitch + offset, pitch, x.as<uint8_t>() + begin * bytes,
             bytes, end - begin);
        offset += bytes;
      }
    });
  }

 private:
  static constexpr int64_t kStrip = 4096;  // bytes looked up at once

  /// `count` pieces of `bytes` from behind each other to `pitch` apart.
  void move(size_t part, uint8_t* to, int64_t pitch, const uint8_t* from, int64_t bytes,
            int64_t count) const {
    if (copied_[part]) return spread(to, pitch, from, bytes, count);
    const uint8_t* table = tables_[part].data();
    if (bytes > kStrip / 2) {
      for (int64_t i = 0; i < count; ++i) {
        kernels_.lookup(to + i * pitch, from + i * bytes, bytes, table);
      }
      return;
    }
    // A few bytes of a pixel each: many pixels are looked up together.
    uint8_t strip[kStrip];
    const int64_t most = kStrip / bytes;
    for (int64_t i = 0; i < count; i += most) {
      const int64_t n = std::min(most, count - i);
      kernels_.lookup(strip, from + i * bytes, n * bytes, table);
      spread(to + i * pitch, pitch, strip, bytes, n);
    }
  }

  static void spread(uint8_t* to, int64_t pitch, const uint8_t* from, int64_t bytes,
                     int64_t count) {
    constexpr int64_t kWord = 8;
    const bool words = bytes % kWord == 0 && bytes <= 16 * kWord;
    for (int64_t i = 0; i < count; ++i, to += pitch, from += bytes) {
      if (!words) {
        std::memcpy(to, from, static_cast<size_t>(bytes));
        continue;
      }
      for (int64_t b = 0; b < bytes; b += kWord) std::memcpy(to + b, from + b, kWord);
    }
  }
  const kernels::KernelSet& kernels_;
};

class ReferenceConcatStep final : public ConcatStep {
 public:
  using ConcatStep::ConcatStep;
  void run(RunContext& context) const override {
    const TensorView& y = context.outputs[0];
    const size_t axis = normalize_axis(axis_, y.dims.size());
    const int64_t inner = num_elements(y.dims, axis + 1, y.dims.size());
    int64_t first = 0;  // position of the part along the axis
    for (size_t part = 0; part < tables_.size(); ++part) {
      const TensorView& x = context.inputs[kFirstPart + 3 * part];
      const int64_t run = x.dims[axis] * inner;
      for (int64_t i = 0; i < x.elements(); ++i) {
        const int64_t at = i / run * y.dims[axis] * inner + first * inner + i % run;
        y.as<uint8_t>()[at] = tables_[part][x.as<uint8_t>()[i]];
      }
      first += x.dims[axis];
    }
  }
};

Refusal accept_parts(const Graph& graph, const Node& node, const StepOptions&) {
  if (node.inputs.size() <= kFirstPart) return "no parts";
  if (node.input(0) == kNoId) return "the output has no grid";
  for (size_t i = kFirstPart; i < node.inputs.size(); i += 3) {
    if (Refusal r = refuse_grid(graph, node, i); !r.empty()) return r;
  }
  return {};
}

// --- rows ---------------------------------------------------------------------------------------

using Accept = Refusal(const Graph&, const Node&, const StepOptions&);

template <Isa isa, Accept* rest>
Refusal accept(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  return rest(graph, node, options);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

template <class S>
std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node);
}

#define NARROW_BYTES(isa)                                                                       \
  {"narrow", "QLookup", #isa, accept<Isa::isa, accept_table>, make<LookupStep, Isa::isa>}, {    \
    "narrow", "QConcat", #isa, accept<Isa::isa, accept_parts>, make<KernelConcatStep, Isa::isa> \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_BYTES(avx512_vnni),
    NARROW_BYTES(avx2),
#endif
    NARROW_BYTES(scalar),
    {"narrow", "QLookup", "reference", accept_table, make_reference<ReferenceLookupStep>},
    {"narrow", "QConcat", "reference", accept_parts, make_reference<ReferenceConcatStep>},
};
#undef NARROW_BYTES

}  // namespace

std::span<const OpImpl> lookup_rows() {
  return kRows;
}

}  // namespace narrow::integer
