// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json that is accepted encodes any bytes: the file stands before the first zero byte,
// the text behind it. A file that starts with 0 is a SentencePiece model.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace {

using narrow::llm::Tokenizer;

void use(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text, {.add_special = true, .parse_special = true});
  for (const int32_t id : ids) {
    if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
  }
  if (tokenizer.encode(text, {.add_special = true, .parse_special = true}) != ids) std::abort();
  const narrow::llm::DecodeOptions all{.skip_special = false};
  const std::string bytes = tokenizer.decode(ids, all);
  narrow::llm::StreamDecoder stream(tokenizer, all);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  if (!narrow::llm::is_valid_utf8(streamed)) std::abort();
  if (streamed != narrow::llm::replace_invalid_utf8(bytes)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    if (!input.empty() && input[0] == '\0') {
      use(Tokenizer(narrow::llm::tokenizer_data_from_sentencepiece(input.substr(1))), input);
      return 0;
    }
    const size_t end = input.find('\0');
    const std::string_view text = end == std::string_view::npos ? input : input.substr(end + 1);
    use(Tokenizer(narrow::llm::tokenizer_data_from_json(input.substr(0, end))), text);
  } catch (const narrow::Error& e) {
    if (e.code() == narrow::ErrorCode::internal) std::abort();
  }
  return 0;
}
