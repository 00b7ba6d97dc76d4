// SPDX-License-Identifier: Apache-2.0
// Pictures as bytes, and what brings them to a model's size: decoding, resizing, cropping. All
// arithmetic is plain float or integer, so that every machine gives the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "narrow/data/spec_options.h"

namespace narrow {

/// Rows from the top, pixels from the left, channels interleaved: 1 (grey) or 3 (red, green, blue).
struct Image {
  int64_t width = 0;
  int64_t height = 0;
  int64_t channels = 0;
  std::vector<uint8_t> pixels;

  Image() = default;
  Image(int64_t w, int64_t h, int64_t c)
      : width(w), height(h), channels(c), pixels(static_cast<size_t>(w * h * c)) {}
  ImageSize size() const { return {width, height}; }
};

/// Largest picture that is decoded: what 60-megapixel cameras make.
inline constexpr int64_t kMaxPixels = int64_t{1} << 26;

/// JPEG or PNG, recognised by the first bytes. Alpha is dropped, 16 bits become 8, palettes and
/// CMYK become RGB; orientation tags and colour profiles are ignored. Throws corrupt_data or
/// unsupported naming `what`; a picture cut off in the middle is an error.
Image decode_image(std::span<const std::byte> bytes, const std::string& what);
Image decode_jpeg(std::span<const std::byte> bytes, const std::string& what);
Image decode_png(std::span<const std::byte> bytes, const std::string& what);

/// Luma of ITU-R BT.601 in 16-bit fixed point, or grey repeated.
Image to_gray(const Image& image);
Image to_rgb(const Image& image);

/// Bilinear between the four nearest pixels, pixel centres at half coordinates, edges repeated, no
/// smoothing before shrinking (as ONNX Resize with half_pixel, and OpenCV's INTER_LINEAR); half to
/// even.
Image resize(const Image& image, ImageSize size);
/// From the centre; an odd pixel is cut on the right or bottom. The size must fit.
Image crop_center(const Image& image, ImageSize size);
/// Resized to fit with its aspect kept, centred, borders filled.
Image letterbox(const Image& image, ImageSize size, uint8_t fill);
/// The size whose short side is `side`, aspect kept, the long side rounded down as torchvision
/// does.
ImageSize with_short_side(ImageSize size, int64_t side);

}  // namespace narrow
