// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/known_value.h"

#include <algorithm>
#include <utility>

namespace narrow {

KnownElement KnownElement::of(int64_t v) {
  KnownElement e;
  e.kind = Kind::integer;
  e.integer = v;
  return e;
}

KnownElement KnownElement::of_real(float v) {
  KnownElement e;
  e.kind = Kind::real;
  e.real = v;
  return e;
}

KnownElement KnownElement::of(const Dim& dim) {
  if (dim.known()) return of(dim.value);
  KnownElement e;
  if (!dim.name.empty()) {
    e.kind = Kind::symbol;
    e.symbol = dim.name;
  }
  return e;
}

Dim KnownElement::dim() const {
  if (is_integer() && integer >= 0) return integer;
  return is_symbol() ? Dim::symbol(symbol) : Dim();
}

bool KnownValue::tracks(DType dtype) {
  return dtype == DType::boolean || dtype == DType::int32 || dtype == DType::int64 ||
         dtype == DType::float32;
}

std::optional<KnownValue> KnownValue::from(const Tensor& tensor) {
  if (!tracks(tensor.dtype()) || tensor.elements() > kMaxElements) return std::nullopt;
  KnownValue value;
  value.dtype = tensor.dtype();
  value.dims = tensor.dims();
  value.elements.reserve(static_cast<size_t>(tensor.elements()));
  if (tensor.dtype() == DType::float32) {
    for (const float v : tensor.data<float>()) value.elements.push_back(KnownElement::of_real(v));
  } else {
    for (const int64_t v : tensor.to_ints()) value.elements.push_back(KnownElement::of(v));
  }
  return value;
}

KnownValue KnownValue::from(const SymbolicShape& shape) {
  KnownValue value;
  value.dims = {static_cast<int64_t>(shape.size())};
  for (const Dim& d : shape) value.elements.push_back(KnownElement::of(d));
  return value;
}

std::optional<Tensor> KnownValue::tensor() const {
  const bool real = dtype == DType::float32;
  std::vector<int64_t> integers;
  std::vector<float> reals;
  for (const KnownElement& e : elements) {
    if (real ? !e.is_real() : !e.is_integer()) return std::nullopt;
    if (real) {
      reals.push_back(e.real);
    } else {
      integers.push_back(e.integer);
    }
  }
  return real ? Tensor::from_floats(reals, dtype, dims) : Tensor::from_ints(integers, dtype, dims);
}

std::optional<int64_t> KnownValue::item() const {
  if (elements.size() != 1 || !elements[0].is_integer()) return std::nullopt;
  return elements[0].integer;
}

}  // namespace narrow
