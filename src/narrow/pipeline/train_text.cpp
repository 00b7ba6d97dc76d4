// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/core/suggest.h"

namespace narrow {
namespace {

constexpr std::string_view kKind = "text:";

class PackedText final : public Dataset {
 public:
  PackedText(std::vector<int32_t> ids, int64_t context) : ids_(std::move(ids)), context_(context) {
    const auto tokens = static_cast<int64_t>(ids_.size());
    if (tokens <= context) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the text has {} tokens, a sequence needs {} and one to predict",
                              tokens, context),
                  "give a longer text, or a smaller context=N behind its name");
    }
    size_ = (tokens - 1) / context;
  }

  int64_t size() const override { return size_; }
  bool labelled() const override { return true; }

  Batch get(std::span<const int64_t> indices) const override {
    const auto count = static_cast<int64_t>(indices.size());
    Tensor ids(DType::int64, {count, context_});
    Batch batch;
    int64_t* to = ids.mutable_data<int64_t>().data();
    for (const int64_t index : indices) {
      const int32_t* from = ids_.data() + index * context_;
      to = std::copy(from, from + context_, to);
      batch.labels.insert(batch.labels.end(), from + 1, from + context_ + 1);
    }
    batch.inputs["input_ids"] = std::move(ids);
    batch.inputs["position"] = Tensor(DType::int64, {count});
    return batch;
  }

  std::string fingerprint() const override {
    Hash64 hash;
    hash.add(ids_.data(), ids_.size() * sizeof(int32_t));
    hash.add_number(context_);
    return hash.hex();
  }

 private:
  std::vector<int32_t> ids_;
  int64_t context_;
  int64_t size_ = 0;
};

}  // namespace

bool is_text_spec(std::string_view spec) {
  return spec.starts_with(kKind);
}

DataSpec parse_text_spec(std::string_view spec) {
  if (!is_text_spec(spec)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is no text", spec),
                "language models learn from text:FILE");
  }
  const std::vector<std::string> known = {"context", "tokens", "chunks"};
  DataSpec out;
  out.kind = "text";
  size_t comma = spec.find(',');
  out.path = spec.substr(kKind.size(), comma == spec.npos ? spec.npos : comma - kKind.size());
  while (comma != spec.npos) {
    const size_t next = spec.find(',', comma + 1);
    const std::string_view part =
        spec.substr(comma + 1, next == spec.npos ? next : next - comma - 1);
    const size_t equal = part.find('=');
    const std::string name(part.substr(0, equal));
    if (equal == part.npos || std::find(known.begin(), known.end(), name) == known.end()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("'{}' in '{}'", part, spec),
                  did_you_mean(name, known));
    }
    out.options[name] = part.substr(equal + 1);
    number_of(out, name.c_str(), 1);
    comma = next;
  }
  return out;
}

std::string read_text_of(const DataSpec& spec) {
  constexpr size_t kMostBytes = size_t{1} << 29;
  return read_text(spec.path, kMostBytes);
}

int64_t number_of(const DataSpec& spec, const char* option, int64_t otherwise) {
  const auto found = spec.options.find(option);
  if (found == spec.options.end()) return otherwise;
  const std::string& text = found->second;
  int64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr int64_t kMost = int64_t{1} << 40;
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || value < 1 || value > kMost) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}={} is no number from 1 on", option, text));
  }
  return value;
}

std::unique_ptr<Dataset> packed_text(std::vector<int32_t> ids, int64_t context) {
  return std::make_unique<PackedText>(std::move(ids), context);
}

}  // namespace narrow
