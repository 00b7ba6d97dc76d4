// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/weight_source.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/llm/checkpoint.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

class GgufSource final : public WeightSource {
 public:
  explicit GgufSource(const fs::path& path)
      : mapped_(MappedFile::open(path)),
        file_(GgufFile::parse(mapped_, mapped_->bytes(), path.string())) {
    for (const auto& [key, value] : file_.metadata()) {
      if (key == "split.count" && value.as_int() > 1) {
        throw Error(ErrorCode::unsupported,
                    fmt::format("{} is one of {} files", path.string(), value.as_int()),
                    "merge them first");
      }
    }
    for (const GgufTensor& t : file_.tensors()) {
      infos_.push_back({t.name, t.dims, t.type, t.bytes.size()});
    }
  }

  const std::vector<WeightInfo>& tensors() const override { return infos_; }
  uint64_t file_bytes() const override { return mapped_->bytes().size(); }
  bool is_gguf() const override { return true; }
  GgufMetadata metadata() const override {
    GgufMetadata kept;
    for (const auto& [key, value] : file_.metadata()) {
      if (!key.starts_with("split.")) kept.emplace_back(key, value);
    }
    return kept;
  }
  std::span<const std::byte> raw(size_t i) const override { return file_.tensors()[i].bytes; }
  std::span<const std::byte> stored(size_t i) const override { return file_.tensors()[i].bytes; }
  void read_rows(size_t i, int64_t first, int64_t count, float* out) const override {
    const GgufTensor& t = file_.tensors()[i];
    const size_t row = row_bytes(*t.type->codec, t.columns());
    const size_t blocks = static_cast<size_t>(t.columns()) / t.type->block_values;
    const auto bytes = t.bytes.subspan(row * static_cast<size_t>(first));
    codec(*t.type->codec)
        .decode(reinterpret_cast<const uint8_t*>(bytes.data()),
                count * static_cast<int64_t>(blocks), out);
  }

 private:
  std::shared_ptr<const MappedFile> mapped_;
  GgufFile file_;
  std::vector<WeightInfo> infos_;
};

/// The folder of a Hugging Face model, or one in memory.
class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(llm::Checkpoint model)
      : model_(std::move(model)), metadata_(model_.gguf_metadata()) {
    for (const llm::CheckpointTensor& t : model_.tensors()) {
      infos_.push_back({t.name, t.dims, &gguf_type(t.type), t.bytes()});
      bytes_ += t.bytes();
    }
  }

  const std::vector<WeightInfo>& tensors() const override { return infos_; }
  uint64_t file_bytes() const override { return bytes_; }
  bool is_gguf() const override { return false; }
  GgufMetadata metadata() const override { return metadata_; }
  std::span<const std::byte> raw(size_t i) const override {
    const llm::CheckpointTensor& t = model_.tensors()[i];
    if (t.difference == llm::Difference::none) return stored(i);
    // Codes are not made a second time: rows of blocks go to their places as they are.
    if (codec(t.type).block_values == 1) return {};
    current_ = model_.raw_in_gguf_order(t.name);
    return {current_.raw(), current_.bytes()};
  }
  std::span<const std::byte> stored(size_t i) const override {
    const llm::CheckpointTensor& t = model_.tensors()[i];
    if (t.difference == llm::Difference::computed) return {};
    current_ = model_.raw(t.name);
    return {current_.raw(), current_.bytes()};
  }
  void read_rows(size_t i, int64_t first, int64_t count, float* out) const override {
    const llm::CheckpointTensor& t = model_.tensors()[i];
    model_.read_rows(t.name, first, count,
                     {out, static_cast<size_t>(count) * static_cast<size_t>(t.columns())});
  }

 private:
  llm::Checkpoint model_;
  GgufMetadata metadata_;
  std::vector<WeightInfo> infos_;
  uint64_t bytes_ = 0;
  mutable Tensor current_;  // behind the last span: a view of the file, or a copy
};

/// The number under <architecture>.KEY, of the first layer where it is a list; or `otherwise`.
int64_t number_of(const GgufMetadata& metadata, const std::string& key, int64_t otherwise) {
  for (const auto& [name, value] : metadata) {
    if (name != key) continue;
    if (value.kind() != GgufKind::array) return value.as_int();
    const std::vector<int64_t> all = value.as_ints();
    return all.empty() ? otherwise : all.front();
  }
  return otherwise;
}

}  // namespace

std::unique_ptr<WeightSource> open_weights(const llm::Checkpoint& checkpoint) {
  return std::make_unique<CheckpointSource>(checkpoint);
}

std::unique_ptr<WeightSource> open_weights(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const fs::path gguf = single_gguf_in(path);
    if (gguf.empty()) return open_weights(llm::Checkpoint::open(path));
    return std::make_unique<GgufSource>(gguf);
  }
  return std::make_unique<GgufSource>(path);
}

ModelTraits model_traits(const GgufMetadata& metadata) {
  ModelTraits traits;
  for (const auto& [key, value] : metadata) {
    if (key == "general.architecture") traits.architecture = std::string(value.as_string());
  }
  const auto number = [&](const char* key, int64_t otherwise) {
    return number_of(metadata, traits.architecture + "." + key, otherwise);
  };
  traits.layers = number("block_count", 0);
  traits.experts = number("expert_count", 0);
  const int64_t heads = number("attention.head_count", 1);
  const int64_t kv_heads = number("attention.head_count_kv", heads);
  if (kv_heads > 0 && heads > 0) traits.heads_per_key = heads / kv_heads;
  return traits;
}

bool is_language_model(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return true;
  return is_gguf_file(path) || path.extension() == ".gguf";
}

}  // namespace narrow
