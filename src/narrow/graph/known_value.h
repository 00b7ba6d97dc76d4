// SPDX-License-Identifier: Apache-2.0
// What shape inference knows of the value of a small tensor, element by element: a shape computed
// as Concat(Gather(Shape(x), 0), [-1]) is [symbol N, -1], and a Reshape by it still has a shape.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"

namespace narrow {

struct KnownElement {
  enum class Kind : uint8_t { unknown, integer, real, symbol };
  Kind kind = Kind::unknown;
  int64_t integer = 0;
  float real = 0;
  std::string symbol;  // a dimension's name; never an empty one

  static KnownElement of(int64_t v);
  static KnownElement of_real(float v);
  static KnownElement of(const Dim& dim);
  bool is_integer() const { return kind == Kind::integer; }
  bool is_real() const { return kind == Kind::real; }
  bool is_symbol() const { return kind == Kind::symbol; }
  bool is_known() const { return is_integer() || is_real(); }
  /// The element as an entry of a shape; unknown for anything negative.
  Dim dim() const;
  friend bool operator==(const KnownElement&, const KnownElement&) = default;
};

/// A tensor of at most kMaxElements elements of boolean, int32, int64 (kind integer) or float32
/// (kind real).
struct KnownValue {
  static constexpr int64_t kMaxElements = 1024;  // shape arithmetic is far smaller

  DType dtype = DType::int64;
  Dims dims;
  std::vector<KnownElement> elements;

  static bool tracks(DType dtype);
  /// nullopt for a tensor that is too large or of another type.
  static std::optional<KnownValue> from(const Tensor& tensor);
  /// Int64, rank 1.
  static KnownValue from(const SymbolicShape& shape);
  /// The tensor if every element is known.
  std::optional<Tensor> tensor() const;
  /// The value of one integer element.
  std::optional<int64_t> item() const;
};

}  // namespace narrow
