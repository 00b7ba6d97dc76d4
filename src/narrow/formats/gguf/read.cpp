// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/formats/gguf/gguf.h"

namespace narrow {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxName = 65535;     // the format's own limit for keys
constexpr uint32_t kMaxRank = 4;         // of ggml
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
constexpr uint64_t kSmallestPair = 8 + 4 + 1;        // empty key, kind, one byte
constexpr uint64_t kSmallestTensor = 8 + 4 + 4 + 8;  // empty name, rank 0, type, offset

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::corrupt_data, what, "fetch or convert the file again");
}

void check_version(uint32_t version) {
  if (version == 2 || version == 3) return;
  if (const uint32_t swapped = __builtin_bswap32(version); swapped == 2 || swapped == 3) {
    throw Error(ErrorCode::unsupported, fmt::format("a big-endian GGUF file (version {})", swapped),
                "convert it to little-endian, as gguf-py's gguf_convert_endian.py does");
  }
  throw Error(ErrorCode::unsupported, fmt::format("GGUF version {}; known are 2 and 3", version),
              "convert the model again with a newer tool");
}

GgufMetadata read_metadata(uint64_t count, const std::shared_ptr<const void>& owner, Bytes& bytes) {
  if (count > bytes.size() / kSmallestPair) {
    corrupt(fmt::format("{} metadata values in {} bytes", count, bytes.size()));
  }
  GgufMetadata out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    std::string key(take_text(bytes, kMaxName));
    const auto kind = static_cast<GgufKind>(take_number<uint32_t>(bytes));
    try {
      out.emplace_back(key, GgufValue::read(kind, owner, bytes));
    } catch (Error& e) {
      e.add_context(fmt::format("metadata '{}'", key));
      throw;
    }
  }
  return out;
}

struct RawTensor {
  std::string name;
  Dims dims;
  uint32_t type = 0;
  uint64_t offset = 0;
};

RawTensor read_tensor(Bytes& bytes) {
  RawTensor t;
  t.name = take_text(bytes, kMaxName);
  const auto rank = take_number<uint32_t>(bytes);
  if (rank > kMaxRank) corrupt(fmt::format("tensor '{}' has {} dimensions", t.name, rank));
  for (uint32_t i = 0; i < rank; ++i) {
    const auto d = take_number<uint64_t>(bytes);
    if (d > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      corrupt(fmt::format("tensor '{}' has a dimension of {}", t.name, d));
    }
    t.dims.insert(t.dims.begin(), static_cast<int64_t>(d));
  }
  t.type = take_number<uint32_t>(bytes);
  t.offset = take_number<uint64_t>(bytes);
  return t;
}

std::vector<RawTensor> read_tensors(uint64_t count, Bytes& bytes) {
  if (count > bytes.size() / kSmallestTensor) {
    corrupt(fmt::format("{} tensors in {} bytes", count, bytes.size()));
  }
  std::vector<RawTensor> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) out.push_back(read_tensor(bytes));
  return out;
}

/// All tensors of types that are not known, in one error.
void require_known_types(const std::vector<RawTensor>& tensors) {
  constexpr size_t kShown = 8;
  std::string list;
  size_t unknown = 0;
  for (const RawTensor& t : tensors) {
    if (find_gguf_type(t.type) != nullptr) continue;
    if (++unknown <= kShown) {
      list += fmt::format("{}'{}' (type {})", list.empty() ? "" : ", ", t.name, t.type);
    }
  }
  if (unknown == 0) return;
  if (unknown > kShown) list += fmt::format(" and {} more", unknown - kShown);
  throw Error(ErrorCode::unsupported, "tensors of types that are not known: " + list,
              "convert the model to a type that is known, such as Q8_0");
}

uint64_t alignment_of(const GgufValue* value) {
  if (value == nullptr) return kDefaultAlignment;
  const int64_t a = value->as_int();
  if (a < 1 || static_cast<uint64_t>(a) > kMaxAlignment ||
      !std::has_single_bit(static_cast<uint64_t>(a))) {
    corrupt(fmt::format("general.alignment is {}, not a power of two", a));
  }
  return static_cast<uint64_t>(a);
}

GgufTensor tensor_of(const RawTensor& raw, uint64_t alignment, Bytes data) {
  const auto fail = [&](const std::string& what) {
    corrupt(fmt::format("tensor '{}' {}", raw.name, what));
  };
  GgufTensor t;
  t.name = raw.name;
  t.type = find_gguf_type(raw.type);
  t.dims = raw.dims;
  int64_t elements = 0;
  try {
    elements = num_elements(t.dims);
  } catch (const Error& e) {
    fail("is refused: " + e.message());
  }
  if (t.columns() % t.type->block_values != 0) {
    fail(fmt::format("has rows of {}, not whole blocks of {} ({})", t.columns(),
                     t.type->block_values, t.type->name));
  }
  uint64_t size = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements / t.type->block_values),
                             static_cast<uint64_t>(t.type->block_bytes), &size) ||
      raw.offset > data.size() || size > data.size() - raw.offset) {
    fail(fmt::format("of {} {} at byte {} reaches past the {} there are", t.type->name,
                     to_string(t.dims), raw.offset, data.size()));
  }
  if (raw.offset % alignment != 0) {
    fail(fmt::format("lies at byte {}, not a multiple of {}", raw.offset, alignment));
  }
  t.bytes = data.subspan(raw.offset, size);
  return t;
}

void require_disjoint(const std::vector<GgufTensor>& tensors) {
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& t : tensors) {
    if (!t.bytes.empty()) order.push_back(&t);
  }
  std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->bytes.data() < b->bytes.data();
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() > order[i]->bytes.data()) {
      corrupt(fmt::format("tensors '{}' and '{}' overlap", order[i - 1]->name, order[i]->name));
    }
  }
}

}  // namespace

bool starts_as_gguf(std::span<const std::byte> bytes) {
  return bytes.size() >= sizeof(kMagic) && take_number<uint32_t>(bytes) == kMagic;
}

bool is_gguf_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;  // a pipe would wait
  std::array<char, sizeof(kMagic)> begin{};
  std::ifstream(path, std::ios::binary).read(begin.data(), begin.size());
  return starts_as_gguf(std::as_bytes(std::span(begin)));
}

std::filesystem::path single_gguf_in(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (std::filesystem::exists(folder / "config.json", ignored)) return {};
  std::filesystem::path found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse(file, file->bytes(), path.string());
}

GgufFile GgufFile::parse(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                         const std::string& name) {
  GgufFile f;
  f.name_ = name;
  f.owner_ = std::move(owner);
  try {
    f.parse_all(bytes);
  } catch (Error& e) {
    e.add_context(name);
    throw;
  }
  return f;
}

void GgufFile::parse_all(std::span<const std::byte> bytes) {
  Bytes rest = bytes;
  if (rest.size() < sizeof(kMagic) || take_number<uint32_t>(rest) != kMagic) {
    throw Error(ErrorCode::corrupt_data, "it does not start with 'GGUF'", "is it a GGUF file?");
  }
  version_ = take_number<uint32_t>(rest);
  check_version(version_);
  const auto tensor_count = take_number<uint64_t>(rest);
  const auto metadata_count = take_number<uint64_t>(rest);

  metadata_ = std::make_shared<const GgufMetadata>(read_metadata(metadata_count, owner_, rest));
  for (size_t i = 0; i < metadata_->size(); ++i) {
    const std::string& key = (*metadata_)[i].first;
    if (!metadata_index_.emplace(key, i).second) {
      corrupt(fmt::format("metadata '{}' stands there twice", key));
    }
  }
  alignment_ = alignment_of(find_metadata("general.alignment"));

  const std::vector<RawTensor> raw = read_tensors(tensor_count, rest);
  require_known_types(raw);
  const uint64_t head = bytes.size() - rest.size();
  const uint64_t start = (head + alignment_ - 1) / alignment_ * alignment_;
  const Bytes data = start < bytes.size() ? bytes.subspan(start) : bytes.last(0);
  std::vector<GgufTensor> tensors;
  tensors.reserve(raw.size());
  for (const RawTensor& t : raw) tensors.push_back(tensor_of(t, alignment_, data));
  require_disjoint(tensors);
  tensors_ = std::make_shared<const std::vector<GgufTensor>>(std::move(tensors));
  for (size_t i = 0; i < tensors_->size(); ++i) {
    const std::string& tensor = (*tensors_)[i].name;
    if (!tensor_index_.emplace(tensor, i).second) {
      corrupt(fmt::format("tensor '{}' stands there twice", tensor));
    }
  }
}

const GgufValue* GgufFile::find_metadata(std::string_view key) const {
  const auto it = metadata_index_.find(key);
  return it == metadata_index_.end() ? nullptr : &(*metadata_)[it->second].second;
}

const GgufValue& GgufFile::metadata_at(std::string_view key) const {
  if (const GgufValue* v = find_metadata(key)) return *v;
  std::vector<std::string> keys;
  for (const auto& [known, value] : *metadata_) keys.push_back(known);
  const std::string near = closest_name(key, keys);
  throw Error(ErrorCode::not_found, fmt::format("{}: no metadata '{}'", name_, key),
              near.empty() ? "" : fmt::format("there is '{}'", near));
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &(*tensors_)[it->second];
}

const GgufTensor& GgufFile::tensor_at(std::string_view name) const {
  if (const GgufTensor* t = find_tensor(name)) return *t;
  throw Error(ErrorCode::not_found, fmt::format("{}: no tensor '{}'", name_, name));
}

Tensor GgufFile::tensor(std::string_view name) const {
  const GgufTensor& t = tensor_at(name);
  if (t.type->dtype == DType::undefined) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: tensor '{}' is {}, not of plain elements", name_, name, t.type->name),
        "decode it to float32");
  }
  return Tensor::view_or_copy(owner_, t.bytes.data(), t.bytes.size(), t.type->dtype, t.dims);
}

Tensor GgufFile::decoded(std::string_view name) const {
  const GgufTensor& t = tensor_at(name);
  if (!t.type->codec) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: tensor '{}' is {}, which is not decoded here", name_, name, t.type->name));
  }
  Tensor out(DType::float32, t.dims);
  decode_rows(*t.type->codec, t.bytes, t.columns(), out.mutable_data<float>());
  return out;
}

}  // namespace narrow
