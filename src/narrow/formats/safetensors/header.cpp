// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/safetensors/header.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "narrow/core/error.h"

namespace narrow::safetensors {
namespace {

constexpr size_t kMaxRank = 64;

/// Follows the events of the parser through the few places that a header has.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  Header header;

  bool start_object(size_t) override {
    if (place_ == Place::start) return go(Place::top);
    if (place_ == Place::entry_value) return go(Place::entry);
    if (place_ == Place::metadata_value) return go(Place::metadata);
    return unexpected("an object");
  }
  bool key(string_t& name) override {
    switch (place_) {
      case Place::top:
        if (name == "__metadata__") {
          if (std::exchange(has_metadata_, true)) corrupt("'__metadata__' stands there twice");
          return go(Place::metadata_value);
        }
        header.items.emplace_back();
        item().name = std::move(name);
        seen_ = 0;
        return go(Place::entry_value);
      case Place::entry:
        return entry_key(name);
      case Place::metadata:
        metadata_key_ = std::move(name);
        return go(Place::metadata_text);
      default:
        return unexpected("a key");
    }
  }
  bool end_object() override {
    if (place_ == Place::entry) {
      if (seen_ != 7) corrupt("it lacks one of dtype, shape, data_offsets");
      return go(Place::top);
    }
    if (place_ == Place::metadata) return go(Place::top);
    return go(Place::end);
  }
  bool start_array(size_t) override {
    if (place_ == Place::shape_value) return go(Place::shape);
    if (place_ == Place::offsets_value) {
      offsets_ = 0;
      return go(Place::offsets);
    }
    return unexpected("an array");
  }
  bool end_array() override {
    if (place_ == Place::offsets && offsets_ != 2) corrupt("data_offsets are not two numbers");
    return go(Place::entry);
  }
  bool string(string_t& text) override {
    if (place_ == Place::dtype_value) {
      item().dtype = std::move(text);
      return go(Place::entry);
    }
    if (place_ == Place::metadata_text) {
      if (!header.metadata.emplace(std::move(metadata_key_), std::move(text)).second) {
        corrupt("a key of '__metadata__' stands there twice");
      }
      return go(Place::metadata);
    }
    return unexpected("a text");
  }
  bool number_unsigned(number_unsigned_t n) override {
    if (place_ == Place::shape) {
      if (n > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        corrupt(fmt::format("dimension {} is too large", n));
      }
      if (item().dims.size() == kMaxRank) corrupt(fmt::format("more than {} dimensions", kMaxRank));
      item().dims.push_back(static_cast<int64_t>(n));
      return true;
    }
    if (place_ == Place::offsets) {
      if (offsets_ == 0) item().begin = n;
      if (offsets_ == 1) item().end = n;
      if (++offsets_ > 2) corrupt("data_offsets are not two numbers");
      return true;
    }
    return unexpected("a number");
  }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return unexpected("a number that is not an integer of 64 bits");
  }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a truth value"); }
  bool binary(binary_t&) override { return unexpected("binary"); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("the header is not JSON at byte {}", position));
  }

 private:
  enum class Place {
    start,
    top,          // in the outer object
    entry_value,  // after a tensor's name
    entry,        // in a tensor's object
    dtype_value,
    shape_value,
    shape,
    offsets_value,
    offsets,
    metadata_value,  // after "__metadata__"
    metadata,
    metadata_text,
    end,
  };

  bool go(Place place) {
    place_ = place;
    return true;
  }
  HeaderItem& item() { return header.items.back(); }
  [[noreturn]] void corrupt(const std::string& what) {
    throw Error(ErrorCode::corrupt_data,
                header.items.empty()
                    ? "header: " + what
                    : fmt::format("header, at tensor '{}': {}", item().name, what));
  }
  bool unexpected(const char* what) { corrupt(fmt::format("unexpected {}", what)); }
  bool entry_key(const std::string& name) {
    const auto once = [&](int bit, Place place) {
      if ((seen_ & bit) != 0) corrupt(fmt::format("'{}' stands there twice", name));
      seen_ |= bit;
      return go(place);
    };
    if (name == "dtype") return once(1, Place::dtype_value);
    if (name == "shape") return once(2, Place::shape_value);
    if (name == "data_offsets") return once(4, Place::offsets_value);
    corrupt(fmt::format("unknown key '{}'", name));
  }

  Place place_ = Place::start;
  bool has_metadata_ = false;
  int seen_ = 0;  // bits of a tensor's keys
  int offsets_ = 0;
  std::string metadata_key_;
};

}  // namespace

Header parse_header(std::string_view json) {
  Reader reader;
  if (json.empty() || json[0] != '{') {
    throw Error(ErrorCode::corrupt_data, "the header does not start with '{'");
  }
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  return std::move(reader.header);
}

}  // namespace narrow::safetensors
