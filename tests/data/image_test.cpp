// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/image.h"

#include <cstring>

#include "data/data_testing.h"
#include "narrow/core/rng.h"
#include "narrow/data/npz.h"

namespace narrow {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::error_of;
using testing::expect_contains;
using testing::golden;

Image decode(const std::string& bytes) {
  const std::vector<char> exact(bytes.begin(), bytes.end());
  return decode_image({reinterpret_cast<const std::byte*>(exact.data()), exact.size()}, "t");
}

/// The largest difference of two bytes.
int difference(const Image& image, const Tensor& expected) {
  const auto e = expected.data<uint8_t>();
  EXPECT_EQ(image.pixels.size(), e.size());
  int largest = 0;
  for (size_t i = 0; i < std::min(e.size(), image.pixels.size()); ++i) {
    largest = std::max(largest, std::abs(int{image.pixels[i]} - int{e[i]}));
  }
  return largest;
}

class Decoded : public ::testing::TestWithParam<const char*> {};

TEST_P(Decoded, EqualsPillow) {
  const std::string name = GetParam();
  const Tensor expected = read_npz(golden("decoded.npz")).at(name);
  const Image image = decode(bytes_of(golden(name)));
  EXPECT_EQ(image.height, expected.dim(0));
  EXPECT_EQ(image.width, expected.dim(1));
  EXPECT_EQ(image.channels, expected.rank() == 3 ? 3 : 1);
  EXPECT_EQ(difference(image, expected), 0);
}

INSTANTIATE_TEST_SUITE_P(Image, Decoded,
                         ::testing::Values("baseline.jpg", "full_chroma.jpg", "progressive.jpg",
                                           "gray.jpg", "rgb.png", "gray.png", "palette.png",
                                           "alpha.png", "bits.png", "sixteen.png"));

TEST(Image, CmykBecomesRgb) {
  const Tensor expected = read_npz(golden("decoded.npz")).at("cmyk.jpg");
  // Pillow multiplies with another rounding.
  EXPECT_LE(difference(decode(bytes_of(golden("cmyk.jpg"))), expected), 1);
}

TEST(Image, LumaEqualsPillow) {
  const Tensor expected = read_npz(golden("decoded.npz")).at("luma");
  EXPECT_EQ(difference(to_gray(decode(bytes_of(golden("rgb.png")))), expected), 0);
}

TEST(Image, GrayBecomesThreeEqualChannels) {
  Image gray(2, 1, 1);
  gray.pixels = {7, 200};
  EXPECT_EQ(to_rgb(gray).pixels, (std::vector<uint8_t>{7, 7, 7, 200, 200, 200}));
  EXPECT_EQ(to_gray(to_rgb(gray)).pixels, gray.pixels);
}

TEST(Image, EveryTruncationIsAnError) {
  for (const char* name : {"baseline.jpg", "progressive.jpg", "rgb.png", "palette.png"}) {
    const std::string whole = bytes_of(golden(name));
    // The last two bytes of a JPEG are its end marker, the last twelve of a PNG its end chunk.
    const size_t end = whole.size() - (name[0] == 'r' || name[1] == 'a' ? 0 : 2);
    for (size_t n = 0; n < end; n += 3) {
      const Error e = error_of([&] { (void)decode(whole.substr(0, n)); });
      EXPECT_EQ(e.code(), ErrorCode::corrupt_data) << name << " cut at " << n;
    }
  }
}

TEST(Image, FlippedBitsNeverCrash) {
  Rng rng(3);
  for (const char* name :
       {"baseline.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png", "sixteen.png"}) {
    const std::string whole = bytes_of(golden(name));
    for (int i = 0; i < 400; ++i) {
      std::string bad = whole;
      const auto at = rng.below(bad.size());
      bad[at] = static_cast<char>(bad[at] ^ (1 << rng.below(8)));
      try {
        const Image image = decode(bad);
        EXPECT_EQ(image.pixels.size(),
                  static_cast<size_t>(image.width * image.height * image.channels));
      } catch (const Error& e) {
        EXPECT_NE(e.code(), ErrorCode::internal);
      }
    }
  }
}

TEST(Image, HugeClaimsAllocateNothing) {
  std::string jpeg = bytes_of(golden("gray.jpg"));
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\x7f\xff\x7f\xff");
  EXPECT_EQ(error_of([&] { (void)decode(jpeg); }).code(), ErrorCode::resource_exhausted);
  jpeg.replace(frame + 5, 4, std::string("\x1f\x00\x1f\x00", 4));
  expect_contains(error_of([&] { (void)decode(jpeg); }).what(), "cannot hold");

  std::string png = bytes_of(golden("gray.png"));
  png.replace(16, 8, std::string("\x00\x00\xff\xff\x00\x00\xff\xff", 8));
  EXPECT_THROW((void)decode(png), Error);  // the header's checksum does not match any more
}

TEST(Image, OtherFilesAreRefused) {
  expect_contains(error_of([] { (void)decode("GIF89a and more"); }).what(), "neither a JPEG");
  EXPECT_THROW((void)decode(""), Error);
}

TEST(Image, ResizeEqualsTheFormula) {
  const auto expected = read_npz(golden("resized.npz"));
  const Tensor& source = expected.at("source");
  Image image(source.dim(1), source.dim(0), 3);
  std::memcpy(image.pixels.data(), source.raw(), image.pixels.size());
  for (const auto& [name, tensor] : expected) {
    if (name == "source") continue;
    const Image got = resize(image, {tensor.dim(1), tensor.dim(0)});
    EXPECT_EQ(difference(got, tensor), 0) << name;
  }
}

TEST(Image, ResizeOfAConstantIsConstant) {
  Image image(13, 7, 3);
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{201});
  for (const uint8_t v : resize(image, {40, 3}).pixels) EXPECT_EQ(v, 201);
}

TEST(Image, CropCutsFromTheCentre) {
  Image image(5, 4, 1);
  for (size_t i = 0; i < 20; ++i) image.pixels[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(crop_center(image, {3, 2}).pixels, (std::vector<uint8_t>{6, 7, 8, 11, 12, 13}));
  EXPECT_EQ(crop_center(image, {2, 1}).pixels, (std::vector<uint8_t>{6, 7}));  // odd: right, bottom
}

TEST(Image, LetterboxKeepsTheAspect) {
  Image image(4, 2, 1);
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{9});
  const Image wide = letterbox(image, {8, 8}, 114);
  EXPECT_EQ(wide.size(), (ImageSize{8, 8}));
  for (int64_t y = 0; y < 8; ++y) {
    const uint8_t expected = y >= 2 && y < 6 ? 9 : 114;
    EXPECT_EQ(wide.pixels[static_cast<size_t>(8 * y + 3)], expected) << y;
  }
  const Image narrow = letterbox(image, {2, 8}, 0);  // 2 x 1 in the middle
  EXPECT_EQ(std::count(narrow.pixels.begin(), narrow.pixels.end(), 9), 2);
}

TEST(Image, ShortSide) {
  EXPECT_EQ(with_short_side({500, 375}, 256), (ImageSize{341, 256}));
  EXPECT_EQ(with_short_side({375, 500}, 256), (ImageSize{256, 341}));
  EXPECT_EQ(with_short_side({65535, 1}, 2), (ImageSize{131070, 2}));
}

}  // namespace
}  // namespace narrow
