// SPDX-License-Identifier: Apache-2.0
// Where the time of a run goes, node by node, beside what the machine can do. Internal to report/.
#pragma once

#include <string>

#include "narrow/evaluate/bench.h"
#include "narrow/report/json.h"

namespace narrow {

/// Adds profile, profile_total, reorders and peaks.
void add_profile(Json& json, const BenchResult& result);
std::string profile_text(const BenchResult& result);

}  // namespace narrow
