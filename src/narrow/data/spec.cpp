// SPDX-License-Identifier: Apache-2.0
// The grammar of data specifications:
//
//   spec    = [kind ":"] path {"," option}
//   option  = name "=" value | flag
//
// A comma or backslash of the path or of a value is written with a backslash before it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/data/dataset.h"
#include "narrow/data/image_dataset.h"
#include "narrow/data/spec_options.h"

namespace narrow {
namespace {

constexpr size_t kLongestSpec = 8192;  // two paths of the longest kind and all options

[[noreturn]] void fail(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

std::vector<std::string> split_unescaped(std::string_view text) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ',' || text[i + 1] == '\\');
    if (escape) {
      parts.back() += text[++i];
    } else if (text[i] == ',') {
      parts.emplace_back();
    } else {
      parts.back() += text[i];
    }
  }
  return parts;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

/// What lies at a path given without a kind.
std::string kind_of_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    if (looks_like_mnist(path)) return "mnist";
    const bool batches = fs::exists(fs::path(path) / "test_batch.bin", ignored) ||
                         fs::exists(fs::path(path) / "data_batch_1.bin", ignored);
    return batches ? "cifar10" : "images";
  }
  if (fs::path(path).extension() == ".npz") return "npz";
  return {};
}

bool is_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_';
  });
}

void split_kind(std::string_view head, DataSpec& spec) {
  const size_t colon = head.find(':');
  const std::string_view word = head.substr(0, colon);
  const auto& kinds = data_kinds();
  if (colon != std::string_view::npos && std::count(kinds.begin(), kinds.end(), word) > 0) {
    spec.kind = word;
    spec.path = head.substr(colon + 1);
    return;
  }
  spec.path = head;
  spec.kind = kind_of_path(spec.path);
  if (!spec.kind.empty()) return;
  if (colon != std::string_view::npos && is_word(word)) {
    fail(fmt::format("data: '{}' is no kind of data", word), did_you_mean(word, kinds));
  }
  fail(fmt::format("data: '{}' does not say what it is, and is neither a folder nor an .npz file",
                   head),
       fmt::format("write KIND:PATH with a kind of {}", fmt::join(kinds, ", ")));
}

void add_option(std::string_view text, DataSpec& spec) {
  const size_t equals = text.find('=');
  const std::string name(text.substr(0, equals));
  if (name.empty()) fail(fmt::format("data: empty option in '{}:{}'", spec.kind, spec.path));
  const auto options = data_options();
  const auto row = std::find_if(options.begin(), options.end(),
                                [&](const DataOption& o) { return name == o.name; });
  if (equals == std::string_view::npos && row != options.end() && *row->value != '\0') {
    fail(fmt::format("data option '{}' needs a value", name),
         fmt::format("write {}={}", name, row->value));
  }
  const std::string value(equals == std::string_view::npos ? "true" : text.substr(equals + 1));
  if (!spec.options.emplace(name, value).second) {
    fail(fmt::format("data option '{}' is given twice", name));
  }
}

}  // namespace

DataSpec parse_data_spec(std::string_view text) {
  if (text.size() > kLongestSpec) fail("data: the specification is too long");
  const std::vector<std::string> parts = split_unescaped(text);
  DataSpec spec;
  if (parts[0].empty()) {
    fail("data: empty specification", "write KIND:PATH[,option=value...], as mnist:DIR,split=test");
  }
  split_kind(parts[0], spec);
  if (spec.path.empty()) fail(fmt::format("data: '{}:' names no path", spec.kind));
  for (size_t i = 1; i < parts.size(); ++i) add_option(parts[i], spec);
  (void)parse_spec_options(spec);
  return spec;
}

std::string DataSpec::text() const {
  std::string out = kind + ":" + escaped(path);
  for (const auto& [name, value] : options) out += fmt::format(",{}={}", name, escaped(value));
  return out;
}

}  // namespace narrow
