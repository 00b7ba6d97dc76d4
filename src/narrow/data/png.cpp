// SPDX-License-Identifier: Apache-2.0
// PNG through libpng. Errors come by longjmp: see jpeg.cpp for the rule about local variables.
#include <fmt/format.h>
#include <png.h>

#include <csetjmp>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/data/image.h"

namespace narrow {
namespace {

struct State {
  png_structp png = nullptr;
  png_infop info = nullptr;
  const std::byte* data = nullptr;
  size_t left = 0;
  char message[256] = {};
  int64_t width = 0;
  int64_t height = 0;
  int64_t channels = 0;
  size_t stride = 0;
  int passes = 0;
};

void on_error(png_structp png, png_const_charp text) {
  auto* state = static_cast<State*>(png_get_error_ptr(png));
  std::strncpy(state->message, text, sizeof state->message - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, png_size_t bytes) {
  auto* state = static_cast<State*>(png_get_io_ptr(png));
  if (bytes > state->left) png_error(png, "the file ends too early");
  std::memcpy(out, state->data, bytes);
  state->data += bytes;
  state->left -= bytes;
}

bool create(State* state) {
  state->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, state, on_error, on_warning);
  if (state->png == nullptr) return false;
  state->info = png_create_info_struct(state->png);
  return state->info != nullptr;
}

bool read_header(State* state) {
  constexpr png_uint_32 kLargestSide = 65535;
  constexpr png_alloc_size_t kLargestChunk = 8000000;  // libpng's own default: profiles, texts
  if (setjmp(png_jmpbuf(state->png)) != 0) return false;
  png_set_user_limits(state->png, kLargestSide, kLargestSide);
  png_set_chunk_malloc_max(state->png, kLargestChunk);
  png_set_read_fn(state->png, state, on_read);
  png_read_info(state->png, state->info);
  const png_byte type = png_get_color_type(state->png, state->info);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(state->png);
  if (type == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(state->png, state->info) < 8) {
    png_set_expand_gray_1_2_4_to_8(state->png);
  }
  png_set_scale_16(state->png);
  png_set_strip_alpha(state->png);
  state->passes = png_set_interlace_handling(state->png);
  png_read_update_info(state->png, state->info);
  state->width = png_get_image_width(state->png, state->info);
  state->height = png_get_image_height(state->png, state->info);
  state->channels = png_get_channels(state->png, state->info);
  state->stride = png_get_rowbytes(state->png, state->info);
  return true;
}

bool read_rows(State* state, unsigned char* pixels) {
  if (setjmp(png_jmpbuf(state->png)) != 0) return false;
  for (int pass = 0; pass < state->passes; ++pass) {
    for (int64_t y = 0; y < state->height; ++y) {
      png_read_row(state->png, pixels + static_cast<size_t>(y) * state->stride, nullptr);
    }
  }
  png_read_end(state->png, nullptr);
  return true;
}

class Decoder {
 public:
  Decoder() : ready_(create(&state_)) {}
  ~Decoder() { png_destroy_read_struct(&state_.png, &state_.info, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  bool ready() const { return ready_; }
  State* state() { return &state_; }

 private:
  State state_;
  bool ready_;
};

[[noreturn]] void corrupt(const std::string& what, std::string_view why) {
  throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", what, why),
              "the picture is damaged; replace or remove it");
}

}  // namespace

Image decode_png(std::span<const std::byte> bytes, const std::string& what) {
  Decoder decoder;
  State* state = decoder.state();
  if (!decoder.ready()) throw Error(ErrorCode::resource_exhausted, "no memory to decode a picture");
  state->data = bytes.data();
  state->left = bytes.size();
  if (!read_header(state)) corrupt(what, state->message);
  if (state->width * state->height > kMaxPixels) {
    throw Error(ErrorCode::resource_exhausted,
                fmt::format("{}: {} x {} pixels are more than the {} that are decoded", what,
                            state->width, state->height, kMaxPixels));
  }
  // Deflate shrinks at best 1032 times, one bit per pixel at least (see inflate.h).
  const uint64_t packed_bits = static_cast<uint64_t>(state->width * state->height);
  if (packed_bits / 8 / 1032 > bytes.size()) {
    corrupt(what, fmt::format("claims {} x {} pixels, which {} bytes cannot hold", state->width,
                              state->height, bytes.size()));
  }
  if (state->channels != 1 && state->channels != 3) {
    corrupt(what, fmt::format("{} channels after conversion", state->channels));
  }
  Image image(state->width, state->height, state->channels);
  if (image.pixels.size() != state->stride * static_cast<size_t>(state->height)) {
    corrupt(what, "rows of an unexpected size");
  }
  if (!read_rows(state, image.pixels.data())) corrupt(what, state->message);
  return image;
}

}  // namespace narrow
