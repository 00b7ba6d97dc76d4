// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/fake_quant.h"

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/quantize.h"
#include "narrow/quant/unit_map.h"
#include "narrow/train/engine/bridge.h"

namespace narrow::train {
namespace {

// rne for |x| < 2^22; grids have 16 bits at most.
constexpr float kRounder = 12582912.0F;
constexpr int64_t kBlock = 16384;    // values of a task
constexpr int64_t kMostBlocks = 16;  // where each has sums for every unit

// The loops below are plain so that compilers turn them into vectors of whatever the CPU has.
// Contraction is off: all give the same numbers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define NARROW_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NARROW_CLONES
#endif

struct Run {
  const float* x;
  int64_t count;
  float scale;
  float low;
  float high;
};

NARROW_CLONES void round_run(const Run& r, float* y) {
  for (int64_t i = 0; i < r.count; ++i) {
    float t = r.x[i] / r.scale;
    t = t > r.low ? t : r.low;  // NaN becomes low
    t = t < r.high ? t : r.high;
    y[i] = r.scale * ((t + kRounder) - kRounder);
  }
}

/// Adds to dx; returns the run's part of ds.
NARROW_CLONES float pass_back(const Run& r, const float* g, float* dx) {
  constexpr int kLanes = 16;  // sums side by side: one order for all instruction sets
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= r.count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const float t = r.x[i + j] / r.scale;
      float c = t > r.low ? t : r.low;
      c = c < r.high ? c : r.high;
      const float q = (c + kRounder) - kRounder;
      const float away = c == t ? t : 0.0F;
      dx[i + j] = c == t ? g[i + j] : 0.0F;
      sums[j] += g[i + j] * (q - away);
    }
  }
  for (; i < r.count; ++i) {
    const float t = r.x[i] / r.scale;
    float c = t > r.low ? t : r.low;
    c = c < r.high ? c : r.high;
    const float q = (c + kRounder) - kRounder;
    dx[i] = c == t ? g[i] : 0.0F;
    sums[0] += g[i] * (q - (c == t ? t : 0.0F));
  }
  float sum = 0;
  for (const float s : sums) sum += s;
  return sum;
}

/// What forward and backward look up.
struct Lookup {
  const float* scale;
  const float* low;
  const float* high;
};

struct Blocks {
  Blocks(int64_t elements, int64_t units) {
    const int64_t wanted = (elements + kBlock - 1) / kBlock;
    count = std::max<int64_t>(1, units == 1 ? wanted : std::min(wanted, kMostBlocks));
    size = (elements + count - 1) / count;
  }
  int64_t count;
  int64_t size;
};

/// body(block, first element, count, unit) for runs of one unit.
template <class Body>
void for_units(const UnitMap& map, const Blocks& blocks, const Body& body) {
  const int64_t elements = map.elements();
  parallel_blocks(blocks.count, [&](int64_t b) {
    const int64_t end = std::min(elements, (b + 1) * blocks.size);
    map.for_runs(b * blocks.size, end,
                 [&](int64_t first, int64_t count, int64_t unit, int64_t step) {
                   if (step == 0) {
                     body(b, first, count, unit);
                     return;
                   }
                   for (int64_t i = 0; i < count; ++i) body(b, first + i, 1, unit + i);
                 });
  });
}

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct RoundToGrid : torch::autograd::Function<RoundToGrid> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& input,
                               const torch::Tensor& scale, const std::vector<float>* low,
                               const std::vector<float>* high, const Scheme* scheme) {
    const torch::Tensor x = input.contiguous();
    const torch::Tensor y = torch::empty_like(x);
    const UnitMap map(x.sizes(), *scheme);
    const Lookup at{scale.data_ptr<float>(), low->data(), high->data()};
    const float* from = x.data_ptr<float>();
    float* to = y.data_ptr<float>();
    for_units(map, Blocks(x.numel(), 1), [&](int64_t, int64_t first, int64_t count, int64_t u) {
      round_run({from + first, count, at.scale[u], at.low[u], at.high[u]}, to + first);
    });
    context->save_for_backward({x, scale});
    context->saved_data["low"] = reinterpret_cast<int64_t>(low);
    context->saved_data["high"] = reinterpret_cast<int64_t>(high);
    context->saved_data["scheme"] = reinterpret_cast<int64_t>(scheme);
    return y;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor& x = saved[0];
    const torch::Tensor& scale = saved[1];
    const torch::Tensor g = gradients[0].contiguous();
    const auto* low =
        reinterpret_cast<const std::vector<float>*>(context->saved_data["low"].toInt());
    const auto* high =
        reinterpret_cast<const std::vector<float>*>(context->saved_data["high"].toInt());
    const auto* scheme = reinterpret_cast<const Scheme*>(context->saved_data["scheme"].toInt());
    const torch::Tensor dx = torch::empty_like(x);
    const UnitMap map(x.sizes(), *scheme);
    const Blocks blocks(x.numel(), map.units);
    std::vector<float> sums(static_cast<size_t>(blocks.count * map.units));
    const Lookup at{scale.data_ptr<float>(), low->data(), high->data()};
    const float* from = x.data_ptr<float>();
    const float* upstream = g.data_ptr<float>();
    float* to = dx.data_ptr<float>();
    for_units(map, blocks, [&](int64_t b, int64_t first, int64_t count, int64_t u) {
      sums[static_cast<size_t>(b * map.units + u)] += pass_back(
          {from + first, count, at.scale[u], at.low[u], at.high[u]}, upstream + first, to + first);
    });
    const torch::Tensor ds = torch::zeros_like(scale);
    float* out = ds.data_ptr<float>();
    const auto values = static_cast<float>(x.numel()) / static_cast<float>(map.units);
    const float pace = 1 / std::sqrt(values * static_cast<float>(std::max(1, scheme->qmax())));
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t u = 0; u < map.units; ++u) {
        out[u] += pace * sums[static_cast<size_t>(b * map.units + u)];
      }
    }
    return {dx, ds, torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

Grid::Grid(const QuantParams& params) : params_(params) {
  if (params.scheme.symmetry == Symmetry::offset) {
    throw Error(ErrorCode::unsupported, "training has no rule for grids with an offset",
                "choose symmetric or asymmetric");
  }
  log_scale_ = to_torch(params.scale).reshape({-1}).log();
  const auto units = static_cast<size_t>(log_scale_.numel());
  std::vector<int64_t> zero(units, 0);
  if (params.zero_point.defined()) zero = params.zero_point.to_ints();
  for (size_t u = 0; u < units; ++u) {
    low_.push_back(static_cast<float>(params.scheme.qmin() - zero[u]));
    high_.push_back(static_cast<float>(params.scheme.qmax() - zero[u]));
  }
}

namespace {

/// Scales as a file of binary16 numbers has them; gradients pass.
struct RoundScales : torch::autograd::Function<RoundScales> {
  static torch::Tensor forward(AutogradContext* /*context*/, const torch::Tensor& scale) {
    // Normal numbers: smaller ones would lose their digits, and 0 divides nothing.
    constexpr float kSmallest = 6.103515625e-05F;
    constexpr float kLargest = 65504.0F;
    return scale.clamp(kSmallest, kLargest).to(torch::kHalf).to(torch::kFloat32);
  }
  static tensor_list backward(AutogradContext* /*context*/, const tensor_list& gradients) {
    return {gradients[0]};
  }
};

torch::Tensor scales_of(const torch::Tensor& log_scale, ScaleType type) {
  const torch::Tensor scale = log_scale.exp();
  return type == ScaleType::float16 ? RoundScales::apply(scale) : scale;
}

}  // namespace

torch::Tensor Grid::operator()(const torch::Tensor& x) const {
  return RoundToGrid::apply(x, scales_of(log_scale_, params_.scheme.scale_type), &low_, &high_,
                            &params_.scheme);
}

void Grid::follow(const torch::Tensor& x) {
  const QuantParams now = minmax_params(from_torch(x), params_.scheme);
  const torch::NoGradGuard guard;
  log_scale_.copy_(to_torch(now.scale).reshape({-1}).log());
}

QuantParams Grid::params(const torch::Tensor& log_scale) const {
  QuantParams out = params_;
  out.scale =
      from_torch(scales_of(log_scale, params_.scheme.scale_type)).reshaped(params_.scale.dims());
  return out;
}

}  // namespace narrow::train
