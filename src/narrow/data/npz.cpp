// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/npz.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/data/bytes.h"
#include "narrow/data/zip.h"

namespace narrow {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kAlignment = 64;  // what numpy pads the header to

struct TypeRow {
  const char* code;  // numpy's letter and width
  DType dtype;
};
constexpr std::array kTypes = {
    TypeRow{"f4", DType::float32}, TypeRow{"f8", DType::float64}, TypeRow{"f2", DType::float16},
    TypeRow{"i1", DType::int8},    TypeRow{"u1", DType::uint8},   TypeRow{"i2", DType::int16},
    TypeRow{"u2", DType::uint16},  TypeRow{"i4", DType::int32},   TypeRow{"u4", DType::uint32},
    TypeRow{"i8", DType::int64},   TypeRow{"u8", DType::uint64},  TypeRow{"b1", DType::boolean},
};

[[noreturn]] void corrupt(const std::string& what, std::string_view why) {
  throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", what, why));
}

struct Header {
  DType dtype = DType::undefined;
  bool big_endian = false;
  bool fortran_order = false;
  Dims dims;
};

/// The header is one line of Python: a dictionary of a string, a boolean and a tuple.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& what) : rest_(text), what_(what) {}

  Header parse() {
    Header header;
    bool have_descr = false, have_order = false, have_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !have_descr) {
        read_type(header);
        have_descr = true;
      } else if (key == "fortran_order" && !have_order) {
        header.fortran_order = boolean();
        have_order = true;
      } else if (key == "shape" && !have_shape) {
        header.dims = tuple();
        have_shape = true;
      } else {
        bad();
      }
      if (accept(',')) continue;
      expect('}');
      break;
    }
    if (!have_descr || !have_order || !have_shape) bad();
    return header;
  }

 private:
  [[noreturn]] void bad() const { corrupt(what_, "the header of the array is damaged"); }

  void skip_space() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
  }
  bool accept(char c) {
    skip_space();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad();
  }
  std::string quoted() {
    skip_space();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) bad();
    const size_t end = rest_.find(rest_[0], 1);
    if (end == std::string_view::npos) bad();
    std::string text(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair{"True", true}, std::pair{"False", false}}) {
      if (rest_.substr(0, std::strlen(word)) != word) continue;
      rest_.remove_prefix(std::strlen(word));
      return value;
    }
    bad();
  }
  Dims tuple() {
    constexpr size_t kLargestRank = 64;  // of numpy 2
    Dims dims;
    expect('(');
    while (!accept(')')) {
      skip_space();
      int64_t dim = -1;
      const auto [stop, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), dim);
      if (error != std::errc() || dim < 0 || dims.size() == kLargestRank) bad();
      rest_.remove_prefix(static_cast<size_t>(stop - rest_.data()));
      dims.push_back(dim);
      if (accept(',')) continue;
      expect(')');
      break;
    }
    return dims;
  }
  void read_type(Header& header) {
    skip_space();
    if (!rest_.empty() && rest_[0] == '[') unsupported("a record");
    const std::string type = quoted();
    const bool marked = !type.empty() && std::strchr("<>|=", type[0]) != nullptr;
    const std::string code = marked ? type.substr(1) : type;
    header.big_endian = !type.empty() && type[0] == '>';
    for (const TypeRow& row : kTypes) {
      if (code == row.code) header.dtype = row.dtype;
    }
    if (header.dtype == DType::undefined) unsupported(type);
  }
  [[noreturn]] void unsupported(const std::string& type) const {
    throw Error(ErrorCode::unsupported, fmt::format("{}: numpy type '{}'", what_, type),
                "store plain numbers, as array.astype('float32')");
  }

  std::string_view rest_;
  const std::string& what_;
};

/// Elements of a column-major array in row-major order.
Tensor from_fortran_order(const Tensor& columns, const Dims& dims) {
  Tensor out(columns.dtype(), dims);
  const size_t width = static_cast<size_t>(bits(columns.dtype())) / 8;
  Dims strides(dims.size(), 1);
  for (size_t i = 1; i < dims.size(); ++i) strides[i] = strides[i - 1] * dims[i - 1];
  Dims index(dims.size(), 0);
  int64_t source = 0;
  std::byte* to = out.mutable_raw();
  for (int64_t n = 0; n < out.elements(); ++n) {
    std::memcpy(to + static_cast<size_t>(n) * width,
                columns.raw() + static_cast<size_t>(source) * width, width);
    for (size_t d = dims.size(); d-- > 0;) {
      source += strides[d];
      if (++index[d] < dims[d]) break;
      source -= strides[d] * dims[d];
      index[d] = 0;
    }
  }
  return out;
}

struct Located {
  Header header;
  size_t data = 0;   // offset of the values
  size_t bytes = 0;  // of the values
};

Located locate(std::span<const std::byte> bytes, const std::string& what) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.substr(0, kMagic.size()) != kMagic) corrupt(what, "not a numpy array");
  if (bytes.size() < 12) corrupt(what, "the header of the array is cut off");
  const int version = static_cast<int>(bytes[6]);
  if (version < 1 || version > 3) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: .npy version {}", what, version));
  }
  const size_t start = version == 1 ? 10 : 12;
  const size_t length = version == 1 ? load_little_endian<uint16_t>(bytes.data() + 8)
                                     : load_little_endian<uint32_t>(bytes.data() + 8);
  if (length > bytes.size() - start) corrupt(what, "the header of the array is cut off");
  Located out;
  out.header = HeaderParser(text.substr(start, length), what).parse();
  out.data = start + length;
  int64_t elements = 0;
  try {
    elements = num_elements(out.header.dims);
  } catch (Error& e) {
    e.add_context(what);
    throw;
  }
  const size_t width = static_cast<size_t>(bits(out.header.dtype)) / 8;
  const size_t present = bytes.size() - out.data;
  if (static_cast<uint64_t>(elements) > present / width) {
    corrupt(what, fmt::format("claims {}{}, but has only {} bytes", to_string(out.header.dtype),
                              to_string(out.header.dims), present));
  }
  out.bytes = static_cast<size_t>(elements) * width;
  return out;
}

void check_booleans(const Tensor& t, const std::string& what) {
  if (t.dtype() != DType::boolean) return;
  const std::byte* p = t.raw();
  for (size_t i = 0; i < t.bytes(); ++i) {
    if (p[i] > std::byte{1}) corrupt(what, "a boolean is neither 0 nor 1");
  }
}

/// A type that numpy has, holding the same values.
Tensor for_numpy(const Tensor& t) {
  if (t.dtype() == DType::bfloat16) return Tensor::from(t.to_floats(), t.dims());
  if (is_sub_byte(t.dtype()) && t.dtype() != DType::boolean) {
    const DType wide = is_signed_integer(t.dtype()) ? DType::int8 : DType::uint8;
    return Tensor::from_ints(t.to_ints(), wide, t.dims());
  }
  return t;
}

std::string npy_header(DType dtype, const Dims& dims) {
  const auto row = std::find_if(kTypes.begin(), kTypes.end(),
                                [&](const TypeRow& r) { return r.dtype == dtype; });
  if (row == kTypes.end()) {
    throw Error(ErrorCode::unsupported,
                fmt::format("numpy has no type for {}{}", to_string(dtype), to_string(dims)));
  }
  std::string shape;
  for (const int64_t d : dims) shape += fmt::format("{},{}", d, dims.size() > 1 ? " " : "");
  if (dims.size() > 1) shape.resize(shape.size() - 2);  // numpy writes (3, 4) but (3,)
  const char order = bits(dtype) == 8 ? '|' : '<';
  std::string text = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                                 order, row->code, shape);
  constexpr size_t kFixed = 10;
  const size_t used = kFixed + text.size() + 1;
  text.append((kAlignment - used % kAlignment) % kAlignment, ' ');
  text += '\n';
  std::string out(kMagic);
  out += '\x01';
  out += '\0';
  append_little_endian<uint16_t>(out, static_cast<uint16_t>(text.size()));
  return out + text;
}

/// Values as the file has them: little-endian.
Tensor little_endian(const Tensor& t) {
  if constexpr (std::endian::native == std::endian::little) return t;
  Tensor copy = t.clone();
  reverse_elements({copy.mutable_raw(), copy.bytes()}, static_cast<size_t>(bits(t.dtype())) / 8);
  return copy;
}

}  // namespace

Tensor parse_npy(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                 const std::string& what) {
  const Located at = locate(bytes, what);
  const size_t width = static_cast<size_t>(bits(at.header.dtype)) / 8;
  const std::byte* values = bytes.data() + at.data;
  const bool swap = at.header.big_endian != (std::endian::native == std::endian::big);
  const bool aligned = reinterpret_cast<uintptr_t>(values) % width == 0;
  Tensor out;
  if (owner && aligned && (!swap || width == 1)) {
    out = Tensor::view(std::move(owner), values, at.bytes, at.header.dtype, at.header.dims);
  } else {
    out = Tensor(at.header.dtype, at.header.dims);
    if (at.bytes > 0) std::memcpy(out.mutable_raw(), values, at.bytes);
    if (swap) reverse_elements({out.mutable_raw(), at.bytes}, width);
  }
  check_booleans(out, what);
  const bool transpose = at.header.fortran_order && out.rank() > 1;
  return transpose ? from_fortran_order(out, at.header.dims) : out;
}

Tensor read_npy(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_npy(file, file->bytes(), path.string());
}

std::map<std::string, Tensor> parse_npz(const std::shared_ptr<const void>& owner,
                                        std::span<const std::byte> bytes, const std::string& what) {
  constexpr std::string_view kSuffix = ".npy";
  std::map<std::string, Tensor> arrays;
  for (const ZipMember& member : list_zip(bytes, what)) {
    std::string name = member.name;
    if (name.size() > kSuffix.size() && name.ends_with(kSuffix)) {
      name.resize(name.size() - kSuffix.size());
    }
    auto storage = std::make_shared<std::vector<std::byte>>();
    const std::span<const std::byte> npy = unpack(member, *storage, what);
    const bool copied = !storage->empty();
    const std::shared_ptr<const void> keeper =
        copied ? std::shared_ptr<const void>(storage) : owner;
    Tensor array = parse_npy(keeper, npy, fmt::format("{}: array '{}'", what, name));
    if (!arrays.emplace(name, std::move(array)).second) {
      corrupt(what, fmt::format("array '{}' occurs twice", name));
    }
  }
  return arrays;
}

std::map<std::string, Tensor> read_npz(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_npz(file, file->bytes(), path.string());
}

void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& arrays) {
  ZipWriter zip(path);
  for (const auto& [name, tensor] : arrays) {
    if (name.size() > 0xff00) {  // a zip name has at most 65535 bytes
      throw Error(ErrorCode::invalid_argument, "an array's name is too long for an .npz file");
    }
    const Tensor values = little_endian(for_numpy(tensor));
    zip.add(name + ".npy", npy_header(values.dtype(), values.dims()),
            {values.raw(), values.bytes()});
  }
  zip.finish();
}

void write_npy(const std::filesystem::path& path, const Tensor& array) {
  const Tensor values = little_endian(for_numpy(array));
  AtomicFile file(path);
  file.write(npy_header(values.dtype(), values.dims()));
  file.write(values.raw(), values.bytes());
  file.commit();
}

NpyRows::NpyRows(const std::filesystem::path& path, int64_t rows, int64_t columns)
    : file_(path), missing_(rows), columns_(columns) {
  file_.write(npy_header(DType::float32, {rows, columns}));
}

void NpyRows::add(const Tensor& part) {
  const bool fits = part.dtype() == DType::float32 && part.rank() == 2 && part.dim(1) == columns_ &&
                    part.dim(0) <= missing_;
  if (!fits) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} is no part of the {} rows of {} that are missing", part.describe(),
                            missing_, columns_));
  }
  missing_ -= part.dim(0);
  const Tensor values = little_endian(part);
  file_.write(values.raw(), values.bytes());
}

void NpyRows::commit() {
  if (missing_ != 0) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} rows are missing", missing_));
  }
  file_.commit();
}

}  // namespace narrow
