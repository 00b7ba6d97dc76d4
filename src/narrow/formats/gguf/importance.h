// SPDX-License-Identifier: Apache-2.0
// llama.cpp's importance matrices: for the weight of each matrix product, sums of squares of the
// inputs per column. Two file forms:
//   GGUF  general.type = "imatrix", imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size;
//         float32 tensors <weight>.in_sum2 [experts, columns] and <weight>.counts [experts, 1]
//   dat   i32 entries; each: name (i32 length), i32 calls, i32 n, n floats = mean square * calls;
//         then optionally i32 chunks and the data set's name. Experts are not told apart: they come
//         as one of as many columns as all have together
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace narrow {

struct ImportanceEntry {
  std::vector<float> sums;    // experts * columns, row-major; sums of squares
  std::vector<float> counts;  // per expert: how many inputs the sums are over

  size_t experts() const { return counts.size(); }
  size_t columns() const { return counts.empty() ? 0 : sums.size() / counts.size(); }
  /// Mean squares of one expert's inputs: what EncodeOptions::importance takes. All 1 for an expert
  /// that saw nothing. Throws invalid_argument for an expert that is not there.
  std::vector<float> mean_squares(size_t expert = 0) const;
};

struct ImportanceFile {
  std::map<std::string, ImportanceEntry> entries;  // by the weight's name: "blk.0.attn_q.weight"
  std::vector<std::string> datasets;
  uint32_t chunk_count = 0;
  uint32_t chunk_size = 0;  // tokens; 0 when the file does not say (dat)
};

/// Either form. Throws corrupt_data naming the entry, also for sums that are negative or not
/// finite.
ImportanceFile read_importance(const std::filesystem::path& path);
ImportanceFile parse_importance(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                                const std::string& name);

enum class ImportanceForm : uint8_t { gguf, dat };
/// Throws invalid_argument for entries whose sums do not divide into their counts.
void write_importance(const ImportanceFile& file, const std::filesystem::path& path,
                      ImportanceForm form = ImportanceForm::gguf);

}  // namespace narrow
