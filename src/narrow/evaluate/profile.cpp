// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/profile.h"

#include <algorithm>

namespace narrow {
namespace {

/// 10^9 things a second are a thousand a microsecond.
double rate(double things, double microseconds) {
  return microseconds > 0 ? things / microseconds * 1e-3 : 0;
}

/// The least time in microseconds that the machine could take; sets the bound.
double least_time(NodeCost& cost, bool is_integer, const kernels::MachinePeaks& peaks) {
  const double peak = is_integer ? peaks.integer_gops : peaks.float_gops;
  const double multiplying = peak > 0 ? 2e-3 * static_cast<double>(cost.macs) / peak : 0;
  const double moving =
      peaks.read_gb_per_s > 0 ? 1e-3 * static_cast<double>(cost.bytes) / peaks.read_gb_per_s : 0;
  if (multiplying <= 0 && moving <= 0) return 0;
  cost.bound = multiplying < moving ? Bound::memory : is_integer ? Bound::int8 : Bound::float32;
  return std::max(multiplying, moving);
}

void set_rates(NodeCost& cost, double least) {
  cost.gops = rate(2 * static_cast<double>(cost.macs), cost.microseconds);
  cost.gb_per_s = rate(static_cast<double>(cost.bytes), cost.microseconds);
  cost.peak_fraction = cost.microseconds > 0 ? least / cost.microseconds : 0;
}

}  // namespace

const char* to_string(Bound bound) {
  constexpr const char* kNames[] = {"none", "int8", "float32", "memory"};
  return kNames[static_cast<size_t>(bound)];
}

CostSummary summarize_costs(std::span<const NodeProfile> profile, int64_t runs,
                            const kernels::MachinePeaks& peaks) {
  CostSummary summary;
  double least_total = 0;
  for (size_t i = 0; i < profile.size(); ++i) {
    const NodeProfile& node = profile[i];
    const double executions =
        runs > 0 ? static_cast<double>(node.runs) / static_cast<double>(runs) : 0;
    NodeCost cost;
    cost.microseconds = node.microseconds * executions;
    cost.macs = static_cast<int64_t>(static_cast<double>(node.macs) * executions);
    cost.bytes = static_cast<uint64_t>(static_cast<double>(node.bytes) * executions);
    const double least = least_time(cost, node.integer_macs, peaks);
    set_rates(cost, least);
    if (node.is_reorder && node.bytes > 0) {
      ++summary.reorders;
      summary.reorder_microseconds += cost.microseconds;
    }
    if (node.depth == 0) summary.total.microseconds += cost.microseconds;
    const bool has_body = i + 1 < profile.size() && profile[i + 1].depth > node.depth;
    if (!has_body) {
      summary.total.macs += cost.macs;
      summary.total.bytes += cost.bytes;
      least_total += least;
    }
    summary.nodes.push_back(cost);
  }
  set_rates(summary.total, least_total);
  const auto share = [&](double microseconds) {
    return summary.total.microseconds > 0 ? microseconds / summary.total.microseconds : 0;
  };
  for (NodeCost& cost : summary.nodes) cost.share = share(cost.microseconds);
  summary.total.share = share(summary.total.microseconds);
  summary.reorder_share = share(summary.reorder_microseconds);
  return summary;
}

}  // namespace narrow
