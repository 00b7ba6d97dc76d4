// SPDX-License-Identifier: Apache-2.0
// Data sets of pictures: a source hands out decoded pictures and labels, one Dataset turns them
// into batches. To add a kind: a source, a row in dataset.cpp, a test, a line in docs/data.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "narrow/data/dataset.h"
#include "narrow/data/image.h"
#include "narrow/data/preprocess.h"

namespace narrow {

class ImageSource {
 public:
  virtual ~ImageSource() = default;
  virtual int64_t size() const = 0;
  virtual bool labelled() const = 0;
  virtual int64_t label(int64_t index) const = 0;
  /// 1 or 3 where all pictures have one form, else 0.
  virtual int64_t channels() const = 0;
  /// Thread-safe. Throws with the file named.
  virtual Image load(int64_t index) const = 0;
  /// For errors: the file, or file and number.
  virtual std::string describe(int64_t index) const = 0;
  virtual std::string fingerprint() const = 0;
};

std::unique_ptr<ImageSource> open_mnist(const DataSpec& spec, const SpecOptions& options);
std::unique_ptr<ImageSource> open_cifar10(const DataSpec& spec, const SpecOptions& options);
std::unique_ptr<ImageSource> open_image_folder(const DataSpec& spec, const SpecOptions& options);

std::unique_ptr<Dataset> make_image_dataset(std::unique_ptr<ImageSource> source,
                                            Preprocess preprocess);
std::unique_ptr<Dataset> open_npz_dataset(const DataSpec& spec, const DataHints& hints);

/// Throws invalid_argument for an index outside [0, size).
void check_indices(std::span<const int64_t> indices, int64_t size);

/// Whether a folder has idx files of pictures.
bool looks_like_mnist(const std::string& folder);

}  // namespace narrow
