// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/tensor_proto.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "narrow/core/error.h"

namespace narrow::onnx {
namespace {

namespace fs = std::filesystem;

struct DataTypeRow {
  int data_type;
  DType dtype;       // undefined: narrow has no such type
  const char* name;  // ONNX's name
};

// TensorProto.DataType of onnx.proto.
constexpr std::array kDataTypes = {
    DataTypeRow{1, DType::float32, "float"},
    DataTypeRow{2, DType::uint8, "uint8"},
    DataTypeRow{3, DType::int8, "int8"},
    DataTypeRow{4, DType::uint16, "uint16"},
    DataTypeRow{5, DType::int16, "int16"},
    DataTypeRow{6, DType::int32, "int32"},
    DataTypeRow{7, DType::int64, "int64"},
    DataTypeRow{8, DType::string, "string"},
    DataTypeRow{9, DType::boolean, "bool"},
    DataTypeRow{10, DType::float16, "float16"},
    DataTypeRow{11, DType::float64, "double"},
    DataTypeRow{12, DType::uint32, "uint32"},
    DataTypeRow{13, DType::uint64, "uint64"},
    DataTypeRow{14, DType::undefined, "complex64"},
    DataTypeRow{15, DType::undefined, "complex128"},
    DataTypeRow{16, DType::bfloat16, "bfloat16"},
    DataTypeRow{17, DType::undefined, "float8e4m3fn"},
    DataTypeRow{18, DType::undefined, "float8e4m3fnuz"},
    DataTypeRow{19, DType::undefined, "float8e5m2"},
    DataTypeRow{20, DType::undefined, "float8e5m2fnuz"},
    DataTypeRow{21, DType::uint4, "uint4"},
    DataTypeRow{22, DType::int4, "int4"},
    DataTypeRow{23, DType::undefined, "float4e2m1"},
    DataTypeRow{24, DType::undefined, "float8e8m0"},
    DataTypeRow{25, DType::uint2, "uint2"},
    DataTypeRow{26, DType::int2, "int2"},
};

const DataTypeRow* find_row(int64_t data_type) {
  for (const DataTypeRow& row : kDataTypes) {
    if (row.data_type == data_type) return &row;
  }
  return nullptr;
}

/// A TensorProto before its data are looked at.
struct RawTensor {
  std::string name;
  Dims dims;
  int64_t data_type = 0;
  std::optional<std::string_view> raw;
  std::vector<float> floats;    // float_data
  std::vector<double> doubles;  // double_data
  std::vector<int64_t> ints;    // int32_data, int64_data or uint64_data
  uint32_t ints_field = 0;      // which of them
  std::map<std::string, std::string> external;
  bool is_external = false;
};

enum TensorField : uint32_t {
  kDims = 1,
  kDataType = 2,
  kFloatData = 4,
  kInt32Data = 5,
  kInt64Data = 7,
  kName = 8,
  kRawData = 9,
  kDoubleData = 10,
  kUint64Data = 11,
  kExternalData = 13,
  kDataLocation = 14,
};

std::pair<std::string, std::string> parse_entry(WireReader entry) {
  std::pair<std::string, std::string> out;
  while (entry.next()) {
    if (entry.field() == 1) out.first = entry.string();
    if (entry.field() == 2) out.second = entry.string();
  }
  return out;
}

RawTensor parse_fields(WireReader m) {
  RawTensor t;
  while (m.next()) {
    switch (m.field()) {
      case kDims:
        m.each_integer([&t](int64_t d) { t.dims.push_back(d); });
        break;
      case kDataType:
        t.data_type = m.integer();
        break;
      case kFloatData:
        m.each_fixed<float>([&t](float f) { t.floats.push_back(f); });
        break;
      case kDoubleData:
        m.each_fixed<double>([&t](double d) { t.doubles.push_back(d); });
        break;
      case kInt32Data:
      case kInt64Data:
      case kUint64Data:
        if (!t.ints.empty() && t.ints_field != m.field()) m.fail("a tensor has its data twice");
        t.ints_field = m.field();
        m.each_integer([&t](int64_t i) { t.ints.push_back(i); });
        break;
      case kName:
        t.name = m.string();
        break;
      case kRawData:
        t.raw = m.bytes();
        break;
      case kExternalData:
        t.external.insert(parse_entry(m.message()));
        break;
      case kDataLocation:
        t.is_external = m.integer() == 1;
        break;
      default:
        break;
    }
  }
  return t;
}

[[noreturn]] void corrupt(const RawTensor& t, const std::string& what) {
  throw Error(ErrorCode::corrupt_data, fmt::format("tensor '{}': {}", t.name, what));
}

/// Booleans are read as bool: any other byte than 0 and 1 would be undefined behaviour.
bool has_odd_booleans(DType dtype, std::string_view bytes) {
  return dtype == DType::boolean &&
         std::any_of(bytes.begin(), bytes.end(), [](char c) { return (c & ~1) != 0; });
}

Tensor from_bytes(const RawTensor& t, DType dtype, std::string_view bytes,
                  std::shared_ptr<const void> owner) {
  const size_t needed = packed_bytes(dtype, num_elements(t.dims));
  if (bytes.size() != needed) {
    corrupt(t, fmt::format("{}{} needs {} bytes, the file has {}", to_string(dtype),
                           to_string(t.dims), needed, bytes.size()));
  }
  const size_t alignment = static_cast<size_t>(std::max(bits(dtype) / 8, 1));
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.data()) % alignment == 0;
  const bool odd = has_odd_booleans(dtype, bytes);
  if (aligned && owner && needed > 0 && !odd) {
    return Tensor::view(std::move(owner), bytes.data(), needed, dtype, t.dims);
  }
  Tensor out(dtype, t.dims);
  if (needed > 0) std::memcpy(out.mutable_raw(), bytes.data(), needed);
  for (size_t i = 0; odd && i < needed; ++i) {
    out.mutable_raw()[i] = std::byte{bytes[i] != 0};
  }
  return out;
}

/// The typed fields: one entry for each element, but one for each byte of packed sub-byte types.
Tensor from_typed(const RawTensor& t, DType dtype) {
  const int64_t elements = num_elements(t.dims);
  const size_t needed =
      is_sub_byte(dtype) ? packed_bytes(dtype, elements) : static_cast<size_t>(elements);
  const auto require = [&](size_t have, const char* field) {
    if (have != needed) {
      corrupt(t, fmt::format("{}{} needs {} entries in {}, the file has {}", to_string(dtype),
                             to_string(t.dims), needed, field, have));
    }
  };
  if (dtype == DType::float32 || dtype == DType::float64) {
    const bool single = dtype == DType::float32;
    require(single ? t.floats.size() : t.doubles.size(), single ? "float_data" : "double_data");
    Tensor out(dtype, t.dims);
    const void* from = single ? static_cast<const void*>(t.floats.data()) : t.doubles.data();
    if (out.bytes() > 0) std::memcpy(out.mutable_raw(), from, out.bytes());
    return out;
  }
  const uint32_t field = dtype == DType::int64                              ? kInt64Data
                         : dtype == DType::uint32 || dtype == DType::uint64 ? kUint64Data
                                                                            : kInt32Data;
  const char* const field_name = field == kInt64Data    ? "int64_data"
                                 : field == kUint64Data ? "uint64_data"
                                                        : "int32_data";
  require(t.ints_field == field ? t.ints.size() : 0, field_name);
  Tensor out(dtype, t.dims);
  // The low bytes are the element, whatever its type: float16 and packed codes stand there as bits.
  const size_t size = static_cast<size_t>(std::max(bits(dtype) / 8, 1));
  for (size_t i = 0; i < needed; ++i) {
    const int64_t stored = dtype == DType::boolean ? (t.ints[i] != 0) : t.ints[i];
    std::memcpy(out.mutable_raw() + i * size, &stored, size);
  }
  return out;
}

uint64_t parse_number(const RawTensor& t, const char* key, uint64_t fallback) {
  const auto it = t.external.find(key);
  if (it == t.external.end()) return fallback;
  uint64_t value = 0;
  const std::string& text = it->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    corrupt(t, fmt::format("external data: '{}' is no {}", text, key));
  }
  return value;
}

/// The file of external data, which must lie in the folder of the model or below it.
std::shared_ptr<const MappedFile> open_external(const RawTensor& t, const std::string& location,
                                                Source& source) {
  const auto known = source.external.find(location);
  if (known != source.external.end()) return known->second;
  const auto refuse = [&](const char* why) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("tensor '{}': external data in '{}': {}", t.name, location, why),
                "external data must lie beside the model, under a relative path without '..'");
  };
  if (source.folder.empty()) refuse("this model may not have external data");
  if (location.empty() || location.find('\0') != std::string::npos) refuse("no file name");
  const fs::path relative(location);
  if (relative.is_absolute() || relative.has_root_path()) refuse("the path is absolute");
  for (const fs::path& part : relative) {
    if (part == "..") refuse("the path leaves the folder of the model");
  }
  std::error_code error;
  const fs::path folder = fs::canonical(source.folder, error);
  if (error) refuse("the folder of the model cannot be found");
  const fs::path file = fs::canonical(folder / relative, error);
  if (error) {
    throw Error(ErrorCode::not_found,
                fmt::format("tensor '{}': its external data '{}' cannot be found", t.name,
                            (source.folder / relative).string()),
                "copy the data file beside the model");
  }
  const auto inside = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  if (inside.first != folder.end()) refuse("a link leads out of the folder of the model");
  auto mapped = MappedFile::open(file);
  source.external.emplace(location, mapped);
  return mapped;
}

Tensor from_external(const RawTensor& t, DType dtype, Source& source) {
  const auto location = t.external.find("location");
  if (location == t.external.end()) corrupt(t, "external data without a location");
  const size_t needed = packed_bytes(dtype, num_elements(t.dims));
  const uint64_t offset = parse_number(t, "offset", 0);
  const uint64_t length = parse_number(t, "length", needed);
  if (length != needed) {
    corrupt(t, fmt::format("{}{} needs {} bytes, its external data claim {}", to_string(dtype),
                           to_string(t.dims), needed, length));
  }
  const auto file = open_external(t, location->second, source);
  const uint64_t size = file->bytes().size();
  if (offset > size || length > size - offset) {
    corrupt(t, fmt::format("external data end at byte {} + {}, '{}' has {}", offset, length,
                           location->second, size));
  }
  return from_bytes(t, dtype, file->text().substr(offset, length), file);
}

}  // namespace

std::optional<DType> dtype_of(int64_t data_type) {
  const DataTypeRow* row = find_row(data_type);
  return row == nullptr || row->dtype == DType::undefined ? std::nullopt
                                                          : std::optional(row->dtype);
}

int data_type_of(DType dtype) {
  for (const DataTypeRow& row : kDataTypes) {
    if (row.dtype == dtype && dtype != DType::undefined) return row.data_type;
  }
  return 0;
}

const char* foreign_data_type(int64_t data_type) {
  const DataTypeRow* row = find_row(data_type);
  return row != nullptr && row->dtype == DType::undefined ? row->name : nullptr;
}

ProtoTensor parse_tensor(WireReader message, Source& source) {
  RawTensor t = parse_fields(message);
  ProtoTensor out;
  out.name = t.name;
  const auto dtype = dtype_of(t.data_type);
  if (!dtype && foreign_data_type(t.data_type) == nullptr) {
    corrupt(t, fmt::format("unknown data type {}", t.data_type));
  }
  if (!dtype || dtype == DType::string) {
    out.unreadable =
        fmt::format("a tensor of {}", dtype ? "strings" : foreign_data_type(t.data_type));
    return out;
  }
  try {
    packed_bytes(*dtype, num_elements(t.dims));
  } catch (const Error& e) {
    corrupt(t, e.message());
  }
  const bool typed = !t.floats.empty() || !t.doubles.empty() || !t.ints.empty();
  if (int{t.raw.has_value() && !t.raw->empty()} + int{typed} + int{t.is_external} > 1) {
    corrupt(t, "its data stand in two places");
  }
  if (t.is_external) {
    out.tensor = from_external(t, *dtype, source);
  } else if (t.raw && !typed) {
    out.tensor = from_bytes(t, *dtype, *t.raw, source.owner);
  } else {
    out.tensor = from_typed(t, *dtype);
  }
  return out;
}

}  // namespace narrow::onnx
