// SPDX-License-Identifier: Apache-2.0
// Folders laid out as MNIST: four idx files, gzip or not, named as the original ones with '-' or
// '.' between the words, or with "test" for "t10k", with any prefix (as EMNIST's and KMNIST's).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/data/idx.h"
#include "narrow/data/image_dataset.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

enum class Part : uint8_t { images, labels };

bool contains(std::string_view text, std::string_view piece) {
  return text.find(piece) != std::string_view::npos;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_gz(const fs::path& path) {
  return lower(path.extension().string()) == ".gz";
}

bool matches(const fs::path& file, std::string_view split, Part part) {
  const std::string name = lower(file.filename().string());
  const bool right_part = part == Part::images ? contains(name, "images") && contains(name, "idx")
                                               : contains(name, "labels") && contains(name, "idx");
  const bool train = contains(name, "train");
  const bool test = contains(name, "t10k") || contains(name, "test");
  return right_part && (split == "train" ? train && !test : test && !train);
}

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) files.push_back(it->path());
  }
  if (error) {
    const bool missing = error == std::errc::no_such_file_or_directory;
    throw Error(missing ? ErrorCode::not_found : ErrorCode::io_error,
                fmt::format("cannot list '{}': {}", folder.string(), error.message()),
                missing ? "check the path" : "");
  }
  std::sort(files.begin(), files.end());
  return files;
}

fs::path find_file(const fs::path& folder, const std::string& split, Part part) {
  const char* word = part == Part::images ? "images" : "labels";
  std::vector<fs::path> found;
  for (const fs::path& file : files_of(folder)) {
    if (matches(file, split, part)) found.push_back(file);
  }
  // The same file packed and unpacked: the unpacked one needs no work.
  std::erase_if(found, [&](const fs::path& p) {
    return is_gz(p) && std::count(found.begin(), found.end(), p.parent_path() / p.stem()) > 0;
  });
  if (found.empty()) {
    throw Error(
        ErrorCode::not_found,
        fmt::format("'{}' has no idx file of {} {}", folder.string(), split, word),
        fmt::format("expected a name such as {}-{}-idx{}-ubyte, with or without .gz",
                    split == "train" ? "train" : "t10k", word, part == Part::images ? 3 : 1));
  }
  if (found.size() > 1) {
    std::vector<std::string> names;
    for (const fs::path& p : found) names.push_back(p.filename().string());
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' has several files of {} {}: {}", folder.string(), split, word,
                            fmt::join(names, ", ")),
                "put one set into a folder of its own");
  }
  return found[0];
}

class MnistSource final : public ImageSource {
 public:
  MnistSource(const fs::path& folder, const std::string& split)
      : path_(find_file(folder, split, Part::images)), images_(read_idx(path_)) {
    const fs::path labels_path = find_file(folder, split, Part::labels);
    const Tensor labels = read_idx(labels_path);
    const auto refuse = [](const fs::path& p, const std::string& why) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", p.string(), why));
    };
    constexpr int64_t kLargestSide = 65535;  // as everywhere else; keeps the products below small
    const bool pictures = images_.dtype() == DType::uint8 && images_.rank() == 3 &&
                          images_.dim(1) > 0 && images_.dim(2) > 0 &&
                          images_.dim(1) <= kLargestSide && images_.dim(2) <= kLargestSide;
    if (!pictures) refuse(path_, fmt::format("{} is no list of pictures", images_.describe()));
    if (images_.dim(1) * images_.dim(2) > kMaxPixels) refuse(path_, "the pictures are too large");
    if (labels.rank() != 1 || !is_integer(labels.dtype())) {
      refuse(labels_path, fmt::format("{} is no list of labels", labels.describe()));
    }
    labels_ = labels.to_ints();
    if (labels.elements() != images_.dim(0)) {
      refuse(labels_path, fmt::format("{} labels for the {} pictures of {}", labels.elements(),
                                      images_.dim(0), path_.filename().string()));
    }
  }

  int64_t size() const override { return images_.dim(0); }
  bool labelled() const override { return true; }
  int64_t label(int64_t index) const override { return labels_[static_cast<size_t>(index)]; }
  int64_t channels() const override { return 1; }

  Image load(int64_t index) const override {
    Image image(images_.dim(2), images_.dim(1), 1);
    const auto bytes = image.pixels.size();
    std::memcpy(image.pixels.data(), images_.raw() + static_cast<size_t>(index) * bytes, bytes);
    return image;
  }

  std::string describe(int64_t index) const override {
    return fmt::format("{}: picture {}", path_.string(), index);
  }

  std::string fingerprint() const override {
    Hash64 hash;
    hash.add_text("mnist");
    for (const int64_t d : images_.dims()) hash.add_number(d);
    hash.add(images_.raw(), images_.bytes());
    for (const int64_t label : labels_) hash.add_number(label);
    return hash.hex();
  }

 private:
  fs::path path_;
  Tensor images_;
  std::vector<int64_t> labels_;
};

}  // namespace

bool looks_like_mnist(const std::string& folder) {
  try {
    for (const fs::path& file : files_of(folder)) {
      if (matches(file, "test", Part::images) || matches(file, "train", Part::images)) return true;
    }
  } catch (const Error&) {
    return false;  // whoever opens the folder reports why it cannot be read
  }
  return false;
}

std::unique_ptr<ImageSource> open_mnist(const DataSpec& spec, const SpecOptions& options) {
  return std::make_unique<MnistSource>(spec.path, options.split);
}

}  // namespace narrow
