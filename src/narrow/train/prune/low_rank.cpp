// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/low_rank.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/train/prune/masks.h"
#include "narrow/train/prune/spec_text.h"

namespace narrow::train {
namespace {

constexpr const char* kKeys[] = {"ratio", "energy", "layers", "except"};

/// One rotation that makes element (p, q) zero.
void rotate(std::vector<double>& a, std::vector<double>& v, int64_t n, int64_t p, int64_t q) {
  const auto at = [n](int64_t i, int64_t j) { return static_cast<size_t>(i * n + j); };
  const double theta = (a[at(q, q)] - a[at(p, p)]) / (2 * a[at(p, q)]);
  const double t = (theta >= 0 ? 1 : -1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
  const double c = 1 / std::sqrt(t * t + 1);
  const double s = t * c;
  for (int64_t k = 0; k < n; ++k) {
    const double x = a[at(k, p)];
    const double y = a[at(k, q)];
    a[at(k, p)] = c * x - s * y;
    a[at(k, q)] = s * x + c * y;
  }
  for (int64_t k = 0; k < n; ++k) {
    const double x = a[at(p, k)];
    const double y = a[at(q, k)];
    a[at(p, k)] = c * x - s * y;
    a[at(q, k)] = s * x + c * y;
    const double vx = v[at(p, k)];
    const double vy = v[at(q, k)];
    v[at(p, k)] = c * vx - s * vy;
    v[at(q, k)] = s * vx + c * vy;
  }
}

/// Weights as W [outputs, inputs] in double.
struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<double> data;
  double at(int64_t r, int64_t c) const { return data[static_cast<size_t>(r * columns + c)]; }
};

Matrix transposed(const Matrix& m) {
  Matrix out{m.columns, m.rows, std::vector<double>(m.data.size())};
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.columns; ++c) {
      out.data[static_cast<size_t>(c * m.rows + r)] = m.at(r, c);
    }
  }
  return out;
}

Tensor turned(const Tensor& x) {
  Tensor t(DType::float32, {x.dim(1), x.dim(0)});
  for (int64_t r = 0; r < x.dim(0); ++r) {
    for (int64_t c = 0; c < x.dim(1); ++c) {
      t.mutable_data<float>()[static_cast<size_t>(c * x.dim(0) + r)] =
          x.data<float>()[static_cast<size_t>(r * x.dim(1) + c)];
    }
  }
  return t;
}

std::vector<double> gram(const Matrix& m) {
  std::vector<double> g(static_cast<size_t>(m.rows * m.rows));
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < m.columns; ++k) sum += m.at(i, k) * m.at(j, k);
      g[static_cast<size_t>(i * m.rows + j)] = g[static_cast<size_t>(j * m.rows + i)] = sum;
    }
  }
  return g;
}

struct Factors {
  int64_t rank = 0;
  double energy = 0;
  Tensor first;   // [rank, inputs]
  Tensor second;  // [outputs, rank]
};

int64_t rank_of(const LowRankOptions& o, const Matrix& w, const std::vector<double>& squares) {
  const auto m = static_cast<double>(w.rows);
  const auto n = static_cast<double>(w.columns);
  if (o.ratio) return std::max<int64_t>(1, std::llround(*o.ratio * m * n / (m + n)));
  const double all = std::accumulate(squares.begin(), squares.end(), 0.0);
  double sum = 0;
  int64_t rank = 0;
  while (rank < static_cast<int64_t>(squares.size()) && sum < *o.energy * all) {
    sum += squares[static_cast<size_t>(rank++)];
  }
  return std::max<int64_t>(1, rank);
}

/// The rank-r part along the vectors of the smaller side; nullopt where it saves nothing.
std::optional<Factors> factors_of(const Matrix& w, const LowRankOptions& options) {
  const bool flip = w.columns < w.rows;
  const Matrix m = flip ? transposed(w) : w;  // rows <= columns
  Eigen eigen = symmetric_eigen(gram(m), m.rows);
  for (double& value : eigen.values) value = std::max(value, 0.0);
  Factors out;
  out.rank = rank_of(options, w, eigen.values);
  if (out.rank * (w.rows + w.columns) >= w.rows * w.columns) return std::nullopt;
  const auto kept = eigen.values.begin() + out.rank;
  const double all = std::accumulate(eigen.values.begin(), eigen.values.end(), 0.0);
  out.energy = all == 0 ? 1 : std::accumulate(eigen.values.begin(), kept, 0.0) / all;
  // m ~ U^T (U m), U being the vectors as rows [rank, m.rows].
  Tensor u(DType::float32, {out.rank, m.rows});
  Tensor um(DType::float32, {out.rank, m.columns});
  for (int64_t r = 0; r < out.rank; ++r) {
    const double* vector = eigen.vectors.data() + r * m.rows;
    for (int64_t i = 0; i < m.rows; ++i) {
      u.mutable_data<float>()[static_cast<size_t>(r * m.rows + i)] = static_cast<float>(vector[i]);
    }
    for (int64_t k = 0; k < m.columns; ++k) {
      double sum = 0;
      for (int64_t i = 0; i < m.rows; ++i) sum += vector[i] * m.at(i, k);
      um.mutable_data<float>()[static_cast<size_t>(r * m.columns + k)] = static_cast<float>(sum);
    }
  }
  out.first = flip ? u : um;
  out.second = turned(flip ? um : u);
  return out;
}

/// nullopt for other kinds of layers.
std::optional<Matrix> weights_of(const Graph& graph, const Node& node, const Tensor& w) {
  Matrix m;
  for (const float v : w.data<float>()) m.data.push_back(v);
  if (node.is("Conv")) {
    const bool pointwise =
        w.rank() == 4 && w.dim(2) == 1 && w.dim(3) == 1 && node.int_or("group", 1) == 1;
    if (!pointwise) return std::nullopt;
    m.rows = w.dim(0);
    m.columns = w.dim(1);
    return m;
  }
  if (w.rank() != 2) return std::nullopt;
  m.rows = w.dim(0);
  m.columns = w.dim(1);
  if (node.is("Gemm") && node.int_or("transB", 0) != 0 && node.int_or("transA", 0) == 0 &&
      node.float_or("alpha", 1) == 1) {
    return m;
  }
  const bool plain = node.is("MatMul") || (node.is("Gemm") && node.int_or("transA", 0) == 0 &&
                                           node.float_or("alpha", 1) == 1);
  if (!plain || graph.constant(node.input(1)) == nullptr) return std::nullopt;
  return transposed(m);
}

void replace(Graph& graph, NodeId id, const Factors& f) {
  const Node node = graph.node(id);
  const std::string name = graph.value(node.input(1)).name;
  const bool conv = node.is("Conv");
  const bool rows = node.is("Gemm") && node.int_or("transB", 0) != 0;
  const auto shaped = [&](const Tensor& x) {  // [to, from] as the operator wants it
    if (conv) return x.reshaped({x.dim(0), x.dim(1), 1, 1});
    return rows ? x : turned(x);
  };
  const ValueId first = graph.add_initializer(name + ".first", shaped(f.first));
  const ValueId second = graph.add_initializer(name + ".second", shaped(f.second));
  Attributes attributes = node.attributes;
  attributes.erase("beta");  // the first has no bias
  const NodeId made = graph.add_node(node.op, {node.input(0), first}, {name + ".rank"}, attributes,
                                     "", node.name + "/first");
  if (conv) {
    // The first looks at the image; the second at every value of the first.
    for (const char* key : {"strides", "pads", "auto_pad", "dilations"}) {
      graph.attributes(id).erase(key);
    }
  }
  graph.set_input(id, 0, graph.node(made).outputs[0]);
  graph.set_input(id, 1, second);
}

}  // namespace

LowRankOptions parse_low_rank(std::string_view text) {
  const SpecText parts = split_spec(text, "low-rank");
  LowRankOptions o;
  o.active = true;
  for (const auto& [key, value] : parts.keys) {
    if (key == "ratio") {
      o.ratio = number_of(key, value, 0, 1);
    } else if (key == "energy") {
      o.energy = number_of(key, value, 0, 1);
    } else if (key == "layers") {
      o.layers.push_back(value);
    } else if (key == "except") {
      o.except.push_back(value);
    } else {
      unknown_key("low-rank", key, kKeys);
    }
  }
  if (!parts.word.empty() || o.ratio.has_value() == o.energy.has_value()) {
    throw Error(ErrorCode::invalid_argument, "low-rank: one of ratio and energy is needed",
                "ratio=0.3 keeps 30 % of a layer's weights, energy=0.95 what 95 % of their "
                "squares need");
  }
  return o;
}

std::string to_text(const LowRankOptions& o) {
  if (!o.active) return "";
  std::string out =
      o.ratio ? fmt::format("ratio={}", *o.ratio) : fmt::format("energy={}", *o.energy);
  for (const std::string& glob : o.layers) out += ",layers=" + glob;
  for (const std::string& glob : o.except) out += ",except=" + glob;
  return out;
}

std::vector<Factored> factor_layers(Graph& graph, const LowRankOptions& options) {
  std::vector<Factored> done;
  for (const PruneTarget& target : find_targets(graph, options.layers, options.except)) {
    const NodeId id = *graph.find_node(target.node);
    const Tensor w = *graph.constant(*graph.find_value(target.weights));
    const auto matrix = weights_of(graph, graph.node(id), w);
    if (!matrix) continue;
    const auto factors = factors_of(*matrix, options);
    if (!factors) continue;
    replace(graph, id, *factors);
    done.push_back({target.node, matrix->rows, matrix->columns, factors->rank, factors->energy});
  }
  if (done.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "low-rank: no dense layer and no 1x1 convolution becomes smaller",
                "give a smaller ratio or energy");
  }
  graph.sort();
  graph.remove_dead();
  infer_shapes(graph);
  return done;
}

Eigen symmetric_eigen(std::vector<double> a, int64_t n) {
  constexpr int kSweeps = 60;  // ten are many
  constexpr double kSmall = 1e-24;
  std::vector<double> v(static_cast<size_t>(n * n), 0);
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i * n + i)] = 1;
  double all = 0;
  for (const double x : a) all += x * x;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double off = 0;
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) off += 2 * std::pow(a[static_cast<size_t>(p * n + q)], 2);
    }
    if (off <= kSmall * all) break;
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) {
        if (a[static_cast<size_t>(p * n + q)] != 0) rotate(a, v, n, p, q);
      }
    }
  }
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    return a[static_cast<size_t>(i * n + i)] > a[static_cast<size_t>(j * n + j)];
  });
  Eigen out;
  for (const int64_t i : order) {
    out.values.push_back(a[static_cast<size_t>(i * n + i)]);
    out.vectors.insert(out.vectors.end(), v.begin() + i * n, v.begin() + (i + 1) * n);
  }
  return out;
}

}  // namespace narrow::train
