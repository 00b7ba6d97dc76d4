// SPDX-License-Identifier: Apache-2.0
// numpy's .npy and .npz files. Every number type of numpy that a Tensor has is read, in either byte
// order; arrays in Fortran order are transposed. Types that numpy lacks are written in the next
// wider one that holds their values: bfloat16 as float32, 4- and 2-bit integers as (u)int8.
//
//   std::map<std::string, Tensor> arrays = read_npz("in.npz");
//   write_npz("out.npz", {{"logits", y}});
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "narrow/core/file.h"
#include "narrow/core/tensor.h"

namespace narrow {

/// An array of a mapped file points into it where alignment and byte order allow.
Tensor read_npy(const std::filesystem::path& path);
Tensor parse_npy(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                 const std::string& what);

/// All arrays by name (the member's name less ".npy"). Throws corrupt_data, unsupported, not_found.
std::map<std::string, Tensor> read_npz(const std::filesystem::path& path);
std::map<std::string, Tensor> parse_npz(const std::shared_ptr<const void>& owner,
                                        std::span<const std::byte> bytes, const std::string& what);

/// Replaces the file only when the new one is complete; the same arrays give the same bytes.
void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& arrays);
void write_npy(const std::filesystem::path& path, const Tensor& array);

/// A float32 array [rows, columns] whose rows come one after the other.
class NpyRows {
 public:
  NpyRows(const std::filesystem::path& path, int64_t rows, int64_t columns);
  /// float32 [some, columns]. Throws invalid_argument for another shape, or more than `rows`.
  void add(const Tensor& part);
  /// Throws invalid_argument where rows are missing; the file then stays as it was.
  void commit();

 private:
  AtomicFile file_;
  int64_t missing_;
  int64_t columns_;
};

}  // namespace narrow
