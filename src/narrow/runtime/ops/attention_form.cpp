// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/attention_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "narrow/core/parallel.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

struct Operand {
  int64_t batch;
  int64_t heads;
  int64_t length;
  int64_t width;
  HeadStrides strides;
};

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, what);
}

/// [batch, heads, length, width], or [batch, length, heads * width].
Operand operand(const TensorView& x, int64_t heads) {
  const Dims& d = x.dims;
  if (d.size() == 4) {
    return {d[0], d[1], d[2], d[3], {d[1] * d[2] * d[3], d[2] * d[3], d[3]}};
  }
  if (d.size() != 3 || heads < 1 || d[2] % heads != 0) {
    refuse(fmt::format("an operand of shape {} has no {} heads", to_string(d), heads));
  }
  return {d[0], heads, d[1], d[2] / heads, {d[1] * d[2], d[2] / heads, d[2]}};
}

void check(const Operand& q, const Operand& k, const Operand& v) {
  if (k.batch != q.batch || v.batch != q.batch) refuse("query, key and value differ in batch");
  if (k.width != q.width) refuse(fmt::format("query width {}, key width {}", q.width, k.width));
  if (v.length != k.length) refuse(fmt::format("{} keys, {} values", k.length, v.length));
  if (v.heads != k.heads || k.heads < 1 || q.heads % k.heads != 0) {
    refuse(fmt::format("{} query heads, {} key heads, {} value heads", q.heads, k.heads, v.heads));
  }
}

/// Copies [heads, length, width] with given strides behind `at` tokens of dst [heads, total,
/// width].
void copy_tokens(const std::byte* src, const HeadStrides& strides, int64_t length, int64_t width,
                 std::byte* dst, int64_t total, int64_t at, int64_t batch, int64_t heads,
                 size_t element) {
  if (length == 0 || width == 0) return;
  const size_t row = static_cast<size_t>(width) * element;
  parallel_for(batch * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = i / heads * strides.batch + i % heads * strides.head;
      std::byte* to = dst + static_cast<size_t>((i * total + at) * width) * element;
      for (int64_t t = 0; t < length; ++t) {
        const auto offset = static_cast<size_t>(from + t * strides.row) * element;
        std::memcpy(to + static_cast<size_t>(t) * row, src + offset, row);
      }
    }
  });
}

}  // namespace

AttentionForm::AttentionForm(const Node& node)
    : q_heads_(node.int_or("q_num_heads", 0)),
      kv_heads_(node.int_or("kv_num_heads", 0)),
      causal_(node.int_or("is_causal", 0) != 0),
      left_(node.int_or("left_window_size", -1)),
      right_(node.int_or("right_window_size", -1)),
      has_scale_(node.has("scale")),
      scale_(node.float_or("scale", 0)),
      softcap_(node.float_or("softcap", 0)),
      qk_mode_(node.int_or("qk_matmul_output_mode", 0)),
      scale_block_(node.int_or("block_size", 0)) {
  if (qk_mode_ < 0 || qk_mode_ > 3) {
    refuse(fmt::format("qk_matmul_output_mode is {}, must be 0 to 3", qk_mode_));
  }
  constexpr int64_t kEndless = int64_t{1} << 40;  // no overflow where positions are added
  left_ = std::min(left_, kEndless);
  right_ = causal_ ? 0 : std::min(right_, kEndless);
}

AttentionShape AttentionForm::shape(std::span<const TensorView> inputs) const {
  const Operand q = operand(inputs[0], q_heads_);
  const Operand k = operand(inputs[1], kv_heads_);
  const Operand v = operand(inputs[2], kv_heads_);
  AttentionShape s{q.batch, q.heads, k.heads,   q.length,  k.length,  0,
                   q.width, v.width, q.strides, k.strides, v.strides, {}};
  check(q, k, v);
  if (inputs[0].dims.size() == 4) {
    s.y = {q.heads * q.length * v.width, q.length * v.width, v.width};
  } else {
    s.y = {q.length * q.heads * v.width, v.width, q.heads * v.width};
  }
  if (present(inputs, 6) && inputs[6].elements() != s.batch) {
    refuse(fmt::format("nonpad_kv_seqlen has shape {}, the batch is {}", to_string(inputs[6].dims),
                       s.batch));
  }
  if (!present(inputs, 4)) return s;
  if (!present(inputs, 5) || present(inputs, 6)) {
    refuse("past_key needs past_value and excludes nonpad_kv_seqlen");
  }
  s.past = inputs[4].dims.size() == 4 ? inputs[4].dims[2] : 0;
  s.keys += s.past;
  if (inputs[4].dims != Dims{s.batch, s.kv_heads, s.past, s.width} ||
      inputs[5].dims != Dims{s.batch, s.kv_heads, s.past, s.value_width}) {
    refuse(fmt::format("past_key {} and past_value {} do not go with key {} and value {}",
                       to_string(inputs[4].dims), to_string(inputs[5].dims),
                       to_string(inputs[1].dims), to_string(inputs[2].dims)));
  }
  s.k = {s.kv_heads * s.keys * s.width, s.keys * s.width, s.width};
  s.v = {s.kv_heads * s.keys * s.value_width, s.keys * s.value_width, s.value_width};
  return s;
}

HeadStrides AttentionForm::scale_strides(std::span<const TensorView> inputs, size_t input) const {
  const Dims& codes = inputs[input - kKeyScales + 1].dims;
  const Dims& scales = inputs[input].dims;
  bool fits = codes.size() == 4 && scales.size() == 4 && scale_block_ > 0;
  for (size_t i = 0; fits && i < 3; ++i) fits = scales[i] == codes[i];
  if (!fits || scales[3] != (codes[3] + scale_block_ - 1) / scale_block_) {
    refuse(fmt::format("scales of shape {} do not go with codes of shape {} in blocks of {}",
                       to_string(scales), to_string(codes), scale_block_));
  }
  return {scales[1] * scales[2] * scales[3], scales[2] * scales[3], scales[3]};
}

float AttentionForm::scale(const AttentionShape& shape) const {
  if (has_scale_) return scale_;
  return static_cast<float>(1 / std::sqrt(static_cast<double>(std::max<int64_t>(1, shape.width))));
}

KeyRange AttentionForm::visible(const AttentionShape& shape, int64_t valid, int64_t i) const {
  const int64_t position = i + (valid >= 0 ? valid - shape.queries : shape.past);
  KeyRange range{0, valid >= 0 ? std::min(valid, shape.keys) : shape.keys};
  if (right_ >= 0) range.end = std::min(range.end, position + right_ + 1);
  if (left_ >= 0) range.begin = std::max<int64_t>(0, position - left_);
  return range;
}

MaskView mask_view(const AttentionShape& shape, std::span<const TensorView> inputs) {
  if (!present(inputs, 3)) return {};
  const TensorView& mask = inputs[3];
  const size_t rank = mask.dims.size();
  if (rank > 4) refuse(fmt::format("attn_mask has shape {}", to_string(mask.dims)));
  const int64_t last = rank == 0 ? 1 : mask.dims[rank - 1];
  MaskView view;
  view.data = mask.data;
  view.dtype = mask.dtype;
  // The last axis may stop short of the keys, which are then masked: a 1 is no broadcast.
  view.length = rank == 0 ? shape.keys : last;
  if (view.length > shape.keys) {
    refuse(
        fmt::format("attn_mask has shape {}, there are {} keys", to_string(mask.dims), shape.keys));
  }
  const Dims target{shape.batch, shape.heads, shape.queries, view.length};
  const Dims strides = broadcast_strides(mask, target);
  view.batch = strides[0];
  view.head = strides[1];
  view.row = strides[2];
  view.key = strides[3];
  return view;
}

int64_t valid_keys(std::span<const TensorView> inputs, int64_t batch) {
  if (!present(inputs, 6)) return -1;
  const TensorView& lengths = inputs[6];
  const int64_t n =
      lengths.dtype == DType::int32 ? lengths.as<int32_t>()[batch] : lengths.as<int64_t>()[batch];
  if (n < 0) refuse(fmt::format("nonpad_kv_seqlen[{}] is {}", batch, n));
  constexpr int64_t kEndless = int64_t{1} << 40;
  return std::min(n, kEndless);
}

void write_present(const AttentionShape& shape, std::span<const TensorView> inputs,
                   std::span<const TensorView> outputs) {
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (i >= outputs.size() || outputs[i].data == nullptr) continue;
    const int64_t width = i == 1 ? shape.width : shape.value_width;
    const size_t element = element_bytes(inputs[i].dtype);
    if (outputs[i].dims != Dims{shape.batch, shape.kv_heads, shape.keys, width}) {
      throw Error(ErrorCode::internal, "present keys or values have another shape than planned");
    }
    if (shape.past > 0) {
      const HeadStrides past{shape.kv_heads * shape.past * width, shape.past * width, width};
      copy_tokens(inputs[i + 3].data, past, shape.past, width, outputs[i].data, shape.keys, 0,
                  shape.batch, shape.kv_heads, element);
    }
    const Operand now = operand(inputs[i], shape.kv_heads);
    copy_tokens(inputs[i].data, now.strides, now.length, width, outputs[i].data, shape.keys,
                shape.past, shape.batch, shape.kv_heads, element);
  }
}

}  // namespace narrow::ops
