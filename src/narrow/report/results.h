// SPDX-License-Identifier: Apache-2.0
// Results of eval, compare and bench as text for a person and as one JSON object for a program.
// Infinities and NaN are null in JSON.
#pragma once

#include <string>

#include "narrow/core/error.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/compare.h"
#include "narrow/evaluate/evaluate.h"
#include "narrow/evaluate/streams.h"

namespace narrow {

/// {"metric":"top1","value":92.32,"samples":10000,"low":91.78,"high":92.83,"seconds":1.2}
std::string to_json(const MetricResult& result);
std::string to_text(const MetricResult& result);

/// {"agreement":99.8,"samples":..,"cosine":..,"sqnr_db":..,"max_abs":..,"identical":false,
///  "outputs":[..],"layers":[{"value","node","op","sqnr_db","cosine","mse","max_abs"}]}
std::string to_json(const Comparison& comparison);
std::string to_text(const Comparison& comparison);

/// {"median_us":..,"p90_us":..,"min_us":..,"mean_us":..,"runs":..,"batch":..,"threads":..,
///  "peak_rss_bytes":..,"output_hash":"..","integer_mac_fraction":..,"memory":{..},"profile":[..]}
std::string to_json(const BenchResult& result);
std::string to_text(const BenchResult& result);

/// {"samples_per_second":..,"streams":[{"runs","median_us","p99_us","samples_per_second"}],
///  "threads_per_stream":..,"cpus":..,"batch":..,"seconds":..,"peak_rss_bytes":..,
///  "output_hash":"..","memory":{..}}
std::string to_json(const StreamsResult& result);
std::string to_text(const StreamsResult& result);

/// {"error":{"code":"not_found","message":"..","context":"..","hint":".."}}
std::string to_json(const Error& error);

}  // namespace narrow
