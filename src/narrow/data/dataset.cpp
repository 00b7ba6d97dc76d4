// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/core/suggest.h"
#include "narrow/data/image_dataset.h"
#include "narrow/data/spec_options.h"

namespace narrow {
namespace {

class Subset final : public Dataset {
 public:
  Subset(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {
    check_indices(indices_, whole_->size());
  }

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  bool labelled() const override { return whole_->labelled(); }
  int64_t fixed_batch() const override { return whole_->fixed_batch(); }

  Batch get(std::span<const int64_t> indices) const override {
    check_indices(indices, size());
    std::vector<int64_t> mapped;
    for (const int64_t i : indices) mapped.push_back(indices_[static_cast<size_t>(i)]);
    return whole_->get(mapped);
  }

  std::string fingerprint() const override {
    Hash64 hash;
    hash.add_text(whole_->fingerprint());
    for (const int64_t i : indices_) hash.add_number(i);
    return hash.hex();
  }

 private:
  std::shared_ptr<const Dataset> whole_;
  std::vector<int64_t> indices_;
};

struct KindRow {
  const char* name;
  std::unique_ptr<ImageSource> (*open)(const DataSpec&, const SpecOptions&);
};
constexpr KindRow kPictureKinds[] = {
    {"cifar10", open_cifar10}, {"images", open_image_folder}, {"mnist", open_mnist}};

std::unique_ptr<Dataset> open_whole(const DataSpec& spec, const SpecOptions& options,
                                    const DataHints& hints) {
  if (spec.kind == "npz") return open_npz_dataset(spec, hints);
  for (const KindRow& row : kPictureKinds) {
    if (spec.kind != row.name) continue;
    auto source = row.open(spec, options);
    Preprocess preprocess(options, hints, source->channels());
    return make_image_dataset(std::move(source), std::move(preprocess));
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("data: '{}' is no kind of data", spec.kind),
              did_you_mean(spec.kind, data_kinds()));
}

/// `count` positions spread evenly over [0, size).
std::vector<int64_t> spread(int64_t size, int64_t count) {
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i) {
    indices.push_back(static_cast<int64_t>(static_cast<__int128>(i) * size / count));
  }
  return indices;
}

}  // namespace

std::unique_ptr<Dataset> open_dataset(const DataSpec& spec, const DataHints& hints) {
  const auto& kinds = data_kinds();
  if (std::count(kinds.begin(), kinds.end(), spec.kind) == 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("data: '{}' is no kind of data", spec.kind),
                did_you_mean(spec.kind, kinds));
  }
  const SpecOptions options = parse_spec_options(spec);
  std::unique_ptr<Dataset> whole = open_whole(spec, options, hints);
  if (whole->size() == 0) {
    throw Error(ErrorCode::invalid_argument, fmt::format("data: '{}' is empty", spec.text()));
  }
  if (!options.samples || *options.samples >= whole->size()) return whole;
  auto indices = spread(whole->size(), *options.samples);
  return subset(std::shared_ptr<const Dataset>(std::move(whole)), std::move(indices));
}

std::unique_ptr<Dataset> subset(std::shared_ptr<const Dataset> whole,
                                std::vector<int64_t> indices) {
  return std::make_unique<Subset>(std::move(whole), std::move(indices));
}

}  // namespace narrow
