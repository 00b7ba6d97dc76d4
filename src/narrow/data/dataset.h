// SPDX-License-Identifier: Apache-2.0
// Data sets by one documented grammar (docs/data.md), read lazily, batched, as model inputs.
//
//   mnist:DIR[,split=train|test]   idx files, gz or not; any MNIST-like folder
//   cifar10:DIR[,split=..]         the binary batches
//   npz:FILE                       arrays x and y, or arrays named as the model's inputs (+ y)
//   images:DIR                     jpeg/png; labels from sub-folders or labels=CSV, or none
//
// Options, comma separated: resize=WxH|S crop=S letterbox=WxH mean=a/b/c std=a/b/c scale=1/255
// layout=nchw|nhwc order=rgb|bgr dtype=float32|uint8 gray labels=FILE samples=N
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/tensor.h"

namespace narrow {

/// What the model wants, to fill what the spec leaves open (size, layout, dtype, input names).
struct DataHints {
  struct Input {
    std::string name;
    DType dtype = DType::float32;
    Dims dims;  // -1 where unknown; dims[0] is the batch
  };
  std::vector<Input> inputs;
};

struct Batch {
  std::map<std::string, Tensor> inputs;  // by model input name; leading dimension = samples
  std::vector<int64_t> labels;           // empty: the data are unlabelled
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual bool labelled() const = 0;
  /// The samples of these indices, in this order. Thread-safe. Throws with the file named.
  virtual Batch get(std::span<const int64_t> indices) const = 0;
  /// The batch size that the data insist on (npz files with a fixed batch input), or 0.
  virtual int64_t fixed_batch() const { return 0; }
  /// Hash of the content (names, sizes, bytes; for large folders names and sizes): for metadata.
  virtual std::string fingerprint() const = 0;
};

/// A parsed SPEC; also a YAML block in a recipe.
struct DataSpec {
  std::string kind;  // "mnist", "cifar10", "npz", "images"
  std::string path;
  std::map<std::string, std::string> options;
  std::string text() const;  // canonical spelling
};

/// Throws invalid_argument naming the part that is wrong and listing what is known.
DataSpec parse_data_spec(std::string_view spec);

std::unique_ptr<Dataset> open_dataset(const DataSpec& spec, const DataHints& hints);

/// A view of some samples of another data set.
std::unique_ptr<Dataset> subset(std::shared_ptr<const Dataset> whole, std::vector<int64_t> indices);

}  // namespace narrow
