// SPDX-License-Identifier: Apache-2.0
// Cuts a normalized text into words.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"
#include "narrow/llm/tokenizer/word_patterns.h"

namespace narrow::llm {

/// A text and the words in it, in order; what lies between them is dropped.
struct Words {
  std::string text;
  std::vector<Span> spans;
  /// The first word stands at the start of the whole input (PrependScheme::first).
  bool at_start = true;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// `keep_bytes`: a byte_level step leaves bytes instead of their printable stand-ins.
  PreTokenizer(const std::vector<PreTokenizerStep>& steps, bool keep_bytes);

  /// Cuts the one word that `words` holds. The text is well-formed UTF-8.
  void run(Words& words) const;

  struct Step {
    virtual ~Step() = default;
    virtual void run(Words& words) const = 0;
  };

 private:
  std::vector<std::shared_ptr<const Step>> steps_;
};

}  // namespace narrow::llm
