// SPDX-License-Identifier: Apache-2.0
// JPEG through libjpeg(-turbo). The library reports errors by longjmp: the functions that set the
// jump have only trivial local variables, and everything that owns memory lives outside of them.
#include <fmt/format.h>

// jpeglib.h needs these two and does not include them.
#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>

// After jpeglib.h: the codes depend on the library's version.
#include <jerror.h>

#include "narrow/core/error.h"
#include "narrow/data/image.h"

namespace narrow {
namespace {

// A progressive file may hold thousands of empty scans of a huge picture: seconds for few bytes.
// Encoders write about ten.
constexpr int kMaxScans = 100;

/// Everything the C library's callbacks need; reached through cinfo.client_data.
struct State {
  jpeg_decompress_struct cinfo;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

State* state_of(j_common_ptr cinfo) {
  return static_cast<State*>(cinfo->client_data);
}

[[noreturn]] void on_error(j_common_ptr cinfo) {
  State* state = state_of(cinfo);
  state->errors.format_message(cinfo, state->message);
  std::longjmp(state->jump, 1);
}

/// Warnings that mean lost picture data are errors here; the others are harmless leftovers.
void on_message(j_common_ptr cinfo, int level) {
  if (level >= 0) return;
  switch (cinfo->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
      on_error(cinfo);
    default:
      return;
  }
}

void on_progress(j_common_ptr cinfo) {
  if (cinfo->is_decompressor == 0) return;
  const auto* d = reinterpret_cast<jpeg_decompress_struct*>(cinfo);
  if (d->input_scan_number <= kMaxScans) return;
  State* state = state_of(cinfo);
  const auto end =
      fmt::format_to_n(state->message, sizeof state->message - 1, "more than {} scans", kMaxScans);
  *end.out = '\0';
  std::longjmp(state->jump, 1);
}

bool create(State* state) {
  state->cinfo.err = jpeg_std_error(&state->errors);
  state->errors.error_exit = on_error;
  state->errors.emit_message = on_message;
  state->cinfo.client_data = state;
  if (setjmp(state->jump) != 0) return false;
  jpeg_create_decompress(&state->cinfo);
  state->cinfo.client_data = state;
  state->progress.progress_monitor = on_progress;
  state->cinfo.progress = &state->progress;
  return true;
}

bool read_header(State* state, const unsigned char* bytes, unsigned long size) {
  if (setjmp(state->jump) != 0) return false;
  jpeg_mem_src(&state->cinfo, bytes, size);
  jpeg_read_header(&state->cinfo, TRUE);
  switch (state->cinfo.jpeg_color_space) {
    case JCS_GRAYSCALE:
      state->cinfo.out_color_space = JCS_GRAYSCALE;
      break;
    case JCS_CMYK:
    case JCS_YCCK:
      state->cinfo.out_color_space = JCS_CMYK;
      break;
    default:
      state->cinfo.out_color_space = JCS_RGB;
  }
  return true;
}

/// `pixels` has room for height rows of `stride` bytes.
bool read_rows(State* state, unsigned char* pixels, size_t stride) {
  if (setjmp(state->jump) != 0) return false;
  jpeg_start_decompress(&state->cinfo);
  while (state->cinfo.output_scanline < state->cinfo.output_height) {
    JSAMPROW row = pixels + stride * state->cinfo.output_scanline;
    jpeg_read_scanlines(&state->cinfo, &row, 1);
  }
  jpeg_finish_decompress(&state->cinfo);
  return true;
}

class Decoder {
 public:
  Decoder() : ready_(create(&state_)) {}
  ~Decoder() {
    if (ready_) jpeg_destroy_decompress(&state_.cinfo);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  bool ready() const { return ready_; }
  State* state() { return &state_; }

 private:
  State state_{};
  bool ready_;
};

/// Adobe writes CMYK inverted; the product of the complements is what viewers show.
Image from_cmyk(const Image& cmyk, bool inverted) {
  Image out(cmyk.width, cmyk.height, 3);
  for (size_t i = 0; i < static_cast<size_t>(out.width * out.height); ++i) {
    const uint8_t* p = cmyk.pixels.data() + 4 * i;
    for (size_t k = 0; k < 3; ++k) {
      const unsigned ink = inverted ? p[k] : 255u - p[k];
      const unsigned black = inverted ? p[3] : 255u - p[3];
      out.pixels[3 * i + k] = static_cast<uint8_t>((ink * black + 127) / 255);
    }
  }
  return out;
}

[[noreturn]] void corrupt(const std::string& what, std::string_view why) {
  throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", what, why),
              "the picture is damaged; replace or remove it");
}

}  // namespace

Image decode_jpeg(std::span<const std::byte> bytes, const std::string& what) {
  Decoder decoder;
  State* state = decoder.state();
  if (!decoder.ready()) corrupt(what, state->message);
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  if (!read_header(state, data, static_cast<unsigned long>(bytes.size())))
    corrupt(what, state->message);
  const int64_t width = state->cinfo.image_width;
  const int64_t height = state->cinfo.image_height;
  if (width * height > kMaxPixels) {
    throw Error(ErrorCode::resource_exhausted,
                fmt::format("{}: {} x {} pixels are more than the {} that are decoded", what, width,
                            height, kMaxPixels));
  }
  // A block of 64 pixels takes at least one bit; a factor of 8 is left for arithmetic coding.
  constexpr uint64_t kMostPixelsPerByte = 64 * 8 * 8;
  if (static_cast<uint64_t>(width * height) / kMostPixelsPerByte > bytes.size()) {
    corrupt(what, fmt::format("claims {} x {} pixels, which {} bytes cannot hold", width, height,
                              bytes.size()));
  }
  const bool cmyk = state->cinfo.out_color_space == JCS_CMYK;
  const int64_t channels = cmyk ? 4 : state->cinfo.out_color_space == JCS_GRAYSCALE ? 1 : 3;
  Image image(width, height, channels);
  if (!read_rows(state, image.pixels.data(), static_cast<size_t>(width * channels))) {
    corrupt(what, state->message);
  }
  return cmyk ? from_cmyk(image, state->cinfo.saw_Adobe_marker != 0) : image;
}

}  // namespace narrow
