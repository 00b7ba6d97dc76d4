// SPDX-License-Identifier: Apache-2.0
// The words of a job that quantizes a language model.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/pipeline/llm_quantize.h"

namespace narrow {
namespace {

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

}  // namespace

const char* to_string(WeightMethod method) {
  switch (method) {
    case WeightMethod::rtn:
      return "rtn";
    case WeightMethod::mse:
      return "mse";
    case WeightMethod::importance:
      return "importance";
  }
  return "mse";
}

const FileFormat& file_format(std::string_view name) {
  if (const FileFormat* format = find_file_format(name)) return *format;
  std::vector<std::string> names;
  for (const FileFormat& f : file_formats()) names.emplace_back(f.name);
  refuse(fmt::format("'{}' is no file format of language models", name), did_you_mean(name, names));
}

TensorTypeRule parse_tensor_rule(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0) {
    refuse(fmt::format("'{}' is no rule", text), "write PATTERN=TYPE, as in 'blk.0.*=q6_k'");
  }
  TensorTypeRule rule;
  rule.match = std::string(text.substr(0, equals));
  std::string name(text.substr(equals + 1));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (name == "float") return rule;
  if (const BlockCodec* c = find_codec(name)) {
    rule.type = c->type;
    return rule;
  }
  std::vector<std::string> names = {"float"};
  for (const BlockCodec& c : block_codecs()) names.emplace_back(c.name);
  refuse(fmt::format("'{}' is no tensor type", name), did_you_mean(name, names));
}

uint64_t parse_memory(std::string_view text) {
  uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<size_t>(stop - text.data()));
  int shift = -1;
  if (unit.empty()) shift = 0;
  if (unit == "K" || unit == "k") shift = 10;
  if (unit == "M" || unit == "m") shift = 20;
  if (unit == "G" || unit == "g") shift = 30;
  if (error != std::errc() || shift < 0 || value == 0 || value > (uint64_t{1} << 62 >> shift)) {
    refuse(fmt::format("'{}' is no amount of memory", text), "write bytes, or 512M, or 4G");
  }
  return value << shift;
}

}  // namespace narrow
