// SPDX-License-Identifier: Apache-2.0
// Dimensions of tensors, with products checked for overflow.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace narrow {

using Dims = std::vector<int64_t>;

/// Product of the dimensions; 1 for a scalar. Throws corrupt_data on a negative dimension or a
/// product past 2^62.
int64_t num_elements(std::span<const int64_t> dims);

/// Product of dims[begin, end).
int64_t num_elements(std::span<const int64_t> dims, size_t begin, size_t end);

/// "[1, 3, 224, 224]".
std::string to_string(std::span<const int64_t> dims);

/// Row-major strides in elements.
Dims row_major_strides(std::span<const int64_t> dims);

/// axis in [-rank, rank) made non-negative; throws invalid_argument outside.
int64_t normalize_axis(int64_t axis, size_t rank);

/// Shape of the elementwise result with numpy broadcasting; throws invalid_argument naming both.
Dims broadcast_dims(std::span<const int64_t> a, std::span<const int64_t> b);

}  // namespace narrow
