// SPDX-License-Identifier: Apache-2.0
// Normalizations. Sums run in double: one pass over large planes in float loses digits.
#include <fmt/format.h>

#include <cmath>

#include "narrow/runtime/ops/lines.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

struct Moments {
  double mean;
  double variance;
};

/// The sum of term(x[i]) in eight chains: one would wait for every addition.
template <class T, class Term>
double chained_sum(const T* x, int64_t n, const Term& term) {
  constexpr int64_t kChains = 8;
  double sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains) {
    NARROW_SIMD
    for (int64_t j = 0; j < kChains; ++j) sums[j] += term(static_cast<double>(x[i + j]));
  }
  for (; i < n; ++i) sums[0] += term(static_cast<double>(x[i]));
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <class T>
Moments moments(const T* x, int64_t n) {
  if (n == 0) return {0, 0};
  const auto count = static_cast<double>(n);
  const double mean = chained_sum(x, n, [](double v) { return v; }) / count;
  return {mean, chained_sum(x, n, [mean](double v) { return (v - mean) * (v - mean); }) / count};
}

template <class T>
double sum_of_squares(const T* x, int64_t n) {
  return chained_sum(x, n, [](double v) { return v * v; });
}

/// y = factor * x + shift.
template <class T>
void scale_and_shift(const T* x, T* y, int64_t n, T factor, T shift) {
  NARROW_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] = factor * x[i] + shift;
}

/// Statistics have a type of their own (stash_type), float32 also beside float64 data.
void store_real(const TensorView& view, int64_t i, double value) {
  visit(Floating{}, view.dtype,
        [&]<class T>(std::type_identity<T>) { view.as<T>()[i] = static_cast<T>(value); });
}

/// Blocks of planes for parallel_for.
int64_t planes_per_block(int64_t plane) {
  return std::max<int64_t>(1, kBlockElements / (plane + 1));
}

/// (x, scale, bias, mean, variance): one line per channel. Images come from convolutions and go to
/// convolutions, whose memory order this keeps.
class BatchNormStep final : public Step {
 public:
  BatchNormStep(const Graph&, const Node& node) : epsilon_(node.float_or("epsilon", 1e-5F)) {}
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return 2 * aligned(static_cast<size_t>(num_elements(inputs[1])) * sizeof(double));
  }
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const int64_t channels = x.dims.size() > 1 ? x.dims[1] : 1;
    T* factor = reinterpret_cast<T*>(context.scratch.data());
    T* shift = reinterpret_cast<T*>(context.scratch.data() + context.scratch.size() / 2);
    for (int64_t c = 0; c < channels; ++c) {
      const double v =
          static_cast<double>(context.inputs[4].as<T>()[c]) + static_cast<double>(epsilon_);
      const double f = static_cast<double>(context.inputs[1].as<T>()[c]) / std::sqrt(v);
      factor[c] = static_cast<T>(f);
      shift[c] = static_cast<T>(static_cast<double>(context.inputs[2].as<T>()[c]) -
                                f * static_cast<double>(context.inputs[3].as<T>()[c]));
    }
    const T* src = x.as<T>();
    T* dst = context.outputs[0].as<T>();
    if (x.layout == Layout::channels_last || x.dims.size() < 3) {
      const int64_t pixels = channels == 0 ? 0 : x.elements() / channels;
      parallel_for(pixels, planes_per_block(channels), [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          const T* from = src + p * channels;
          T* to = dst + p * channels;
          NARROW_SIMD
          for (int64_t c = 0; c < channels; ++c) to[c] = factor[c] * from[c] + shift[c];
        }
      });
      return;
    }
    const int64_t plane = num_elements(x.dims, 2, x.dims.size());
    parallel_for(x.dims[0] * channels, planes_per_block(plane), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t c = i % channels;
        scale_and_shift(src + i * plane, dst + i * plane, plane, factor[c], shift[c]);
      }
    });
  }

  float epsilon_;
};

/// (x, scale, bias): mean and variance of each image's channels, or of groups of channels.
class GroupNormStep final : public Step {
 public:
  GroupNormStep(const Graph&, const Node& node)
      : epsilon_(node.float_or("epsilon", 1e-5F)),
        per_channel_(node.op == "InstanceNormalization"),
        groups_(node.int_or("num_groups", 1)) {}
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const int64_t channels = x.dims[1];
    const int64_t groups = per_channel_ ? channels : groups_;
    if (x.elements() == 0) return;
    if (groups < 1 || channels % groups != 0) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} channels in {} groups", channels, groups));
    }
    const int64_t plane = num_elements(x.dims, 2, x.dims.size());
    const int64_t members = channels / groups;
    parallel_for(
        x.dims[0] * groups, planes_per_block(plane * members), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            normalize_group<T>(context, i * members * plane, i % groups * members, members, plane);
          }
        });
  }

  template <class T>
  void normalize_group(RunContext& context, int64_t at, int64_t first, int64_t members,
                       int64_t plane) const {
    const T* src = context.inputs[0].as<T>() + at;
    T* dst = context.outputs[0].as<T>() + at;
    const Moments m = moments(src, members * plane);
    const double inverse = 1 / std::sqrt(m.variance + static_cast<double>(epsilon_));
    for (int64_t c = 0; c < members; ++c) {
      const double f = static_cast<double>(context.inputs[1].as<T>()[first + c]) * inverse;
      const double s = static_cast<double>(context.inputs[2].as<T>()[first + c]) - f * m.mean;
      scale_and_shift(src + c * plane, dst + c * plane, plane, static_cast<T>(f),
                      static_cast<T>(s));
    }
  }

  float epsilon_;
  bool per_channel_;
  int64_t groups_;
};

/// LayerNormalization (x, scale, bias?) -> (y, mean?, inverse deviation?) and RMSNormalization
/// (x, scale) -> y, over the axes from `axis` on. Scale and bias broadcast to those axes.
template <bool kCentered>
class LayerNormStep final : public Step {
 public:
  LayerNormStep(const Graph&, const Node& node)
      : axis_(node.int_or("axis", -1)),
        epsilon_(node.float_or("epsilon", 1e-5F)),
        mean_output_(node.output(1) != kNoId),
        deviation_output_(node.output(2) != kNoId) {}
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const auto axis = static_cast<size_t>(normalize_axis(axis_, x.dims.size()));
    const int64_t rows = num_elements(x.dims, 0, axis);
    const int64_t n = num_elements(x.dims, axis, x.dims.size());
    if (n == 0) return;
    const bool whole = broadcasts_whole(context, axis, n);
    parallel_for(rows, planes_per_block(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const double inverse = normalize_row<T>(context, r, n);
        if (deviation_output_) store_real(context.outputs[2], r, inverse);
        if (whole) affine_row<T>(context, r, n);
      }
    });
    if (!whole) affine_broadcast<T>(context);
  }

  /// Scale and bias have one number per normalized element (the usual case).
  static bool broadcasts_whole(RunContext& context, size_t axis, int64_t n) {
    const Dims& x = context.inputs[0].dims;
    for (size_t i = 1; i < context.inputs.size(); ++i) {
      if (!present(context.inputs, i)) continue;
      const Dims& own = context.inputs[i].dims;
      const bool same =
          num_elements(own) == n && own.size() <= x.size() && own.size() >= x.size() - axis;
      if (!same) return false;
    }
    return true;
  }

  template <class T>
  double normalize_row(RunContext& context, int64_t r, int64_t n) const {
    const T* src = context.inputs[0].as<T>() + r * n;
    T* dst = context.outputs[0].as<T>() + r * n;
    double mean = 0;
    double variance = 0;
    if constexpr (kCentered) {
      const Moments m = moments(src, n);
      mean = m.mean;
      variance = m.variance;
      if (mean_output_) store_real(context.outputs[1], r, mean);
    } else {
      variance = sum_of_squares(src, n) / static_cast<double>(n);
    }
    const double inverse = 1 / std::sqrt(variance + static_cast<double>(epsilon_));
    scale_and_shift(src, dst, n, static_cast<T>(inverse), static_cast<T>(-mean * inverse));
    return inverse;
  }

  template <class T>
  static void affine_row(RunContext& context, int64_t r, int64_t n) {
    T* dst = context.outputs[0].as<T>() + r * n;
    const T* scale = context.inputs[1].as<T>();
    const T* bias = present(context.inputs, 2) ? context.inputs[2].as<T>() : nullptr;
    NARROW_SIMD
    for (int64_t i = 0; i < n; ++i) dst[i] *= scale[i];
    if (bias == nullptr) return;
    NARROW_SIMD
    for (int64_t i = 0; i < n; ++i) dst[i] += bias[i];
  }

  template <class T>
  static void affine_broadcast(RunContext& context) {
    const TensorView& y = context.outputs[0];
    const Dims so = memory_strides(y);
    for (size_t k = 1; k < 3; ++k) {
      if (!present(context.inputs, k)) continue;
      const TensorView& operand = context.inputs[k];
      const Dims sb = broadcast_strides(operand, y.dims);
      const auto nest = make_nest<2>(y.dims, {so, sb});
      const auto& row = nest.row_strides();
      for_rows(nest, [&](const std::array<int64_t, 2>& at, int64_t n) {
        T* to = y.as<T>() + at[0];
        const T* from = operand.as<T>() + at[1];
        for (int64_t i = 0; i < n; ++i) {
          T& v = to[i * row[0]];
          v = k == 1 ? v * from[i * row[1]] : v + from[i * row[1]];
        }
      });
    }
  }

  int64_t axis_;
  float epsilon_;
  bool mean_output_;
  bool deviation_output_;
};

/// y = x / (bias + alpha / size * sum of squares over neighbouring channels)^beta.
class LrnStep final : public Step {
 public:
  LrnStep(const Graph&, const Node& node)
      : size_(node.int_or("size", 1)),
        alpha_(node.float_or("alpha", 1e-4F)),
        beta_(node.float_or("beta", 0.75F)),
        bias_(node.float_or("bias", 1.0F)) {}
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype, [&]<class T>(std::type_identity<T>) {
      const T* src = context.inputs[0].as<T>();
      T* dst = context.outputs[0].as<T>();
      const AxisView view = axis_view(context.inputs[0].dims, 1);
      for_lines(view, [&](int64_t at, int64_t stride, int64_t n, int64_t) {
        normalize_line(src + at, dst + at, stride, n);
      });
    });
  }

 private:
  template <class T>
  void normalize_line(const T* x, T* y, int64_t stride, int64_t n) const {
    const int64_t before = (size_ - 1) / 2;
    const int64_t after = size_ - 1 - before;
    for (int64_t c = 0; c < n; ++c) {
      T square = 0;
      for (int64_t i = std::max<int64_t>(0, c - before); i <= std::min(n - 1, c + after); ++i) {
        square += x[i * stride] * x[i * stride];
      }
      const T base =
          static_cast<T>(bias_) + static_cast<T>(alpha_) / static_cast<T>(size_) * square;
      y[c * stride] = x[c * stride] / std::pow(base, static_cast<T>(beta_));
    }
  }

  int64_t size_;
  float alpha_;
  float beta_;
  float bias_;
};

/// x / ||x||_p along an axis; a line of zeros stays.
class LpNormStep final : public Step {
 public:
  LpNormStep(const Graph&, const Node& node)
      : axis_(node.int_or("axis", -1)), p_(node.int_or("p", 2)) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    visit(Floating{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      const T* src = x.as<T>();
      T* dst = context.outputs[0].as<T>();
      const AxisView view = axis_view(x.dims, normalize_axis(axis_, x.dims.size()));
      for_lines(view, [&](int64_t at, int64_t stride, int64_t n, int64_t) {
        double norm = 0;
        for (int64_t i = 0; i < n; ++i) {
          const double v = static_cast<double>(src[at + i * stride]);
          norm += p_ == 1 ? std::abs(v) : v * v;
        }
        if (p_ != 1) norm = std::sqrt(norm);
        const T factor = static_cast<T>(norm == 0 ? 0 : 1 / norm);
        for (int64_t i = 0; i < n; ++i) dst[at + i * stride] = src[at + i * stride] * factor;
      });
    });
  }

 private:
  int64_t axis_;
  int64_t p_;
};

/// (x - mean) / deviation over the given axes.
class MeanVarianceStep final : public Step {
 public:
  MeanVarianceStep(const Graph&, const Node& node) : axes_(node.ints_or("axes", {0, 2, 3})) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const size_t rank = x.dims.size();
    std::vector<bool> reduced(rank, false);
    for (const int64_t axis : axes_) {
      reduced[static_cast<size_t>(normalize_axis(axis, rank))] = true;
    }
    Dims kept = x.dims;
    Dims inside = x.dims;
    for (size_t i = 0; i < rank; ++i) (reduced[i] ? kept : inside)[i] = 1;
    const Dims strides = memory_strides(x);
    const auto outer = make_nest<1>(kept, {strides});
    const auto inner = make_nest<1>(inside, {strides});
    visit(Floating{}, x.dtype, [&]<class T>(std::type_identity<T>) {
      for_rows(outer, [&](const std::array<int64_t, 1>& at, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t offset = at[0] + i * outer.row_strides()[0];
          normalize(x.as<T>() + offset, context.outputs[0].as<T>() + offset, inner);
        }
      });
    });
  }

 private:
  template <class Body>
  static void each(const LoopNest<1>& nest, const Body& body) {
    std::array<int64_t, kMaxRank> index{};
    std::array<int64_t, 1> offset{};
    for (int64_t row = 0; row < nest.rows(); ++row) {
      for (int64_t i = 0; i < nest.row_length(); ++i) body(offset[0] + i * nest.row_strides()[0]);
      detail::next_row(nest, index, offset);
    }
  }

  template <class T>
  static void normalize(const T* x, T* y, const LoopNest<1>& nest) {
    const double count = static_cast<double>(nest.rows() * nest.row_length());
    double sum = 0;
    each(nest, [&](int64_t i) { sum += static_cast<double>(x[i]); });
    const double mean = sum / count;
    double square = 0;
    each(nest, [&](int64_t i) {
      const double d = static_cast<double>(x[i]) - mean;
      square += d * d;
    });
    constexpr double kEpsilon = 1e-9;  // of ONNX's own definition of the operator
    const double inverse = 1 / (std::sqrt(square / count) + kEpsilon);
    each(nest,
         [&](int64_t i) { y[i] = static_cast<T>((static_cast<double>(x[i]) - mean) * inverse); });
  }

  std::vector<int64_t> axes_;
};

#define NARROW_NORM(op, step)                                      \
  {"", op, "reference:float16", accept_half<>, make_half<step>}, { \
    "", op, "reference", accept<Floating>, make<step>              \
  }

const OpImpl kRows[] = {
    NARROW_NORM("BatchNormalization", BatchNormStep),
    NARROW_NORM("InstanceNormalization", GroupNormStep),
    NARROW_NORM("GroupNormalization", GroupNormStep),
    NARROW_NORM("LayerNormalization", LayerNormStep<true>),
    NARROW_NORM("RMSNormalization", LayerNormStep<false>),
    NARROW_NORM("LRN", LrnStep),
    NARROW_NORM("LpNormalization", LpNormStep),
    NARROW_NORM("MeanVarianceNormalization", MeanVarianceStep),
};

}  // namespace

std::span<const OpImpl> norm_rows() {
  return kRows;
}

}  // namespace narrow::ops
