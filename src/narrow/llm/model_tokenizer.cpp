// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/model_tokenizer.h"

#include "narrow/core/error.h"
#include "narrow/formats/gguf/gguf.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/vocabulary.h"

namespace narrow::llm {

TokenizerData read_model_tokenizer(const std::filesystem::path& path) {
  if (!is_gguf_file(path)) return read_tokenizer(path);
  const GgufFile file = GgufFile::open(path);
  try {
    return tokenizer_data_from_gguf(vocabulary_of(file));
  } catch (Error& e) {
    e.add_context(path.string());
    throw;
  }
}

}  // namespace narrow::llm
