// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/preprocess.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/half.h"

namespace narrow {
namespace {

constexpr size_t kByteValues = 256;

[[noreturn]] void mismatch(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

bool is_channel_count(int64_t dim) {
  return dim == 1 || dim == 3;
}

std::optional<int64_t> known(int64_t dim) {
  return dim > 0 ? std::optional<int64_t>(dim) : std::nullopt;
}

const Fraction& at_channel(const std::vector<Fraction>& values, size_t channel) {
  return values.size() == 1 ? values[0] : values[channel];
}

}  // namespace

Preprocess::Preprocess(const SpecOptions& options, const DataHints& hints, int64_t source_channels)
    : options_(options) {
  if (hints.inputs.size() > 1) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the model has {} inputs; pictures fill only one", hints.inputs.size()),
                "give the data as npz:FILE with one array for each input");
  }
  DType wanted = DType::float32;
  Dims dims;
  if (!hints.inputs.empty()) {
    input_name_ = hints.inputs[0].name;
    dims = hints.inputs[0].dims;
    if (hints.inputs[0].dtype != DType::undefined) wanted = hints.inputs[0].dtype;
  }
  dtype_ = options.dtype.value_or(wanted);
  const bool possible = dtype_ == DType::uint8 || is_float(dtype_);
  if (!possible || (dtype_ == DType::uint8) != (wanted == DType::uint8)) {
    mismatch(fmt::format("input '{}' of the model takes {}; pictures give {}", input_name_,
                         to_string(wanted), to_string(possible ? dtype_ : DType::float32)));
  }
  if (is_float(dtype_) && is_float(wanted)) dtype_ = wanted;
  read_model_dims(dims, source_channels);
  choose_values();
}

void Preprocess::read_model_dims(const Dims& dims, int64_t source_channels) {
  const int64_t fallback = options_.gray || source_channels == 1 ? 1 : 3;
  channels_ = fallback;
  const auto shape_text = [&] { return fmt::format("'{}' {}", input_name_, to_string(dims)); };
  if (dims.size() == 4) {
    const bool first = is_channel_count(dims[1]);
    const bool last = is_channel_count(dims[3]) && !first;
    const ImageLayout guess = last ? ImageLayout::nhwc : ImageLayout::nchw;
    const bool nhwc = options_.layout.value_or(guess) == ImageLayout::nhwc;
    form_ = nhwc ? SampleForm::nhwc : SampleForm::nchw;
    const int64_t c = dims[nhwc ? 3 : 1];
    if (c > 0 && !is_channel_count(c)) {
      mismatch(fmt::format("input {} has {} channels; pictures have 1 or 3", shape_text(), c),
               "layout=nhwc or layout=nchw says where the channels are");
    }
    if (c > 0) channels_ = c;
    model_height_ = known(dims[nhwc ? 1 : 2]);
    model_width_ = known(dims[nhwc ? 2 : 3]);
  } else if (dims.size() == 3) {
    form_ = SampleForm::plane;
    channels_ = 1;
    model_height_ = known(dims[1]);
    model_width_ = known(dims[2]);
  } else if (dims.size() == 2) {
    form_ = SampleForm::flat;
    model_elements_ = known(dims[1]);
  } else if (dims.empty()) {
    form_ = options_.layout == ImageLayout::nhwc ? SampleForm::nhwc : SampleForm::nchw;
  } else {
    mismatch(fmt::format("input {} is no picture", shape_text()), "give the data as npz:FILE");
  }
  if (options_.gray && channels_ != 1) {
    mismatch(
        fmt::format("input {} takes {} channels; option gray gives 1", shape_text(), channels_));
  }
}

void Preprocess::choose_values() {
  for (const auto* list : {&options_.mean, &options_.std}) {
    if (list->size() > 1 && list->size() != static_cast<size_t>(channels_)) {
      mismatch(fmt::format("data option {}= has {} values for {} channel",
                           list == &options_.mean ? "mean" : "std", list->size(), channels_));
    }
  }
  if (dtype_ == DType::uint8) return;
  const Fraction scale = options_.scale.value_or(Fraction{1, 255});
  values_.resize(static_cast<size_t>(channels_) * kByteValues);
  for (size_t c = 0; c < static_cast<size_t>(channels_); ++c) {
    const double mean = options_.mean.empty() ? 0 : at_channel(options_.mean, c).value();
    const double std = options_.std.empty() ? 1 : at_channel(options_.std, c).value();
    for (size_t v = 0; v < kByteValues; ++v) {
      const double scaled = static_cast<double>(v) * scale.numerator / scale.denominator;
      values_[c * kByteValues + v] = static_cast<float>((scaled - mean) / std);
    }
  }
}

Image Preprocess::place(const Image& image, const std::string& what) const {
  const bool asked =
      options_.resize || options_.resize_short || options_.crop || options_.letterbox;
  if (!asked) {
    const ImageSize size{model_width_.value_or(image.width), model_height_.value_or(image.height)};
    return resize(image, size);
  }
  if (options_.letterbox) return letterbox(image, *options_.letterbox, options_.pad);
  Image out = image;
  if (options_.resize) out = resize(out, *options_.resize);
  if (options_.resize_short) {
    const ImageSize size = with_short_side(out.size(), *options_.resize_short);
    if (size.width * size.height > kMaxPixels) {
      mismatch(fmt::format("{}: resize={} makes {} x {} pixels, more than the {} allowed", what,
                           *options_.resize_short, size.width, size.height, kMaxPixels));
    }
    out = resize(out, size);
  }
  if (options_.crop) {
    if (options_.crop->width > out.width || options_.crop->height > out.height) {
      mismatch(fmt::format("{}: crop={}x{} is larger than the picture of {} x {}", what,
                           options_.crop->width, options_.crop->height, out.width, out.height),
               "resize it first with resize=");
    }
    out = crop_center(out, *options_.crop);
  }
  return out;
}

Image Preprocess::prepare(const Image& image, const std::string& what) const {
  Image out = place(channels_ == 1 ? to_gray(image) : to_rgb(image), what);
  const bool fits = out.width == model_width_.value_or(out.width) &&
                    out.height == model_height_.value_or(out.height);
  if (!fits) {
    mismatch(fmt::format("{}: {} x {} pixels after preprocessing; input '{}' takes {} x {}", what,
                         out.width, out.height, input_name_, model_width_.value_or(out.width),
                         model_height_.value_or(out.height)),
             fmt::format("add crop={0}x{1}, or resize={0}x{1}", model_width_.value_or(out.width),
                         model_height_.value_or(out.height)));
  }
  const int64_t elements = out.width * out.height * out.channels;
  if (model_elements_ && elements != *model_elements_) {
    mismatch(fmt::format("{}: {} values ({} x {} x {}); input '{}' takes {}", what, elements,
                         out.channels, out.height, out.width, input_name_, *model_elements_),
             "set the size with resize=WxH and the channels with gray");
  }
  return out;
}

Dims Preprocess::batch_dims(int64_t samples, ImageSize size) const {
  switch (form_) {
    case SampleForm::nchw:
      return {samples, channels_, size.height, size.width};
    case SampleForm::nhwc:
      return {samples, size.height, size.width, channels_};
    case SampleForm::plane:
      return {samples, size.height, size.width};
    case SampleForm::flat:
      return {samples, channels_ * size.height * size.width};
  }
  return {};
}

void Preprocess::store(const Image& prepared, int64_t index, Tensor& batch) const {
  const auto channels = static_cast<size_t>(prepared.channels);
  const size_t pixels = static_cast<size_t>(prepared.width * prepared.height);
  const size_t elements = pixels * channels;
  const bool interleaved = options_.layout.value_or(ImageLayout::nchw) == ImageLayout::nhwc;
  const bool nhwc = form_ == SampleForm::nhwc || (form_ == SampleForm::flat && interleaved);
  const size_t width = static_cast<size_t>(bits(dtype_)) / 8;
  std::byte* to = batch.mutable_raw() + static_cast<size_t>(index) * elements * width;
  for (size_t c = 0; c < channels; ++c) {
    const size_t source = options_.order == ChannelOrder::bgr ? channels - 1 - c : c;
    const uint8_t* from = prepared.pixels.data() + source;
    const float* table = values_.empty() ? nullptr : values_.data() + c * kByteValues;
    const auto write = [&](auto* out, auto value) {
      out += nhwc ? c : c * pixels;
      const size_t step = nhwc ? channels : 1;
      for (size_t i = 0; i < pixels; ++i) out[i * step] = value(from[i * channels]);
    };
    if (dtype_ == DType::uint8) {
      write(reinterpret_cast<uint8_t*>(to), [](uint8_t v) { return v; });
    } else if (dtype_ == DType::float32) {
      write(reinterpret_cast<float*>(to), [table](uint8_t v) { return table[v]; });
    } else if (dtype_ == DType::float64) {
      write(reinterpret_cast<double*>(to), [table](uint8_t v) { return double{table[v]}; });
    } else if (dtype_ == DType::float16) {
      write(reinterpret_cast<Half*>(to), [table](uint8_t v) { return to_half(table[v]); });
    } else {
      write(reinterpret_cast<BFloat16*>(to), [table](uint8_t v) { return to_bfloat16(table[v]); });
    }
  }
}

}  // namespace narrow
