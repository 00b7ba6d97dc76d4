// SPDX-License-Identifier: Apache-2.0
// The changes of a text before it is cut into words.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"
#include "narrow/llm/tokenizer/trie.h"

namespace narrow::llm {

class Normalizer {
 public:
  Normalizer() = default;
  /// `user_defined`: pieces that SentencePiece's normalizer leaves as they are.
  Normalizer(const std::vector<NormalizerStep>& steps, const Trie* user_defined);

  bool is_identity() const { return steps_.empty(); }
  /// `text` is well-formed UTF-8, and so is the result.
  std::string run(std::string_view text) const;

  struct Step {
    virtual ~Step() = default;
    virtual std::string run(std::string_view text) const = 0;
  };

 private:
  std::vector<std::shared_ptr<const Step>> steps_;
};

}  // namespace narrow::llm
