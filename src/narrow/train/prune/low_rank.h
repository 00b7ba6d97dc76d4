// SPDX-License-Identifier: Apache-2.0
// Dense layers and 1x1 convolutions as two thin ones: the best approximation of rank r of the
// weights (Eckart & Young, 1936; Denton et al., Exploiting Linear Structure, 2014).
//
//   W [out, in] ~ B [out, r] * A [r, in], worth it where r < out * in / (out + in)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow::train {

struct LowRankOptions {
  bool active = false;
  std::optional<double> ratio;   // share of a layer's weights that stays
  std::optional<double> energy;  // or: share of the squares of its singular values
  std::vector<std::string> layers;
  std::vector<std::string> except;
};
/// "ratio=0.3" or "energy=0.95", with layers and except. Throws invalid_argument.
LowRankOptions parse_low_rank(std::string_view text);
std::string to_text(const LowRankOptions& options);

struct Factored {
  std::string node;
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t rank = 0;
  double energy = 0;  // share of squares that is kept
};
/// Replaces the layers that shrink by it, names kept: NODE becomes NODE/first and NODE. Throws
/// invalid_argument where none does.
std::vector<Factored> factor_layers(Graph& graph, const LowRankOptions& options);

/// Of a symmetric matrix [n, n]: eigenvalues, falling, and their vectors as rows. Jacobi rotations.
struct Eigen {
  std::vector<double> values;
  std::vector<double> vectors;
};
Eigen symmetric_eigen(std::vector<double> matrix, int64_t n);

}  // namespace narrow::train
