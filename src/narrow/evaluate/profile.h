// SPDX-License-Identifier: Apache-2.0
// How the time of a run divides among its nodes, and how near each comes to what the machine can
// do.
//
// A node needs at least the time of its multiply-adds at the machine's peak, and at least the time
// of its bytes at the rate at which as much memory as the run holds can be read; the longer of the
// two is its bound. Both peaks are measured (kernels/peaks.h). What a node finds in a nearer cache,
// as its producer left it, can beat the bound of memory: more than 100 %.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/kernels/peaks.h"
#include "narrow/runtime/session.h"

namespace narrow {

enum class Bound : uint8_t { none, int8, float32, memory };  // none: not known
const char* to_string(Bound bound);

struct NodeCost {
  double microseconds = 0;   // of one run of the model, all executions of the node
  double share = 0;          // of the whole run's
  int64_t macs = 0;          // likewise of one run
  uint64_t bytes = 0;        // inputs and weights read, outputs written
  double gops = 0;           // 10^9 operations a second, a multiply-add being two; 0: has none
  double gb_per_s = 0;       // 0: not known
  double peak_fraction = 0;  // of the bound
  Bound bound = Bound::none;
};

struct CostSummary {
  std::vector<NodeCost> nodes;  // as in the profile
  /// Of all nodes, what bodies do counted once. Its bound is that of the nodes one after the other:
  /// Bound::none.
  NodeCost total;
  int64_t reorders = 0;  // between layouts, that copy something
  double reorder_microseconds = 0;
  double reorder_share = 0;
};

/// `runs` of the model gave the profile.
CostSummary summarize_costs(std::span<const NodeProfile> profile, int64_t runs,
                            const kernels::MachinePeaks& peaks);

}  // namespace narrow
