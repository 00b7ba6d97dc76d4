// SPDX-License-Identifier: Apache-2.0
// Folders of JPEG and PNG files. Labels are the sorted positions of the sub-folders, or come from a
// CSV file of lines "file,label".
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/core/parallel.h"
#include "narrow/data/image_dataset.h"
#include "narrow/data/label_file.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

struct Entry {
  fs::path path;
  std::string name;  // relative to the folder, '/' between the parts
  int64_t label = 0;
};

bool is_picture(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

/// Hidden files and folders (".thumbnails", macOS's "._x.jpg") are left out.
bool is_hidden(const fs::path& path) {
  return path.filename().string().starts_with('.');
}

std::vector<Entry> list_pictures(const fs::path& folder) {
  std::vector<Entry> entries;
  std::error_code error;
  const auto options = fs::directory_options::follow_directory_symlink;
  fs::recursive_directory_iterator it(folder, options, error), end;
  constexpr int kDeepest = 32;  // symbolic links may form a circle
  const size_t above = (folder / "").native().size();
  for (; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    const bool directory = it->is_directory(ignored);
    if (directory && (is_hidden(it->path()) || it.depth() >= kDeepest)) {
      it.disable_recursion_pending();
    } else if (!directory && !is_hidden(it->path()) && is_picture(it->path())) {
      entries.push_back({it->path(), it->path().native().substr(above)});
    }
  }
  if (error) {
    const bool missing = error == std::errc::no_such_file_or_directory;
    throw Error(missing ? ErrorCode::not_found : ErrorCode::io_error,
                fmt::format("cannot list '{}': {}", folder.string(), error.message()),
                missing ? "check the path" : "");
  }
  // By bytes, not by locale: class numbers may not depend on the machine.
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

/// The first part of "cat/1.jpg"; nothing for "1.jpg".
std::optional<std::string> class_of(const Entry& entry) {
  const size_t slash = entry.name.find('/');
  if (slash == std::string::npos) return std::nullopt;
  return entry.name.substr(0, slash);
}

/// Whether the pictures lie in class folders; sets their labels if so.
bool label_by_folder(std::vector<Entry>& entries, const fs::path& folder, bool required) {
  std::map<std::string, int64_t> classes;
  const Entry* loose = nullptr;
  for (const Entry& entry : entries) {
    const auto name = class_of(entry);
    if (name) {
      classes.emplace(*name, 0);
    } else {
      loose = &entry;
    }
  }
  if (loose != nullptr && (required || !classes.empty())) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' lies beside the class folders of '{}': it has no label",
                            loose->name, folder.string()),
                "add labels=none to use the pictures without labels, or labels=FILE.csv");
  }
  if (classes.empty()) return false;
  int64_t next = 0;
  for (auto& [name, label] : classes) label = next++;
  for (Entry& entry : entries) entry.label = classes.at(*class_of(entry));
  return true;
}

std::vector<Entry> list_from_csv(const fs::path& folder, const std::string& csv) {
  std::error_code ignored;
  const fs::path as_given(csv);
  const fs::path path = fs::exists(as_given, ignored) ? as_given : folder / as_given;
  std::vector<Entry> entries;
  for (const LabelLine& line : parse_label_file(read_text(path), path.string())) {
    Entry entry{folder / line.file, line.file, line.label};
    if (!fs::is_regular_file(entry.path, ignored)) {
      throw Error(ErrorCode::not_found,
                  fmt::format("{}: line {}: '{}' is not in '{}'", path.string(), line.number,
                              line.file, folder.string()),
                  "names in the file are relative to the folder of pictures");
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

class FolderSource final : public ImageSource {
 public:
  FolderSource(const fs::path& folder, const std::string& labels) {
    if (labels.empty() || labels == "folders" || labels == "none") {
      entries_ = list_pictures(folder);
      if (labels != "none") labelled_ = label_by_folder(entries_, folder, labels == "folders");
    } else {
      entries_ = list_from_csv(folder, labels);
      labelled_ = true;
    }
    if (entries_.empty()) {
      throw Error(ErrorCode::not_found,
                  fmt::format("'{}' has no pictures (.jpg, .jpeg, .png)", folder.string()));
    }
  }

  int64_t size() const override { return static_cast<int64_t>(entries_.size()); }
  bool labelled() const override { return labelled_; }
  int64_t label(int64_t index) const override { return at(index).label; }
  int64_t channels() const override { return 0; }
  std::string describe(int64_t index) const override { return at(index).path.string(); }

  Image load(int64_t index) const override {
    const auto file = MappedFile::open(at(index).path);
    return decode_image(file->bytes(), at(index).path.string());
  }

  std::string fingerprint() const override {
    constexpr uint64_t kReadAtMost = uint64_t{1} << 26;  // above this, names and sizes must do
    Hash64 hash;
    hash.add_text("images");
    uint64_t total = 0;
    for (const Entry& entry : entries_) {
      std::error_code ignored;
      const auto bytes = static_cast<int64_t>(fs::file_size(entry.path, ignored));
      hash.add_text(entry.name);
      hash.add_number(bytes);
      hash.add_number(labelled_ ? entry.label : -1);
      total += static_cast<uint64_t>(std::max<int64_t>(bytes, 0));
    }
    if (total <= kReadAtMost) {
      std::vector<uint64_t> contents(entries_.size());
      parallel_for(size(), 64, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          Hash64 content;
          const auto file = MappedFile::open(at(i).path);
          content.add(file->bytes().data(), file->bytes().size());
          contents[static_cast<size_t>(i)] = content.value();
        }
      });
      for (const uint64_t content : contents) hash.add_number(static_cast<int64_t>(content));
    }
    return hash.hex();
  }

 private:
  const Entry& at(int64_t index) const { return entries_[static_cast<size_t>(index)]; }
  std::vector<Entry> entries_;
  bool labelled_ = false;
};

}  // namespace

std::unique_ptr<ImageSource> open_image_folder(const DataSpec& spec, const SpecOptions& options) {
  return std::make_unique<FolderSource>(spec.path, options.labels);
}

}  // namespace narrow
