// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/recipe_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/ptq/targets.h"

namespace narrow {
namespace {

using Texts = std::vector<std::string>;

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

int64_t parse_integer(const std::string& text, int64_t low, int64_t high) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < low || value > high) {
    refuse(fmt::format("'{}' is no integer from {} to {}", text, low, high));
  }
  return value;
}

double parse_real(const std::string& text, double low, double high) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !(value >= low) || !(value <= high)) {
    refuse(fmt::format("'{}' is no number from {} to {}", text, low, high));
  }
  return value;
}

bool parse_bool(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  refuse(fmt::format("'{}' is neither true nor false", text));
}

/// The value of an enumeration; `values` is its list as the table shows it.
template <class T>
T parse_enum(std::optional<T> (*from_string)(std::string_view), const std::string& text,
             std::string_view values) {
  if (const auto value = from_string(text)) return *value;
  Texts names;
  while (!values.empty()) {
    const size_t bar = std::min(values.find('|'), values.size());
    names.emplace_back(values.substr(0, bar));
    values.remove_prefix(std::min(bar + 1, values.size()));
  }
  refuse(fmt::format("'{}' is not possible", text), did_you_mean(text, names));
}

NumberType parse_type(const std::string& text) {
  if (const auto type = number_type_from_string(text)) return *type;
  refuse(fmt::format("'{}' is no number type", text),
         "give int2..int8, uint2..uint8, int16, uint16, float16 or float32");
}

std::optional<OutputFormat> format_from_string(std::string_view name) {
  for (const OutputFormat f : {OutputFormat::qdq, OutputFormat::qoperator}) {
    if (name == to_string(f)) return f;
  }
  return std::nullopt;
}

template <class T>
Texts text_of(const std::optional<T>& value) {
  if (!value) return {};
  if constexpr (std::is_same_v<T, NumberType> || std::is_same_v<T, DataSpec>) {
    return {value->text()};
  } else if constexpr (std::is_arithmetic_v<T>) {
    return {fmt::format("{}", *value)};
  } else {
    return {to_string(*value)};
  }
}

void append_patterns(std::vector<std::string>& list, const std::string& text) {
  constexpr size_t kMostPatterns = 100000;  // more than any model has layers
  if (text.empty()) refuse("an empty pattern matches nothing");
  if (list.size() >= kMostPatterns) refuse("too many patterns");
  list.push_back(text);
}

constexpr const char* kModes = "static|dynamic|weight_only";
constexpr const char* kSymmetries = "symmetric|asymmetric";
constexpr const char* kGranularities = "per_tensor|per_axis|per_group";
constexpr const char* kScaleTypes = "float32|float16|bfloat16|power_of_two";
constexpr const char* kObservers = "minmax|moving_average|percentile|mse|entropy";
constexpr const char* kCorrections = "auto|none|fast|empirical";
constexpr const char* kFormats = "qdq|qoperator";
constexpr int64_t kMostSamples = int64_t{1} << 40;  // beyond any data set; keeps sums exact
constexpr int64_t kLargestGroup = int64_t{1} << 24;
constexpr int64_t kLastOpset = 1000;

// In canonical order: what a reader wants to know first stands first.
constexpr RecipeField kFields[] = {
    {{"mode", kModes, "when activations are quantized", false},
     [](Recipe& r, const std::string& t) {
       r.quantize.mode = parse_enum(mode_from_string, t, kModes);
     },
     [](const Recipe& r) -> Texts { return {to_string(r.quantize.mode)}; }},
    {{"target", "narrow|ort|openvino|tensorrt|cmsis", "the program that will run the file", false},
     [](Recipe& r, const std::string& t) { r.quantize.target = find_target(t).name; },
     [](const Recipe& r) -> Texts { return {r.quantize.target}; }},
    {{"weights", "TYPE", "int2..int8, uint2..uint8, float16, float32", false},
     [](Recipe& r, const std::string& t) { r.quantize.weights = parse_type(t); },
     [](const Recipe& r) { return text_of(r.quantize.weights); }},
    {{"activations", "TYPE", "uint8, int8, uint16, int16, ... float32", false},
     [](Recipe& r, const std::string& t) { r.quantize.activations = parse_type(t); },
     [](const Recipe& r) { return text_of(r.quantize.activations); }},
    {{"granularity", kGranularities, "how many weights share a scale", false},
     [](Recipe& r, const std::string& t) {
       r.quantize.granularity = parse_enum(granularity_from_string, t, kGranularities);
     },
     [](const Recipe& r) { return text_of(r.quantize.granularity); }},
    {{"group_size", "INT", "weights per scale in groups (mode weight_only)", false},
     [](Recipe& r, const std::string& t) {
       r.quantize.group_size = parse_integer(t, 0, kLargestGroup);
     },
     [](const Recipe& r) -> Texts { return {std::to_string(r.quantize.group_size)}; }},
    {{"weight_symmetry", kSymmetries, "whether weights have a zero_point", false},
     [](Recipe& r, const std::string& t) {
       r.quantize.weight_symmetry = parse_enum(symmetry_from_string, t, kSymmetries);
     },
     [](const Recipe& r) { return text_of(r.quantize.weight_symmetry); }},
    {{"activation_symmetry", kSymmetries, "whether activations have a zero_point", false},
     [](Recipe& r, const std::string& t) {
       r.quantize.activation_symmetry = parse_enum(symmetry_from_string, t, kSymmetries);
     },
     [](const Recipe& r) { return text_of(r.quantize.activation_symmetry); }},
    {{"scale_type", kScaleTypes, "numbers that a scale is rounded to", false},
     [](Recipe& r, const std::string& t) {
       r.quantize.scale_type = parse_enum(scale_type_from_string, t, kScaleTypes);
     },
     [](const Recipe& r) -> Texts { return {to_string(r.quantize.scale_type)}; }},
    {{"equalize", "BOOL", "balance channels between layers (mode static)", false},
     [](Recipe& r, const std::string& t) { r.equalize = parse_bool(t); },
     [](const Recipe& r) -> Texts { return {r.equalize ? "true" : "false"}; }},
    {{"bias_correction", kCorrections, "shift biases so that means stay", false},
     [](Recipe& r, const std::string& t) {
       r.bias_correction = parse_enum(bias_correction_from_string, t, kCorrections);
     },
     [](const Recipe& r) -> Texts { return {to_string(r.bias_correction)}; }},
    {{"observer", kObservers, "how ranges follow from statistics", false},
     [](Recipe& r, const std::string& t) {
       r.observer.kind = parse_enum(observer_from_string, t, kObservers);
     },
     [](const Recipe& r) -> Texts { return {to_string(r.observer.kind)}; }},
    {{"percentile", "FLOAT", "of observer percentile, 50 to 100", false},
     [](Recipe& r, const std::string& t) { r.observer.percentile = parse_real(t, 50, 100); },
     [](const Recipe& r) -> Texts { return {fmt::format("{}", r.observer.percentile)}; }},
    {{"data", "SPEC", "calibration data", false},
     [](Recipe& r, const std::string& t) { r.data = parse_data_spec(t); },
     [](const Recipe& r) { return text_of(r.data); }},
    {{"eval_data", "SPEC", "evaluation data (else: a hold-out of data)", false},
     [](Recipe& r, const std::string& t) { r.eval_data = parse_data_spec(t); },
     [](const Recipe& r) { return text_of(r.eval_data); }},
    {{"calibration_samples", "INT", "samples drawn from data", false},
     [](Recipe& r, const std::string& t) {
       r.calibration_samples = parse_integer(t, 1, kMostSamples);
     },
     [](const Recipe& r) -> Texts { return {std::to_string(r.calibration_samples)}; }},
    {{"eval_samples", "INT", "samples evaluated; 0: all of eval_data, 500 of a hold-out", false},
     [](Recipe& r, const std::string& t) { r.eval_samples = parse_integer(t, 0, kMostSamples); },
     [](const Recipe& r) -> Texts { return {std::to_string(r.eval_samples)}; }},
    {{"seed", "INT", "of the samples that are drawn", false},
     [](Recipe& r, const std::string& t) {
       r.seed = static_cast<uint64_t>(parse_integer(t, 0, INT64_MAX));
     },
     [](const Recipe& r) -> Texts { return {std::to_string(r.seed)}; }},
    {{"max_drop", "FLOAT", "points of accuracy (unlabelled: of agreement) that may be lost", false},
     [](Recipe& r, const std::string& t) { r.max_drop = parse_real(t, 0, 100); },
     [](const Recipe& r) { return text_of(r.max_drop); }},
    {{"min_cosine", "FLOAT", "cosine of the outputs that must be kept", false},
     [](Recipe& r, const std::string& t) { r.min_cosine = parse_real(t, -1, 1); },
     [](const Recipe& r) { return text_of(r.min_cosine); }},
    {{"include", "GLOB,..", "nodes to quantize; else all", true},
     [](Recipe& r, const std::string& t) { append_patterns(r.quantize.include, t); },
     [](const Recipe& r) { return r.quantize.include; }},
    {{"exclude", "GLOB,..", "nodes not to quantize", true},
     [](Recipe& r, const std::string& t) { append_patterns(r.quantize.exclude, t); },
     [](const Recipe& r) { return r.quantize.exclude; }},
    {{"keep_float", "GLOB,..", "nodes to keep in float, as a refused run suggests", true},
     [](Recipe& r, const std::string& t) { append_patterns(r.quantize.keep_float, t); },
     [](const Recipe& r) { return r.quantize.keep_float; }},
    {{"integer_only", "BOOL", "fail if any node stays float", false},
     [](Recipe& r, const std::string& t) { r.integer_only = parse_bool(t); },
     [](const Recipe& r) -> Texts { return {r.integer_only ? "true" : "false"}; }},
    {{"format", kFormats, "QuantizeLinear pairs, or QLinear operators", false},
     [](Recipe& r, const std::string& t) {
       r.format = parse_enum(format_from_string, t, kFormats);
     },
     [](const Recipe& r) -> Texts { return {to_string(r.format)}; }},
    {{"opset", "INT", "of the file; 0: the lowest that expresses it", false},
     [](Recipe& r, const std::string& t) {
       r.opset = static_cast<int>(parse_integer(t, 0, kLastOpset));
     },
     [](const Recipe& r) -> Texts { return {std::to_string(r.opset)}; }},
};

constexpr LayerField kLayerFields[] = {
    {"match", "GLOB",
     [](LayerRule& r, const std::string& t) {
       if (t.empty()) refuse("an empty pattern matches nothing");
       r.match = t;
     },
     [](const LayerRule& r) -> Texts { return {r.match}; }},
    {"weights", "TYPE", [](LayerRule& r, const std::string& t) { r.weights = parse_type(t); },
     [](const LayerRule& r) { return text_of(r.weights); }},
    {"activations", "TYPE",
     [](LayerRule& r, const std::string& t) { r.activations = parse_type(t); },
     [](const LayerRule& r) { return text_of(r.activations); }},
    {"granularity", kGranularities,
     [](LayerRule& r, const std::string& t) {
       r.granularity = parse_enum(granularity_from_string, t, kGranularities);
     },
     [](const LayerRule& r) { return text_of(r.granularity); }},
    {"group_size", "INT",
     [](LayerRule& r, const std::string& t) { r.group_size = parse_integer(t, 0, kLargestGroup); },
     [](const LayerRule& r) { return text_of(r.group_size); }},
    {"weight_symmetry", kSymmetries,
     [](LayerRule& r, const std::string& t) {
       r.weight_symmetry = parse_enum(symmetry_from_string, t, kSymmetries);
     },
     [](const LayerRule& r) { return text_of(r.weight_symmetry); }},
};

constexpr auto kKeys = [] {
  std::array<RecipeKey, std::size(kFields)> keys{};
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = kFields[i].key;
  return keys;
}();

template <class Fields, class NameOf>
const auto& find_in(const Fields& fields, std::string_view key, NameOf name_of,
                    std::string_view what) {
  Texts names;
  for (const auto& field : fields) {
    if (key == name_of(field)) return field;
    names.emplace_back(name_of(field));
  }
  refuse(fmt::format("unknown {} '{}'", what, key), did_you_mean(key, names));
}

}  // namespace

const char* to_string(OutputFormat format) {
  return format == OutputFormat::qdq ? "qdq" : "qoperator";
}

std::span<const RecipeKey> recipe_keys() {
  return kKeys;
}
std::span<const RecipeField> recipe_fields() {
  return kFields;
}
std::span<const LayerField> layer_fields() {
  return kLayerFields;
}

const RecipeField& find_field(std::string_view key) {
  return find_in(
      kFields, key, [](const RecipeField& f) { return f.key.name; }, "key");
}
const LayerField& find_layer_field(std::string_view key) {
  return find_in(
      kLayerFields, key, [](const LayerField& f) { return f.name; }, "key of a layer");
}

}  // namespace narrow
