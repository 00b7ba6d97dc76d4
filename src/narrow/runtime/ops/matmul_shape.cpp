// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/matmul_shape.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow::ops {
namespace {

/// Which matrix of an operand with these batch axes each item of the result uses.
std::vector<int64_t> items_of(std::span<const int64_t> own, std::span<const int64_t> result) {
  std::vector<int64_t> items(static_cast<size_t>(num_elements(result)), 0);
  int64_t stride = 1;
  int64_t repeat = 1;
  for (size_t i = result.size(); i-- > 0;) {
    const size_t missing = result.size() - own.size();
    if (i >= missing && own[i - missing] != 1) {
      for (size_t at = 0; at < items.size(); ++at) {
        items[at] += static_cast<int64_t>(at) / repeat % result[i] * stride;
      }
      stride *= own[i - missing];
    }
    repeat *= result[i];
  }
  return items;
}

}  // namespace

MatMulShape matmul_shape(std::span<const int64_t> a, std::span<const int64_t> b) {
  if (a.empty() || b.empty()) {
    throw Error(ErrorCode::invalid_argument, "a matrix product of a scalar");
  }
  MatMulShape s;
  s.m = a.size() == 1 ? 1 : a[a.size() - 2];
  s.k = a.back();
  s.n = b.size() == 1 ? 1 : b.back();
  const int64_t inner = b.size() == 1 ? b[0] : b[b.size() - 2];
  if (s.k != inner) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("shapes {} and {} have no matrix product", to_string(a), to_string(b)));
  }
  const auto a_batch = a.first(a.size() < 2 ? 0 : a.size() - 2);
  const auto b_batch = b.first(b.size() < 2 ? 0 : b.size() - 2);
  s.batch = broadcast_dims(a_batch, b_batch);
  s.a_item = items_of(a_batch, s.batch);
  s.b_item = items_of(b_batch, s.batch);
  return s;
}

}  // namespace narrow::ops
