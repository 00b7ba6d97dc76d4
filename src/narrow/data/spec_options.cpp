// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/spec_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"

namespace narrow {
namespace {

constexpr int64_t kLargestSide = 65535;  // of a JPEG file

/// One option's value on its way into a SpecOptions.
struct Field {
  const std::string& name;
  const std::string& text;

  [[noreturn]] void fail(std::string_view wanted) const {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("data option {}={}: expected {}", name, text, wanted));
  }

  std::optional<int64_t> whole(std::string_view part) const {
    int64_t value = 0;
    const char* end = part.data() + part.size();
    const auto [stop, error] = std::from_chars(part.data(), end, value);
    if (error != std::errc() || stop != end) return std::nullopt;
    return value;
  }

  int64_t integer(int64_t low, int64_t high) const {
    const auto value = whole(text);
    if (!value || *value < low || *value > high) {
      fail(fmt::format("a whole number from {} to {}", low, high));
    }
    return *value;
  }

  double number(std::string_view part) const {
    double value = 0;
    const char* end = part.data() + part.size();
    const auto [stop, error] = std::from_chars(part.data(), end, value);
    if (error != std::errc() || stop != end || !std::isfinite(value)) {
      fail("numbers such as 0.5, or a fraction such as 1/255");
    }
    return value;
  }

  /// "WxH" or one number for both sides.
  ImageSize size() const {
    const auto side = [&](std::string_view part) {
      const auto value = whole(part);
      if (!value || *value < 1 || *value > kLargestSide) {
        fail(fmt::format("WIDTHxHEIGHT or one number, from 1 to {}", kLargestSide));
      }
      return *value;
    };
    const size_t x = text.find('x');
    if (x == std::string::npos) return {side(text), side(text)};
    return {side(std::string_view(text).substr(0, x)), side(std::string_view(text).substr(x + 1))};
  }

  std::vector<std::string_view> slashed() const {
    std::vector<std::string_view> parts;
    std::string_view rest = text;
    for (size_t at = rest.find('/'); at != std::string_view::npos; at = rest.find('/')) {
      parts.push_back(rest.substr(0, at));
      rest.remove_prefix(at + 1);
    }
    parts.push_back(rest);
    return parts;
  }

  Fraction fraction() const {
    const auto parts = slashed();
    if (parts.size() > 2) fail("one number or fraction");
    const Fraction f{number(parts[0]), parts.size() == 2 ? number(parts[1]) : 1.0};
    if (f.denominator == 0 || !std::isfinite(f.value())) fail("a finite number");
    return f;
  }

  /// One value for all channels, a fraction, or one value for each of three channels.
  std::vector<Fraction> per_channel() const {
    const auto parts = slashed();
    if (parts.size() <= 2) return {fraction()};
    if (parts.size() != 3) fail("one number, a fraction, or three numbers a/b/c");
    std::vector<Fraction> values;
    for (const auto part : parts) values.push_back({number(part), 1.0});
    return values;
  }

  template <class T>
  T one_of(std::initializer_list<std::pair<const char*, T>> choices) const {
    std::vector<std::string> names;
    for (const auto& [word, value] : choices) {
      if (text == word) return value;
      names.emplace_back(word);
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("data option {}={} is not known", name, text),
                did_you_mean(text, names));
  }

  bool flag() const {
    return one_of<bool>({{"true", true}, {"1", true}, {"false", false}, {"0", false}});
  }
};

void require_nonzero(const Field& field, std::span<const Fraction> values) {
  for (const Fraction& f : values) {
    if (f.numerator == 0) field.fail("values other than zero");
  }
}

void apply_geometry(const Field& field, SpecOptions& out) {
  if (field.name == "resize") {
    if (field.text.find('x') == std::string::npos) {
      out.resize_short = field.size().width;
    } else {
      out.resize = field.size();
    }
  } else if (field.name == "crop") {
    out.crop = field.size();
  } else if (field.name == "letterbox") {
    out.letterbox = field.size();
  } else if (field.name == "pad") {
    out.pad = static_cast<uint8_t>(field.integer(0, 255));
  }
}

void apply_values(const Field& field, SpecOptions& out) {
  if (field.name == "mean") {
    out.mean = field.per_channel();
  } else if (field.name == "std") {
    out.std = field.per_channel();
    require_nonzero(field, out.std);
  } else if (field.name == "scale") {
    out.scale = field.fraction();
    require_nonzero(field, {&*out.scale, 1});
  } else if (field.name == "dtype") {
    out.dtype = field.one_of<DType>({{"float32", DType::float32}, {"uint8", DType::uint8}});
  } else if (field.name == "gray") {
    out.gray = field.flag();
  } else if (field.name == "layout") {
    out.layout =
        field.one_of<ImageLayout>({{"nchw", ImageLayout::nchw}, {"nhwc", ImageLayout::nhwc}});
  } else if (field.name == "order") {
    out.order =
        field.one_of<ChannelOrder>({{"rgb", ChannelOrder::rgb}, {"bgr", ChannelOrder::bgr}});
  }
}

void apply_selection(const Field& field, SpecOptions& out) {
  if (field.name == "split") {
    out.split = field.one_of<const char*>({{"train", "train"}, {"test", "test"}});
  } else if (field.name == "labels") {
    if (field.text.empty()) field.fail("a CSV file, 'folders' or 'none'");
    out.labels = field.text;
  } else if (field.name == "samples") {
    out.samples = field.integer(1, int64_t{1} << 40);
  }
}

void check_together(const SpecOptions& o) {
  const auto refuse = [](const char* message) {
    throw Error(ErrorCode::invalid_argument, message);
  };
  if (o.letterbox && (o.resize || o.resize_short || o.crop)) {
    refuse("data options: letterbox= excludes resize= and crop=");
  }
  if (o.dtype == DType::uint8 && (o.scale || !o.mean.empty() || !o.std.empty())) {
    refuse(
        "data options: dtype=uint8 hands on the stored bytes; it excludes scale=, mean= and std=");
  }
}

}  // namespace

const std::vector<std::string>& data_kinds() {
  static const std::vector<std::string> kinds = {"cifar10", "images", "mnist", "npz"};
  return kinds;
}

std::span<const DataOption> data_options() {
  static const std::vector<std::string> pictures = {"cifar10", "images", "mnist"};
  static const std::vector<std::string> colour = {"cifar10", "images"};
  static const std::vector<DataOption> options = {
      {"crop", "S|WxH", pictures, "cut this size from the centre, after resize"},
      {"dtype", "float32|uint8", pictures, "element type (default: the model's)"},
      {"gray", "", colour, "one channel, luma of ITU-R BT.601"},
      {"labels", "FILE.csv|folders|none", {"images"}, "where labels come from"},
      {"layout", "nchw|nhwc", pictures, "order of dimensions (default: the model's)"},
      {"letterbox", "S|WxH", pictures, "fit inside this size, keep the aspect, fill the borders"},
      {"mean", "M|a/b/c", pictures, "subtracted after scale (default 0)"},
      {"order", "rgb|bgr", colour, "order of channels (default rgb)"},
      {"pad", "0..255", pictures, "value of letterbox borders (default 114)"},
      {"resize", "S|WxH", pictures, "bilinear; one number is the short side"},
      {"samples", "N", data_kinds(), "use N samples, spread evenly over the set"},
      {"scale", "N|a/b", pictures, "multiplies the stored 0..255 (default 1/255)"},
      {"split", "train|test", {"cifar10", "mnist"}, "which part (default test)"},
      {"std", "S|a/b/c", pictures, "divides after mean (default 1)"},
  };
  return options;
}

SpecOptions parse_spec_options(const DataSpec& spec) {
  std::vector<std::string> known;
  for (const DataOption& option : data_options()) {
    if (std::count(option.kinds.begin(), option.kinds.end(), spec.kind) > 0) {
      known.emplace_back(option.name);
    }
  }
  SpecOptions out;
  for (const auto& [name, text] : spec.options) {
    if (std::count(known.begin(), known.end(), name) == 0) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("'{}' is no option of {} data", name, spec.kind),
                  did_you_mean(name, known));
    }
    const Field field{name, text};
    apply_geometry(field, out);
    apply_values(field, out);
    apply_selection(field, out);
  }
  check_together(out);
  return out;
}

}  // namespace narrow
