// SPDX-License-Identifier: Apache-2.0
// From pieces back to text, one piece at a time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

class Decoder {
 public:
  Decoder() = default;
  /// Throws unsupported for steps in an order that cannot work piece by piece.
  Decoder(const std::vector<DecoderStep>& steps, bool join_with_spaces);

  struct State {
    size_t pieces = 0;
    std::vector<int> stripped;      // by step: what has been taken at the start
    std::vector<std::string> held;  // by step: what a strip takes if nothing follows
  };

  /// Appends what `piece` says. Bytes are not checked: they may be part of a character.
  void push(State& state, std::string_view piece, std::string& out) const;

 private:
  void strip_spaces(State& state, size_t step, std::string& text) const;
  void strip_stream(State& state, size_t step, std::string& text) const;

  std::vector<DecoderStep> steps_;
  size_t fused_ = 0;  // steps from here on see one text instead of pieces
  bool join_with_spaces_ = false;
};

}  // namespace narrow::llm
