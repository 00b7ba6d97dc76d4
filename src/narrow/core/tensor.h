// SPDX-License-Identifier: Apache-2.0
// A row-major, contiguous array of one element type over shared storage, which is either owned or
// borrowed from something that stays alive (a mapped file). Copies of a Tensor share the storage.
//
//   Tensor t(DType::float32, {2, 3});
//   std::span<float> x = t.mutable_data<float>();
//   Tensor codes = Tensor::from<int8_t>({1, 2, 3}, {3});
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "narrow/core/dtype.h"
#include "narrow/core/shape.h"

namespace narrow {

/// Bytes of `elements` packed values; sub-byte types round up to whole bytes.
size_t packed_bytes(DType dtype, int64_t elements);

class Tensor {
 public:
  /// Empty: dtype undefined, no storage.
  Tensor() = default;
  /// Owned, zero-filled, 64-byte aligned. Throws resource_exhausted if memory is short.
  Tensor(DType dtype, Dims dims);
  /// Borrowed, read-only: `owner` keeps `data` alive. `bytes` must be exactly what the shape needs.
  static Tensor view(std::shared_ptr<const void> owner, const void* data, size_t bytes, DType dtype,
                     Dims dims);
  /// A view where `data` is aligned for the element type, otherwise an owned copy: files need not
  /// align what they hold.
  static Tensor view_or_copy(std::shared_ptr<const void> owner, const void* data, size_t bytes,
                             DType dtype, Dims dims);
  template <class T>
  static Tensor from(const std::vector<T>& values, Dims dims);
  template <class T>
  static Tensor vector(const std::vector<T>& values) {
    return from(values, {static_cast<int64_t>(values.size())});
  }
  template <class T>
  static Tensor scalar(T value);

  bool defined() const { return dtype_ != DType::undefined; }
  DType dtype() const { return dtype_; }
  const Dims& dims() const { return dims_; }
  size_t rank() const { return dims_.size(); }
  int64_t dim(int64_t axis) const { return dims_[normalize_axis(axis, dims_.size())]; }
  int64_t elements() const { return elements_; }
  size_t bytes() const { return packed_bytes(dtype_, elements_); }

  const std::byte* raw() const { return data_; }
  /// Throws internal if the storage is borrowed.
  std::byte* mutable_raw();
  bool writable() const { return writable_; }

  /// Throws internal unless T is the element type (for sub-byte types use raw()).
  template <class T>
  std::span<const T> data() const {
    require_dtype(DTypeOf<T>::value);
    return {reinterpret_cast<const T*>(data_), static_cast<size_t>(elements_)};
  }
  template <class T>
  std::span<T> mutable_data() {
    require_dtype(DTypeOf<T>::value);
    return {reinterpret_cast<T*>(mutable_raw()), static_cast<size_t>(elements_)};
  }
  /// The value of a tensor of one element.
  template <class T>
  T item() const {
    return data<T>()[0];
  }

  /// Same storage, other shape of equally many elements.
  Tensor reshaped(Dims dims) const;
  /// Owned copy.
  Tensor clone() const;

  /// Every element as float (double, int64: rounded); sub-byte types are unpacked.
  std::vector<float> to_floats() const;
  /// Every element of an integer or boolean tensor, unpacked.
  std::vector<int64_t> to_ints() const;
  /// Packs integers into `dtype` (an integer type or boolean); throws numeric_failure outside its
  /// range.
  static Tensor from_ints(std::span<const int64_t> values, DType dtype, Dims dims);
  /// Converts to a floating type with half-to-even rounding.
  static Tensor from_floats(std::span<const float> values, DType dtype, Dims dims);

  /// "float32[1, 10]".
  std::string describe() const;

 private:
  void require_dtype(DType wanted) const;

  DType dtype_ = DType::undefined;
  Dims dims_;
  int64_t elements_ = 0;
  std::shared_ptr<const void> owner_;
  std::byte* data_ = nullptr;
  bool writable_ = false;
};

/// Same dtype, shape and bytes.
bool identical(const Tensor& a, const Tensor& b);

template <class T>
Tensor Tensor::from(const std::vector<T>& values, Dims dims) {
  Tensor t(DTypeOf<T>::value, std::move(dims));
  auto out = t.template mutable_data<T>();
  if (out.size() != values.size()) return {};
  for (size_t i = 0; i < out.size(); ++i) out[i] = values[i];
  return t;
}

template <class T>
Tensor Tensor::scalar(T value) {
  Tensor t(DTypeOf<T>::value, {});
  t.template mutable_data<T>()[0] = value;
  return t;
}

}  // namespace narrow
