// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/grid.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr int kLanes = 16;  // a constant count, so that the compiler makes vector code

template <class T>
const T* checked(const Tensor& t, const char* what, int64_t units) {
  if (!t.defined()) return nullptr;
  if (t.dtype() != DTypeOf<T>::value || t.elements() != units) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} is {} where {} values of {} are needed", what, t.describe(), units,
                            to_string(DTypeOf<T>::value)));
  }
  return t.data<T>().data();
}

}  // namespace

GridView::GridView(const QuantParams& params, int64_t units) : scheme_(params.scheme) {
  scheme_.validate();
  if (!params.scale.defined()) throw Error(ErrorCode::invalid_argument, "scale is missing");
  scale_ = checked<float>(params.scale, "scale", units);
  zero_point_ = checked<int32_t>(params.zero_point, "zero_point", units);
  offset_ = checked<float>(params.offset, "offset", units);
}

void GridView::quantize_units(const float* x, int64_t count, int64_t first_unit,
                              int32_t* codes) const {
  const bool shifted = scheme_.symmetry == Symmetry::offset;
  const int32_t qmin = scheme_.qmin();
  const int32_t qmax = scheme_.qmax();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const int64_t unit = first_unit + i;
    std::array<int32_t, kLanes> zero{};
    std::array<float, kLanes> offset;
    std::array<int32_t, kLanes> out;
    offset.fill(-0.0f);
    if (zero_point_ != nullptr && !shifted) {
      std::copy_n(zero_point_ + unit, kLanes, zero.begin());
    }
    if (offset_ != nullptr && shifted) std::copy_n(offset_ + unit, kLanes, offset.begin());
    for (int j = 0; j < kLanes; ++j) {
      UnitGrid g;
      g.scale = scale_[unit + j];
      g.offset = offset[j];
      g.zero_point = zero[j];
      g.lo = static_cast<float>(qmin - zero[j]);
      g.hi = static_cast<float>(qmax - zero[j]);
      g.nan = shifted ? g.lo : 0.0f;
      out[j] = quantize_one(x[i + j], g);
    }
    std::copy(out.begin(), out.end(), codes + i);
  }
  for (; i < count; ++i) codes[i] = quantize_one(x[i], at(first_unit + i));
}

void GridView::dequantize_units(const int32_t* codes, int64_t count, int64_t first_unit,
                                float* y) const {
  const bool shifted = scheme_.symmetry == Symmetry::offset;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const int64_t unit = first_unit + i;
    std::array<int32_t, kLanes> zero{};
    std::array<float, kLanes> offset;
    std::array<float, kLanes> out;
    offset.fill(-0.0f);
    if (zero_point_ != nullptr && !shifted) {
      std::copy_n(zero_point_ + unit, kLanes, zero.begin());
    }
    if (offset_ != nullptr && shifted) std::copy_n(offset_ + unit, kLanes, offset.begin());
    for (int j = 0; j < kLanes; ++j) {
      UnitGrid g;
      g.scale = scale_[unit + j];
      g.offset = offset[j];
      g.zero_point = zero[j];
      out[j] = dequantize_one(codes[i + j], g);
    }
    std::copy(out.begin(), out.end(), y + i);
  }
  for (; i < count; ++i) y[i] = dequantize_one(codes[i], at(first_unit + i));
}

void quantize_run(const float* x, int64_t count, const UnitGrid& grid, int32_t* codes) {
  const UnitGrid g = grid;  // a local copy cannot alias the output
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    std::array<int32_t, kLanes> out;
    for (int j = 0; j < kLanes; ++j) out[j] = quantize_one(x[i + j], g);
    std::copy(out.begin(), out.end(), codes + i);
  }
  for (; i < count; ++i) codes[i] = quantize_one(x[i], g);
}

void dequantize_run(const int32_t* codes, int64_t count, const UnitGrid& grid, float* y) {
  const UnitGrid g = grid;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    std::array<float, kLanes> out;
    for (int j = 0; j < kLanes; ++j) out[j] = dequantize_one(codes[i + j], g);
    std::copy(out.begin(), out.end(), y + i);
  }
  for (; i < count; ++i) y[i] = dequantize_one(codes[i], g);
}

}  // namespace narrow
