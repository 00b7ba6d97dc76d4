// SPDX-License-Identifier: Apache-2.0
// The table of passes and the loop that runs, times and verifies them.
#include "narrow/graph/pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

// In the order in which optimize() runs them.
constexpr PassInfo kPasses[] = {
    {"eliminate_identities", "operators that hand their input on unchanged", eliminate_identities},
    {"fold_constants", "nodes whose inputs are all constant", fold_constants},
    {"fuse_matmul_bias", "a matrix product and the bias behind it into one Gemm", fuse_matmul_bias},
    {"fold_batch_norm", "batch norm and per-channel factors into the product before them",
     fold_batch_norm},
    {"fuse_pads", "zero padding into the convolution or pool behind it", fuse_pads},
    {"eliminate_common", "nodes that compute the same from the same inputs", eliminate_common},
    {"eliminate_dead", "nodes and constants that reach no output", eliminate_dead},
};

// What changes results: run by name alone.
constexpr PassInfo kOnRequest[] = {
    {"quantize_activations", "activations in front of weights in blocks to 8 bits at run time",
     quantize_activations},
};

// Folding a constant may make an identity, and so on; real models settle in two rounds.
constexpr int kMaxRounds = 8;

#ifdef NDEBUG
constexpr bool kAlwaysVerify = false;
#else
constexpr bool kAlwaysVerify = true;
#endif

const PassInfo& require_pass(std::string_view name) {
  const PassInfo* pass = find_pass(name);
  if (pass != nullptr) return *pass;
  std::string known;
  for (const PassInfo& p : kPasses) known += (known.empty() ? "" : ", ") + std::string(p.name);
  for (const PassInfo& p : kOnRequest) known += ", " + std::string(p.name);
  throw Error(ErrorCode::invalid_argument, fmt::format("there is no pass '{}'", name),
              "the passes are " + known);
}

int64_t run_one(Graph& graph, const PassInfo& pass, const PassOptions& options,
                PassReport& report) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t changes = pass.run(graph, options.context);
  if (changes > 0) {
    graph.sort();
    infer_shapes(graph);
  }
  if (kAlwaysVerify || options.verify_each) {
    try {
      verify(graph);
    } catch (Error& e) {
      e.add_context(fmt::format("after the pass {}", pass.name));
      throw;
    }
  }
  const auto end = std::chrono::steady_clock::now();
  report.changes += changes;
  report.milliseconds += std::chrono::duration<double, std::milli>(end - start).count();
  return changes;
}

bool disabled(const PassOptions& options, std::string_view name) {
  return std::find(options.disabled.begin(), options.disabled.end(), name) !=
         options.disabled.end();
}

}  // namespace

std::span<const PassInfo> all_passes() {
  return kPasses;
}

const PassInfo* find_pass(std::string_view name) {
  for (const std::span<const PassInfo> table :
       {std::span<const PassInfo>(kPasses), std::span<const PassInfo>(kOnRequest)}) {
    for (const PassInfo& pass : table) {
      if (name == pass.name) return &pass;
    }
  }
  return nullptr;
}

std::vector<PassReport> run_passes(Graph& graph, std::span<const std::string_view> names,
                                   const PassOptions& options) {
  for (const std::string& name : options.disabled) require_pass(name);
  std::vector<PassReport> reports;
  for (const std::string_view name : names) {
    const PassInfo& pass = require_pass(name);
    if (disabled(options, name)) continue;
    reports.push_back({pass.name});
    run_one(graph, pass, options, reports.back());
  }
  return reports;
}

std::vector<PassReport> optimize(Graph& graph, const PassOptions& options) {
  for (const std::string& name : options.disabled) require_pass(name);
  std::vector<PassReport> reports;
  for (const PassInfo& pass : kPasses) reports.push_back({pass.name});
  for (int round = 0; round < kMaxRounds; ++round) {
    int64_t changes = 0;
    for (size_t i = 0; i < std::size(kPasses); ++i) {
      if (disabled(options, kPasses[i].name)) continue;
      changes += run_one(graph, kPasses[i], options, reports[i]);
    }
    if (changes == 0) break;
  }
  return reports;
}

}  // namespace narrow
