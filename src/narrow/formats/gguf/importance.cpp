// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/gguf/importance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/formats/gguf/gguf.h"

namespace narrow {
namespace {

using Bytes = std::span<const std::byte>;

constexpr const char* kSums = ".in_sum2";
constexpr const char* kCounts = ".counts";

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::corrupt_data, what, "collect the importances again");
}

void check_entry(const std::string& name, const ImportanceEntry& e, ErrorCode code) {
  const auto usable = [](float x) { return std::isfinite(x) && x >= 0; };
  if (e.counts.empty() || e.sums.empty() || e.sums.size() % e.counts.size() != 0) {
    throw Error(code, fmt::format("entry '{}' has {} sums for {} counts", name, e.sums.size(),
                                  e.counts.size()));
  }
  if (!std::all_of(e.sums.begin(), e.sums.end(), usable) ||
      !std::all_of(e.counts.begin(), e.counts.end(), usable)) {
    throw Error(code, fmt::format("entry '{}' has a value that is negative or not finite", name),
                "collect the importances again");
  }
}

/// `name` without its ending, or empty.
std::string stem(const std::string& name, std::string_view ending) {
  if (name.size() <= ending.size() || !name.ends_with(ending)) return {};
  return name.substr(0, name.size() - ending.size());
}

std::vector<float> floats_of(const GgufFile& file, const std::string& name) {
  if (file.tensor_at(name).type->codec != BlockType::f32) corrupt("'" + name + "' is not F32");
  return file.tensor(name).to_floats();
}

ImportanceFile from_gguf(const GgufFile& gguf) {
  const GgufValue* type = gguf.find_metadata("general.type");
  if (type == nullptr || type->kind() != GgufKind::string || type->as_string() != "imatrix") {
    corrupt("general.type is not \"imatrix\"");
  }
  ImportanceFile out;
  if (const GgufValue* v = gguf.find_metadata("imatrix.datasets")) {
    for (const std::string_view text : v->as_strings()) out.datasets.emplace_back(text);
  }
  const auto number = [&](const char* key) {
    const GgufValue* v = gguf.find_metadata(key);
    return v == nullptr ? 0u : static_cast<uint32_t>(v->as_int());
  };
  out.chunk_count = number("imatrix.chunk_count");
  out.chunk_size = number("imatrix.chunk_size");
  for (const GgufTensor& t : gguf.tensors()) {
    if (const std::string name = stem(t.name, kSums); !name.empty()) {
      if (gguf.find_tensor(name + kCounts) == nullptr) corrupt("'" + name + "' has no counts");
      ImportanceEntry& e = out.entries[name];
      e.sums = floats_of(gguf, t.name);
      e.counts = floats_of(gguf, name + kCounts);
      check_entry(name, e, ErrorCode::corrupt_data);
    } else if (const std::string counted = stem(t.name, kCounts);
               !counted.empty() && gguf.find_tensor(counted + kSums) == nullptr) {
      corrupt("'" + counted + "' has no sums");
    }
  }
  return out;
}

std::string take_short_text(Bytes& bytes) {
  const auto length = take_number<int32_t>(bytes);
  if (length < 0 || static_cast<size_t>(length) > bytes.size()) {
    corrupt(fmt::format("a name of {} bytes with {} left", length, bytes.size()));
  }
  const std::string text(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(length));
  bytes = bytes.subspan(static_cast<size_t>(length));
  return text;
}

ImportanceFile from_dat(Bytes bytes) {
  ImportanceFile out;
  const auto entries = take_number<int32_t>(bytes);
  if (entries < 1) corrupt(fmt::format("{} entries", entries));
  for (int32_t i = 0; i < entries; ++i) {
    const std::string name = take_short_text(bytes);
    const auto calls = take_number<int32_t>(bytes);
    const auto n = take_number<int32_t>(bytes);
    if (n < 1 || static_cast<size_t>(n) > bytes.size() / sizeof(float)) {
      corrupt(fmt::format("entry '{}' has {} values", name, n));
    }
    ImportanceEntry e;
    e.counts = {static_cast<float>(calls)};
    e.sums.resize(static_cast<size_t>(n));
    std::memcpy(e.sums.data(), bytes.data(), e.sums.size() * sizeof(float));
    bytes = bytes.subspan(e.sums.size() * sizeof(float));
    check_entry(name, e, ErrorCode::corrupt_data);
    if (!out.entries.emplace(name, std::move(e)).second) {
      corrupt(fmt::format("entry '{}' stands there twice", name));
    }
  }
  if (bytes.empty()) return out;  // files of early tools end here
  out.chunk_count = static_cast<uint32_t>(std::max(take_number<int32_t>(bytes), 0));
  if (bytes.empty()) return out;
  if (std::string dataset = take_short_text(bytes); !dataset.empty()) {
    out.datasets.push_back(std::move(dataset));
  }
  return out;
}

void write_gguf(const ImportanceFile& file, const std::filesystem::path& path) {
  const GgufMetadata metadata = {
      {"general.type", GgufValue::string("imatrix")},
      {"imatrix.datasets", GgufValue::strings(file.datasets)},
      {"imatrix.chunk_count", GgufValue::u32(file.chunk_count)},
      {"imatrix.chunk_size", GgufValue::u32(file.chunk_size)},
  };
  const GgufTensorType& f32 = gguf_type(BlockType::f32);
  std::vector<GgufWriter::Item> items;
  for (const auto& [name, e] : file.entries) {
    const auto experts = static_cast<int64_t>(e.experts());
    items.push_back({name + kSums, &f32, {experts, static_cast<int64_t>(e.columns())}});
    items.push_back({name + kCounts, &f32, {experts, 1}});
  }
  GgufWriter writer(path, metadata, std::move(items));
  for (const auto& [name, e] : file.entries) {
    writer.write(std::as_bytes(std::span(e.sums)));
    writer.write(std::as_bytes(std::span(e.counts)));
  }
  writer.commit();
}

void write_dat(const ImportanceFile& file, const std::filesystem::path& path) {
  AtomicFile out(path);
  const auto put = [&](int64_t x) {
    if (x > INT32_MAX) {
      throw Error(ErrorCode::invalid_argument, fmt::format("{} does not fit a dat file", x));
    }
    const auto narrowed = static_cast<int32_t>(x);
    out.write(&narrowed, sizeof(narrowed));
  };
  const auto put_text = [&](const std::string& text) {
    put(static_cast<int64_t>(text.size()));
    out.write(text);
  };
  put(static_cast<int64_t>(file.entries.size()));
  for (const auto& [name, e] : file.entries) {
    // The form counts calls: chunks that were begun.
    const float most = *std::max_element(e.counts.begin(), e.counts.end());
    const float chunk = static_cast<float>(std::max(file.chunk_size, 1u));
    const auto calls = static_cast<int64_t>(std::min(std::ceil(most / chunk), 2e9f));
    put_text(name);
    put(calls);
    put(static_cast<int64_t>(e.sums.size()));
    for (size_t expert = 0; expert < e.experts(); ++expert) {
      for (const float mean : e.mean_squares(expert)) {
        const float scaled = mean * static_cast<float>(calls);
        out.write(&scaled, sizeof(scaled));
      }
    }
  }
  put(file.chunk_count);
  put_text(file.datasets.empty() ? std::string() : file.datasets.back());
  out.commit();
}

}  // namespace

std::vector<float> ImportanceEntry::mean_squares(size_t expert) const {
  if (expert >= experts()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("no expert {} among {}", expert, experts()));
  }
  if (!(counts[expert] > 0)) return std::vector<float>(columns(), 1.0f);
  std::vector<float> out(columns());
  for (size_t i = 0; i < out.size(); ++i) out[i] = sums[expert * columns() + i] / counts[expert];
  return out;
}

ImportanceFile read_importance(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_importance(file, file->bytes(), path.string());
}

ImportanceFile parse_importance(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                                const std::string& name) {
  if (starts_as_gguf(bytes)) {
    const GgufFile gguf = GgufFile::parse(std::move(owner), bytes, name);
    try {
      return from_gguf(gguf);
    } catch (Error& e) {
      e.add_context(name);
      throw;
    }
  }
  try {
    return from_dat(bytes);
  } catch (Error& e) {
    e.add_context(name);
    throw;
  }
}

void write_importance(const ImportanceFile& file, const std::filesystem::path& path,
                      ImportanceForm form) {
  for (const auto& [name, e] : file.entries) check_entry(name, e, ErrorCode::invalid_argument);
  if (form == ImportanceForm::gguf) {
    write_gguf(file, path);
  } else {
    write_dat(file, path);
  }
}

}  // namespace narrow
