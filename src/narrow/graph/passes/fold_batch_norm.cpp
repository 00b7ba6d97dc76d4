// SPDX-License-Identifier: Apache-2.0
// y = f * (W x + b) + g, per output channel, is a product with W' = f W, b' = f b + g. Computed in
// double, stored as float32.
#include <algorithm>
#include <cmath>
#include <optional>

#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

/// y = factor * x + shift for each output channel.
struct Affine {
  std::vector<double> factor;
  std::vector<double> shift;
};

std::vector<double> doubles(const Tensor& t) {
  const std::vector<float> f = t.to_floats();
  return {f.begin(), f.end()};
}

std::optional<Affine> batch_norm(const Graph& graph, const Node& node, int64_t channels) {
  std::vector<double> p[4];  // scale, bias, mean, variance
  for (size_t i = 0; i < 4; ++i) {
    const Tensor* t = graph.constant(node.input(i + 1));
    if (t == nullptr || t->elements() != channels) return std::nullopt;
    p[i] = doubles(*t);
  }
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    if (node.outputs[i] != kNoId) return std::nullopt;
  }
  const auto epsilon = static_cast<double>(node.float_or("epsilon", 1e-5f));
  Affine a;
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const double f = p[0][c] / std::sqrt(p[3][c] + epsilon);
    a.factor.push_back(f);
    a.shift.push_back(p[1][c] - f * p[2][c]);
  }
  return a;
}

/// A constant with one value, or one for each channel along axis 1 of a value of rank `rank`.
std::optional<std::vector<double>> per_channel(const Tensor& t, int64_t channels, size_t rank) {
  if (!is_float(t.dtype())) return std::nullopt;
  const auto n = static_cast<size_t>(channels);
  if (t.elements() == 1 && t.rank() <= rank) {
    return std::vector<double>(n, static_cast<double>(t.to_floats()[0]));
  }
  if (t.elements() != channels || t.rank() > rank || t.rank() + 1 < rank) return std::nullopt;
  const size_t axis = t.rank() == rank ? 1 : 0;
  if (axis >= t.rank() || t.dims()[axis] != channels) return std::nullopt;
  return doubles(t);
}

std::optional<Affine> elementwise(const Graph& graph, const Node& node, ValueId x, int64_t channels,
                                  size_t rank) {
  const bool first = node.inputs[0] == x;
  const ValueId other = first ? node.inputs[1] : node.inputs[0];
  const Tensor* t = graph.constant(other);
  if (t == nullptr) return std::nullopt;
  const auto values = per_channel(*t, channels, rank);
  if (!values) return std::nullopt;
  const auto n = static_cast<size_t>(channels);
  Affine a{std::vector<double>(n, 1), std::vector<double>(n, 0)};
  for (size_t c = 0; c < n; ++c) {
    const double v = (*values)[c];
    if (node.is("Mul")) a.factor[c] = v;
    if (node.is("Div")) a.factor[c] = 1 / v;
    if (node.is("Add")) a.shift[c] = v;
    if (node.is("Sub")) {
      a.shift[c] = first ? -v : v;
      a.factor[c] = first ? 1 : -1;
    }
  }
  if (node.is("Div") && !first) return std::nullopt;
  return a;
}

/// Where the output channels of the weights are.
struct Product {
  int64_t channels = 0;
  int64_t axis = 0;
  int64_t groups = 1;  // ConvTranspose: channels = dims[1] * groups
};

std::optional<Product> product_of(const Graph& graph, const Node& node) {
  if (!node.domain.empty()) return std::nullopt;
  const Tensor* w = graph.constant(node.input(1));
  if (w == nullptr || w->dtype() != DType::float32 || w->rank() < 2) return std::nullopt;
  if (node.input(2) != kNoId && graph.constant(node.input(2)) == nullptr) return std::nullopt;
  Product p;
  if (node.is("Conv")) {
    p.channels = w->dim(0);
  } else if (node.is("ConvTranspose")) {
    p.groups = node.int_or("group", 1);
    p.axis = 1;
    p.channels = w->dim(1) * p.groups;
  } else if (node.is("Gemm") && node.float_or("alpha", 1) == 1 && node.float_or("beta", 1) == 1) {
    p.axis = node.int_or("transB", 0) != 0 ? 0 : 1;
    p.channels = w->dim(p.axis);
  } else {
    return std::nullopt;
  }
  return p;
}

Tensor scaled_weights(const Tensor& w, const Product& p, const std::vector<double>& factor) {
  Tensor out = w.clone();
  auto values = out.mutable_data<float>();
  const int64_t inner = num_elements(w.dims(), static_cast<size_t>(p.axis) + 1, w.rank());
  const int64_t along = w.dim(p.axis);
  const int64_t outer = w.elements() / std::max<int64_t>(inner * along, 1);
  for (int64_t o = 0; o < outer; ++o) {
    const int64_t group = p.groups > 1 ? o * p.groups / outer : 0;
    for (int64_t c = 0; c < along; ++c) {
      const double f = factor[static_cast<size_t>(group * along + c)];
      float* row = values.data() + (o * along + c) * inner;
      for (int64_t i = 0; i < inner; ++i) {
        row[i] = static_cast<float>(static_cast<double>(row[i]) * f);
      }
    }
  }
  return out;
}

bool all_finite(const Affine& a) {
  for (size_t c = 0; c < a.factor.size(); ++c) {
    if (!std::isfinite(a.factor[c]) || !std::isfinite(a.shift[c])) return false;
  }
  return true;
}

void apply(Graph& graph, NodeId id, const Product& p, const Affine& a, NodeId folded) {
  const Node& node = graph.node(id);
  const ValueId w = node.inputs[1];
  const Tensor weights = scaled_weights(graph.value(w).constant, p, a.factor);
  const ValueId bias = node.input(2);
  Tensor new_bias(DType::float32, {p.channels});
  const std::vector<float> old =
      bias == kNoId ? std::vector<float>{} : graph.constant(bias)->to_floats();
  for (size_t c = 0; c < a.factor.size(); ++c) {
    const double b = old.empty() ? 0 : static_cast<double>(old[old.size() == 1 ? 0 : c]);
    new_bias.mutable_data<float>()[c] = static_cast<float>(b * a.factor[c] + a.shift[c]);
  }
  const std::string w_name = graph.value(w).name;
  const std::string b_name = bias == kNoId ? node.name + "_bias" : graph.value(bias).name;
  graph.set_input(id, 1, graph.add_initializer(graph.unique_name(w_name + "_folded"), weights));
  graph.set_input(id, 2, graph.add_initializer(graph.unique_name(b_name + "_folded"), new_bias));
  const ValueId x = graph.node(id).outputs[0];
  const ValueId y = graph.node(folded).outputs[0];
  graph.replace_uses(y, x);
  graph.remove_node(folded);
}

bool bias_has_channels(const Graph& graph, const Node& node, int64_t channels) {
  const Tensor* bias = graph.constant(node.input(2));
  if (bias == nullptr) return true;
  return bias->elements() == 1 || (bias->elements() == channels && bias->dims().back() == channels);
}

bool fold_behind(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const auto p = product_of(graph, node);
  if (!p || !bias_has_channels(graph, node, p->channels)) return false;
  const ValueId x = node.outputs[0];
  const NodeId next = graph.single_user(x);
  if (next == kNoId || graph.node(next).outputs.empty()) return false;
  const Node& after = graph.node(next);
  const size_t rank = graph.constant(node.inputs[1])->rank();
  std::optional<Affine> affine;
  if (after.is("BatchNormalization") && after.inputs[0] == x &&
      after.int_or("training_mode", 0) == 0) {
    affine = batch_norm(graph, after, p->channels);
  } else if (after.is("Mul") || after.is("Add") || after.is("Sub") || after.is("Div")) {
    affine = elementwise(graph, after, x, p->channels, rank);
  }
  if (!affine || !all_finite(*affine)) return false;
  apply(graph, id, *p, *affine, next);
  return true;
}

}  // namespace

int64_t fold_batch_norm(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    while (graph.alive(id) && fold_behind(graph, id)) ++changes;
  }
  if (changes > 0) graph.remove_dead();
  return changes;
}

}  // namespace narrow
