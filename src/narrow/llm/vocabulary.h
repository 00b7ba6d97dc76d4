// SPDX-License-Identifier: Apache-2.0
// A tokenizer as the tokenizer.* keys of a GGUF file: read from a file, and made from a tokenizer
// of any other origin. What is made is proven: it must cut a text of many scripts into the same
// ids.
#pragma once

#include <cstdint>

#include "narrow/formats/gguf/gguf.h"
#include "narrow/llm/tokenizer/gguf_tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

/// Does the file have a tokenizer? (Its model may be "none".)
bool has_vocabulary(const GgufFile& file);

/// Throws corrupt_data naming the key, not_found when there is no tokenizer.
TokenizerMetadata vocabulary_of(const GgufFile& file);

/// Byte-level BPE, SentencePiece BPE (also as BPE with byte fallback) and WordPiece. Ids from the
/// tokenizer's last one to `vocab_size` become unused tokens. Throws unsupported where no GGUF
/// vocabulary gives the same ids, naming what was tried; corrupt_data for more tokens than
/// `vocab_size`.
TokenizerMetadata make_vocabulary(const TokenizerData& data, int64_t vocab_size);

void append_vocabulary(const TokenizerMetadata& vocabulary, GgufMetadata& metadata);

}  // namespace narrow::llm
