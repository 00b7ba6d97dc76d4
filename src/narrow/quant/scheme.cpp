// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/scheme.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow {

const char* to_string(Symmetry symmetry) {
  switch (symmetry) {
    case Symmetry::symmetric:
      return "symmetric";
    case Symmetry::asymmetric:
      return "asymmetric";
    case Symmetry::offset:
      return "offset";
  }
  return "?";
}

const char* to_string(Granularity granularity) {
  switch (granularity) {
    case Granularity::per_tensor:
      return "per_tensor";
    case Granularity::per_axis:
      return "per_axis";
    case Granularity::per_group:
      return "per_group";
    case Granularity::per_token:
      return "per_token";
  }
  return "?";
}

const char* to_string(ScaleType type) {
  switch (type) {
    case ScaleType::float32:
      return "float32";
    case ScaleType::float16:
      return "float16";
    case ScaleType::bfloat16:
      return "bfloat16";
    case ScaleType::power_of_two:
      return "power_of_two";
  }
  return "?";
}

int32_t Scheme::qmin() const {
  if (!is_signed) return 0;
  return -(int32_t{1} << (bits - 1)) + (narrow_range ? 1 : 0);
}

int32_t Scheme::qmax() const {
  return (int32_t{1} << (is_signed ? bits - 1 : bits)) - 1;
}

DType Scheme::storage() const {
  if (bits <= 2) return is_signed ? DType::int2 : DType::uint2;
  if (bits <= 4) return is_signed ? DType::int4 : DType::uint4;
  if (bits <= 8) return is_signed ? DType::int8 : DType::uint8;
  return is_signed ? DType::int16 : DType::uint16;
}

std::string Scheme::describe() const {
  std::string text =
      fmt::format("{}int{}{} {} {}", is_signed ? "" : "u", bits, narrow_range ? " narrow" : "",
                  to_string(symmetry), to_string(granularity));
  if (granularity == Granularity::per_axis) text += fmt::format("(axis {})", axis);
  if (granularity == Granularity::per_group) text += fmt::format("(axis {}, {})", axis, group_size);
  if (scale_type != ScaleType::float32) text += fmt::format(", scale {}", to_string(scale_type));
  return text;
}

void Scheme::validate() const {
  const auto refuse = [](std::string why, std::string hint) {
    throw Error(ErrorCode::invalid_argument, std::move(why), std::move(hint));
  };
  if ((bits < 2 || bits > 8) && bits != 16) {
    refuse(fmt::format("a grid of {} bits is not supported", bits), "use 2 to 8 bits, or 16");
  }
  if (narrow_range && !is_signed) {
    refuse("narrow range needs signed codes", "use signed codes or the full range");
  }
  if (granularity == Granularity::per_group && group_size < 1) {
    refuse(fmt::format("a group size of {} is not possible", group_size),
           "use a positive group size");
  }
}

}  // namespace narrow
