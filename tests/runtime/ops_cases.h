// SPDX-License-Identifier: Apache-2.0
// Golden cases of single operators (tests/goldens/make_ops.py writes them) and a rig that runs one
// implementation row on one of them, the way a plan would.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"
#include "narrow/runtime/op_impl.h"

namespace narrow::testing {

struct OpCase {
  std::string name;
  std::string domain;
  std::string op;
  Attributes attributes;
  std::vector<Tensor> inputs;   // undefined: absent
  std::vector<Tensor> outputs;  // undefined: absent
};

/// Throws corrupt_data when the file is not what make_ops.py writes.
std::vector<OpCase> read_op_cases(const std::filesystem::path& path);

/// Which inputs are initializers when the row sees the graph.
enum class Constants { none, all_but_first };
/// How the operands of a layout-agnostic step lie in memory.
enum class Common { plain, channels_last };
/// Whether the output takes the memory of the input that aliases() names.
enum class Place { own, in_place };

struct RunVariant {
  Constants constants = Constants::none;
  Common common = Common::plain;
  Place place = Place::own;
};

/// A graph of the one node.
Graph graph_of(const OpCase& c, Constants constants);
const Node& node_of(const Graph& graph);

/// Whether the variant says anything that others do not, for this step and case.
bool applies(const Step& step, const OpCase& c, const RunVariant& variant);

/// The row's outputs in row-major order, expected dtypes and (unless dynamic) expected shapes.
std::vector<Tensor> run_row(const OpImpl& row, const OpCase& c, const RunVariant& variant);

struct Tolerance {
  double relative = 2e-5;    // of each expected value
  double of_largest = 4e-6;  // of the largest expected magnitude, at most `largest_cap`
  double largest_cap = 100;
};
/// Empty when equal within the tolerance (integers: exactly); otherwise what differs.
std::string difference(const Tensor& expected, const Tensor& actual, const Tolerance& tolerance);

}  // namespace narrow::testing
