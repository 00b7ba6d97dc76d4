// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/sentencepiece_model.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <protozero/exception.hpp>
#include <protozero/varint.hpp>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

/// The fields of one message. Only protozero's varint is used: its readers assert where a hostile
/// file needs an error.
class Fields {
 public:
  Fields(std::string_view message, const char* file)
      : at_(message.data()), end_(at_ + message.size()), file_(file) {}

  bool next() {
    if (at_ == end_) return false;
    const uint64_t key = varint();
    number = static_cast<uint32_t>(key >> 3);
    wire_ = static_cast<int>(key & 7);
    if (number == 0 || key >> 32 != 0) fail("a field has no valid number");
    switch (wire_) {
      case 0:
        value_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        fail(fmt::format("unknown wire type {}", wire_));
    }
    return true;
  }
  int64_t integer() const {
    need(0);
    return static_cast<int64_t>(value_);
  }
  bool boolean() const { return integer() != 0; }
  float float32() const {
    need(5);
    uint32_t bits = 0;
    for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(bytes_[i]);
    return std::bit_cast<float>(bits);
  }
  std::string_view bytes() const {
    need(2);
    return bytes_;
  }

  uint32_t number = 0;

 private:
  uint64_t varint() {
    try {
      return protozero::decode_varint(&at_, end_);
    } catch (const protozero::exception&) {
      fail("a number is cut short");
    }
  }
  std::string_view take(uint64_t size) {
    if (size > static_cast<uint64_t>(end_ - at_)) fail("a field ends past its message");
    const std::string_view view(at_, static_cast<size_t>(size));
    at_ += size;
    return view;
  }
  void need(int wire) const {
    if (wire_ != wire) fail(fmt::format("field {} has the wire type {}", number, wire_));
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("tokenizer.model: byte {}: {}", at_ - file_, what));
  }

  const char* at_;
  const char* end_;
  const char* file_;
  int wire_ = 0;
  uint64_t value_ = 0;
  std::string_view bytes_;
};

[[noreturn]] void unsupported(const std::string& what) {
  throw Error(ErrorCode::unsupported, "tokenizer.model: " + what + " is not supported");
}

struct Options {
  int64_t model_type = 1;
  bool byte_fallback = false;
  std::string unk_surface = " \xE2\x81\x87 ";
  std::string bos = "<s>", eos = "</s>", pad = "<pad>";
};

void read_piece(Fields fields, TokenizerData& data) {
  std::string piece;
  float score = 0;
  int64_t type = 1;
  while (fields.next()) {
    if (fields.number == 1) piece = fields.bytes();
    if (fields.number == 2) score = fields.float32();
    if (fields.number == 3) type = fields.integer();
  }
  if (type < 1 || type > 6) {
    throw Error(ErrorCode::corrupt_data, fmt::format("tokenizer.model: piece {}: unknown type {}",
                                                     data.pieces.size(), type));
  }
  if (piece.empty()) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("tokenizer.model: piece {} is empty", data.pieces.size()));
  }
  data.pieces.push_back(std::move(piece));
  data.scores.push_back(static_cast<double>(score));
  data.types.push_back(static_cast<PieceType>(type));
}

Options read_trainer(Fields fields) {
  Options o;
  while (fields.next()) {
    switch (fields.number) {
      case 3:
        o.model_type = fields.integer();
        break;
      case 24:
        if (fields.boolean()) unsupported("treat_whitespace_as_suffix");
        break;
      case 35:
        o.byte_fallback = fields.boolean();
        break;
      case 44:
        o.unk_surface = fields.bytes();
        break;
      case 46:
        o.bos = fields.bytes();
        break;
      case 47:
        o.eos = fields.bytes();
        break;
      case 48:
        o.pad = fields.bytes();
        break;
      default:
        break;
    }
  }
  return o;
}

NormalizerStep read_normalizer(Fields fields) {
  NormalizerStep s{NormalizerStep::Kind::sentencepiece};
  s.add_dummy_prefix = s.remove_extra_whitespaces = true;
  while (fields.next()) {
    switch (fields.number) {
      case 2:
        s.charsmap = fields.bytes();
        break;
      case 3:
        s.add_dummy_prefix = fields.boolean();
        break;
      case 4:
        s.remove_extra_whitespaces = fields.boolean();
        break;
      case 5:
        if (!fields.boolean()) unsupported("escape_whitespaces = false");
        break;
      default:
        break;
    }
  }
  return s;
}

void set_specials(TokenizerData& data, const Options& options) {
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    const auto i = static_cast<int32_t>(id);
    if (data.types[id] == PieceType::unknown) data.special.unk = i;
    if (data.types[id] != PieceType::control) continue;
    data.added.push_back({i, data.pieces[id], true});
    if (data.pieces[id] == options.bos) data.special.bos = i;
    if (data.pieces[id] == options.eos) data.special.eos = {i};
    if (data.pieces[id] == options.pad) data.special.pad = i;
  }
  if (data.special.bos >= 0) data.prefix_ids = {data.special.bos};
}

}  // namespace

TokenizerData tokenizer_data_from_sentencepiece(std::string_view bytes) {
  TokenizerData data;
  Options options;
  NormalizerStep normalizer{NormalizerStep::Kind::sentencepiece};
  normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = true;
  Fields fields(bytes, bytes.data());
  while (fields.next()) {
    switch (fields.number) {
      case 1:
        read_piece(Fields(fields.bytes(), bytes.data()), data);
        break;
      case 2:
        options = read_trainer(Fields(fields.bytes(), bytes.data()));
        break;
      case 3:
        normalizer = read_normalizer(Fields(fields.bytes(), bytes.data()));
        break;
      default:
        break;  // self-test samples and the decoder's own map
    }
  }
  if (options.model_type == 1) {
    data.model = TokenizerModel::spm_unigram;
  } else if (options.model_type == 2) {
    data.model = TokenizerModel::spm_bpe;
  } else {
    unsupported(fmt::format("model type {}", options.model_type));
  }
  data.byte_fallback = options.byte_fallback;
  data.unk_surface = options.unk_surface;
  data.normalizer = {normalizer};
  DecoderStep spaces{DecoderStep::Kind::sentencepiece};
  if (normalizer.add_dummy_prefix) spaces.start = 1;
  if (normalizer.remove_extra_whitespaces) spaces.start = INT32_MAX;
  data.decoder = {spaces, {DecoderStep::Kind::byte_fallback}};
  set_specials(data, options);
  return data;
}

}  // namespace narrow::llm
