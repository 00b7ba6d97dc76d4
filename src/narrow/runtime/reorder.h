// SPDX-License-Identifier: Apache-2.0
// Copies between the two layouts of a value: NCHW <-> NHWC, any rank from 3, any element of 1, 2, 4
// or 8 bytes. The plan inserts these copies as steps of their own.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/core/tensor.h"
#include "narrow/runtime/op_impl.h"

namespace narrow {

/// True where both layouts put these dims in the same order in memory (rank below 3, one channel,
/// one pixel, nothing at all), so that no copy is needed.
bool same_memory_order(std::span<const int64_t> dims);

/// Copies src to dst. Same dtype (not a sub-byte one) and dims; the layouts may be any two; the
/// memory must not overlap.
void reorder(const TensorView& src, const TensorView& dst);

/// `batch` matrices of [rows, columns] to [columns, rows]; element_bytes is 1, 2, 4 or 8.
void transpose(const std::byte* src, std::byte* dst, int64_t batch, int64_t rows, int64_t columns,
               size_t element_bytes);

/// An owned copy of a plain tensor with the elements in the given layout (dims stay logical).
Tensor to_layout(const Tensor& tensor, Layout layout);

}  // namespace narrow
