// SPDX-License-Identifier: Apache-2.0
// What a run that writes a model tensor by tensor has finished: a text file beside the output, one
// line of JSON for the job and one for each tensor. With it a run that was killed goes on where it
// stopped. Internal to pipeline/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace narrow {

/// One finished tensor.
struct JournalEntry {
  std::string source_hash;
  std::string output_hash;
  double squares = 0;  // sum of the weights' squares
  double errors = 0;   // sum of squared errors
};

/// "OUT.partial" and "OUT.partial.journal".
std::filesystem::path partial_path(const std::filesystem::path& output);
std::filesystem::path journal_path(const std::filesystem::path& output);

/// The entries of a journal of this job, as far as they are whole: a last line that was cut off is
/// left out. None if there is no journal or it is another job's.
std::optional<std::vector<JournalEntry>> read_journal(const std::filesystem::path& path,
                                                      const std::string& job);

class JournalWriter {
 public:
  /// Begins anew, with the entries that are kept. Throws io_error.
  JournalWriter(std::filesystem::path path, const std::string& job,
                const std::vector<JournalEntry>& kept);
  void append(const JournalEntry& entry);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace narrow
