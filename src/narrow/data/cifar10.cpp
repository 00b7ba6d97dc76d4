// SPDX-License-Identifier: Apache-2.0
// The binary batches of CIFAR-10: records of one label and 3 x 32 x 32 bytes, planes red, green,
// blue. Labels 0..9 are airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
#include <fmt/format.h>

#include <filesystem>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/data/image_dataset.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSide = 32;
constexpr int64_t kPlane = kSide * kSide;
constexpr int64_t kRecordBytes = 1 + 3 * kPlane;
constexpr int kClasses = 10;

/// The batches may lie in the folder or in the one that the archive unpacks to.
fs::path find_batches(const fs::path& folder) {
  std::error_code ignored;
  const fs::path inner = folder / "cifar-10-batches-bin";
  return fs::is_directory(inner, ignored) ? inner : folder;
}

class Cifar10Source final : public ImageSource {
 public:
  Cifar10Source(const fs::path& folder, const std::string& split) {
    const fs::path base = find_batches(folder);
    if (split == "test") {
      add_batch(base / "test_batch.bin");
      return;
    }
    add_batch(base / "data_batch_1.bin");
    for (int i = 2; i <= 5; ++i) {
      const fs::path path = base / fmt::format("data_batch_{}.bin", i);
      std::error_code ignored;
      if (fs::exists(path, ignored)) add_batch(path);
    }
  }

  int64_t size() const override { return total_; }
  bool labelled() const override { return true; }
  int64_t channels() const override { return 3; }
  int64_t label(int64_t index) const override {
    return static_cast<int64_t>(record(index).bytes[0]);
  }

  Image load(int64_t index) const override {
    const std::byte* planes = record(index).bytes + 1;
    Image image(kSide, kSide, 3);
    for (int64_t i = 0; i < kPlane; ++i) {
      for (int64_t c = 0; c < 3; ++c) {
        image.pixels[static_cast<size_t>(3 * i + c)] = static_cast<uint8_t>(planes[c * kPlane + i]);
      }
    }
    return image;
  }

  std::string describe(int64_t index) const override {
    const Record r = record(index);
    return fmt::format("{}: record {}", r.batch->file->path().string(), index - r.batch->first);
  }

  std::string fingerprint() const override {
    Hash64 hash;
    hash.add_text("cifar10");
    for (const Part& batch : batches_) {
      hash.add(batch.file->bytes().data(), batch.file->bytes().size());
    }
    return hash.hex();
  }

 private:
  struct Part {
    std::shared_ptr<const MappedFile> file;
    int64_t first;  // index of its first record
  };
  struct Record {
    const Part* batch;
    const std::byte* bytes;
  };

  void add_batch(const fs::path& path) {
    auto file = MappedFile::open(path);
    const auto bytes = static_cast<int64_t>(file->bytes().size());
    if (bytes % kRecordBytes != 0) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("{}: {} bytes are no multiple of {}, the size of a record",
                              path.string(), bytes, kRecordBytes));
    }
    const int64_t records = bytes / kRecordBytes;
    for (int64_t i = 0; i < records; ++i) {
      const auto label = static_cast<int>(file->bytes()[static_cast<size_t>(i * kRecordBytes)]);
      if (label >= kClasses) {
        throw Error(ErrorCode::corrupt_data,
                    fmt::format("{}: record {} has the label {}", path.string(), i, label));
      }
    }
    batches_.push_back({std::move(file), total_});
    total_ += records;
  }

  Record record(int64_t index) const {
    size_t b = batches_.size() - 1;
    while (batches_[b].first > index) --b;
    const Part& batch = batches_[b];
    return {&batch, batch.file->bytes().data() + (index - batch.first) * kRecordBytes};
  }

  std::vector<Part> batches_;
  int64_t total_ = 0;
};

}  // namespace

std::unique_ptr<ImageSource> open_cifar10(const DataSpec& spec, const SpecOptions& options) {
  return std::make_unique<Cifar10Source>(spec.path, options.split);
}

}  // namespace narrow
