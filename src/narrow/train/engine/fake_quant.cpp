// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/fake_quant.h"

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/quantize.h"
#include "narrow/quant/unit_map.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/device.h"
#include "narrow/train/engine/kernels.h"

namespace narrow::train {
namespace {

constexpr int64_t kBlock = 16384;    // values of a task
constexpr int64_t kMostBlocks = 16;  // where each has sums for every unit

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

/// The numbers of a unit.
struct Lookup {
  Lookup(const torch::Tensor& scale, const torch::Tensor& zero, const Scheme& scheme)
      : scales(scale.data_ptr<float>()),
        zeros(zero.data_ptr<float>()),
        qmin(static_cast<float>(scheme.qmin())),
        qmax(static_cast<float>(scheme.qmax())) {}
  GridRun run(int64_t count, int64_t unit) const {
    return {count, scales[unit], qmin - zero(unit), qmax - zero(unit)};
  }
  float zero(int64_t unit) const { return std::clamp(std::nearbyint(zeros[unit]), qmin, qmax); }
  const float* scales;
  const float* zeros;
  float qmin;
  float qmax;
};

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct RoundToGrid : torch::autograd::Function<RoundToGrid> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& input,
                               const torch::Tensor& scale, const torch::Tensor& zero,
                               const Scheme* scheme, const GridRule* rule, bool into, bool marked) {
    const torch::Tensor x = input.contiguous();
    const bool in_place = into && x.is_same(input);
    const torch::Tensor y = in_place ? x : torch::empty_like(x);
    const torch::Tensor marks =
        marked ? torch::empty(x.sizes(), torch::kInt8) : torch::empty({0}, torch::kInt8);
    const UnitMap map(x.sizes(), *scheme);
    const Lookup at(scale, zero, *scheme);
    const float* from = x.data_ptr<float>();
    float* to = y.data_ptr<float>();
    Mark* mark = marked ? marks.data_ptr<int8_t>() : nullptr;
    for_units(map, Blocks(x.numel(), 1), [&](int64_t, int64_t first, int64_t count, int64_t u) {
      round_to_grid(at.run(count, u), from + first, to + first,
                    mark == nullptr ? nullptr : mark + first);
    });
    if (in_place) {
      x.unsafeGetTensorImpl()->bump_version();
      context->mark_dirty({x});
    }
    context->save_for_backward({marks, scale, zero});
    context->saved_data["scheme"] = reinterpret_cast<int64_t>(scheme);
    context->saved_data["rule"] = reinterpret_cast<int64_t>(rule);
    return y;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto* scheme = reinterpret_cast<const Scheme*>(context->saved_data["scheme"].toInt());
    const auto* rule = reinterpret_cast<const GridRule*>(context->saved_data["rule"].toInt());
    const torch::Tensor g = gradients[0].contiguous();
    const torch::Tensor dx = torch::empty_like(g);
    const UnitMap map(g.sizes(), *scheme);
    const Blocks blocks(g.numel(), map.units);
    const Lookup at(saved[1], saved[2], *scheme);
    const Mark* mark = saved[0].data_ptr<int8_t>();
    const float* upstream = g.data_ptr<float>();
    float* to = dx.data_ptr<float>();
    std::vector<GridSums> sums(static_cast<size_t>(blocks.count * map.units));
    for_units(map, blocks, [&](int64_t b, int64_t first, int64_t count, int64_t u) {
      const GridSums now =
          gradient_to_grid(at.run(count, u), mark + first, upstream + first, to + first);
      GridSums& sum = sums[static_cast<size_t>(b * map.units + u)];
      sum.inside += now.inside;
      sum.outside += now.outside;
      sum.clamped += now.clamped;
    });
    const torch::Tensor ds = torch::zeros_like(saved[1]);
    const torch::Tensor dz = torch::zeros_like(saved[2]);
    const auto values = static_cast<float>(g.numel()) / static_cast<float>(map.units);
    const float pace =
        rule->paced ? 1 / std::sqrt(values * static_cast<float>(std::max(1, scheme->qmax()))) : 1;
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t u = 0; u < map.units; ++u) {
        const GridSums& sum = sums[static_cast<size_t>(b * map.units + u)];
        const float inside = rule->inside ? sum.inside : 0;
        ds.data_ptr<float>()[u] += pace * (inside + sum.outside);
        dz.data_ptr<float>()[u] -= pace * at.scales[u] * sum.clamped;
      }
    }
    const torch::Tensor none;
    return {dx, ds, dz, none, none, none, none};
  }
};

/// The same with libtorch's functions, for any device. Of grids per tensor and per axis.
struct RoundAnywhere : torch::autograd::Function<RoundAnywhere> {
  struct Parts {
    Parts(const torch::Tensor& x, const torch::Tensor& scale, const torch::Tensor& zero,
          const Scheme& scheme) {
      std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
      const bool per_axis = scheme.granularity == Granularity::per_axis;
      const int64_t axis = scheme.axis < 0 ? scheme.axis + x.dim() : scheme.axis;
      if (per_axis) shape.at(static_cast<size_t>(axis)) = x.size(axis);
      for (int64_t a = 0; a < x.dim(); ++a) {
        if (!per_axis || a != axis) summed.push_back(a);
      }
      const torch::Tensor z = zero.reshape(shape).round().clamp(scheme.qmin(), scheme.qmax());
      step = scale.reshape(shape);
      u = x / step;
      low = scheme.qmin() - z;
      high = scheme.qmax() - z;
      codes = torch::minimum(torch::maximum(u, low), high).round();
    }
    torch::Tensor step, u, low, high, codes;
    std::vector<int64_t> summed;
  };

  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& scale, const torch::Tensor& zero,
                               const Scheme* scheme, const GridRule* rule) {
    if (scheme->granularity != Granularity::per_tensor &&
        scheme->granularity != Granularity::per_axis) {
      throw Error(ErrorCode::unsupported, "grids of groups are rounded on the CPU only");
    }
    context->save_for_backward({x, scale, zero});
    context->saved_data["scheme"] = reinterpret_cast<int64_t>(scheme);
    context->saved_data["rule"] = reinterpret_cast<int64_t>(rule);
    const Parts p(x, scale, zero, *scheme);
    return p.codes * p.step;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto& scheme = *reinterpret_cast<const Scheme*>(context->saved_data["scheme"].toInt());
    const auto& rule = *reinterpret_cast<const GridRule*>(context->saved_data["rule"].toInt());
    const torch::Tensor& g = gradients[0];
    const Parts p(saved[0], saved[1], saved[2], scheme);
    const torch::Tensor clamped = (p.u < p.low).logical_or(p.u > p.high);
    const torch::Tensor error = rule.inside ? p.codes - p.u : torch::zeros_like(p.u);
    const auto of_units = [&](const torch::Tensor& x) {
      return (p.summed.empty() ? x : x.sum(p.summed)).reshape({-1});
    };
    const auto values = static_cast<double>(g.numel()) / static_cast<double>(saved[1].numel());
    const double pace = rule.paced ? 1 / std::sqrt(values * std::max(1, scheme.qmax())) : 1;
    const torch::Tensor ds = of_units(g * torch::where(clamped, p.codes, error)) * pace;
    const torch::Tensor dz = of_units(g.masked_fill(clamped.logical_not(), 0)) * saved[1] * -pace;
    const torch::Tensor none;
    return {g.masked_fill(clamped, 0), ds, dz, none, none};
  }
};

/// Scales as a file of binary16 numbers has them; gradients pass.
struct RoundScales : torch::autograd::Function<RoundScales> {
  static torch::Tensor forward(AutogradContext* /*context*/, const torch::Tensor& scale) {
    // Normal numbers: smaller ones would lose their digits, and 0 divides nothing.
    constexpr float kSmallest = 6.103515625e-05F;
    constexpr float kLargest = 65504.0F;
    // Files of others have negative ones too.
    const torch::Tensor size = scale.abs().clamp(kSmallest, kLargest);
    return torch::copysign(size, scale).to(torch::kHalf).to(torch::kFloat32);
  }
  static tensor_list backward(AutogradContext* /*context*/, const tensor_list& gradients) {
    return {gradients[0]};
  }
};

}  // namespace

Grid::Grid(const QuantParams& params, const GridRule& rule) : params_(params), rule_(rule) {
  if (params.scheme.symmetry == Symmetry::offset) {
    throw Error(ErrorCode::unsupported, "training has no rule for grids with an offset",
                "choose symmetric or asymmetric");
  }
  // A symmetric grid has no zero point to learn.
  if (params.scheme.symmetry == Symmetry::symmetric) rule_.learn_zero = false;
  first_scale_ = to_torch(params.scale).reshape({-1}).clone();
  first_log_ = first_scale_.abs().log();
  log_scale_ = first_log_.clone();
  zero_ = params.zero_point.defined()
              ? to_torch(params.zero_point).to(torch::kFloat32).reshape({-1})
              : torch::zeros_like(log_scale_);
}

torch::Tensor Grid::scales(const torch::Tensor& log_scale) const {
  // The first scale itself until it changes: its logarithm has lost its last bits.
  const torch::Tensor scale = first_scale_ * (log_scale - first_log_).exp();
  return params_.scheme.scale_type == ScaleType::float16 ? RoundScales::apply(scale) : scale;
}

torch::Tensor Grid::operator()(const torch::Tensor& x, bool into, bool portable) const {
  if (portable || !x.is_cpu()) {
    return RoundAnywhere::apply(x, beside(scales(log_scale_), x), beside(zero_, x), &params_.scheme,
                                &rule_);
  }
  const bool gradients =
      torch::GradMode::is_enabled() && (x.requires_grad() || log_scale_.requires_grad());
  return RoundToGrid::apply(x, scales(log_scale_), zero_, &params_.scheme, &rule_, into, gradients);
}

bool Grid::ends_at_zero() const {
  if (rule_.learn_zero || rule_.observe) return false;
  return (zero_ == static_cast<float>(params_.scheme.qmin())).all().item<bool>();
}

torch::Tensor Grid::shaped(const torch::Tensor& x) const {
  if (!rule_.tanh) return x;
  // DoReFa's weights lie in -1..1; here in the layer's own range, which no batch norm restores.
  const torch::Tensor bent = torch::tanh(x);
  const torch::Tensor factor = x.detach().abs().max() / bent.detach().abs().max().clamp_min(1e-12);
  return bent * factor;
}

void Grid::follow(const torch::Tensor& x) {
  const torch::NoGradGuard guard;
  const QuantParams now = minmax_params(from_torch(x), params_.scheme);
  log_scale_.copy_(to_torch(now.scale).reshape({-1}).log());
}

void Grid::for_runs(const torch::Tensor& x,
                    const std::function<void(int64_t first, const GridRun& run)>& body) const {
  const torch::NoGradGuard guard;
  const torch::Tensor scale = scales(log_scale_);
  const Lookup at(scale, zero_, params_.scheme);
  const UnitMap map(x.sizes(), params_.scheme);
  for_units(map, Blocks(x.numel(), 1), [&](int64_t, int64_t first, int64_t count, int64_t u) {
    body(first, at.run(count, u));
  });
}

Grid::Range Grid::range() const {
  const torch::NoGradGuard guard;
  const torch::Tensor scale = scales(log_scale_);
  const GridRun run = Lookup(scale, zero_, params_.scheme).run(1, 0);
  return {run.scale * run.low, run.scale * run.high};
}

void Grid::set_range(const Range& range) {
  const torch::NoGradGuard guard;
  const QuantParams now = params_from_ranges({&range.low, 1}, {&range.high, 1}, {}, params_.scheme);
  log_scale_.fill_(std::log(now.scale.item<float>()));
  if (now.zero_point.defined()) {
    // A new tensor: values of the same batch that are rounded already need the old one.
    zero_ = torch::full_like(zero_, static_cast<float>(now.zero_point.item<int32_t>()));
  }
}

QuantParams Grid::params(const torch::Tensor& log_scale, const torch::Tensor& zero) const {
  QuantParams out = params_;
  out.scale = from_torch(scales(log_scale)).reshaped(params_.scale.dims());
  if (!params_.zero_point.defined()) return out;
  std::vector<int32_t> codes;
  const torch::Tensor nearest = zero.detach().contiguous();
  for (int64_t u = 0; u < nearest.numel(); ++u) {
    const float z = std::nearbyint(nearest.data_ptr<float>()[u]);
    codes.push_back(static_cast<int32_t>(std::clamp(z, static_cast<float>(params_.scheme.qmin()),
                                                    static_cast<float>(params_.scheme.qmax()))));
  }
  out.zero_point = Tensor::vector(codes).reshaped(params_.zero_point.dims());
  return out;
}

}  // namespace narrow::train
