// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/torchscript.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/evaluate/runner.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/runtime/session.h"
#include "narrow/train/library.h"

namespace narrow {
namespace {

constexpr double kMostDifference = 1e-3;  // float sums in another order stay far below

/// The largest distance of the outputs, in parts of their largest value.
double distance(const std::vector<Tensor>& ours, const std::vector<Tensor>& theirs) {
  double worst = 0;
  for (size_t i = 0; i < theirs.size(); ++i) {
    const std::vector<float> a = ours.at(i).to_floats();
    const std::vector<float> b = theirs[i].to_floats();
    if (a.size() != b.size()) return INFINITY;
    double largest = 1e-6;
    double difference = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      largest = std::max<double>(largest, std::fabs(b[k]));
      const double d = std::fabs(static_cast<double>(a[k]) - b[k]);
      if (!(d <= difference)) difference = d;  // NaN stays
    }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

}  // namespace

bool is_torchscript(const std::filesystem::path& path) {
  return path.extension() == ".pt" || path.extension() == ".ts";
}

SymbolicShape parse_input_shape(std::string_view text) {
  SymbolicShape shape;
  const auto refuse = [&] {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is no input shape", text),
                "write sizes, and a name for what may vary, as in Nx3x32x32");
  };
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('x', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error == std::errc() && rest == part.data() + part.size()) {
      constexpr int64_t kMost = 1 << 24;
      if (value < 1 || value > kMost) refuse();
      shape.emplace_back(value);
    } else {
      const bool name = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
      });
      if (!name) refuse();
      shape.push_back(Dim::symbol(std::string(part)));
    }
    at = end + 1;
  }
  return shape;
}

ScriptGraph read_torchscript(const std::filesystem::path& path,
                             const std::vector<SymbolicShape>& inputs) {
  train::ScriptImport script = train::load_plugin().import_torchscript(path.string(), inputs);
  ScriptGraph out{std::move(script.graph), 0};
  infer_shapes(out.graph);
  PassOptions passes;
  passes.context.evaluate = evaluate_constant;
  passes.disabled = {"fold_batch_norm"};  // who trains it wants them; who deploys it folds them
  optimize(out.graph, passes);
  infer_shapes(out.graph);
  out.largest_difference = distance(Session(out.graph).run(script.inputs), script.outputs);
  if (!(out.largest_difference <= kMostDifference)) {
    throw Error(
        ErrorCode::numeric_failure,
        fmt::format("{}: the graph's outputs differ from libtorch's by {:.3g} of the largest",
                    path.string(), out.largest_difference),
        "export the model to ONNX from Python instead, and report this one");
  }
  return out;
}

}  // namespace narrow
