// SPDX-License-Identifier: Apache-2.0
// Reads SentencePiece's tokenizer.model (a ModelProto; google/sentencepiece,
// src/sentencepiece_model.proto).
#pragma once

#include <string_view>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

/// BPE and unigram models. Text between special tokens gets the dummy prefix as a whole text does.
/// add_special puts bos before a text where the model has one. Throws corrupt_data, or unsupported
/// naming the model type or option.
TokenizerData tokenizer_data_from_sentencepiece(std::string_view bytes);

}  // namespace narrow::llm
