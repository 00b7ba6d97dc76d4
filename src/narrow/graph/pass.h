// SPDX-License-Identifier: Apache-2.0
// Graph passes as rows of a table: named, switchable, timed, verified. A pass is a function that
// edits a graph and says how much it changed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow {

/// Runs one node on constant inputs; the runtime provides it, as execution lives above the graph.
/// Returns no tensors if the node cannot be run.
using ConstantEvaluator =
    std::function<std::vector<Tensor>(const Graph&, const Node&, std::span<const Tensor>)>;

struct PassContext {
  ConstantEvaluator evaluate;                   // for fold_constants; absent: the pass does nothing
  int64_t max_folded_bytes = int64_t{1} << 24;  // constants larger than this are not materialised
};

struct PassInfo {
  const char* name;
  const char* summary;                         // one line, for --help and docs
  int64_t (*run)(Graph&, const PassContext&);  // returns the number of changes
};

/// Every pass, in the order in which optimize() runs them.
std::span<const PassInfo> all_passes();
/// One of these, or one that runs on request alone because it changes results
/// (quantize_activations).
const PassInfo* find_pass(std::string_view name);

struct PassReport {
  std::string name;
  int64_t changes = 0;
  double milliseconds = 0;
};

struct PassOptions {
  std::vector<std::string> disabled;  // names; an unknown one is invalid_argument
  PassContext context;
  bool verify_each = false;  // always on in debug builds
};

/// Runs the named passes in the given order, infers shapes again after each change, verifies.
std::vector<PassReport> run_passes(Graph& graph, std::span<const std::string_view> names,
                                   const PassOptions& options);

/// The float clean-up before quantization: eliminate_identities, fold_constants, fold_batch_norm,
/// ... until nothing changes (at most a few rounds).
std::vector<PassReport> optimize(Graph& graph, const PassOptions& options);

}  // namespace narrow
