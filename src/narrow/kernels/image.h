// SPDX-License-Identifier: Apache-2.0
// The shapes of a convolution, and how its kernels see the image: channels last, read in place or
// through a padded copy, one pointer per output pixel and one offset per tap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "narrow/kernels/kernel_set.h"

namespace narrow::kernels {

using Extents = std::array<int64_t, 3>;  // depth, height, width; 1 where an axis is absent

struct ConvProblem {
  int64_t batch = 1;
  int64_t channels = 1;  // of the input
  int64_t filters = 1;   // channels of the output
  int64_t groups = 1;
  Extents in = {1, 1, 1};
  Extents kernel = {1, 1, 1};
  Extents stride = {1, 1, 1};
  Extents dilation = {1, 1, 1};
  Extents pad_begin = {0, 0, 0};
  Extents pad_end = {0, 0, 0};
  Extents out = {1, 1, 1};

  int64_t window() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t out_pixels() const { return batch * out[0] * out[1] * out[2]; }
  int64_t in_values() const { return batch * channels * in[0] * in[1] * in[2]; }
  int64_t out_values() const { return out_pixels() * filters; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return filters / groups; }
  int64_t macs() const { return out_values() * group_channels() * window(); }
};

/// The image as it comes, channels last.
struct ImageSource {
  const uint8_t* data = nullptr;
  uint8_t flip = 0;  // 0x80 for int8 codes
  uint8_t fill = 0;  // what padding holds after the flip: the zero_point; 0 for floats
};

/// What the image's values are and what a kernel asks of them.
struct ImageReads {
  int64_t element_bytes = 1;
  bool must_copy = false;  // kernels read past the last run, or the bytes have to be flipped
  int64_t piece_macs = 0;  // work of a piece that a thread copies and computes; 0: whole images
};

/// Hands the images to a kernel piece by piece, so that padded copies stay in a cache. Pieces are
/// images one after the other; with several threads, and work enough for them, rows of outputs or
/// images that each copies for itself.
class ImageReader {
 public:
  ImageReader(const ConvProblem& problem, const ImageReads& reads);

  /// Bytes of 64-byte aligned scratch for `reads`.
  static size_t scratch_bytes(const ConvProblem& problem, const ImageReads& reads);

  /// Byte offsets of the taps of a pixel: whole kernel rows, or all kernel positions. They live in
  /// the scratch; `count` is the number wanted, the last ones repeat the first tap.
  enum class Taps { rows, positions };
  std::span<const int64_t> taps(Taps kind, int64_t count, std::span<std::byte> scratch) const;

  /// Pointers of output pixels [first, first + count) of a piece, `offset` bytes into the pixel.
  void pixels(const uint8_t* base, int64_t first, int64_t count, int64_t offset,
              const uint8_t** rows) const;

  /// body(base of the piece, first output pixel, number of output pixels), on several threads where
  /// pieces are theirs.
  using Piece = std::function<void(const uint8_t* base, int64_t first, int64_t count)>;
  void for_pieces(const KernelSet& kernels, const ImageSource& source, std::span<std::byte> scratch,
                  const Piece& body) const;

 private:
  void choose_pieces(int64_t piece_macs);
  void pad_rows(const KernelSet& kernels, const ImageSource& source, int64_t image, int64_t first,
                int64_t last, uint8_t* to) const;
  void pad_piece(const KernelSet& kernels, const ImageSource& source, int64_t piece, uint8_t* copy,
                 const Piece& body) const;
  void pad_images(const KernelSet& kernels, const ImageSource& source, int64_t first, int64_t count,
                  uint8_t* copy) const;

  const ConvProblem& p_;
  bool copies_ = false;
  int64_t pixel_;      // bytes of one pixel
  Extents extents_;    // of one (padded) image
  int64_t image_ = 0;  // bytes of one (padded) image
  int64_t chunk_ = 1;  // images per piece
  // Pieces of threads, each in one of `slots_` places of the scratch:
  int64_t pieces_ = 0;        // of all images
  int64_t band_rows_ = 0;     // output rows per piece; 0: whole images
  int64_t bands_ = 0;         // per image
  int64_t piece_images_ = 0;  // where pieces are whole images
  int64_t slot_bytes_ = 0;    // with what kernels read past the end
  int64_t slots_ = 0;
};

}  // namespace narrow::kernels
