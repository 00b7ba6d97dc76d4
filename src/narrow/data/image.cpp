// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "narrow/core/error.h"

namespace narrow {
namespace {

/// For each output position the two source positions and the weight of the second.
struct Taps {
  std::vector<int64_t> first;
  std::vector<int64_t> second;
  std::vector<double> weight;

  Taps(int64_t from, int64_t to) {
    const auto size = static_cast<double>(from);
    for (int64_t i = 0; i < to; ++i) {
      const double at = (static_cast<double>(i) + 0.5) * size / static_cast<double>(to) - 0.5;
      const double clamped = std::clamp(at, 0.0, size - 1);
      const auto low = static_cast<int64_t>(clamped);
      first.push_back(low);
      second.push_back(std::min(low + 1, from - 1));
      weight.push_back(clamped - static_cast<double>(low));
    }
  }
};

}  // namespace

Image decode_image(std::span<const std::byte> bytes, const std::string& what) {
  const auto byte = [&](size_t i) { return i < bytes.size() ? static_cast<int>(bytes[i]) : -1; };
  if (byte(0) == 0xff && byte(1) == 0xd8) return decode_jpeg(bytes, what);
  if (byte(0) == 0x89 && byte(1) == 'P' && byte(2) == 'N' && byte(3) == 'G') {
    return decode_png(bytes, what);
  }
  throw Error(ErrorCode::corrupt_data, fmt::format("{}: neither a JPEG nor a PNG picture", what));
}

Image to_gray(const Image& image) {
  if (image.channels == 1) return image;
  Image out(image.width, image.height, 1);
  for (size_t i = 0; i < out.pixels.size(); ++i) {
    const uint8_t* p = image.pixels.data() + 3 * i;
    // 0.299, 0.587, 0.114 in units of 2^-16, which sum to 2^16.
    const uint32_t luma = p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 32768u;
    out.pixels[i] = static_cast<uint8_t>(luma >> 16);
  }
  return out;
}

Image to_rgb(const Image& image) {
  if (image.channels == 3) return image;
  Image out(image.width, image.height, 3);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    std::fill_n(out.pixels.data() + 3 * i, 3, image.pixels[i]);
  }
  return out;
}

Image resize(const Image& image, ImageSize size) {
  if (size == image.size()) return image;
  Image out(size.width, size.height, image.channels);
  const Taps columns(image.width, size.width);
  const Taps rows(image.height, size.height);
  const int64_t c = image.channels;
  const int64_t stride = image.width * c;
  uint8_t* to = out.pixels.data();
  for (size_t y = 0; y < static_cast<size_t>(size.height); ++y) {
    const uint8_t* top = image.pixels.data() + rows.first[y] * stride;
    const uint8_t* bottom = image.pixels.data() + rows.second[y] * stride;
    const double wy = rows.weight[y];
    for (size_t x = 0; x < static_cast<size_t>(size.width); ++x) {
      const int64_t left = columns.first[x] * c;
      const int64_t right = columns.second[x] * c;
      const double wx = columns.weight[x];
      for (int64_t k = 0; k < c; ++k) {
        const double a = top[left + k] * (1 - wx) + top[right + k] * wx;
        const double b = bottom[left + k] * (1 - wx) + bottom[right + k] * wx;
        *to++ = static_cast<uint8_t>(std::nearbyint(a * (1 - wy) + b * wy));
      }
    }
  }
  return out;
}

Image crop_center(const Image& image, ImageSize size) {
  if (size == image.size()) return image;
  Image out(size.width, size.height, image.channels);
  const int64_t left = (image.width - size.width) / 2;
  const int64_t top = (image.height - size.height) / 2;
  const auto row_bytes = static_cast<size_t>(size.width * image.channels);
  for (int64_t y = 0; y < size.height; ++y) {
    const uint8_t* from = image.pixels.data() + ((top + y) * image.width + left) * image.channels;
    std::memcpy(out.pixels.data() + static_cast<size_t>(y) * row_bytes, from, row_bytes);
  }
  return out;
}

Image letterbox(const Image& image, ImageSize size, uint8_t fill) {
  const double scale =
      std::min(static_cast<double>(size.width) / static_cast<double>(image.width),
               static_cast<double>(size.height) / static_cast<double>(image.height));
  const auto side = [&](int64_t length, int64_t most) {
    const double wanted = std::nearbyint(static_cast<double>(length) * scale);
    return std::clamp<int64_t>(static_cast<int64_t>(wanted), 1, most);
  };
  const Image inner =
      resize(image, {side(image.width, size.width), side(image.height, size.height)});
  Image out(size.width, size.height, image.channels);
  std::fill(out.pixels.begin(), out.pixels.end(), fill);
  const int64_t left = (size.width - inner.width) / 2;
  const int64_t top = (size.height - inner.height) / 2;
  const auto row_bytes = static_cast<size_t>(inner.width * inner.channels);
  for (int64_t y = 0; y < inner.height; ++y) {
    uint8_t* to = out.pixels.data() + ((top + y) * size.width + left) * out.channels;
    std::memcpy(to, inner.pixels.data() + static_cast<size_t>(y) * row_bytes, row_bytes);
  }
  return out;
}

ImageSize with_short_side(ImageSize size, int64_t side) {
  const auto scaled = [side](int64_t length, int64_t shorter) {
    return std::max<int64_t>(1, side * length / shorter);
  };
  if (size.width <= size.height) return {side, scaled(size.height, size.width)};
  return {scaled(size.width, size.height), side};
}

}  // namespace narrow
