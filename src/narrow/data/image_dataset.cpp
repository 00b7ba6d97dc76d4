// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/image_dataset.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow {
namespace {

class ImageDataset final : public Dataset {
 public:
  ImageDataset(std::unique_ptr<ImageSource> source, Preprocess preprocess)
      : source_(std::move(source)), preprocess_(std::move(preprocess)) {}

  int64_t size() const override { return source_->size(); }
  bool labelled() const override { return source_->labelled(); }
  std::string fingerprint() const override { return source_->fingerprint(); }

  Batch get(std::span<const int64_t> indices) const override {
    check_indices(indices, size());
    Batch batch;
    const auto samples = static_cast<int64_t>(indices.size());
    if (samples == 0) return batch;
    // The first picture sets the size of all where the model leaves it open.
    const Image first = load(indices[0]);
    Tensor tensor(preprocess_.dtype(), preprocess_.batch_dims(samples, first.size()));
    preprocess_.store(first, 0, tensor);
    parallel_for(samples - 1, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin + 1; i < end + 1; ++i) {
        const int64_t index = indices[static_cast<size_t>(i)];
        const Image image = load(index);
        require_same_size(image, first, index);
        preprocess_.store(image, i, tensor);
      }
    });
    batch.inputs.emplace(preprocess_.input_name(), std::move(tensor));
    if (source_->labelled()) {
      for (const int64_t index : indices) batch.labels.push_back(source_->label(index));
    }
    return batch;
  }

 private:
  Image load(int64_t index) const {
    return preprocess_.prepare(source_->load(index), source_->describe(index));
  }

  void require_same_size(const Image& image, const Image& first, int64_t index) const {
    if (image.size() == first.size()) return;
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: {} x {} pixels, other pictures of the batch have {} x {}",
                    source_->describe(index), image.width, image.height, first.width, first.height),
        "give one size with resize=WxH, crop=WxH or letterbox=WxH");
  }

  std::unique_ptr<ImageSource> source_;
  Preprocess preprocess_;
};

}  // namespace

void check_indices(std::span<const int64_t> indices, int64_t size) {
  for (const int64_t index : indices) {
    if (index < 0 || index >= size) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("sample {} is outside a data set of {}", index, size));
    }
  }
}

std::unique_ptr<Dataset> make_image_dataset(std::unique_ptr<ImageSource> source,
                                            Preprocess preprocess) {
  return std::make_unique<ImageDataset>(std::move(source), std::move(preprocess));
}

}  // namespace narrow
