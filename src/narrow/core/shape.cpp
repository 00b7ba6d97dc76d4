// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "narrow/core/error.h"

namespace narrow {

int64_t num_elements(std::span<const int64_t> dims) {
  constexpr int64_t kLimit = int64_t{1} << 62;
  int64_t product = 1;
  bool zero = false;
  for (const int64_t d : dims) {
    if (d < 0) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("shape {} has a negative dimension", to_string(dims)));
    }
    if (d == 0) {
      zero = true;
      continue;
    }
    if (product > kLimit / d) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("shape {} has more than 2^62 elements", to_string(dims)));
    }
    product *= d;
  }
  return zero ? 0 : product;
}

int64_t num_elements(std::span<const int64_t> dims, size_t begin, size_t end) {
  return num_elements(dims.subspan(begin, end - begin));
}

std::string to_string(std::span<const int64_t> dims) {
  return fmt::format("[{}]", fmt::join(dims, ", "));
}

Dims row_major_strides(std::span<const int64_t> dims) {
  Dims strides(dims.size(), 1);
  for (size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
  return strides;
}

int64_t normalize_axis(int64_t axis, size_t rank) {
  const auto r = static_cast<int64_t>(rank);
  if (axis < -r || axis >= r) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("axis {} is outside a tensor of rank {}", axis, rank));
  }
  return axis < 0 ? axis + r : axis;
}

Dims broadcast_dims(std::span<const int64_t> a, std::span<const int64_t> b) {
  const size_t rank = std::max(a.size(), b.size());
  Dims out(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t da = i + a.size() < rank ? 1 : a[i + a.size() - rank];
    const int64_t db = i + b.size() < rank ? 1 : b[i + b.size() - rank];
    if (da != db && da != 1 && db != 1) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("shapes {} and {} do not broadcast", to_string(a), to_string(b)));
    }
    out[i] = da == 1 ? db : da;
  }
  return out;
}

}  // namespace narrow
