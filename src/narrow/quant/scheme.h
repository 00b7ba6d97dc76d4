// SPDX-License-Identifier: Apache-2.0
// What "quantized" means for one tensor: a Scheme (the grid's family) and QuantParams (its
// numbers).
//
//   real = scale * (code - zero_point)        symmetric, asymmetric
//   real = scale * code + offset              offset
//
// `scale` is the real step and positive in every grid created here. A zero_point is the code of
// real 0 exactly; the range is widened to contain 0 first. `offset` is a real-valued shift.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "narrow/core/dtype.h"
#include "narrow/core/tensor.h"

namespace narrow {

enum class Symmetry : uint8_t { symmetric, asymmetric, offset };
enum class Granularity : uint8_t { per_tensor, per_axis, per_group, per_token };
enum class ScaleType : uint8_t { float32, float16, bfloat16, power_of_two };

const char* to_string(Symmetry symmetry);
const char* to_string(Granularity granularity);
const char* to_string(ScaleType type);

struct Scheme {
  int bits = 8;  // 2..8, or 16 for activations
  bool is_signed = true;
  bool narrow_range = false;  // qmin + 1 .. qmax for signed codes: [-127, 127]
  Symmetry symmetry = Symmetry::symmetric;
  Granularity granularity = Granularity::per_tensor;
  int64_t axis = 0;  // per_axis: the axis that has one scale per index; per_group: the grouped one
  int64_t group_size = 0;  // per_group: consecutive elements along `axis` that share a scale
  ScaleType scale_type = ScaleType::float32;

  int32_t qmin() const;
  int32_t qmax() const;
  /// The narrowest storage type that holds the codes: int2/uint2, int4/uint4, int8/uint8,
  /// int16/uint16.
  DType storage() const;
  /// "int4 symmetric per_group(axis 1, 32)".
  std::string describe() const;
  /// Throws invalid_argument for bits outside 2..8/16, narrow range of unsigned codes, ...
  void validate() const;
  friend bool operator==(const Scheme&, const Scheme&) = default;
};

/// The numbers of a grid. Shapes of scale, zero_point, offset, as ONNX QuantizeLinear has them:
/// per_tensor []; per_axis [dims[axis]]; per_group: dims with dims[axis] replaced by the number of
/// groups ceil(dims[axis] / group_size); per_token: dims with the last dimension removed.
struct QuantParams {
  Scheme scheme;
  Tensor scale;       // float32 values (already rounded to scheme.scale_type)
  Tensor zero_point;  // int32 values; undefined for symmetric signed (all 0) and for offset
  Tensor offset;      // float32; only for Symmetry::offset
};

/// Codes (in scheme.storage(), packed) with their grid.
struct QuantizedTensor {
  Tensor codes;
  QuantParams params;
};

}  // namespace narrow
