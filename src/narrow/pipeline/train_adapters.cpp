// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_adapters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/core/suggest.h"
#include "narrow/ptq/options.h"

namespace narrow {
namespace {

/// A weight that products are computed with.
struct Candidate {
  std::string name;
  bool transposed = false;  // [in, out]
  bool end = false;         // of the embedding or the output
};

bool is_read_by(const Graph& graph, ValueId id, const char* op) {
  const std::vector<Use>& uses = graph.value(id).uses;
  return std::any_of(uses.begin(), uses.end(),
                     [&](const Use& use) { return graph.node(use.node).is(op); });
}

std::vector<Candidate> candidates_of(const Graph& graph) {
  std::map<std::string, Candidate> found;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.is("MatMul") && !node.is("Gemm") && !node.is("Conv")) continue;
    ValueId w = node.input(1);
    bool transposed = node.is("MatMul") || (node.is("Gemm") && node.int_or("transB", 0) == 0);
    const Node* before = graph.producer(w);
    if (before != nullptr && before->is("Transpose")) {
      w = before->input(0);
      transposed = !transposed;
    }
    const Tensor* constant = graph.constant(w);
    if (constant == nullptr || constant->dtype() != DType::float32 || constant->rank() < 2)
      continue;
    const std::string& name = graph.value(w).name;
    const bool end = is_read_by(graph, w, "Gather") || name == "output.weight";
    found[name] = {name, transposed, end};
  }
  std::vector<Candidate> out;
  for (auto& [name, candidate] : found) out.push_back(std::move(candidate));
  return out;
}

/// Throws where a glob matches no name.
void check_globs(std::span<const std::string> globs, const std::vector<std::string>& names) {
  for (const std::string& glob : globs) {
    const bool matches = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return glob_match(glob, name);
    });
    if (matches) continue;
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' matches no weight", glob),
                did_you_mean(glob, names));
  }
}

bool any_match(std::span<const std::string> globs, const std::string& name) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const std::string& glob) { return glob_match(glob, name); });
}

double number_from(std::string_view text, std::string_view part) {
  double value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr double kMost = 65536;
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !(value > 0) ||
      value > kMost) {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is no number above 0", part));
  }
  return value;
}

}  // namespace

AdapterOptions parse_adapters(std::string_view text) {
  AdapterOptions out;
  constexpr int64_t kRank = 8;
  out.rank = kRank;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    const size_t equal = std::min(part.find('='), part.size());
    const std::string key(part.substr(0, equal));
    const std::string_view value = part.substr(std::min(equal + 1, part.size()));
    if (key == "rank") {
      const double rank = number_from(value, part);
      if (rank != std::floor(rank)) number_from("", part);
      out.rank = static_cast<int64_t>(rank);
    } else if (key == "alpha") {
      out.alpha = number_from(value, part);
    } else if (key == "layers" && !value.empty()) {
      out.layers.emplace_back(value);
    } else {
      const std::vector<std::string> known = {"rank", "alpha", "layers"};
      throw Error(ErrorCode::invalid_argument, fmt::format("--lora: '{}'", part),
                  did_you_mean(key, known));
    }
  }
  return out;
}

void resolve_adapters(AdapterOptions& options) {
  if (!options.input.empty()) {
    const AdapterOptions given = read_adapter_config(options.input);
    options.rank = given.rank;
    options.alpha = given.alpha;
  }
  if (options.output.empty() || options.active()) return;
  throw Error(ErrorCode::invalid_argument, "an output for adapters, and no adapters",
              "say which with --lora");
}

std::string to_text(const AdapterOptions& o) {
  if (!o.active()) return "";
  return fmt::format("rank={},alpha={},layers={},merged={}", o.rank, o.alpha,
                     fmt::join(o.layers, ";"), o.output.empty());
}

void freeze(std::span<const std::string> globs, train::TrainPlan& plan) {
  check_globs(globs, plan.parameters);
  std::erase_if(plan.parameters, [&](const std::string& name) { return any_match(globs, name); });
}

void add_adapters(const AdapterOptions& options, uint64_t seed, train::TrainPlan& plan) {
  const std::vector<Candidate> candidates = candidates_of(plan.graph);
  std::vector<std::string> names;
  for (const Candidate& c : candidates) names.push_back(c.name);
  check_globs(options.layers, names);
  Rng rng(seed);
  for (const Candidate& c : candidates) {
    if (options.layers.empty() ? c.end : !any_match(options.layers, c.name)) continue;
    const Tensor& w = *plan.graph.constant(*plan.graph.find_value(c.name));
    const int64_t rows = c.transposed ? w.dims().back() : w.dim(0);
    const int64_t columns = w.elements() / rows;
    train::Adapter adapter;
    adapter.a = Tensor(DType::float32, {options.rank, columns});
    adapter.b = Tensor(DType::float32, {rows, options.rank});  // zeros: no change at first
    const double bound = 1 / std::sqrt(static_cast<double>(columns));
    for (float& x : adapter.a.mutable_data<float>()) {
      x = static_cast<float>(bound * (2 * rng.uniform() - 1));
    }
    adapter.scale = static_cast<float>(options.alpha / static_cast<double>(options.rank));
    adapter.transposed = c.transposed;
    adapter.merged = options.output.empty();
    plan.adapters[c.name] = std::move(adapter);
  }
  if (plan.adapters.empty()) {
    throw Error(ErrorCode::invalid_argument, "the model has no matrix that takes an adapter");
  }
  plan.parameters.clear();
}

Tensor with_adapter(const Tensor& w, const train::Adapter& adapter) {
  Tensor out = w.clone();
  const int64_t rank = adapter.a.dim(0);
  const int64_t columns = adapter.a.dim(1);
  const int64_t rows = adapter.b.dim(0);
  const float* a = adapter.a.data<float>().data();
  const float* b = adapter.b.data<float>().data();
  float* y = out.mutable_data<float>().data();
  std::vector<float> change(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    std::fill(change.begin(), change.end(), 0.0F);
    for (int64_t k = 0; k < rank; ++k) {
      for (int64_t c = 0; c < columns; ++c) change[c] += b[r * rank + k] * a[k * columns + c];
    }
    for (int64_t c = 0; c < columns; ++c) {
      y[adapter.transposed ? c * rows + r : r * columns + c] += adapter.scale * change[c];
    }
  }
  return out;
}

}  // namespace narrow
