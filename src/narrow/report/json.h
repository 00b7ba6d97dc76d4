// SPDX-License-Identifier: Apache-2.0
// Building blocks of the JSON reports. Internal to report/.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "narrow/evaluate/compare.h"
#include "narrow/report/prune_report.h"
#include "narrow/report/thin_report.h"
#include "narrow/train/trainer.h"

namespace narrow {

/// Keys stay in the order in which they were added.
using Json = nlohmann::ordered_json;

/// JSON has no infinities and no NaN.
inline Json json_number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

/// One line; bytes that are no UTF-8 (names from hostile files) are replaced.
inline std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json json_of(const ValueDifference& difference);
Json json_of(const PruneReport& report);
Json json_of(const ThinReport& report);
Json json_of(const train::EpochRecord& epoch);

}  // namespace narrow
