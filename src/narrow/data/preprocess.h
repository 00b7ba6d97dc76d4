// SPDX-License-Identifier: Apache-2.0
// From decoded pictures to a model's input: what the specification says, and for the rest what the
// model wants. Order: channels, geometry, (pixel * scale - mean) / std.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/data/dataset.h"
#include "narrow/data/image.h"
#include "narrow/data/spec_options.h"

namespace narrow {

/// How the dimensions of one sample are arranged.
enum class SampleForm : uint8_t { nchw, nhwc, plane, flat };  // plane: [H, W]; flat: [C*H*W]

class Preprocess {
 public:
  /// `source_channels`: 1 or 3 where the data have one known form, else 0. Throws invalid_argument
  /// when the options contradict the model, unsupported when its input is no picture.
  Preprocess(const SpecOptions& options, const DataHints& hints, int64_t source_channels);

  const std::string& input_name() const { return input_name_; }
  DType dtype() const { return dtype_; }

  /// The picture with its final size and channels; `what` names it in errors.
  Image prepare(const Image& image, const std::string& what) const;
  /// Dimensions of a batch of `samples` pictures of this size.
  Dims batch_dims(int64_t samples, ImageSize size) const;
  /// Writes one prepared picture as sample `index` of the batch.
  void store(const Image& prepared, int64_t index, Tensor& batch) const;

 private:
  void read_model_dims(const Dims& dims, int64_t source_channels);
  void choose_values();
  Image place(const Image& image, const std::string& what) const;

  SpecOptions options_;
  std::string input_name_ = "x";
  DType dtype_ = DType::float32;
  SampleForm form_ = SampleForm::nchw;
  int64_t channels_ = 3;
  std::optional<int64_t> model_width_;
  std::optional<int64_t> model_height_;
  std::optional<int64_t> model_elements_;  // of a flat input
  std::vector<float> values_;              // per output channel: the value of each byte
};

}  // namespace narrow
