// SPDX-License-Identifier: Apache-2.0
// The options of data specifications: one table, and their values in typed form.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/dtype.h"
#include "narrow/data/dataset.h"

namespace narrow {

/// One row per option. `kinds` lists the data kinds that take it.
struct DataOption {
  const char* name;
  const char* value;  // how a value looks; "" for a flag
  std::vector<std::string> kinds;
  const char* help;
};
std::span<const DataOption> data_options();
const std::vector<std::string>& data_kinds();

struct ImageSize {
  int64_t width = 0;
  int64_t height = 0;
  friend bool operator==(const ImageSize&, const ImageSize&) = default;
};
enum class ImageLayout : uint8_t { nchw, nhwc };
enum class ChannelOrder : uint8_t { rgb, bgr };

/// A number that keeps its fraction, so that x * 1/255 is rounded once.
struct Fraction {
  double numerator = 1;
  double denominator = 1;
  double value() const { return numerator / denominator; }
};

/// What was written; what was not is filled from the model (see preprocess.h).
struct SpecOptions {
  std::optional<ImageSize> resize;      // exactly this size
  std::optional<int64_t> resize_short;  // short side, aspect kept
  std::optional<ImageSize> crop;        // from the centre
  std::optional<ImageSize> letterbox;   // aspect kept, borders filled with `pad`
  uint8_t pad = 114;                    // the grey of the YOLO family
  std::vector<Fraction> mean;           // one, or one per channel
  std::vector<Fraction> std;
  std::optional<Fraction> scale;
  std::optional<ImageLayout> layout;
  ChannelOrder order = ChannelOrder::rgb;
  std::optional<DType> dtype;
  bool gray = false;
  std::string split = "test";
  std::string labels;  // "", "none", "folders" or a CSV file
  std::optional<int64_t> samples;
};

/// Checks names and values; throws invalid_argument naming the option.
SpecOptions parse_spec_options(const DataSpec& spec);

}  // namespace narrow
