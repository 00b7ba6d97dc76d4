// SPDX-License-Identifier: Apache-2.0
// Attention in float32 through the tiled kernels (kernels/attention.h): no scores, no masks of
// queries x keys in memory. Keys and values may be float16 or int8 (narrow.Attention).
#include <limits>

#include "narrow/graph/lowered_ops.h"
#include "narrow/kernels/attention.h"
#include "narrow/runtime/ops/attention_form.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

kernels::AttentionStrides strides_of(const HeadStrides& s) {
  return {s.batch, s.head, s.row};
}

/// What the mask adds to the scores of keys [first, first + count).
void add_mask(const MaskView& mask, int64_t row, int64_t first, int64_t count, float* out) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < count; ++j) {
    const int64_t key = first + j;
    const int64_t at = row + key * mask.key;
    if (key >= mask.length) {
      out[j] = kMasked;
    } else if (mask.dtype == DType::boolean) {
      out[j] = reinterpret_cast<const bool*>(mask.data)[at] ? 0 : kMasked;
    } else {
      out[j] = reinterpret_cast<const float*>(mask.data)[at];
    }
  }
}

class TiledAttention final : public Step {
 public:
  TiledAttention(const Graph&, const Node& node) : form_(node) {}

  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    const AttentionShape s = shape_of(inputs);
    const int64_t keys = outputs.size() > 1 && outputs[1].size() == 4 ? outputs[1][2] : s.keys;
    return kernels::attention_scratch_bytes(s.batch, s.heads, s.kv_heads, s.queries, keys,
                                            s.value_width);
  }
  /// Of the whole cache, masked or not: what is seen is known only while running.
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const AttentionShape s = shape_of(inputs);
    return s.batch * s.heads * s.queries * s.keys * (s.width + s.value_width);
  }

  void run(RunContext& context) const override {
    const AttentionShape s = form_.shape(context.inputs);
    write_present(s, context.inputs, context.outputs);
    const bool joined = present(context.inputs, 4);
    kernels::AttentionProblem p;
    p.batch = s.batch;
    p.heads = s.heads;
    p.kv_heads = s.kv_heads;
    p.queries = s.queries;
    p.keys = s.keys;
    p.width = s.width;
    p.value_width = s.value_width;
    p.q_strides = strides_of(s.q);
    p.k_strides = strides_of(s.k);
    p.v_strides = strides_of(s.v);
    p.y_strides = strides_of(s.y);
    p.q = context.inputs[0].as<float>();
    p.k = joined ? context.outputs[1].data : context.inputs[1].data;
    p.v = joined ? context.outputs[2].data : context.inputs[2].data;
    set_store(context.inputs, p);
    p.y = context.outputs[0].as<float>();
    p.scale = form_.scale(s);
    p.softcap = form_.softcap();
    p.visible = [&](int64_t batch, int64_t query) {
      const KeyRange range = form_.visible(s, valid_keys(context.inputs, batch), query);
      return kernels::AttentionProblem::Range{range.begin, range.end};
    };
    for (int64_t b = 0; b < s.batch; ++b) valid_keys(context.inputs, b);  // refuses before work
    const MaskView mask = mask_view(s, context.inputs);
    if (mask.data != nullptr) {
      p.bias = [&mask](int64_t batch, int64_t head, int64_t query, int64_t first, int64_t count,
                       float* out) {
        const int64_t row = batch * mask.batch + head * mask.head + query * mask.row;
        add_mask(mask, row, first, count, out);
      };
    }
    kernels::run_attention(kernels_, p, context.scratch);
  }

 private:
  void set_store(std::span<const TensorView> inputs, kernels::AttentionProblem& p) const {
    const DType dtype = inputs[1].dtype;
    if (dtype == DType::float16) p.store = kernels::KeyStore::f16;
    if (dtype != DType::int8) return;
    p.store = kernels::KeyStore::int8;
    p.scale_block = form_.scale_block();
    p.k_scales = inputs[kKeyScales].as<float>();
    p.v_scales = inputs[kValueScales].as<float>();
    p.k_scale_strides = strides_of(form_.scale_strides(inputs, kKeyScales));
    p.v_scale_strides = strides_of(form_.scale_strides(inputs, kValueScales));
  }
  AttentionShape shape_of(std::span<const Dims> inputs) const {
    std::vector<TensorView> views(inputs.size());
    static std::byte nothing;
    for (size_t i = 0; i < views.size(); ++i) {
      views[i].dims = inputs[i];
      // Absent operands have no dims here; those that may be absent are never scalars but the mask.
      if (i < 3 || !inputs[i].empty()) views[i].data = &nothing;
    }
    return form_.shape(views);
  }

  AttentionForm form_;
  const kernels::KernelSet& kernels_ = kernels::best_kernels();
};

/// Key and value alike: float32, or in narrow.Attention float16 or int8 with its scales.
Refusal refuse_store(const Graph& graph, const Node& node) {
  const bool codes = !node.domain.empty() && input_dtype(graph, node, 1) == DType::int8;
  const DType key = node.domain.empty() ? DType::float32 : codes ? DType::int8 : DType::float16;
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (Refusal why = require_dtype(graph, node, i, {key}); !why.empty()) return why;
  }
  if (!codes) return {};
  const auto width = [&](size_t i) {  // shape inference has seen four axes; 0: not known
    const auto& shape = graph.value(node.inputs[i]).shape;
    return shape && shape->back().known() ? shape->back().value : int64_t{0};
  };
  if (width(1) == 0 || width(2) == 0) return "the width of keys is not known";
  return kernels::refuse_scale_block(AttentionForm(node).scale_block(), width(1), width(2));
}

Refusal accept_tiled(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  if (Refusal why = refuse_store(graph, node); !why.empty()) return why;
  if (node.output(3) != kNoId) return "the scores are asked for";
  if (node.input(3) != kNoId) {
    Refusal why = require_dtype(graph, node, 3, {DType::float32, DType::boolean});
    if (!why.empty()) return why;
  }
  const bool joins = node.output(1) != kNoId && node.output(2) != kNoId;
  if (node.input(4) != kNoId && !joins) return "past keys without present ones";
  return {};
}

const OpImpl kRows[] = {
    {"", "Attention", "tiled", accept_tiled, make<TiledAttention>},
    {kDomain, kAttention, "tiled", accept_tiled, make<TiledAttention>},
};

}  // namespace

std::span<const OpImpl> tiled_attention_rows() {
  return kRows;
}

}  // namespace narrow::ops
