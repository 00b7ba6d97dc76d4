// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/json_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm::json_parts {
namespace {

/// The parser recurses as deep as the text nests.
void check_depth(std::string_view text, std::string_view file) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > 200)
        throw Error(ErrorCode::corrupt_data, fmt::format("{}: nests too deeply", file));
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

constexpr int kMaxDepth = 8;  // of Sequences in Sequences

struct Pattern {
  std::string text;
  bool is_regex;
};

/// {"String": ".."} or {"Regex": ".."}.
Pattern pattern_of(const Json& part, std::string_view where) {
  const Json& p = member(part, "pattern", where);
  if (p.is_object() && p.contains("String")) return {text_of(p, "String", where), false};
  if (p.is_object() && p.contains("Regex")) return {text_of(p, "Regex", where), true};
  corrupt(where, "the pattern is neither a String nor a Regex");
}

SplitBehavior behavior_of(const std::string& name, std::string_view where) {
  static constexpr std::pair<std::string_view, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous},
  };
  for (const auto& [n, behavior] : kNames) {
    if (n == name) return behavior;
  }
  unsupported(fmt::format("{}: behavior", where), name);
}

/// The elements of a Sequence; `name` is their member.
template <class F>
void each_of_sequence(const Json& part, const char* name, int depth, F&& f) {
  const Json& list = member(part, name, "Sequence");
  if (!list.is_array()) corrupt("Sequence", "is no list");
  if (depth >= kMaxDepth) corrupt("Sequence", "sequences nest too deeply");
  for (const Json& p : list) f(p);
}

std::string charsmap_of(const Json& part) {
  const std::string text = text_or(part, "precompiled_charsmap", "", "Precompiled");
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    static constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) corrupt("Precompiled", "the map is not base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xFF));
    }
  }
  return out;
}

NormalizerStep bert_normalizer(const Json& part) {
  NormalizerStep s{NormalizerStep::Kind::bert};
  s.clean_text = bool_or(part, "clean_text", true, "BertNormalizer");
  s.chinese_chars = bool_or(part, "handle_chinese_chars", true, "BertNormalizer");
  s.lowercase = bool_or(part, "lowercase", true, "BertNormalizer");
  // null: accents go with the upper case.
  s.strip_accents = bool_or(part, "strip_accents", s.lowercase, "BertNormalizer");
  return s;
}

PrependScheme scheme_of(const Json& part) {
  if (part.contains("prepend_scheme")) {
    const std::string name = text_of(part, "prepend_scheme", "Metaspace");
    if (name == "always") return PrependScheme::always;
    if (name == "first") return PrependScheme::first;
    if (name == "never") return PrependScheme::never;
    unsupported("Metaspace: prepend_scheme", name);
  }
  // Older files.
  const bool prefix = bool_or(part, "add_prefix_space", true, "Metaspace");
  return prefix ? PrependScheme::always : PrependScheme::never;
}

std::vector<int32_t> special_ids(const Json& part, const std::string& name) {
  const Json& tokens = member(part, "special_tokens", "TemplateProcessing");
  if (!tokens.is_object() || !tokens.contains(name)) {
    corrupt("TemplateProcessing", fmt::format("the special token '{}' is not described", name));
  }
  const Json& ids = member(tokens[name], "ids", "TemplateProcessing");
  if (!ids.is_array()) corrupt("TemplateProcessing", "ids is no list");
  std::vector<int32_t> out;
  for (const Json& id : ids) out.push_back(id_of(id, "TemplateProcessing"));
  return out;
}

void read_template(const Json& part, TokenizerData& data) {
  const Json& single = member(part, "single", "TemplateProcessing");
  if (!single.is_array()) corrupt("TemplateProcessing", "single is no list");
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  bool seen_text = false;
  for (const Json& item : single) {
    if (item.is_object() && item.contains("Sequence")) {
      if (seen_text) unsupported("TemplateProcessing", "a text that stands twice");
      seen_text = true;
      continue;
    }
    const Json& token = member(item, "SpecialToken", "TemplateProcessing");
    const std::vector<int32_t> ids = special_ids(part, text_of(token, "id", "TemplateProcessing"));
    auto& list = seen_text ? after : before;
    list.insert(list.end(), ids.begin(), ids.end());
  }
  if (!seen_text) unsupported("TemplateProcessing", "a template without the text");
  data.prefix_ids.insert(data.prefix_ids.begin(), before.begin(), before.end());
  data.suffix_ids.insert(data.suffix_ids.end(), after.begin(), after.end());
}

/// ["[SEP]", 102]
int32_t pair_id(const Json& part, const char* name, std::string_view where) {
  const Json& pair = member(part, name, where);
  if (!pair.is_array() || pair.size() != 2) corrupt(where, fmt::format("{} is no pair", name));
  return id_of(pair[1], where);
}

}  // namespace

Json parse(std::string_view text, std::string_view file) {
  check_depth(text, file);
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: is no JSON object", file));
  }
  return json;
}

void corrupt(std::string_view where, std::string_view message) {
  throw Error(ErrorCode::corrupt_data, fmt::format("tokenizer.json: {}: {}", where, message));
}

void unsupported(std::string_view what, std::string_view name) {
  throw Error(ErrorCode::unsupported,
              fmt::format("tokenizer.json: {} '{}' is not supported", what, name));
}

const Json& member(const Json& object, const char* name, std::string_view where) {
  if (!object.is_object()) corrupt(where, "is no object");
  const auto found = object.find(name);
  if (found == object.end()) corrupt(where, fmt::format("'{}' is absent", name));
  return *found;
}

std::string text_of(const Json& object, const char* name, std::string_view where) {
  const Json& value = member(object, name, where);
  if (!value.is_string()) corrupt(where, fmt::format("'{}' is no text", name));
  return value.get<std::string>();
}

std::string text_or(const Json& object, const char* name, std::string fallback,
                    std::string_view where) {
  if (!object.is_object() || !object.contains(name) || object[name].is_null()) return fallback;
  return text_of(object, name, where);
}

bool bool_or(const Json& object, const char* name, bool fallback, std::string_view where) {
  if (!object.is_object() || !object.contains(name) || object[name].is_null()) return fallback;
  if (!object[name].is_boolean())
    corrupt(where, fmt::format("'{}' is neither true nor false", name));
  return object[name].get<bool>();
}

int32_t id_of(const Json& value, std::string_view where) {
  if (!value.is_number_integer()) corrupt(where, "an id is no integer");
  const auto id = value.get<int64_t>();
  if (id < 0 || id > INT32_MAX) corrupt(where, fmt::format("the id {} is out of range", id));
  return static_cast<int32_t>(id);
}

std::string type_of_part(const Json& part, std::string_view where) {
  return text_of(part, "type", where);
}

void read_normalizer(const Json& part, std::vector<NormalizerStep>& steps, int depth) {
  using Kind = NormalizerStep::Kind;
  if (part.is_null()) return;
  const std::string type = type_of_part(part, "normalizer");
  static constexpr std::pair<std::string_view, Kind> kPlain[] = {
      {"NFC", Kind::nfc},
      {"NFD", Kind::nfd},
      {"NFKC", Kind::nfkc},
      {"NFKD", Kind::nfkd},
      {"Lowercase", Kind::lowercase},
      {"StripAccents", Kind::strip_accents},
      {"ByteLevel", Kind::byte_level},
  };
  for (const auto& [name, kind] : kPlain) {
    if (name == type) {
      steps.push_back({kind});
      return;
    }
  }
  NormalizerStep s;
  if (type == "Sequence") {
    each_of_sequence(part, "normalizers", depth,
                     [&](const Json& p) { read_normalizer(p, steps, depth + 1); });
    return;
  } else if (type == "BertNormalizer") {
    s = bert_normalizer(part);
  } else if (type == "Prepend") {
    s.kind = Kind::prepend;
    s.content = text_of(part, "prepend", type);
  } else if (type == "Replace") {
    s.kind = Kind::replace;
    std::tie(s.pattern, s.is_regex) = [&] {
      const Pattern p = pattern_of(part, type);
      return std::pair(p.text, p.is_regex);
    }();
    s.content = text_of(part, "content", type);
  } else if (type == "Strip") {
    s.kind = Kind::strip;
    s.left = bool_or(part, "strip_left", true, type);
    s.right = bool_or(part, "strip_right", true, type);
  } else if (type == "Precompiled") {
    s.kind = Kind::charsmap;
    s.charsmap = charsmap_of(part);
    if (s.charsmap.empty()) return;
  } else {
    unsupported("normalizer", type);
  }
  steps.push_back(std::move(s));
}

void read_pre_tokenizer(const Json& part, std::vector<PreTokenizerStep>& steps, int depth) {
  using Kind = PreTokenizerStep::Kind;
  if (part.is_null()) return;
  const std::string type = type_of_part(part, "pre_tokenizer");
  PreTokenizerStep s;
  if (type == "Sequence") {
    each_of_sequence(part, "pretokenizers", depth,
                     [&](const Json& p) { read_pre_tokenizer(p, steps, depth + 1); });
    return;
  } else if (type == "ByteLevel") {
    s.kind = Kind::byte_level;
    s.add_prefix_space = bool_or(part, "add_prefix_space", true, type);
    s.use_regex = bool_or(part, "use_regex", true, type);
  } else if (type == "Split") {
    s.kind = Kind::split;
    const Pattern p = pattern_of(part, type);
    s.pattern = p.text;
    s.is_regex = p.is_regex;
    s.behavior = behavior_of(text_of(part, "behavior", type), type);
    s.invert = bool_or(part, "invert", false, type);
  } else if (type == "CharDelimiterSplit") {
    s.kind = Kind::split;
    s.pattern = text_of(part, "delimiter", type);
    s.behavior = SplitBehavior::removed;
  } else if (type == "Whitespace") {
    s.kind = Kind::whitespace;
  } else if (type == "WhitespaceSplit") {
    s.kind = Kind::whitespace_split;
  } else if (type == "BertPreTokenizer") {
    s.kind = Kind::bert;
  } else if (type == "Metaspace") {
    s.kind = Kind::metaspace;
    s.replacement = text_or(part, "replacement", std::string(kSpaceSymbol), type);
    s.prepend = scheme_of(part);
    s.split = bool_or(part, "split", true, type);
  } else if (type == "Digits") {
    s.kind = Kind::digits;
    s.individual_digits = bool_or(part, "individual_digits", false, type);
  } else if (type == "Punctuation") {
    s.kind = Kind::punctuation;
    s.behavior = behavior_of(text_or(part, "behavior", "Isolated", type), type);
  } else {
    unsupported("pre_tokenizer", type);
  }
  steps.push_back(std::move(s));
}

void read_decoder(const Json& part, std::vector<DecoderStep>& steps, int depth) {
  using Kind = DecoderStep::Kind;
  if (part.is_null()) return;
  const std::string type = type_of_part(part, "decoder");
  const auto count_of = [&](const char* name) {
    return std::min(id_of(member(part, name, type), type), 1 << 16);
  };
  DecoderStep s;
  if (type == "Sequence") {
    each_of_sequence(part, "decoders", depth,
                     [&](const Json& p) { read_decoder(p, steps, depth + 1); });
    return;
  } else if (type == "ByteLevel") {
    s.kind = Kind::byte_level;
  } else if (type == "Metaspace") {
    s.kind = Kind::metaspace;
    s.pattern = text_or(part, "replacement", std::string(kSpaceSymbol), type);
    s.drop_first = scheme_of(part) != PrependScheme::never;
  } else if (type == "WordPiece") {
    s.kind = Kind::wordpiece;
    s.pattern = text_or(part, "prefix", "##", type);
    s.cleanup = bool_or(part, "cleanup", true, type);
  } else if (type == "Fuse") {
    s.kind = Kind::fuse;
  } else if (type == "ByteFallback") {
    s.kind = Kind::byte_fallback;
  } else if (type == "Replace") {
    s.kind = Kind::replace;
    const Pattern p = pattern_of(part, type);
    if (p.is_regex) unsupported("decoder", "Replace of a Regex");
    s.pattern = p.text;
    s.content = text_of(part, "content", type);
  } else if (type == "Strip") {
    s.kind = Kind::strip;
    s.content = text_of(part, "content", type);
    s.start = count_of("start");
    s.stop = count_of("stop");
  } else {
    unsupported("decoder", type);
  }
  steps.push_back(std::move(s));
}

void read_post_processor(const Json& part, TokenizerData& data, int depth) {
  if (part.is_null()) return;
  const std::string type = type_of_part(part, "post_processor");
  if (type == "ByteLevel") return;  // concerns offsets only
  if (type == "Sequence") {
    each_of_sequence(part, "processors", depth,
                     [&](const Json& p) { read_post_processor(p, data, depth + 1); });
  } else if (type == "TemplateProcessing") {
    read_template(part, data);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    data.prefix_ids.insert(data.prefix_ids.begin(), pair_id(part, "cls", type));
    data.suffix_ids.push_back(pair_id(part, "sep", type));
  } else {
    unsupported("post_processor", type);
  }
}

}  // namespace narrow::llm::json_parts
