// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/grid.h"
#include "narrow/quant/packing.h"
#include "narrow/quant/round.h"
#include "narrow/quant/unit_map.h"

namespace narrow {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // elements of one parallel task
constexpr int64_t kChunk = 4096;              // int32 buffer of 16 KiB: half of a first-level cache

[[noreturn]] void refuse_scale(float step, ScaleType type) {
  throw Error(ErrorCode::numeric_failure,
              fmt::format("a scale of {} does not fit {}", step, to_string(type)),
              "use float32 scales");
}

}  // namespace

float store_scale(float step, ScaleType type) {
  float stored = step;
  float smallest = std::numeric_limits<float>::denorm_min();
  switch (type) {
    case ScaleType::float32:
      break;
    case ScaleType::float16:
      stored = to_float(to_half(step));
      smallest = to_float(Half{1});
      break;
    case ScaleType::bfloat16:
      stored = to_float(to_bfloat16(step));
      smallest = to_float(BFloat16{1});
      break;
    case ScaleType::power_of_two: {
      int exponent = 0;
      const float mantissa = std::frexp(step, &exponent);  // step = mantissa * 2^exponent, [1/2, 1)
      stored = std::ldexp(1.0f, mantissa == 0.5f ? exponent - 1 : exponent);
      break;
    }
  }
  if (!std::isfinite(stored)) refuse_scale(step, type);
  return std::max(stored, smallest);
}

namespace {

/// (high - low) / steps as float32 arithmetic has it (ONNX's DynamicQuantizeLinear), without its
/// overflow.
float step_of(float low, float high, int32_t steps) {
  const float width = high - low;
  const auto count = static_cast<float>(steps);
  if (std::isfinite(width)) return width / count;
  return static_cast<float>((static_cast<double>(high) - static_cast<double>(low)) /
                            static_cast<double>(steps));
}

int32_t symmetric_zero_point(const Scheme& scheme) {
  return scheme.is_signed ? 0 : int32_t{1} << (scheme.bits - 1);
}

ScaleZeroPoint symmetric_params(float rmin, float rmax, const Scheme& scheme) {
  ScaleZeroPoint p;
  p.zero_point = symmetric_zero_point(scheme);
  const float amax = std::max(std::fabs(rmin), std::fabs(rmax));
  if (amax > 0) {
    p.scale =
        store_scale(amax / static_cast<float>(scheme.qmax() - p.zero_point), scheme.scale_type);
  }
  return p;
}

ScaleZeroPoint asymmetric_params(float rmin, float rmax, const Scheme& scheme) {
  ScaleZeroPoint p;
  const int32_t qmin = scheme.qmin();
  const int32_t qmax = scheme.qmax();
  const float low = std::min(rmin, 0.0f);
  const float high = std::max(rmax, 0.0f);
  if (low == high) return p;
  p.scale = store_scale(step_of(low, high, qmax - qmin), scheme.scale_type);
  // Clamped before the conversion: a scale rounded down can put the zero one code outside.
  const float below = std::min(-low / p.scale, static_cast<float>(qmax - qmin));
  p.zero_point = qmin + round_half_even_int(below);
  return p;
}

ScaleZeroPoint offset_params(float rmin, float rmax, const Scheme& scheme) {
  ScaleZeroPoint p;
  const int32_t qmin = scheme.qmin();
  if (rmin != rmax) {
    p.scale = store_scale(step_of(rmin, rmax, scheme.qmax() - qmin), scheme.scale_type);
  }
  // rmin has the code qmin.
  p.offset = static_cast<float>(static_cast<double>(rmin) -
                                static_cast<double>(p.scale) * static_cast<double>(qmin));
  if (!std::isfinite(p.offset)) {
    throw Error(ErrorCode::numeric_failure,
                fmt::format("the offset of range [{}, {}] overflows", rmin, rmax));
  }
  return p;
}

bool is_finite_bits(float x) {
  return std::fabs(x) <= std::numeric_limits<float>::max();
}

[[noreturn]] void refuse_non_finite(std::span<const float> values) {
  size_t i = 0;
  while (i < values.size() && is_finite_bits(values[i])) ++i;
  throw Error(ErrorCode::numeric_failure,
              fmt::format("element {} is {}", i, i < values.size() ? values[i] : 0.0f),
              "repair the model: values must be finite");
}

struct Extremes {
  float low = std::numeric_limits<float>::infinity();
  float high = -std::numeric_limits<float>::infinity();
  float poison = 0;  // NaN as soon as a value is not finite

  void add(float x) {
    low = x < low ? x : low;
    high = x > high ? x : high;
    poison += x * 0.0f;
  }
  void merge(const Extremes& e) {
    low = std::min(low, e.low);
    high = std::max(high, e.high);
    poison += e.poison;
  }
};

constexpr int kLanes = 16;  // independent accumulators, so that the loop becomes vector code

Extremes extremes_of(const float* x, int64_t count) {
  std::array<float, kLanes> low;
  std::array<float, kLanes> high;
  std::array<float, kLanes> poison{};
  low.fill(std::numeric_limits<float>::infinity());
  high.fill(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const float v = x[i + j];
      low[j] = v < low[j] ? v : low[j];
      high[j] = v > high[j] ? v : high[j];
      poison[j] += v * 0.0f;
    }
  }
  Extremes all;
  for (int j = 0; j < kLanes; ++j) all.merge({low[j], high[j], poison[j]});
  for (; i < count; ++i) all.add(x[i]);
  return all;
}

std::vector<Extremes> tensor_extremes(std::span<const float> x) {
  const auto count = static_cast<int64_t>(x.size());
  std::vector<Extremes> parts(static_cast<size_t>((count + kBlock - 1) / kBlock));
  parallel_for(count, kBlock, [&](int64_t begin, int64_t end) {
    parts[static_cast<size_t>(begin / kBlock)] = extremes_of(x.data() + begin, end - begin);
  });
  Extremes all;
  for (const Extremes& part : parts) all.merge(part);
  return {all};
}

/// Extremes of each column of a matrix, kLanes columns at a time.
void add_columns(const float* x, int64_t rows, int64_t row_stride, int64_t columns,
                 Extremes* units) {
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    std::array<float, kLanes> low;
    std::array<float, kLanes> high;
    std::array<float, kLanes> poison{};
    low.fill(std::numeric_limits<float>::infinity());
    high.fill(-std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x + r * row_stride + c;
      for (int j = 0; j < kLanes; ++j) {
        low[j] = row[j] < low[j] ? row[j] : low[j];
        high[j] = row[j] > high[j] ? row[j] : high[j];
        poison[j] += row[j] * 0.0f;
      }
    }
    for (int j = 0; j < kLanes; ++j) units[c + j].merge({low[j], high[j], poison[j]});
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = c; i < columns; ++i) units[i].add(x[r * row_stride + i]);
  }
}

/// Pieces of work of about kBlock elements.
int64_t per_task(int64_t elements) {
  return std::max<int64_t>(1, kBlock / std::max<int64_t>(1, elements));
}

void axis_extremes(std::span<const float> x, const UnitMap& map, Extremes* units) {
  const int64_t slab = map.length * map.inner;
  if (map.inner == 1) {
    const int64_t columns = std::max<int64_t>(per_task(map.outer), 4 * kLanes);  // whole lines
    parallel_for(map.length, columns, [&](int64_t begin, int64_t end) {
      add_columns(x.data() + begin, map.outer, slab, end - begin, units + begin);
    });
    return;
  }
  parallel_for(map.length, per_task(map.outer * map.inner), [&](int64_t begin, int64_t end) {
    for (int64_t o = 0; o < map.outer; ++o) {
      for (int64_t a = begin; a < end; ++a) {
        units[a].merge(extremes_of(x.data() + o * slab + a * map.inner, map.inner));
      }
    }
  });
}

void group_extremes(std::span<const float> x, const UnitMap& map, Extremes* units) {
  const int64_t groups = map.inner > 0 ? map.outer_step / map.inner : 0;
  const auto task = [&](int64_t t) {
    const int64_t first = t % groups * map.group;
    const int64_t rows = std::min(map.group, map.length - first);
    const float* from = x.data() + (t / groups * map.length + first) * map.inner;
    if (map.inner == 1) {
      units[t] = extremes_of(from, rows);
    } else {
      add_columns(from, rows, map.inner, map.inner, units + t * map.inner);
    }
  };
  parallel_for(map.outer * groups, per_task(map.group * map.inner),
               [&](int64_t begin, int64_t end) {
                 for (int64_t t = begin; t < end; ++t) task(t);
               });
}

/// One task owns a range of units, so that tasks never share one.
std::vector<Extremes> unit_extremes(std::span<const float> x, const UnitMap& map,
                                    Granularity granularity) {
  if (granularity == Granularity::per_tensor) return tensor_extremes(x);
  std::vector<Extremes> units(static_cast<size_t>(map.units));
  if (granularity == Granularity::per_axis) {
    axis_extremes(x, map, units.data());
  } else if (granularity == Granularity::per_group) {
    group_extremes(x, map, units.data());
  } else {
    parallel_for(map.outer, per_task(map.length), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        units[static_cast<size_t>(o)] = extremes_of(x.data() + o * map.length, map.length);
      }
    });
  }
  return units;
}

QuantParams make_params(const Scheme& scheme, const Dims& shape,
                        std::span<const ScaleZeroPoint> units) {
  QuantParams params;
  params.scheme = scheme;
  params.scale = Tensor(DType::float32, shape);
  std::span<float> scale = params.scale.mutable_data<float>();
  for (size_t u = 0; u < units.size(); ++u) scale[u] = units[u].scale;
  if (scheme.symmetry == Symmetry::offset) {
    params.offset = Tensor(DType::float32, shape);
    std::span<float> offset = params.offset.mutable_data<float>();
    for (size_t u = 0; u < units.size(); ++u) offset[u] = units[u].offset;
  } else if (scheme.symmetry == Symmetry::asymmetric || !scheme.is_signed) {
    params.zero_point = Tensor(DType::int32, shape);
    std::span<int32_t> zero_point = params.zero_point.mutable_data<int32_t>();
    for (size_t u = 0; u < units.size(); ++u) zero_point[u] = units[u].zero_point;
  }
  return params;
}

std::span<const float> floats_of(const Tensor& x) {
  if (x.dtype() != DType::float32) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("expected float32 values, got {}", x.describe()));
  }
  return x.data<float>();
}

void quantize_range(const float* x, const UnitMap& map, const GridView& grid, int64_t begin,
                    int64_t end, int32_t* out) {
  map.for_runs(begin, end, [&](int64_t first, int64_t count, int64_t unit, int64_t step) {
    int32_t* codes = out + (first - begin);
    if (step == 0) {
      quantize_run(x + first, count, grid.at(unit), codes);
    } else {
      grid.quantize_units(x + first, count, unit, codes);
    }
  });
}

void dequantize_range(const int32_t* codes, const UnitMap& map, const GridView& grid, int64_t begin,
                      int64_t end, float* out) {
  map.for_runs(begin, end, [&](int64_t first, int64_t count, int64_t unit, int64_t step) {
    const int32_t* in = codes + (first - begin);
    float* y = out + (first - begin);
    if (step == 0) {
      dequantize_run(in, count, grid.at(unit), y);
    } else {
      grid.dequantize_units(in, count, unit, y);
    }
  });
}

/// Calls chunk(begin, end) on pieces of at most kChunk elements, in parallel.
template <class Chunk>
void for_chunks(int64_t count, const Chunk& chunk) {
  parallel_for(count, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kChunk) chunk(i, std::min(i + kChunk, end));
  });
}

}  // namespace

float round_half_even(float x) {
  return round_half_even_float(x);
}

ScaleZeroPoint choose_params(float rmin, float rmax, const Scheme& scheme) {
  scheme.validate();
  if (!std::isfinite(rmin) || !std::isfinite(rmax)) {
    throw Error(ErrorCode::numeric_failure,
                fmt::format("the range [{}, {}] is not finite", rmin, rmax));
  }
  if (rmin > rmax) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the range [{}, {}] is empty", rmin, rmax));
  }
  switch (scheme.symmetry) {
    case Symmetry::symmetric:
      return symmetric_params(rmin, rmax, scheme);
    case Symmetry::asymmetric:
      return asymmetric_params(rmin, rmax, scheme);
    case Symmetry::offset:
      break;
  }
  return offset_params(rmin, rmax, scheme);
}

int32_t quantize_value(float x, const ScaleZeroPoint& p, const Scheme& scheme) {
  return quantize_one(x, unit_grid(p.scale, p.zero_point, p.offset, scheme));
}

float dequantize_value(int32_t code, const ScaleZeroPoint& p, const Scheme& scheme) {
  return dequantize_one(code, unit_grid(p.scale, p.zero_point, p.offset, scheme));
}

QuantParams minmax_params(const Tensor& x, const Scheme& scheme) {
  scheme.validate();
  const std::span<const float> values = floats_of(x);
  const UnitMap map(x.dims(), scheme);
  const std::vector<Extremes> extremes = unit_extremes(values, map, scheme.granularity);
  std::vector<ScaleZeroPoint> units;
  units.reserve(extremes.size());
  for (const Extremes& e : extremes) {
    if (!(e.poison == 0)) refuse_non_finite(values);
    const bool empty = e.low > e.high;
    units.push_back(choose_params(empty ? 0.0f : e.low, empty ? 0.0f : e.high, scheme));
  }
  return make_params(scheme, scale_dims(x.dims(), scheme), units);
}

QuantParams params_from_ranges(std::span<const float> rmin, std::span<const float> rmax, Dims shape,
                               const Scheme& scheme) {
  const auto units = static_cast<size_t>(num_elements(shape));
  if (rmin.size() != units || rmax.size() != units) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} and {} range ends for scales of shape {}", rmin.size(), rmax.size(),
                            to_string(shape)));
  }
  std::vector<ScaleZeroPoint> params(units);
  for (size_t u = 0; u < units; ++u) params[u] = choose_params(rmin[u], rmax[u], scheme);
  return make_params(scheme, shape, params);
}

Tensor quantize(const Tensor& x, const QuantParams& params, NonFinite policy) {
  const std::span<const float> values = floats_of(x);
  const UnitMap map(x.dims(), params.scheme);
  const GridView grid(params, map.units);
  Tensor codes(params.scheme.storage(), x.dims());
  for_chunks(x.elements(), [&](int64_t begin, int64_t end) {
    if (policy == NonFinite::refuse &&
        !(extremes_of(values.data() + begin, end - begin).poison == 0)) {
      refuse_non_finite(values);  // looks from the first element on: every thread says the same
    }
    std::array<int32_t, kChunk> buffer;
    quantize_range(values.data(), map, grid, begin, end, buffer.data());
    write_codes(codes, begin, {buffer.data(), static_cast<size_t>(end - begin)});
  });
  return codes;
}

Tensor dequantize(const Tensor& codes, const QuantParams& params) {
  const UnitMap map(codes.dims(), params.scheme);
  const GridView grid(params, map.units);
  Tensor y(DType::float32, codes.dims());
  float* out = y.mutable_data<float>().data();
  for_chunks(codes.elements(), [&](int64_t begin, int64_t end) {
    std::array<int32_t, kChunk> buffer;
    read_codes(codes, begin, {buffer.data(), static_cast<size_t>(end - begin)});
    dequantize_range(buffer.data(), map, grid, begin, end, out + begin);
  });
  return y;
}

Tensor fake_quant(const Tensor& x, const QuantParams& params) {
  const std::span<const float> values = floats_of(x);
  const UnitMap map(x.dims(), params.scheme);
  const GridView grid(params, map.units);
  Tensor y(DType::float32, x.dims());
  float* out = y.mutable_data<float>().data();
  for_chunks(x.elements(), [&](int64_t begin, int64_t end) {
    if (!(extremes_of(values.data() + begin, end - begin).poison == 0)) refuse_non_finite(values);
    std::array<int32_t, kChunk> buffer;
    quantize_range(values.data(), map, grid, begin, end, buffer.data());
    dequantize_range(buffer.data(), map, grid, begin, end, out + begin);
  });
  return y;
}

int64_t unit_of(int64_t element, std::span<const int64_t> dims, const Scheme& scheme) {
  return UnitMap(dims, scheme).unit(element);
}

Dims scale_dims(std::span<const int64_t> dims, const Scheme& scheme) {
  Dims shape(dims.begin(), dims.end());
  switch (scheme.granularity) {
    case Granularity::per_tensor:
      return {};
    case Granularity::per_axis:
      return {dims[static_cast<size_t>(normalize_axis(scheme.axis, dims.size()))]};
    case Granularity::per_group: {
      int64_t& length = shape[static_cast<size_t>(normalize_axis(scheme.axis, dims.size()))];
      length = (length + scheme.group_size - 1) / scheme.group_size;
      return shape;
    }
    case Granularity::per_token:
      if (shape.empty()) {
        throw Error(ErrorCode::invalid_argument, "per_token needs a tensor with dimensions");
      }
      shape.pop_back();
      return shape;
  }
  return {};
}

}  // namespace narrow
