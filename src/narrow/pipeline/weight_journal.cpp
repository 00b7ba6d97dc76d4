// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/weight_journal.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "narrow/core/error.h"
#include "narrow/core/file.h"

namespace narrow {
namespace {

using Json = nlohmann::ordered_json;

std::string line_of(const JournalEntry& e) {
  // Doubles round-trip through the shortest decimal that names them.
  const Json j = {{"source", e.source_hash},
                  {"output", e.output_hash},
                  {"squares", e.squares},
                  {"errors", e.errors}};
  return j.dump() + "\n";
}

std::optional<JournalEntry> entry_of(const Json& j) {
  if (!j.is_object()) return std::nullopt;
  for (const char* text : {"source", "output"}) {
    if (!j.contains(text) || !j[text].is_string()) return std::nullopt;
  }
  for (const char* number : {"squares", "errors"}) {
    if (!j.contains(number) || !j[number].is_number()) return std::nullopt;
  }
  return JournalEntry{j["source"], j["output"], j["squares"], j["errors"]};
}

std::filesystem::path with_suffix(std::filesystem::path path, const char* suffix) {
  path += suffix;
  return path;
}

}  // namespace

std::filesystem::path partial_path(const std::filesystem::path& output) {
  return with_suffix(output, ".partial");
}

std::filesystem::path journal_path(const std::filesystem::path& output) {
  return with_suffix(output, ".partial.journal");
}

std::optional<std::vector<JournalEntry>> read_journal(const std::filesystem::path& path,
                                                      const std::string& job) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const std::string text = read_text(path);
  std::vector<JournalEntry> entries;
  bool first = true;
  for (size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    const Json j = Json::parse(text.begin() + static_cast<ptrdiff_t>(at),
                               text.begin() + static_cast<ptrdiff_t>(end), nullptr, false);
    if (first) {
      const bool same = j.is_object() && j.contains("job") && j["job"] == job;
      if (!same) return std::nullopt;
      first = false;
      continue;
    }
    const auto entry = entry_of(j);
    if (!entry) break;
    entries.push_back(*entry);
  }
  if (first) return std::nullopt;
  return entries;
}

JournalWriter::JournalWriter(std::filesystem::path path, const std::string& job,
                             const std::vector<JournalEntry>& kept)
    : path_(std::move(path)) {
  std::string text = Json{{"narrow_journal", 1}, {"job", job}}.dump() + "\n";
  for (const JournalEntry& e : kept) text += line_of(e);
  write_text(path_, text);
  file_.open(path_, std::ios::app | std::ios::binary);
  if (!file_) {
    throw Error(ErrorCode::io_error, fmt::format("cannot write '{}'", path_.string()));
  }
}

void JournalWriter::append(const JournalEntry& entry) {
  file_ << line_of(entry) << std::flush;
  if (!file_) {
    throw Error(ErrorCode::io_error, fmt::format("cannot write '{}'", path_.string()),
                "is the disk full?");
  }
}

}  // namespace narrow
