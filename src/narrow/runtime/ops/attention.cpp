// SPDX-License-Identifier: Apache-2.0
// Attention as its definition says: every score in double, one query after the other.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/runtime/ops/attention_form.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

double real(float x) {
  return static_cast<double>(x);
}
double real(double x) {
  return x;
}
double real(Half x) {
  return static_cast<double>(to_float(x));
}

/// Numbers of keys or values as they are stored.
template <class C>
struct Stored {
  const C* data;
  double operator[](int64_t i) const { return real(data[i]); }
};
/// Codes with the scales of their blocks, of rows of `width`.
struct StoredCodes {
  const int8_t* data;
  const float* scales;
  int64_t width;
  int64_t block;
  double operator[](int64_t i) const {
    const int64_t blocks = (width + block - 1) / block;
    const float scale = scales[i / width * blocks + i % width / block];
    return real(static_cast<float>(data[i]) * scale);  // as DequantizeLinear
  }
};

/// What the mask adds to a score.
double mask_at(const MaskView& mask, int64_t row, int64_t key) {
  if (mask.data == nullptr) return 0;
  if (key >= mask.length) return kMasked;
  const int64_t at = row + key * mask.key;
  if (mask.dtype == DType::boolean) {
    return reinterpret_cast<const bool*>(mask.data)[at] ? 0 : kMasked;
  }
  if (mask.dtype == DType::float32) {
    return static_cast<double>(reinterpret_cast<const float*>(mask.data)[at]);
  }
  if (mask.dtype != DType::float64) fail_dtype(mask.dtype);
  return reinterpret_cast<const double*>(mask.data)[at];
}

/// narrow.Attention is the same with key and value in float16, or as codes, beside a float32 query.
class ReferenceAttention final : public Step {
 public:
  ReferenceAttention(const Graph&, const Node& node) : form_(node) {}
  int64_t macs(std::span<const Dims>, std::span<const Dims>) const override { return 0; }
  void run(RunContext& context) const override {
    const AttentionShape s = form_.shape(context.inputs);
    write_present(s, context.inputs, context.outputs);
    visit(Floating{}, context.inputs[0].dtype, [&]<class T>(std::type_identity<T>) {
      if (context.inputs[1].dtype == DType::int8) {
        attend_all<T>(context, s, codes(context.inputs, kKeyScales),
                      codes(context.inputs, kValueScales));
      } else if (context.inputs[1].dtype == DType::float16) {
        attend<T, Half>(context, s);
      } else {
        attend<T, T>(context, s);
      }
    });
  }

 private:
  StoredCodes codes(std::span<const TensorView> inputs, size_t scales) const {
    (void)form_.scale_strides(inputs, scales);  // refuses what does not fit
    const TensorView& x = inputs[scales - kKeyScales + 1];
    return {x.as<int8_t>(), inputs[scales].as<float>(), x.dims.back(), form_.scale_block()};
  }

  template <class T, class C>
  void attend(RunContext& context, const AttentionShape& s) const {
    // Past and new keys in one piece: the present output, or a copy.
    std::vector<C> joined[2];
    const C* keys[2];
    for (const size_t i : {size_t{0}, size_t{1}}) {
      keys[i] = context.inputs[i + 1].as<C>();
      if (!present(context.inputs, 4)) continue;
      const bool there = i + 1 < context.outputs.size() && context.outputs[i + 1].data != nullptr;
      if (there) {
        keys[i] = context.outputs[i + 1].as<C>();
        continue;
      }
      const int64_t width = i == 0 ? s.width : s.value_width;
      joined[i].resize(static_cast<size_t>(s.batch * s.kv_heads * s.keys * width));
      std::vector<TensorView> out(i + 2);
      out[i + 1] = {context.inputs[i + 1].dtype, Dims{s.batch, s.kv_heads, s.keys, width},
                    Layout::plain, reinterpret_cast<std::byte*>(joined[i].data())};
      write_present(s, context.inputs, out);
      keys[i] = joined[i].data();
    }
    attend_all<T>(context, s, Stored<C>{keys[0]}, Stored<C>{keys[1]});
  }

  template <class T, class Rows>
  void attend_all(RunContext& context, const AttentionShape& s, const Rows& keys,
                  const Rows& values) const {
    const MaskView mask = mask_view(s, context.inputs);
    parallel_for(s.batch * s.heads * s.queries, 1, [&](int64_t begin, int64_t end) {
      std::vector<double> scores(static_cast<size_t>(s.keys));
      for (int64_t row = begin; row < end; ++row) {
        attend_row<T>(context, s, mask, keys, values, row, scores);
      }
    });
  }

  template <class T, class Rows>
  void attend_row(RunContext& context, const AttentionShape& s, const MaskView& mask,
                  const Rows& keys, const Rows& values, int64_t row,
                  std::vector<double>& scores) const {
    const int64_t b = row / (s.heads * s.queries);
    const int64_t h = row / s.queries % s.heads;
    const int64_t i = row % s.queries;
    const T* q = context.inputs[0].as<T>() + b * s.q.batch + h * s.q.head + i * s.q.row;
    const int64_t k = b * s.k.batch + h / s.group() * s.k.head;
    const int64_t v = b * s.v.batch + h / s.group() * s.v.head;
    T* y = context.outputs[0].as<T>() + b * s.y.batch + h * s.y.head + i * s.y.row;
    T* shown = context.outputs.size() > 3 && context.outputs[3].data != nullptr
                   ? context.outputs[3].as<T>() + row * s.keys
                   : nullptr;
    const auto show = [&](int64_t mode) {
      if (shown == nullptr || form_.qk_mode() != mode) return;
      for (int64_t t = 0; t < s.keys; ++t) shown[t] = static_cast<T>(scores[t]);
    };
    const double scale = real(form_.scale(s));
    for (int64_t t = 0; t < s.keys; ++t) {
      double sum = 0;
      for (int64_t p = 0; p < s.width; ++p) sum += real(q[p]) * keys[k + t * s.k.row + p];
      scores[t] = sum * scale;
    }
    show(0);
    const double cap = real(form_.softcap());
    for (int64_t t = 0; cap > 0 && t < s.keys; ++t) scores[t] = cap * std::tanh(scores[t] / cap);
    show(1);
    const bool any = add_bias(context, s, mask, b, h, i, scores);
    show(2);
    softmax(scores, any);
    show(3);
    for (int64_t p = 0; p < s.value_width; ++p) {
      double sum = 0;
      for (int64_t t = 0; t < s.keys; ++t) {
        if (scores[t] != 0) sum += scores[t] * values[v + t * s.v.row + p];
      }
      y[p] = static_cast<T>(sum);
    }
  }

  /// false: no key is left.
  bool add_bias(RunContext& context, const AttentionShape& s, const MaskView& mask, int64_t b,
                int64_t h, int64_t i, std::vector<double>& scores) const {
    const KeyRange range = form_.visible(s, valid_keys(context.inputs, b), i);
    bool any = false;
    for (int64_t t = 0; t < s.keys; ++t) {
      const bool seen = t >= range.begin && t < range.end;
      const double bias =
          seen ? mask_at(mask, b * mask.batch + h * mask.head + i * mask.row, t) : kMasked;
      scores[t] = bias == kMasked ? kMasked : scores[t] + bias;
      any = any || bias != kMasked;
    }
    return any;
  }

  static void softmax(std::vector<double>& scores, bool any) {
    if (!any) {
      std::fill(scores.begin(), scores.end(), 0.0);
      return;
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& x : scores) sum += x = std::exp(x - largest);
    for (double& x : scores) x /= sum;
  }

  AttentionForm form_;
};

/// Rotates pairs of a head's numbers by angles that the caches hold: (x, cos, sin, positions?).
class RotaryStep final : public Step {
 public:
  RotaryStep(const Graph&, const Node& node)
      : interleaved_(node.int_or("interleaved", 0) != 0),
        part_(node.int_or("rotary_embedding_dim", 0)),
        heads_(node.int_or("num_heads", 0)) {}
  int aliases(size_t) const override { return 0; }
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  struct Shape {
    int64_t batch, heads, length, width, half;
    HeadStrides strides;
  };
  Shape shape_of(std::span<const TensorView> inputs) const {
    const Dims& d = inputs[0].dims;
    Shape s{};
    if (d.size() == 4) {
      s = {d[0], d[1], d[2], d[3], 0, {d[1] * d[2] * d[3], d[2] * d[3], d[3]}};
    } else if (d.size() == 3 && heads_ > 0 && d[2] % heads_ == 0) {
      s = {d[0], heads_, d[1], d[2] / heads_, 0, {d[1] * d[2], d[2] / heads_, d[2]}};
    } else {
      throw Error(ErrorCode::invalid_argument, "num_heads does not divide what is to be rotated");
    }
    s.half = (part_ > 0 ? part_ : s.width) / 2;
    const bool by_position = present(inputs, 3);
    for (const size_t i : {size_t{1}, size_t{2}}) {
      const Dims& c = inputs[i].dims;
      const bool fits =
          by_position ? c.size() == 2 && c[1] == s.half : c == Dims{s.batch, s.length, s.half};
      if (!fits || 2 * s.half > s.width) {
        throw Error(ErrorCode::invalid_argument, "the caches do not fit what is to be rotated");
      }
    }
    if (by_position && inputs[3].elements() != s.batch * s.length) {
      throw Error(ErrorCode::invalid_argument, "position_ids must be one number for each token");
    }
    return s;
  }

  /// The caches' row of token i.
  static int64_t row_of(std::span<const TensorView> inputs, int64_t i) {
    if (!present(inputs, 3)) return i;
    const TensorView& ids = inputs[3];
    const int64_t row = ids.dtype == DType::int32 ? ids.as<int32_t>()[i] : ids.as<int64_t>()[i];
    const int64_t rows = std::min(inputs[1].dims[0], inputs[2].dims[0]);
    if (row < 0 || row >= rows) {
      throw Error(ErrorCode::invalid_argument, "position " + std::to_string(row) +
                                                   " is outside of the " + std::to_string(rows) +
                                                   " positions that the model has");
    }
    return row;
  }

  template <class T>
  void run_typed(RunContext& context) const {
    const Shape s = shape_of(context.inputs);
    const int64_t tokens = std::max<int64_t>(1, 4096 / (s.heads * s.width + 1));
    parallel_for(s.batch * s.length, tokens, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = row_of(context.inputs, i);
        const T* cosine = context.inputs[1].as<T>() + row * s.half;
        const T* sine = context.inputs[2].as<T>() + row * s.half;
        const int64_t at = i / s.length * s.strides.batch + i % s.length * s.strides.row;
        for (int64_t h = 0; h < s.heads; ++h) {
          rotate(context.inputs[0].as<T>() + at + h * s.strides.head,
                 context.outputs[0].as<T>() + at + h * s.strides.head, cosine, sine, s);
        }
      }
    });
  }

  template <class T>
  void rotate(const T* x, T* y, const T* cosine, const T* sine, const Shape& s) const {
    const int64_t step = interleaved_ ? 2 : 1;
    const int64_t other = interleaved_ ? 1 : s.half;
    NARROW_SIMD
    for (int64_t j = 0; j < s.half; ++j) {
      const T a = x[j * step];
      const T b = x[j * step + other];
      y[j * step] = cosine[j] * a - sine[j] * b;
      y[j * step + other] = sine[j] * a + cosine[j] * b;
    }
    if (x != y) std::copy(x + 2 * s.half, x + s.width, y + 2 * s.half);
  }

  bool interleaved_;
  int64_t part_;
  int64_t heads_;
};

/// (cache, update, write_indices?): rows of the cache replaced. In place only the update is moved.
class TensorScatterStep final : public Step {
 public:
  TensorScatterStep(const Graph&, const Node& node)
      : axis_(node.int_or("axis", -2)), circular_(node.string_or("mode", "linear") == "circular") {}
  int aliases(size_t) const override { return 0; }
  void run(RunContext& context) const override {
    const TensorView& cache = context.inputs[0];
    const TensorView& update = context.inputs[1];
    const TensorView& y = context.outputs[0];
    const auto axis = static_cast<size_t>(normalize_axis(axis_, cache.dims.size()));
    Dims expected = cache.dims;
    const bool ranks = axis > 0 && update.dims.size() == cache.dims.size();
    if (ranks) expected[axis] = update.dims[axis];
    if (!ranks || update.dims != expected || update.dims[axis] > cache.dims[axis]) {
      throw Error(ErrorCode::invalid_argument, "an update of shape " + to_string(update.dims) +
                                                   " does not fit a cache of shape " +
                                                   to_string(cache.dims));
    }
    if (y.data != cache.data) std::memcpy(y.data, cache.data, view_bytes(cache));
    const int64_t inner = num_elements(cache.dims, axis + 1, cache.dims.size());
    const int64_t outer = num_elements(cache.dims, 1, axis);
    const size_t row = static_cast<size_t>(inner) * element_bytes(cache.dtype);
    const int64_t capacity = cache.dims[axis];
    const int64_t length = update.dims[axis];
    // All places are checked before anything is written.
    for (int64_t b = 0; b < cache.dims[0]; ++b) first_of(context.inputs, b, length, capacity);
    const int64_t items = cache.dims[0] * outer;
    const auto moved = static_cast<int64_t>(row) * length + 1;
    parallel_for(items, std::max<int64_t>(1, 65536 / moved), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = first_of(context.inputs, i / outer, length, capacity);
        const std::byte* from = update.data + static_cast<size_t>(i * length) * row;
        std::byte* to = y.data + static_cast<size_t>(i * capacity) * row;
        const int64_t head = std::min(length, capacity - first);
        std::memcpy(to + static_cast<size_t>(first) * row, from, static_cast<size_t>(head) * row);
        std::memcpy(to, from + static_cast<size_t>(head) * row,
                    static_cast<size_t>(length - head) * row);
      }
    });
  }

 private:
  /// Where the update of a batch item begins, in [0, capacity].
  int64_t first_of(std::span<const TensorView> inputs, int64_t batch, int64_t length,
                   int64_t capacity) const {
    if (!present(inputs, 2)) return 0;
    const TensorView& indices = inputs[2];
    if (batch >= indices.elements()) {
      throw Error(ErrorCode::invalid_argument, "write_indices must be one number for each item");
    }
    const int64_t index =
        indices.dtype == DType::int32 ? indices.as<int32_t>()[batch] : indices.as<int64_t>()[batch];
    if (circular_ && capacity > 0 && index >= 0) return index % capacity;
    if (index < 0 || index > capacity - length) {
      throw Error(ErrorCode::invalid_argument,
                  std::to_string(length) + " tokens at " + std::to_string(index) +
                      " do not fit a cache of " + std::to_string(capacity));
    }
    return index;
  }

  int64_t axis_;
  bool circular_;
};

/// Query of float type, key and value likewise or (narrow.Attention) both float16 or int8.
Refusal accept_attention(const Graph& graph, const Node& node, const StepOptions& options) {
  const DType key = input_dtype(graph, node, 1);
  for (const size_t i : {size_t{1}, size_t{2}}) {
    const DType dtype = input_dtype(graph, node, i);
    const bool narrow =
        node.domain == kDomain && dtype == key && (dtype == DType::float16 || dtype == DType::int8);
    if (!narrow && dtype != input_dtype(graph, node, 0)) return refuse_dtype(graph, node, i);
  }
  return accept<Floating>(graph, node, options);
}

const OpImpl kRows[] = {
    {"", "Attention", "reference:float16", accept_half<>, make_half<ReferenceAttention>},
    {"", "Attention", "reference", accept_attention, make<ReferenceAttention>},
    {kDomain, kAttention, "reference", accept_attention, make<ReferenceAttention>},
    {"", "RotaryEmbedding", "reference:float16", accept_half<>, make_half<RotaryStep>},
    {"", "RotaryEmbedding", "reference", accept<Floating>, make<RotaryStep>},
    {"", "TensorScatter", "reference", accept_movable, make<TensorScatterStep>},
};

}  // namespace

std::span<const OpImpl> attention_rows() {
  return kRows;
}

}  // namespace narrow::ops
