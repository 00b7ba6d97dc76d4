// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/image.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <thread>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/shape.h"

namespace narrow::kernels {
namespace {

// Padded copies stay within about half of a small L2 cache, so that the product reads them there.
constexpr int64_t kChunkBytes = 512 * 1024;
// Behind a padded image: kernels read up to 3 bytes past the last run.
constexpr int64_t kTailBytes = 64;
constexpr int64_t kAlign = 64;
// Rows of a piece have so many pixels at least: kernels compute some ten side by side.
constexpr int64_t kPiecePixels = 60;
constexpr int64_t kMostSlots = 64;

int64_t round_up(int64_t v, int64_t unit) {
  return (v + unit - 1) / unit * unit;
}

int64_t divide_up(int64_t v, int64_t by) {
  return (v + by - 1) / by;
}

/// Rows of the padded image that so many neighbouring rows of outputs see.
int64_t rows_read(const ConvProblem& p, int64_t rows) {
  return (rows - 1) * p.stride[1] + (p.kernel[1] - 1) * p.dilation[1] + 1;
}

/// One of the places that threads copy to; there are as many as threads, up to a limit.
class Slot {
 public:
  Slot(std::atomic<uint64_t>& taken, int64_t count) : taken_(taken) {
    for (uint64_t seen = taken_;;) {
      index_ = std::countr_one(seen);
      if (index_ >= count) {
        std::this_thread::yield();  // more threads than places
        seen = taken_;
      } else if (taken_.compare_exchange_weak(seen, seen | uint64_t{1} << index_)) {
        return;
      }
    }
  }
  ~Slot() { taken_ &= ~(uint64_t{1} << index_); }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  int64_t index() const { return index_; }

 private:
  std::atomic<uint64_t>& taken_;
  int index_ = 0;
};

bool padded(const ConvProblem& p) {
  return p.pad_begin != Extents{0, 0, 0} || p.pad_end != Extents{0, 0, 0};
}

/// rows[i] = first + i * step: a few at a time, since in thin layers this is a tenth of the work.
void step_along(const uint8_t* first, int64_t step, int64_t count, const uint8_t** rows) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4, first += 4 * step) {
    rows[i] = first;
    rows[i + 1] = first + step;
    rows[i + 2] = first + 2 * step;
    rows[i + 3] = first + 3 * step;
  }
  for (; i < count; ++i, first += step) rows[i] = first;
}

int64_t taps_bytes(const ConvProblem& p) {
  constexpr int64_t kOffset = sizeof(int64_t);
  return round_up(kOffset * round_up(p.window(), kGroup), kAlign);
}

}  // namespace

ImageReader::ImageReader(const ConvProblem& problem, const ImageReads& reads)
    : p_(problem),
      copies_(reads.must_copy || padded(problem)),
      pixel_(problem.channels * reads.element_bytes),
      chunk_(problem.batch) {
  for (int i = 0; i < 3; ++i) {
    extents_[i] = copies_ ? p_.in[i] + p_.pad_begin[i] + p_.pad_end[i] : p_.in[i];
  }
  // Checked: pads come from files and may be of any size.
  const std::array<int64_t, 4> dims = {extents_[0], extents_[1], extents_[2], pixel_};
  image_ = num_elements(dims);
  if (copies_) {
    chunk_ = std::clamp<int64_t>(kChunkBytes / std::max<int64_t>(image_, 1), 1,
                                 std::max<int64_t>(p_.batch, 1));
    if (reads.piece_macs > 0) choose_pieces(reads.piece_macs);
  }
}

void ImageReader::choose_pieces(int64_t piece_macs) {
  const int64_t macs = p_.macs();
  if (p_.in[0] != 1 || p_.out[0] != 1 || macs < 2 * piece_macs) return;
  const int64_t row_macs = std::max<int64_t>(macs / (p_.batch * p_.out[1]), 1);
  const int64_t rows =
      std::max(divide_up(piece_macs, row_macs), divide_up(kPiecePixels, p_.out[2]));
  // A power of two: 2, 4 or 8 threads end together.
  const auto bands = static_cast<int64_t>(
      std::bit_floor(static_cast<uint64_t>(std::max<int64_t>(p_.out[1] / rows, 1))));
  int64_t bytes = image_;
  if (bands > 1) {
    band_rows_ = divide_up(p_.out[1], bands);
    bands_ = divide_up(p_.out[1], band_rows_);
    pieces_ = p_.batch * bands_;
    bytes = rows_read(p_, band_rows_) * extents_[2] * pixel_;
  } else {
    piece_images_ = std::max<int64_t>(piece_macs / (row_macs * p_.out[1]), 1);
    pieces_ = divide_up(p_.batch, piece_images_);
    bytes = piece_images_ * image_;
  }
  slot_bytes_ = round_up(bytes + kTailBytes, kAlign);
  slots_ = std::min<int64_t>({pieces_, available_threads(), kMostSlots});
}

size_t ImageReader::scratch_bytes(const ConvProblem& problem, const ImageReads& reads) {
  const ImageReader r(problem, reads);
  const int64_t chunk = r.copies_ ? round_up(r.chunk_ * r.image_ + kTailBytes, kAlign) : 0;
  return static_cast<size_t>(taps_bytes(problem) + std::max(chunk, r.slots_ * r.slot_bytes_));
}

std::span<const int64_t> ImageReader::taps(Taps kind, int64_t count,
                                           std::span<std::byte> scratch) const {
  const int64_t across = kind == Taps::rows ? 1 : p_.kernel[2];
  auto* offsets = reinterpret_cast<int64_t*>(scratch.data());
  int64_t t = 0;
  for (int64_t z = 0; z < p_.kernel[0]; ++z) {
    for (int64_t y = 0; y < p_.kernel[1]; ++y) {
      for (int64_t x = 0; x < across; ++x) {
        const int64_t row = z * p_.dilation[0] * extents_[1] + y * p_.dilation[1];
        offsets[t++] = (row * extents_[2] + x * p_.dilation[2]) * pixel_;
      }
    }
  }
  for (; t < count; ++t) offsets[t] = offsets[0];
  return {offsets, static_cast<size_t>(count)};
}

void ImageReader::pixels(const uint8_t* base, int64_t first, int64_t count, int64_t offset,
                         const uint8_t** rows) const {
  const Extents& out = p_.out;
  const int64_t step_x = p_.stride[2] * pixel_;
  const int64_t step_y = p_.stride[1] * extents_[2] * pixel_;
  const int64_t step_z = p_.stride[0] * extents_[1] * extents_[2] * pixel_;
  int64_t x = first % out[2];
  int64_t y = first / out[2] % out[1];
  int64_t z = first / (out[2] * out[1]) % out[0];
  int64_t image = first / (out[2] * out[1] * out[0]);
  for (int64_t i = 0; i < count;) {
    const uint8_t* row = base + image * image_ + z * step_z + y * step_y + offset;
    const int64_t in_row = std::min(out[2] - x, count - i);
    step_along(row + x * step_x, step_x, in_row, rows + i);
    i += in_row;
    x = 0;
    if (++y < out[1]) continue;
    y = 0;
    if (++z < out[0]) continue;
    z = 0;
    ++image;
  }
}

void ImageReader::pad_rows(const KernelSet& kernels, const ImageSource& source, int64_t image,
                           int64_t first, int64_t last, uint8_t* to) const {
  const int64_t row_bytes = extents_[2] * pixel_;
  const int64_t left = p_.pad_begin[2] * pixel_;
  const int64_t inner = p_.in[2] * pixel_;
  for (int64_t row = first; row < last; ++row, to += row_bytes) {
    const int64_t z = row / extents_[1] - p_.pad_begin[0];
    const int64_t y = row % extents_[1] - p_.pad_begin[1];
    if (z < 0 || z >= p_.in[0] || y < 0 || y >= p_.in[1]) {
      std::memset(to, source.fill, static_cast<size_t>(row_bytes));
      continue;
    }
    const uint8_t* from = source.data + ((image * p_.in[0] + z) * p_.in[1] + y) * inner;
    std::memset(to, source.fill, static_cast<size_t>(left));
    if (source.flip == 0) {
      std::memcpy(to + left, from, static_cast<size_t>(inner));
    } else {
      kernels.xor_copy(to + left, from, inner, source.flip);
    }
    std::memset(to + left + inner, source.fill, static_cast<size_t>(row_bytes - left - inner));
  }
}

void ImageReader::pad_images(const KernelSet& kernels, const ImageSource& source, int64_t first,
                             int64_t count, uint8_t* copy) const {
  const int64_t rows = extents_[0] * extents_[1];
  const auto pad = [&](int64_t image, int64_t begin, int64_t end) {
    pad_rows(kernels, source, first + image, begin, end,
             copy + image * image_ + begin * extents_[2] * pixel_);
  };
  // Memory speed: a thread's worth of work is some hundred kilobytes.
  if (count * image_ < kChunkBytes) {
    for (int64_t i = 0; i < count; ++i) pad(i, 0, rows);
  } else if (count > 1) {
    parallel_blocks(count, [&](int64_t i) { pad(i, 0, rows); });
  } else {
    parallel_for(rows, std::max<int64_t>(rows / 16, 1),
                 [&](int64_t begin, int64_t end) { pad(0, begin, end); });
  }
}

/// Copies piece number `piece` and hands it on.
void ImageReader::pad_piece(const KernelSet& kernels, const ImageSource& source, int64_t piece,
                            uint8_t* copy, const Piece& body) const {
  const int64_t pixels = p_.out[1] * p_.out[2];
  if (band_rows_ == 0) {
    const int64_t first = piece * piece_images_;
    const int64_t count = std::min(piece_images_, p_.batch - first);
    for (int64_t i = 0; i < count; ++i) {
      pad_rows(kernels, source, first + i, 0, extents_[1], copy + i * image_);
    }
    body(copy, first * pixels, count * pixels);
    return;
  }
  const int64_t image = piece / bands_;
  const int64_t row = piece % bands_ * band_rows_;
  const int64_t rows = std::min(band_rows_, p_.out[1] - row);
  const int64_t first = row * p_.stride[1];
  pad_rows(kernels, source, image, first, first + rows_read(p_, rows), copy);
  body(copy, image * pixels + row * p_.out[2], rows * p_.out[2]);
}

void ImageReader::for_pieces(const KernelSet& kernels, const ImageSource& source,
                             std::span<std::byte> scratch, const Piece& body) const {
  const int64_t pixels = p_.out[0] * p_.out[1] * p_.out[2];
  auto* copy = reinterpret_cast<uint8_t*>(scratch.data()) + taps_bytes(p_);
  if (pieces_ > 1 && current_threads() > 1) {
    std::atomic<uint64_t> taken{0};
    parallel_blocks(pieces_, [&](int64_t piece) {
      const Slot slot(taken, slots_);
      pad_piece(kernels, source, piece, copy + slot.index() * slot_bytes_, body);
    });
    return;
  }
  for (int64_t first = 0; first < p_.batch; first += chunk_) {
    const int64_t count = std::min(chunk_, p_.batch - first);
    const uint8_t* base = source.data + first * image_;
    if (copies_) {
      pad_images(kernels, source, first, count, copy);
      base = copy;
    }
    body(base, first * pixels, count * pixels);
  }
}

}  // namespace narrow::kernels
