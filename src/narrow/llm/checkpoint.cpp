// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/parallel.h"
#include "narrow/llm/checkpoint_impl.h"
#include "narrow/llm/sentence_settings.h"
#include "narrow/llm/tokenizer/gguf_tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/vocabulary.h"

namespace narrow::llm {

namespace fs = std::filesystem;

namespace {

std::optional<BlockType> block_type_of(DType dtype) {
  if (dtype == DType::float32) return BlockType::f32;
  if (dtype == DType::float16) return BlockType::f16;
  if (dtype == DType::bfloat16) return BlockType::bf16;
  return {};
}

[[noreturn]] void unknown_type(std::string_view name, std::string_view type) {
  throw Error(ErrorCode::unsupported,
              fmt::format("tensor '{}' has the element type {}", name, type),
              "known are F32, F16, BF16 and, in GGUF files, the block types");
}

/// Up to five names, and how many more.
std::string some_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < 5; ++i) {
    text += fmt::format("{}'{}'", i ? ", " : "", names[i]);
  }
  if (names.size() > 5) text += fmt::format(" and {} more", names.size() - 5);
  return text;
}

/// Row of the file that holds row `row` of GGUF: there (2i, 2i + 1) of a head rotate together, in
/// the file (i, i + d / 2).
int64_t half_rotation_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

/// One that is not known matters to who wants vectors, not here.
Pooling pooling_in(const fs::path& folder) {
  try {
    return read_sentence_settings(texts_in_folder(folder)).pooling.value_or(Pooling::none);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::unsupported) throw;
    return Pooling::none;
  }
}

/// The way back: row of GGUF that row `row` of a file with half rotation is.
int64_t interleaved_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  const int64_t half = head_dim / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

}  // namespace

void Checkpoint::Impl::open_gguf(const fs::path& file) {
  gguf = std::make_shared<const GgufFile>(GgufFile::open(file));
  config = config_from_gguf(*gguf);
  architecture = find_architecture(config.architecture);
  collect("");
}

void Checkpoint::Impl::open_folder(const fs::path& where, const fs::path& weights) {
  folder = where;
  const fs::path config_path = where / "config.json";
  if (!fs::exists(config_path)) {
    throw Error(ErrorCode::not_found, fmt::format("{}: no config.json", where.string()),
                "give the folder of a Hugging Face model, or a .gguf file");
  }
  safetensors = SafetensorsCheckpoint::open(weights);
  const std::vector<std::string> all = safetensors->names();
  const auto has_tensor = [&all](std::string_view suffix) {
    for (const std::string& name : all) {
      if (name.ends_with(suffix)) return true;
    }
    return false;
  };
  config = config_from_hf(read_text(config_path), has_tensor);
  config.name = fs::weakly_canonical(where).filename().string();
  config.pooling = pooling_in(where);
  architecture = find_architecture(config.architecture);
  collect(find_prefix());
}

/// The prefix of this file's names: that under which it has the embedding.
std::string Checkpoint::Impl::find_prefix() const {
  std::vector<std::string> looked_for;
  for (const std::string_view prefix : architecture->prefixes) {
    std::string name = std::string(prefix) + std::string(architecture->tensors.front().hf);
    if (safetensors->find(name)) return std::string(prefix);
    looked_for.push_back(std::move(name));
  }
  throw Error(ErrorCode::corrupt_data,
              "the model has no embedding: there is none of the tensors " + some_of(looked_for));
}

std::optional<Stored> Checkpoint::Impl::stored(const std::string& name) const {
  if (gguf) {
    const GgufTensor* t = gguf->find_tensor(name);
    if (!t) return {};
    if (!t->type->codec) unknown_type(name, t->type->name);
    return Stored{t->dims, *t->type->codec, t->bytes};
  }
  const SafetensorsEntry* t = safetensors->find(name);
  if (!t) return {};
  const std::optional<BlockType> type = block_type_of(t->dtype);
  if (!type) unknown_type(name, t->dtype_name);
  return Stored{t->dims, *type, t->bytes};
}

std::vector<std::string> Checkpoint::Impl::names() const {
  if (safetensors) return safetensors->names();
  std::vector<std::string> all;
  for (const GgufTensor& t : gguf->tensors()) all.push_back(t.name);
  return all;
}

std::string Checkpoint::Impl::stored_name(const TensorRow& row, int64_t layer,
                                          const std::string& prefix) const {
  if (gguf) return name_of(row.gguf, layer);
  if (!row.hf.starts_with('/')) return prefix + name_of(row.hf, layer);
  // Whole names have what stands before "model." in models of several parts.
  std::string name(row.hf.substr(1));
  const size_t model = prefix.rfind("model.");
  if (!safetensors->find(name) && model != std::string::npos && model > 0) {
    return prefix.substr(0, model) + name;
  }
  return name;
}

/// What Hugging Face's files call a tensor of a GGUF file; empty where they have none.
std::string Checkpoint::Impl::hf_name(const TensorRow& row, int64_t layer) const {
  if (row.difference == Difference::computed) return {};
  if (row.hf.starts_with('/')) return std::string(row.hf.substr(1));
  return std::string(architecture->prefixes.front()) + name_of(row.hf, layer);
}

void Checkpoint::Impl::check_shape(const TensorRow& row, const CheckpointTensor& t,
                                   const Stored& s) const {
  Dims wanted = t.dims;
  if (t.difference == Difference::transposed) std::swap(wanted[0], wanted[1]);
  if (s.dims == wanted) return;
  std::string why = describe(config, row.rows);
  if (row.columns != Size::none) why += ", " + describe(config, row.columns);
  throw Error(ErrorCode::corrupt_data,
              fmt::format("tensor '{}' is {}, but the config makes it {} ({})", t.stored_name,
                          narrow::to_string(s.dims), narrow::to_string(wanted), why));
}

void Checkpoint::Impl::add(const TensorRow& row, int64_t layer, const std::string& prefix,
                           std::vector<std::string>& missing) {
  CheckpointTensor t;
  t.name = name_of(row.gguf, layer);
  t.dims = dims_of(config, row);
  t.difference = gguf ? Difference::none : row.difference;
  t.hf_difference = row.difference;
  std::span<const std::byte> data;
  if (t.difference == Difference::computed) {
    data = std::as_bytes(std::span(config.rope_divisors));
  } else {
    t.stored_name = stored_name(row, layer, prefix);
    const std::optional<Stored> s = stored(t.stored_name);
    if (!s) {
      missing.push_back(t.stored_name);
      return;
    }
    check_shape(row, t, *s);
    t.type = s->type;
    t.hf_name = gguf ? hf_name(row, layer) : t.stored_name;
    data = s->bytes;
    used.insert(t.stored_name);
  }
  index.emplace(t.name, tensors.size());
  tensors.push_back(std::move(t));
  bytes.push_back(data);
}

void Checkpoint::Impl::collect(const std::string& prefix) {
  std::vector<std::string> missing;
  constexpr size_t kMostMissing = 1000;
  for_each_tensor(config, [&](const TensorRow& row, int64_t layer) {
    if (missing.size() < kMostMissing) add(row, layer, prefix, missing);
  });
  if (!missing.empty()) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("{} tensors that the config asks for are missing: {}", missing.size(),
                            some_of(missing)));
  }
  check_left_over();
}

/// Weights that nothing reads would change the model silently.
void Checkpoint::Impl::check_left_over() const {
  std::vector<std::string> left_over;
  for (const std::string& name : names()) {
    if (used.contains(name)) continue;
    bool known = name.ends_with("lm_head.weight") && config.tied_embedding;
    for (const std::string_view part : architecture->unused) {
      known = known || name.find(part) != std::string::npos;
    }
    if (!known) left_over.push_back(name);
  }
  if (left_over.empty()) return;
  throw Error(ErrorCode::corrupt_data,
              fmt::format("{} tensors have no place in the model that the config describes: {}",
                          left_over.size(), some_of(left_over)),
              fmt::format("the config says {} with {} layers", config.architecture, config.layers));
}

size_t Checkpoint::Impl::at(std::string_view name) const {
  const auto found = index.find(std::string(name));
  if (found == index.end()) {
    throw Error(ErrorCode::not_found, fmt::format("the model has no tensor '{}'", name));
  }
  return found->second;
}

Checkpoint Checkpoint::open(const fs::path& path) {
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  try {
    if (fs::is_directory(path)) {
      const fs::path gguf = single_gguf_in(path);
      if (gguf.empty()) {
        impl->open_folder(path, path);
      } else {
        impl->open_gguf(gguf);
      }
    } else if (path.extension() == ".safetensors") {
      impl->open_folder(path.has_parent_path() ? path.parent_path() : ".", path);
    } else if (path.filename() == "config.json") {
      const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
      impl->open_folder(folder, folder);
    } else {
      impl->open_gguf(path);
    }
  } catch (Error& e) {
    if (e.message().find(path.string()) == std::string::npos &&
        e.context().find(path.string()) == std::string::npos) {
      e.add_context(path.string());
    }
    throw;
  }
  Checkpoint checkpoint;
  checkpoint.impl_ = std::move(impl);
  return checkpoint;
}

const fs::path& Checkpoint::path() const {
  return impl_->path;
}

bool Checkpoint::is_reshaped() const {
  return impl_->reshaped;
}

bool Checkpoint::is_gguf() const {
  return impl_->gguf != nullptr;
}

const fs::path& Checkpoint::folder() const {
  return impl_->folder;
}

const ModelConfig& Checkpoint::config() const {
  return impl_->config;
}

std::span<const CheckpointTensor> Checkpoint::tensors() const {
  return impl_->tensors;
}

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto found = impl_->index.find(std::string(name));
  return found == impl_->index.end() ? nullptr : &impl_->tensors[found->second];
}

const CheckpointTensor& Checkpoint::at(std::string_view name) const {
  return impl_->tensors[impl_->at(name)];
}

Tensor Checkpoint::raw(std::string_view name) const {
  const CheckpointTensor& t = at(name);
  if (t.difference == Difference::computed) return read(name);
  if (const auto found = impl_->replaced.find(t.name); found != impl_->replaced.end()) {
    return found->second;
  }
  if (impl_->safetensors) return impl_->safetensors->tensor(t.stored_name);
  const GgufTensor& stored = impl_->gguf->tensor_at(t.stored_name);
  if (stored.type->dtype != DType::undefined) return impl_->gguf->tensor(t.stored_name);
  const auto bytes = static_cast<int64_t>(row_bytes(t.type, t.columns()));
  return Tensor::view(impl_->gguf, stored.bytes.data(), stored.bytes.size(), DType::uint8,
                      {t.rows(), bytes});
}

Tensor Checkpoint::raw_in_gguf_order(std::string_view name) const {
  const CheckpointTensor& t = at(name);
  Tensor stored = raw(name);
  if (!is_rotated(t.difference)) return stored;
  Tensor out(stored.dtype(), stored.dims());
  const size_t size = stored.bytes() / static_cast<size_t>(stored.dim(0));
  for (int64_t row = 0; row < stored.dim(0); ++row) {
    const int64_t from = half_rotation_row(row, impl_->config.head_dim);
    std::memcpy(out.mutable_raw() + static_cast<size_t>(row) * size,
                stored.raw() + static_cast<size_t>(from) * size, size);
  }
  return out;
}

namespace {

/// Rows of a matrix that is stored [in, out]: columns of the file.
void read_columns(const CheckpointTensor& t, std::span<const std::byte> bytes, int64_t first,
                  int64_t count, std::span<float> out) {
  const auto stored_columns = static_cast<size_t>(t.rows());
  const size_t element = row_bytes(t.type, 1);
  const int64_t inputs = t.columns();
  parallel_for(inputs, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> part(static_cast<size_t>(count));
    for (int64_t i = begin; i < end; ++i) {
      const size_t at = (static_cast<size_t>(i) * stored_columns + static_cast<size_t>(first));
      decode(t.type, bytes.subspan(at * element, part.size() * element), part);
      for (size_t row = 0; row < part.size(); ++row) {
        out[row * static_cast<size_t>(inputs) + static_cast<size_t>(i)] = part[row];
      }
    }
  });
}

/// Rows in GGUF's order of a matrix with half rotation.
void read_rotated(const CheckpointTensor& t, std::span<const std::byte> bytes, int64_t head_dim,
                  int64_t first, int64_t count, std::span<float> out) {
  const bool vector = t.dims.size() == 1;
  const int64_t columns = vector ? 1 : t.columns();
  const size_t size = row_bytes(t.type, columns);
  parallel_for(vector ? t.columns() : count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = half_rotation_row(vector ? i : first + i, head_dim);
      decode(t.type, bytes.subspan(static_cast<size_t>(row) * size, size),
             out.subspan(static_cast<size_t>(i * columns), static_cast<size_t>(columns)));
    }
  });
}

}  // namespace

void Checkpoint::read_rows(std::string_view name, int64_t first, int64_t count,
                           std::span<float> out, RowOrder order) const {
  const size_t place = impl_->at(name);
  const CheckpointTensor& t = impl_->tensors[place];
  const std::span<const std::byte> bytes = impl_->bytes[place];
  if (first < 0 || count < 0 || count > t.rows() - first ||
      out.size() != static_cast<size_t>(count * t.columns())) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("rows {}..{} of '{}' {} into {} floats", first, first + count, name,
                            narrow::to_string(t.dims), out.size()));
  }
  if (t.difference == Difference::transposed) {
    read_columns(t, bytes, first, count, out);
  } else if (is_rotated(t.difference) && order == RowOrder::gguf) {
    read_rotated(t, bytes, impl_->config.head_dim, first, count, out);
  } else {
    const size_t size = row_bytes(t.type, t.columns());
    decode_rows(t.type,
                bytes.subspan(static_cast<size_t>(first) * size, static_cast<size_t>(count) * size),
                t.columns(), out);
  }
  if (t.difference == Difference::minus_one) {
    for (float& x : out) x += 1.0F;
  }
}

Dims Checkpoint::hf_dims(const CheckpointTensor& t) const {
  Dims dims = t.dims;
  if (t.hf_difference == Difference::transposed) std::swap(dims[0], dims[1]);
  return dims;
}

namespace {

/// Columns [first, first + count) of a matrix as rows.
void read_transposed(const Checkpoint& model, const CheckpointTensor& t, int64_t first,
                     int64_t count, std::span<float> out) {
  const int64_t length = t.rows();
  std::vector<float> row(static_cast<size_t>(t.columns()));
  for (int64_t r = 0; r < length; ++r) {
    model.read_rows(t.name, r, 1, row);
    for (int64_t c = 0; c < count; ++c) {
      out[static_cast<size_t>(c * length + r)] = row[static_cast<size_t>(first + c)];
    }
  }
}

void read_half_rotated(const Checkpoint& model, const CheckpointTensor& t, int64_t first,
                       int64_t count, std::span<float> out) {
  const int64_t head_dim = model.config().head_dim;
  if (t.dims.size() == 1) {
    std::vector<float> row(out.size());
    model.read_rows(t.name, 0, 1, row);
    for (int64_t i = 0; i < t.columns(); ++i) {
      out[static_cast<size_t>(i)] = row[static_cast<size_t>(interleaved_row(i, head_dim))];
    }
    return;
  }
  const auto columns = static_cast<size_t>(t.columns());
  for (int64_t r = 0; r < count; ++r) {
    model.read_rows(t.name, interleaved_row(first + r, head_dim), 1,
                    out.subspan(static_cast<size_t>(r) * columns, columns));
  }
}

}  // namespace

void Checkpoint::read_hf_rows(const CheckpointTensor& t, int64_t first, int64_t count,
                              std::span<float> out) const {
  const Dims dims = hf_dims(t);
  const int64_t rows = dims.size() < 2 ? 1 : dims.front();
  if (first < 0 || count < 0 || count > rows - first ||
      out.size() != static_cast<size_t>(count * dims.back())) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("rows {}..{} of '{}' {} into {} floats", first, first + count,
                            t.hf_name, narrow::to_string(dims), out.size()));
  }
  if (t.difference == t.hf_difference) {
    const size_t size = row_bytes(t.type, dims.back());
    decode_rows(t.type,
                impl_->bytes[impl_->at(t.name)].subspan(static_cast<size_t>(first) * size,
                                                        static_cast<size_t>(count) * size),
                dims.back(), out);
  } else if (t.hf_difference == Difference::transposed) {
    read_transposed(*this, t, first, count, out);
  } else if (is_rotated(t.hf_difference)) {
    read_half_rotated(*this, t, first, count, out);
  } else {
    read_rows(t.name, first, count, out);
    if (t.hf_difference != Difference::minus_one) return;
    for (float& x : out) x -= 1.0F;
  }
}

Tensor Checkpoint::read(std::string_view name, RowOrder order) const {
  const CheckpointTensor& t = at(name);
  Tensor out(DType::float32, t.dims);
  read_rows(name, 0, t.rows(), out.mutable_data<float>(), order);
  return out;
}

namespace {

/// What the files say, but for the config.
void replace_config(const ModelConfig& config, GgufMetadata& metadata) {
  GgufMetadata own;
  append_gguf_config(config, own);
  for (auto& [key, value] : own) {
    const auto found = std::find_if(metadata.begin(), metadata.end(),
                                    [&key = key](const auto& entry) { return entry.first == key; });
    if (found == metadata.end()) {
      metadata.emplace_back(key, std::move(value));
    } else {
      found->second = std::move(value);
    }
  }
}

}  // namespace

GgufMetadata Checkpoint::gguf_metadata() const {
  GgufMetadata metadata;
  if (impl_->gguf) {
    for (const auto& [key, value] : impl_->gguf->metadata()) {
      if (key != "general.file_type" && key != "general.quantization_version") {
        metadata.emplace_back(key, value);
      }
    }
    if (impl_->reshaped) replace_config(impl_->config, metadata);
    return metadata;
  }
  append_gguf_config(impl_->config, metadata);
  if (impl_->config.token_types != 0) {
    metadata.emplace_back("tokenizer.ggml.token_type_count",
                          GgufValue::u32(static_cast<uint32_t>(impl_->config.token_types)));
  }
  if (!has_tokenizer()) {
    metadata.emplace_back("tokenizer.ggml.model", GgufValue::string("none"));
    return metadata;
  }
  append_vocabulary(make_vocabulary(tokenizer_data(), impl_->config.vocab_size), metadata);
  return metadata;
}

bool Checkpoint::has_tokenizer() const {
  if (impl_->tokenizer) return true;
  if (impl_->gguf) return has_vocabulary(*impl_->gguf);
  return fs::exists(impl_->folder / "tokenizer.json") ||
         fs::exists(impl_->folder / "tokenizer.model");
}

TokenizerData Checkpoint::tokenizer_data() const {
  if (impl_->gguf) return tokenizer_data_from_gguf(vocabulary_of(*impl_->gguf));
  TokenizerData data = impl_->tokenizer ? *impl_->tokenizer : read_tokenizer(impl_->folder);
  if (data.special.bos < 0) data.special.bos = impl_->config.bos;
  if (data.special.eos.empty()) data.special.eos = impl_->config.eos;
  return data;
}

}  // namespace narrow::llm
