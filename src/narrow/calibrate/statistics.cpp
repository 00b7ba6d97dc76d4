// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>

#include "narrow/calibrate/observer.h"
#include "narrow/core/error.h"

namespace narrow {
namespace {

/// The parts of "a+b" and "b+c" as a sorted set: "a+b+c".
std::string joined_fingerprints(const std::string& a, const std::string& b) {
  std::set<std::string> parts;
  for (const std::string& text : {a, b}) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('+', begin), text.size());
      if (end > begin) parts.insert(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  std::string joined;
  for (const std::string& part : parts) joined += (joined.empty() ? "" : "+") + part;
  return joined;
}

}  // namespace

void Statistics::merge(const Statistics& other) {
  const bool named = !model_fingerprint.empty() && !other.model_fingerprint.empty();
  if (named && model_fingerprint != other.model_fingerprint) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("statistics of model {} cannot be merged with those of model {}",
                            other.model_fingerprint, model_fingerprint));
  }
  for (const auto& [name, range] : other.overrides) {
    const auto it = overrides.find(name);
    if (it != overrides.end() && !(it->second == range)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("value '{}' has the range [{}, {}] in one file and [{}, {}] in the"
                              " other",
                              name, it->second.rmin, it->second.rmax, range.rmin, range.rmax));
    }
  }
  overrides.insert(other.overrides.begin(), other.overrides.end());
  for (const auto& [name, statistic] : other.values) values[name].merge(statistic);
  if (model_fingerprint.empty()) model_fingerprint = other.model_fingerprint;
  data_fingerprint = joined_fingerprints(data_fingerprint, other.data_fingerprint);
  samples += other.samples;
}

Range Statistics::range_of(const std::string& name, const ObserverOptions& options,
                           const Scheme& scheme) const {
  const auto chosen = overrides.find(name);
  if (chosen != overrides.end()) return chosen->second;
  const auto it = values.find(name);
  if (it == values.end()) {
    throw Error(ErrorCode::not_found, fmt::format("no statistics of value '{}'", name),
                "calibrate again: the statistics belong to another model");
  }
  try {
    return estimate_range(it->second, options, scheme);
  } catch (Error& e) {
    e.add_context(fmt::format("value '{}'", name));
    throw;
  }
}

}  // namespace narrow
