// SPDX-License-Identifier: Apache-2.0
// The parts of tokenizer.json, each from its own object, and what reading JSON needs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm::json_parts {

using Json = nlohmann::json;

[[noreturn]] void corrupt(std::string_view where, std::string_view message);
[[noreturn]] void unsupported(std::string_view what, std::string_view name);

/// A file that is one object. Throws corrupt_data naming `file`.
Json parse(std::string_view text, std::string_view file);

/// Members of an object with their types checked. `fallback` is for absent members and null.
const Json& member(const Json& object, const char* name, std::string_view where);
std::string text_of(const Json& object, const char* name, std::string_view where);
std::string text_or(const Json& object, const char* name, std::string fallback,
                    std::string_view where);
bool bool_or(const Json& object, const char* name, bool fallback, std::string_view where);
int32_t id_of(const Json& value, std::string_view where);
/// The "type" of a part.
std::string type_of_part(const Json& part, std::string_view where);

void read_normalizer(const Json& part, std::vector<NormalizerStep>& steps, int depth = 0);
void read_pre_tokenizer(const Json& part, std::vector<PreTokenizerStep>& steps, int depth = 0);
void read_decoder(const Json& part, std::vector<DecoderStep>& steps, int depth = 0);
void read_post_processor(const Json& part, TokenizerData& data, int depth = 0);
void read_model(const Json& part, TokenizerData& data);
void read_added_tokens(const Json& part, TokenizerData& data);

}  // namespace narrow::llm::json_parts
