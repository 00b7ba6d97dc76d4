// SPDX-License-Identifier: Apache-2.0
// Statistics as JSON: one line per field, histograms without their empty ends. Read defensively:
// nothing in a file may break an invariant that the estimators rely on.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "narrow/calibrate/observer.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/suggest.h"

namespace narrow {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "narrow statistics";
constexpr int64_t kVersion = 1;
constexpr size_t kMaxFileBytes = size_t{1} << 28;  // about 10^4 tensors with full histograms
constexpr int kMaxDepth = 6;                       // a histogram's counts lie this deep
constexpr int64_t kMaxCount = int64_t{1} << 62;    // sums of two counts stay in int64

// ---- writing

std::string quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The shortest decimal that reads back as the same float.
std::string number(float x) {
  const std::string text = fmt::format("{}", x);
  return std::strtof(text.c_str(), nullptr) == x ? text : fmt::format("{:.9g}", x);
}

std::string bins_text(const std::vector<uint64_t>& bins) {
  size_t first = 0;
  size_t last = bins.size();
  while (first < last && bins[first] == 0) ++first;
  while (last > first && bins[last - 1] == 0) --last;
  const std::span<const uint64_t> counts(bins.data() + first, last - first);
  return fmt::format("{{\"first\": {}, \"counts\": [{}]}}", first, fmt::join(counts, ","));
}

void append_value(std::string& out, const Statistic& s, const Range* range) {
  if (range != nullptr) {
    out += fmt::format("      \"range\": [{}, {}],\n", number(range->rmin), number(range->rmax));
  }
  out += fmt::format("      \"min\": {}, \"max\": {},\n", number(s.min), number(s.max));
  if (s.detail == Detail::histogram) {
    out += fmt::format("      \"mean\": {:.6g}, \"mean_abs\": {:.6g}, \"rms\": {:.6g},\n", s.mean(),
                       s.mean_abs(), s.rms());
  }
  out += fmt::format("      \"count\": {}, \"zeros\": {}, \"non_finite\": {}, \"samples\": {},\n",
                     s.count, s.zeros, s.non_finite, s.samples);
  out += fmt::format("      \"sum_of_minima\": \"{}\", \"sum_of_maxima\": \"{}\",\n",
                     s.sum_of_minima.to_text(), s.sum_of_maxima.to_text());
  if (s.detail == Detail::histogram) {
    out += fmt::format(
        "      \"sum\": \"{}\", \"sum_abs\": \"{}\", \"sum_squares\": \"{}\",\n"
        "      \"exponent\": {},\n",
        s.sum.to_text(), s.sum_abs.to_text(), s.sum_squares.to_text(), s.exponent);
    if (!s.negative.empty()) {
      out += fmt::format("      \"negative\": {},\n", bins_text(s.negative));
    }
    if (!s.positive.empty()) {
      out += fmt::format("      \"positive\": {},\n", bins_text(s.positive));
    }
  }
  out += fmt::format("      \"detail\": \"{}\"\n", to_string(s.detail));
}

// ---- reading

[[noreturn]] void corrupt(const std::string& what, const std::string& hint = {}) {
  throw Error(ErrorCode::corrupt_data, what, hint);
}

void check_keys(const Json& object, const std::vector<std::string>& known) {
  if (!object.is_object()) corrupt("expected an object");
  for (const auto& item : object.items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      corrupt(fmt::format("unknown key '{}'", item.key()), did_you_mean(item.key(), known));
    }
  }
}

const Json& member(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end()) corrupt(fmt::format("'{}' is missing", key));
  return *it;
}

int64_t integer(const Json& object, const char* key, int64_t lowest, int64_t highest) {
  const Json& j = member(object, key);
  const bool fits = j.is_number_unsigned() ? j.get<uint64_t>() <= static_cast<uint64_t>(highest)
                                           : j.is_number_integer() && j.get<int64_t>() <= highest;
  if (!fits || j.get<int64_t>() < lowest) {
    corrupt(fmt::format("'{}' is not an integer from {} to {}", key, lowest, highest));
  }
  return j.get<int64_t>();
}

float finite_float(const Json& j, const char* key) {
  const auto number_at = j.is_number() ? j.get<double>() : std::numeric_limits<double>::infinity();
  if (!(std::fabs(number_at) <= static_cast<double>(std::numeric_limits<float>::max()))) {
    corrupt(fmt::format("'{}' is not a finite float32 number", key));
  }
  return static_cast<float>(number_at);
}

std::string text(const Json& object, const char* key) {
  const Json& j = member(object, key);
  if (!j.is_string()) corrupt(fmt::format("'{}' is not a text", key));
  return j.get<std::string>();
}

ExactSum exact(const Json& object, const char* key) {
  const std::optional<ExactSum> sum = ExactSum::from_text(text(object, key));
  if (!sum) corrupt(fmt::format("'{}' is not an exact sum such as -0x1fp-140", key));
  return *sum;
}

Range parse_range(const Json& j) {
  if (!j.is_array() || j.size() != 2) corrupt("'range' is not [rmin, rmax]");
  const Range range{finite_float(j[0], "range"), finite_float(j[1], "range")};
  if (range.rmin > range.rmax) {
    corrupt(fmt::format("'range' [{}, {}] is empty", range.rmin, range.rmax),
            "write the smaller end first");
  }
  return range;
}

/// Counts of one histogram; adds them to `total`.
std::vector<uint64_t> parse_bins(const Json& value, const char* key, int64_t& total) {
  const auto it = value.find(key);
  if (it == value.end()) return {};
  check_keys(*it, {"first", "counts"});
  const int64_t first = integer(*it, "first", 0, Statistic::kBins - 1);
  const Json& counts = member(*it, "counts");
  if (!counts.is_array() || counts.empty() ||
      counts.size() > static_cast<size_t>(Statistic::kBins - first)) {
    corrupt(fmt::format("'{}' does not have 1 to {} counts", key, Statistic::kBins - first));
  }
  std::vector<uint64_t> bins(Statistic::kBins);
  for (size_t i = 0; i < counts.size(); ++i) {
    if (!counts[i].is_number_unsigned()) corrupt(fmt::format("'{}' has a bad count", key));
    const auto n = counts[i].get<uint64_t>();
    if (n > static_cast<uint64_t>(kMaxCount - total)) {
      corrupt(fmt::format("the counts of '{}' are too large", key));
    }
    total += static_cast<int64_t>(n);
    bins[static_cast<size_t>(first) + i] = n;
  }
  return bins;
}

size_t highest_bin(const std::vector<uint64_t>& bins) {
  size_t n = bins.size();
  while (n > 0 && bins[n - 1] == 0) --n;
  return n;
}

/// The last filled bin of one side holds its extreme value: estimators rely on it.
void check_extreme(const std::vector<uint64_t>& bins, float extreme, int exponent,
                   const char* side) {
  const size_t used = highest_bin(bins);
  const bool has_values = extreme > 0;
  const double place = has_values ? std::ldexp(static_cast<double>(extreme), 11 - exponent) : -1.0;
  if (has_values != (used > 0) || has_values != !bins.empty() ||
      (has_values && std::floor(place) != static_cast<double>(used - 1))) {
    corrupt(fmt::format("the {} histogram does not end where the values do", side),
            "min and max are measured; to choose a range, add \"range\": [rmin, rmax]");
  }
}

/// The mean of per-sample extremes lies between the extremes; nothing is summed without samples.
void check_mean_extreme(const ExactSum& sum, const char* key, const Statistic& s) {
  const auto n = static_cast<double>(s.samples);
  const double slack = 1e-9 * n * static_cast<double>(std::max(-s.min, s.max));  // roundings
  if (sum.value() < n * static_cast<double>(s.min) - slack ||
      sum.value() > n * static_cast<double>(s.max) + slack) {
    corrupt(
        fmt::format("'{}' does not fit {} samples from {} to {}", key, s.samples, s.min, s.max));
  }
}

void parse_histogram(const Json& value, Statistic& s) {
  s.sum = exact(value, "sum");
  s.sum_abs = exact(value, "sum_abs");
  s.sum_squares = exact(value, "sum_squares");
  if (s.sum_squares.value() < 0 || std::fabs(s.sum.value()) > s.sum_abs.value()) {
    corrupt("'sum', 'sum_abs' and 'sum_squares' contradict each other");
  }
  s.exponent = static_cast<int>(integer(value, "exponent", Statistic::kLowestExponent, 128));
  int64_t total = s.zeros;
  s.negative = parse_bins(value, "negative", total);
  s.positive = parse_bins(value, "positive", total);
  if (total != s.count) {
    corrupt(fmt::format("histograms and zeros hold {} values where 'count' is {}", total, s.count));
  }
  check_extreme(s.negative, -s.min, s.exponent, "negative");
  check_extreme(s.positive, s.max, s.exponent, "positive");
  int needed = Statistic::kLowestExponent;
  const float amax = std::max(-s.min, s.max);
  if (amax > 0) std::frexp(amax, &needed);
  if (s.exponent != std::max(needed, Statistic::kLowestExponent)) {
    corrupt("'exponent' does not fit the values");
  }
}

Statistic parse_value(const Json& value) {
  check_keys(value, {"range", "detail", "min", "max", "mean", "mean_abs", "rms", "count", "zeros",
                     "non_finite", "samples", "sum", "sum_abs", "sum_squares", "sum_of_minima",
                     "sum_of_maxima", "exponent", "negative", "positive"});
  const std::string detail = text(value, "detail");
  if (detail != to_string(Detail::range) && detail != to_string(Detail::histogram)) {
    corrupt(fmt::format("'detail' is '{}', not range or histogram", detail));
  }
  Statistic s(detail == to_string(Detail::range) ? Detail::range : Detail::histogram);
  s.count = integer(value, "count", 0, kMaxCount);
  s.zeros = integer(value, "zeros", 0, s.count);
  s.non_finite = integer(value, "non_finite", 0, kMaxCount);
  s.samples = integer(value, "samples", 0, s.count);
  s.min = finite_float(member(value, "min"), "min") + 0.0f;  // -0 becomes 0
  s.max = finite_float(member(value, "max"), "max") + 0.0f;
  if (s.min > s.max || (s.count == 0 && (s.min != 0 || s.max != 0))) {
    corrupt(fmt::format("'min' {} and 'max' {} do not fit", s.min, s.max));
  }
  s.sum_of_minima = exact(value, "sum_of_minima");
  s.sum_of_maxima = exact(value, "sum_of_maxima");
  check_mean_extreme(s.sum_of_minima, "sum_of_minima", s);
  check_mean_extreme(s.sum_of_maxima, "sum_of_maxima", s);
  if (s.detail == Detail::histogram) parse_histogram(value, s);
  return s;
}

Json parse_json(std::string_view text_of_file) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const Json::parser_callback_t check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) corrupt("the text is nested too deeply");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      corrupt(fmt::format("'{}' stands twice in one object", parsed.get<std::string>()));
    }
    return true;
  };
  try {
    return Json::parse(text_of_file.begin(), text_of_file.end(), check);
  } catch (const Json::exception& e) {
    corrupt(fmt::format("not JSON: {}", e.what()));
  }
}

}  // namespace

std::string statistics_to_json(const Statistics& statistics) {
  std::string out = "{\n";
  out += fmt::format("  \"format\": \"{}\", \"version\": {},\n", kFormat, kVersion);
  out += fmt::format("  \"model_fingerprint\": {},\n", quoted(statistics.model_fingerprint));
  out += fmt::format("  \"data_fingerprint\": {},\n", quoted(statistics.data_fingerprint));
  out += fmt::format("  \"samples\": {},\n", statistics.samples);
  out += "  \"values\": {";
  const char* separator = "\n";
  std::map<std::string, const Range*> entries;  // values and overrides without values
  for (const auto& [name, s] : statistics.values) entries[name] = nullptr;
  for (const auto& [name, range] : statistics.overrides) entries[name] = &range;
  for (const auto& [name, range] : entries) {
    out += fmt::format("{}    {}: {{\n", separator, quoted(name));
    separator = ",\n";
    const auto it = statistics.values.find(name);
    if (it != statistics.values.end()) {
      append_value(out, it->second, range);
    } else {
      out += fmt::format("      \"range\": [{}, {}]\n", number(range->rmin), number(range->rmax));
    }
    out += "    }";
  }
  out += entries.empty() ? "}\n}\n" : "\n  }\n}\n";
  return out;
}

Statistics statistics_from_json(std::string_view text_of_file) {
  const Json file = parse_json(text_of_file);
  if (!file.is_object() || file.value("format", Json()) != kFormat) {
    corrupt("this is no statistics file");
  }
  const int64_t version = integer(file, "version", 1, std::numeric_limits<int32_t>::max());
  if (version > kVersion) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the statistics have version {}, this program reads up to {}", version,
                            kVersion),
                "calibrate again or use a newer program");
  }
  check_keys(file,
             {"format", "version", "model_fingerprint", "data_fingerprint", "samples", "values"});
  Statistics statistics;
  statistics.model_fingerprint = text(file, "model_fingerprint");
  statistics.data_fingerprint = text(file, "data_fingerprint");
  statistics.samples = integer(file, "samples", 0, kMaxCount);
  const Json& values = member(file, "values");
  if (!values.is_object()) corrupt("'values' is not an object");
  for (const auto& item : values.items()) {
    try {
      if (!item.value().is_object()) corrupt("expected an object");
      const auto range = item.value().find("range");
      if (range != item.value().end()) statistics.overrides[item.key()] = parse_range(*range);
      // A person may add a value with nothing but its range.
      const bool only_range = range != item.value().end() && item.value().size() == 1;
      if (!only_range) statistics.values.emplace(item.key(), parse_value(item.value()));
    } catch (Error& e) {
      e.add_context(fmt::format("value '{}'", item.key()));
      throw;
    }
  }
  return statistics;
}

void save_statistics(const Statistics& statistics, const std::filesystem::path& path) {
  write_text(path, statistics_to_json(statistics));
}

Statistics load_statistics(const std::filesystem::path& path) {
  try {
    return statistics_from_json(read_text(path, kMaxFileBytes));
  } catch (Error& e) {
    e.add_context(path.string());
    throw;
  }
}

}  // namespace narrow
