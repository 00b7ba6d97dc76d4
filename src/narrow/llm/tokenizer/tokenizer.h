// SPDX-License-Identifier: Apache-2.0
// Text to ids of a language model's vocabulary, and back.
//
//   const Tokenizer tokenizer(tokenizer_data_from_json(read_text("tokenizer.json")));
//   std::vector<int32_t> ids = tokenizer.encode("Hello");
//   std::string text = tokenizer.decode(ids);
//
// Text is UTF-8. Bytes that are none: byte-level models keep them exactly (each ill-formed run is a
// word of its own), every other model reads each such byte as U+FFFD.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

struct EncodeOptions {
  /// Put the model's bos, eos, cls, sep around the text, as its file says.
  bool add_special = true;
  /// Find special tokens in the text. Off: "</s>" in a text is four characters, never the token.
  bool parse_special = false;
};

struct DecodeOptions {
  bool skip_special = true;
};

/// Does not change after construction; copies share their data; any number of threads may use one.
class Tokenizer {
 public:
  /// Throws corrupt_data (see check) or unsupported (a regular expression, an order of steps).
  explicit Tokenizer(TokenizerData data);

  /// Throws resource_exhausted for texts of 512 MiB and more, or where a regular expression of the
  /// tokenizer explodes on the text.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// The bytes that the ids stand for; they need not be well-formed UTF-8. Throws invalid_argument
  /// for an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;

  int32_t vocab_size() const;
  /// The piece as the file spells it. Throws invalid_argument for an id outside the vocabulary.
  const std::string& piece(int32_t id) const;
  /// The id of a piece in the file's spelling, or -1.
  int32_t find(std::string_view piece) const;
  bool is_special(int32_t id) const;
  /// True for the ids that end a generation.
  bool is_end(int32_t id) const;
  const SpecialIds& special() const;
  /// Empty where the file has none.
  const std::string& chat_template() const;
  const TokenizerData& data() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

/// Decodes ids as they come. What push() and finish() return is well-formed UTF-8: bytes of a
/// character that is not complete are held back, bytes that can be no part of one become U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, const DecodeOptions& options = {});
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// The text that is complete now, often empty.
  std::string push(int32_t id);
  /// What was held back; afterwards the decoder starts anew.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace narrow::llm
