// SPDX-License-Identifier: Apache-2.0
// Building blocks of shape inference functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "narrow/graph/onnx_types.h"
#include "narrow/graph/op_table.h"

namespace narrow::ops {

/// Output 0 has dtype and shape of input 0.
void infer_same(InferContext& c);
/// Output 0 has the dtype of input 0; nothing is said of its shape.
void infer_dtype_only(InferContext& c);
/// All inputs of one dtype, numpy broadcasting.
void infer_broadcast(InferContext& c);
/// The same with a boolean result.
void infer_broadcast_bool(InferContext& c);
/// Dtype and shape of input 0 for every output that is there.
void set_same(InferContext& c, size_t output, size_t input);

/// Broadcasts every present input of [first, last); nullopt if one has no known rank.
std::optional<SymbolicShape> broadcast_inputs(const InferContext& c, size_t first, size_t last);
SymbolicShape broadcast(const InferContext& c, const SymbolicShape& a, const SymbolicShape& b);

/// The same dimension said twice; fails when the two contradict.
Dim unify(const InferContext& c, const Dim& a, const Dim& b, std::string_view what);
SymbolicShape unify(const InferContext& c, const SymbolicShape& a, const SymbolicShape& b,
                    std::string_view what);

/// Arithmetic on dimensions: a symbol survives where nothing changes, else the result is unknown.
/// Fails on results past 2^62 or below 0.
Dim add(const InferContext& c, const Dim& a, int64_t b);
Dim multiply(const InferContext& c, const Dim& a, const Dim& b);
Dim product(const InferContext& c, std::span<const Dim> dims);
/// Exact quotient; fails when it does not divide.
Dim divide(const InferContext& c, const Dim& a, int64_t b, std::string_view what);

/// Two shapes put together along an axis.
SymbolicShape concatenated(const InferContext& c, const SymbolicShape& a, const SymbolicShape& b,
                           size_t axis);

/// axis in [-rank, rank) made an index; fails outside.
size_t axis_in(const InferContext& c, int64_t axis, size_t rank);
/// Attribute `axis` of the node.
size_t axis_attribute(const InferContext& c, int64_t fallback, size_t rank);
/// Distinct axes made non-negative.
std::vector<size_t> axes_in(const InferContext& c, std::span<const int64_t> axes, size_t rank);

/// All elements of an integer input if they are known.
std::optional<std::vector<int64_t>> known_ints(const InferContext& c, size_t input);
/// All elements of a float32 input if they are known.
std::optional<std::vector<float>> known_floats(const InferContext& c, size_t input);
/// A shape given as a tensor: its dimensions as far as known; nullopt if even the count is not.
/// Fails on negative entries.
std::optional<SymbolicShape> shape_from_input(const InferContext& c, size_t input);

/// Fails unless the input, where its rank is known, has rank `rank`.
void require_rank(const InferContext& c, size_t input, size_t rank);
void require_min_rank(const InferContext& c, size_t input, size_t rank);
/// Fails unless both dtypes are equal where known.
void require_same_dtype(const InferContext& c, size_t a, size_t b);
/// Fails unless the input's dtype is an integer (boolean, floating) type where known.
void require_integer(const InferContext& c, size_t input);
void require_float(const InferContext& c, size_t input);

/// Attribute holding the ONNX number of an element type; fails on one that is not supported.
DType dtype_attribute(const InferContext& c, std::string_view key, DType fallback);

/// -1 for what is not known.
Dims dims_or_unknown(const SymbolicShape& shape);
/// A shape of `rank` unknown dimensions.
SymbolicShape unknown_shape(size_t rank);

/// The value of an output whose elements are elements of input 0, by flat index.
void move_elements(InferContext& c, const KnownValue& source, Dims dims,
                   std::span<const int64_t> indices);

/// Value propagation of elementwise operators; does nothing when inputs are not known. Call after
/// set_output.
void propagate_elementwise(InferContext& c);

}  // namespace narrow::ops
