// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/gguf/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr uint64_t kMaxText = uint64_t{1} << 30;
constexpr int kMaxDepth = 8;  // of arrays in arrays; files in use have one level

struct KindRow {
  GgufKind kind;
  const char* name;
  size_t bytes;
};
constexpr KindRow kKinds[] = {
    {GgufKind::u8, "u8", 1},       {GgufKind::i8, "i8", 1},        {GgufKind::u16, "u16", 2},
    {GgufKind::i16, "i16", 2},     {GgufKind::u32, "u32", 4},      {GgufKind::i32, "i32", 4},
    {GgufKind::f32, "f32", 4},     {GgufKind::boolean, "bool", 1}, {GgufKind::string, "string", 0},
    {GgufKind::array, "array", 0}, {GgufKind::u64, "u64", 8},      {GgufKind::i64, "i64", 8},
    {GgufKind::f64, "f64", 8},
};

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::corrupt_data, what);
}

template <class T>
T at(const std::byte* p) {
  T x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}

/// Calls f with the number in its C++ type; false for texts and arrays.
template <class F>
bool visit_number(GgufKind kind, const std::byte* p, const F& f) {
  switch (kind) {
    case GgufKind::u8:
      return f(at<uint8_t>(p)), true;
    case GgufKind::i8:
      return f(at<int8_t>(p)), true;
    case GgufKind::u16:
      return f(at<uint16_t>(p)), true;
    case GgufKind::i16:
      return f(at<int16_t>(p)), true;
    case GgufKind::u32:
      return f(at<uint32_t>(p)), true;
    case GgufKind::i32:
      return f(at<int32_t>(p)), true;
    case GgufKind::f32:
      return f(at<float>(p)), true;
    case GgufKind::boolean:
      return f(at<uint8_t>(p)), true;
    case GgufKind::u64:
      return f(at<uint64_t>(p)), true;
    case GgufKind::i64:
      return f(at<int64_t>(p)), true;
    case GgufKind::f64:
      return f(at<double>(p)), true;
    case GgufKind::string:
    case GgufKind::array:
      break;
  }
  return false;
}

bool is_integer_kind(GgufKind kind) {
  return gguf_kind_bytes(kind) > 0 && kind != GgufKind::f32 && kind != GgufKind::f64;
}

int64_t integer_at(GgufKind kind, const std::byte* p) {
  int64_t out = 0;
  visit_number(kind, p, [&](auto x) { out = static_cast<int64_t>(x); });
  if (kind == GgufKind::u64 && out < 0) {
    corrupt(fmt::format("{} is too large", at<uint64_t>(p)));
  }
  return out;
}

GgufKind checked_kind(uint32_t number) {
  const auto kind = static_cast<GgufKind>(number);
  if (to_string(kind) == nullptr) corrupt(fmt::format("{} is not a kind of value", number));
  return kind;
}

void check_booleans(std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) {
    if (b > std::byte{1}) corrupt(fmt::format("{} is not a truth value", static_cast<int>(b)));
  }
}

void skip(std::span<const std::byte>& bytes, uint64_t count, uint64_t size) {
  if (count > bytes.size() / size) {
    corrupt(fmt::format("{} values of {} bytes in {} bytes", count, size, bytes.size()));
  }
  bytes = bytes.subspan(count * size);
}

struct ArrayHead {
  GgufKind element;
  uint64_t count;
};

ArrayHead take_array_head(std::span<const std::byte>& bytes) {
  const GgufKind element = checked_kind(take_number<uint32_t>(bytes));
  return {element, take_number<uint64_t>(bytes)};
}

/// Moves behind a value, checking all that is in it.
void skip_value(GgufKind kind, std::span<const std::byte>& bytes, int depth) {
  if (kind == GgufKind::string) {
    take_text(bytes, kMaxText);
    return;
  }
  if (kind != GgufKind::array) {
    const auto before = bytes;
    skip(bytes, 1, gguf_kind_bytes(kind));
    if (kind == GgufKind::boolean) check_booleans(before.first(1));
    return;
  }
  if (depth == kMaxDepth) corrupt(fmt::format("more than {} arrays in each other", kMaxDepth));
  const ArrayHead head = take_array_head(bytes);
  const auto elements = bytes;
  if (const size_t size = gguf_kind_bytes(head.element); size > 0) {
    skip(bytes, head.count, size);
    if (head.element == GgufKind::boolean) check_booleans(elements.first(head.count));
    return;
  }
  // Each text has 8 bytes at least and each array 12, so the loop is in proportion to the file.
  for (uint64_t i = 0; i < head.count; ++i) skip_value(head.element, bytes, depth + 1);
}

void append(std::vector<std::byte>& out, const void* data, size_t bytes) {
  const auto* p = static_cast<const std::byte*>(data);
  out.insert(out.end(), p, p + bytes);
}

void append_text(std::vector<std::byte>& out, std::string_view text) {
  const uint64_t length = text.size();
  append(out, &length, sizeof(length));
  append(out, text.data(), text.size());
}

std::vector<std::byte> array_head(GgufKind element, uint64_t count) {
  std::vector<std::byte> out;
  append(out, &element, sizeof(element));
  append(out, &count, sizeof(count));
  return out;
}

}  // namespace

const char* to_string(GgufKind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row.name;
  }
  return nullptr;
}

size_t gguf_kind_bytes(GgufKind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row.bytes;
  }
  return 0;
}

template <class T>
T take_number(std::span<const std::byte>& bytes) {
  if (bytes.size() < sizeof(T)) corrupt("the file ends inside of a number");
  const T x = at<T>(bytes.data());
  bytes = bytes.subspan(sizeof(T));
  return x;
}
template uint32_t take_number<uint32_t>(std::span<const std::byte>&);
template uint64_t take_number<uint64_t>(std::span<const std::byte>&);
template int32_t take_number<int32_t>(std::span<const std::byte>&);

std::string_view take_text(std::span<const std::byte>& bytes, uint64_t max_bytes) {
  const auto length = take_number<uint64_t>(bytes);
  if (length > bytes.size() || length > max_bytes) {
    corrupt(fmt::format("a text of {} bytes with {} left", length, bytes.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), length);
  bytes = bytes.subspan(length);
  return text;
}

GgufValue GgufValue::read(GgufKind kind, std::shared_ptr<const void> owner,
                          std::span<const std::byte>& bytes) {
  GgufValue v;
  v.kind_ = checked_kind(static_cast<uint32_t>(kind));
  v.element_ = kind;
  v.owner_ = std::move(owner);
  const auto start = bytes;
  skip_value(kind, bytes, 0);
  v.payload_ = start.first(start.size() - bytes.size());
  if (kind == GgufKind::array) {
    auto head = v.payload_;
    const ArrayHead h = take_array_head(head);
    v.element_ = h.element;
    v.count_ = h.count;
  }
  return v;
}

GgufValue GgufValue::owned(GgufKind kind, GgufKind element, uint64_t count,
                           std::vector<std::byte> payload) {
  GgufValue v;
  v.kind_ = kind;
  v.element_ = element;
  v.count_ = count;
  const auto storage = std::make_shared<const std::vector<std::byte>>(std::move(payload));
  v.payload_ = *storage;
  v.owner_ = storage;
  return v;
}

GgufValue GgufValue::number(GgufKind kind, const void* data, size_t bytes) {
  std::vector<std::byte> payload;
  append(payload, data, bytes);
  return owned(kind, kind, 1, std::move(payload));
}

GgufValue GgufValue::string(std::string_view text) {
  std::vector<std::byte> payload;
  append_text(payload, text);
  return owned(GgufKind::string, GgufKind::string, 1, std::move(payload));
}

GgufValue GgufValue::strings(std::span<const std::string> texts) {
  std::vector<std::byte> payload = array_head(GgufKind::string, texts.size());
  for (const std::string& text : texts) append_text(payload, text);
  return owned(GgufKind::array, GgufKind::string, texts.size(), std::move(payload));
}

template <class T>
GgufValue GgufValue::numbers(GgufKind element, std::span<const T> x) {
  std::vector<std::byte> payload = array_head(element, x.size());
  append(payload, x.data(), x.size_bytes());
  return owned(GgufKind::array, element, x.size(), std::move(payload));
}

GgufValue GgufValue::i32s(std::span<const int32_t> x) {
  return numbers(GgufKind::i32, x);
}
GgufValue GgufValue::u32s(std::span<const uint32_t> x) {
  return numbers(GgufKind::u32, x);
}
GgufValue GgufValue::f32s(std::span<const float> x) {
  return numbers(GgufKind::f32, x);
}

GgufValue GgufValue::booleans(const std::vector<bool>& x) {
  std::vector<std::byte> payload = array_head(GgufKind::boolean, x.size());
  for (const bool b : x) payload.push_back(b ? std::byte{1} : std::byte{0});
  return owned(GgufKind::array, GgufKind::boolean, x.size(), std::move(payload));
}

GgufValue GgufValue::arrays(std::span<const GgufValue> elements) {
  std::vector<std::byte> payload = array_head(GgufKind::array, elements.size());
  for (const GgufValue& v : elements) {
    if (v.kind_ != GgufKind::array) v.mismatch("an array");
    append(payload, v.payload_.data(), v.payload_.size());
  }
  return owned(GgufKind::array, GgufKind::array, elements.size(), std::move(payload));
}

std::span<const std::byte> GgufValue::elements() const {
  constexpr size_t kHead = sizeof(uint32_t) + sizeof(uint64_t);
  return kind_ == GgufKind::array ? payload_.subspan(kHead) : payload_;
}

void GgufValue::mismatch(const char* wanted) const {
  corrupt(fmt::format("{} where {} is wanted", describe(), wanted));
}

int64_t GgufValue::as_int() const {
  if (payload_.empty() || !is_integer_kind(kind_)) mismatch("an integer");
  return integer_at(kind_, payload_.data());
}

double GgufValue::as_float() const {
  double out = 0;
  if (payload_.empty() ||
      !visit_number(kind_, payload_.data(), [&](auto x) { out = static_cast<double>(x); })) {
    mismatch("a number");
  }
  return out;
}

bool GgufValue::as_bool() const {
  if (payload_.empty() || kind_ != GgufKind::boolean) mismatch("a truth value");
  return payload_[0] != std::byte{0};
}

std::string_view GgufValue::as_string() const {
  if (kind_ != GgufKind::string) mismatch("a text");
  auto bytes = payload_;
  return take_text(bytes, kMaxText);
}

std::vector<int64_t> GgufValue::as_ints() const {
  if (kind_ != GgufKind::array || !is_integer_kind(element_)) mismatch("an array of integers");
  std::vector<int64_t> out;
  out.reserve(count_);
  const size_t size = gguf_kind_bytes(element_);
  for (uint64_t i = 0; i < count_; ++i) {
    out.push_back(integer_at(element_, elements().data() + i * size));
  }
  return out;
}

std::vector<float> GgufValue::as_floats() const {
  const size_t size = gguf_kind_bytes(element_);
  if (kind_ != GgufKind::array || size == 0) mismatch("an array of numbers");
  std::vector<float> out;
  out.reserve(count_);
  for (uint64_t i = 0; i < count_; ++i) {
    visit_number(element_, elements().data() + i * size,
                 [&](auto x) { out.push_back(static_cast<float>(x)); });
  }
  return out;
}

std::vector<std::string_view> GgufValue::as_strings() const {
  if (kind_ != GgufKind::array || element_ != GgufKind::string) mismatch("an array of texts");
  std::vector<std::string_view> out;
  out.reserve(count_);
  auto bytes = elements();
  for (uint64_t i = 0; i < count_; ++i) out.push_back(take_text(bytes, kMaxText));
  return out;
}

std::vector<GgufValue> GgufValue::as_arrays() const {
  if (kind_ != GgufKind::array || element_ != GgufKind::array) mismatch("an array of arrays");
  std::vector<GgufValue> out;
  auto bytes = elements();
  for (uint64_t i = 0; i < count_; ++i) out.push_back(read(GgufKind::array, owner_, bytes));
  return out;
}

std::string GgufValue::describe() const {
  constexpr size_t kShown = 60;
  if (payload_.empty()) return "nothing";
  if (kind_ == GgufKind::array) return fmt::format("{} of {}", count_, to_string(element_));
  if (kind_ == GgufKind::boolean) return as_bool() ? "true" : "false";
  if (kind_ == GgufKind::string) {
    const std::string_view text = as_string();
    return fmt::format("\"{}{}\"", text.substr(0, kShown), text.size() > kShown ? "..." : "");
  }
  std::string out;
  visit_number(kind_, payload_.data(), [&](auto x) { out = fmt::format("{}", x); });
  return out;
}

bool operator==(const GgufValue& a, const GgufValue& b) {
  return a.kind_ == b.kind_ && a.element_ == b.element_ && a.count_ == b.count_ &&
         std::equal(a.payload_.begin(), a.payload_.end(), b.payload_.begin(), b.payload_.end());
}

}  // namespace narrow
