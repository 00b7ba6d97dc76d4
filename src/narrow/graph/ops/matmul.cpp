// SPDX-License-Identifier: Apache-2.0
// Matrix products.
#include <fmt/format.h>

#include <map>

#include "narrow/graph/einsum.h"
#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {

void infer_matmul(InferContext& c, size_t a, size_t b, DType output) {
  require_min_rank(c, a, 1);
  require_min_rank(c, b, 1);
  if (!c.shape(a) || !c.shape(b)) return c.set_output(0, output, std::nullopt);
  SymbolicShape x = *c.shape(a);
  SymbolicShape w = *c.shape(b);
  const bool x_vector = x.size() == 1;
  const bool w_vector = w.size() == 1;
  if (x_vector) x.insert(x.begin(), Dim(1));
  if (w_vector) w.emplace_back(1);
  unify(c, x.back(), w[w.size() - 2], "the inner dimensions of the product");
  SymbolicShape y =
      broadcast(c, SymbolicShape(x.begin(), x.end() - 2), SymbolicShape(w.begin(), w.end() - 2));
  if (!x_vector) y.push_back(x[x.size() - 2]);
  if (!w_vector) y.push_back(w.back());
  c.set_output(0, output, std::move(y));
}

void infer_gemm(InferContext& c, size_t a, size_t b, size_t bias, DType output) {
  require_rank(c, a, 2);
  require_rank(c, b, 2);
  const SymbolicShape unknown(2);
  const SymbolicShape& x = c.shape(a) ? *c.shape(a) : unknown;
  const SymbolicShape& w = c.shape(b) ? *c.shape(b) : unknown;
  const bool trans_a = c.node().int_or("transA", 0) != 0;
  const bool trans_b = c.node().int_or("transB", 0) != 0;
  unify(c, x[trans_a ? 0 : 1], w[trans_b ? 1 : 0], "the inner dimensions of the product");
  SymbolicShape y = {x[trans_a ? 1 : 0], w[trans_b ? 0 : 1]};
  if (const SymbolicShape* added = c.shape(bias)) {
    const SymbolicShape both = broadcast(c, y, *added);
    const bool grows =
        both.size() != 2 || (y[0].known() && both[0] != y[0]) || (y[1].known() && both[1] != y[1]);
    if (grows) {
      c.fail(fmt::format("input {} of shape {} does not broadcast to {}", bias, to_string(*added),
                         to_string(y)));
    }
  }
  c.set_output(0, output, std::move(y));
}

namespace {

void infer_float_matmul(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_matmul(c, 0, 1, c.dtype(0));
}

void infer_float_gemm(InferContext& c) {
  require_same_dtype(c, 0, 1);
  require_same_dtype(c, 0, 2);
  infer_gemm(c, 0, 1, 2, c.dtype(0));
}

void infer_matmul_integer(InferContext& c) {
  require_integer(c, 0);
  require_integer(c, 1);
  infer_matmul(c, 0, 1, DType::int32);
}

void infer_einsum(InferContext& c) {
  std::vector<size_t> ranks;
  for (size_t i = 0; i < c.node().inputs.size(); ++i) {
    require_same_dtype(c, 0, i);
    if (!c.shape(i)) return c.set_output(0, c.dtype(0), std::nullopt);
    ranks.push_back(c.shape(i)->size());
  }
  const EinsumEquation equation = parse_einsum(c.node(), ranks);
  std::map<int, SymbolicShape> extents;  // of one dimension each, so that broadcast() serves
  for (size_t i = 0; i < ranks.size(); ++i) {
    for (size_t d = 0; d < ranks[i]; ++d) {
      const SymbolicShape extent = {(*c.shape(i))[d]};
      const auto [it, added] = extents.emplace(equation.inputs[i][d], extent);
      if (!added) it->second = broadcast(c, it->second, extent);
    }
  }
  SymbolicShape y;
  for (const int label : equation.output) y.push_back(extents[label][0]);
  c.set_output(0, c.dtype(0), std::move(y));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "MatMul", 2, 2, 1, 1, 1, infer_float_matmul},
    {"", "Gemm", 2, 3, 1, 1, 7, infer_float_gemm},
    {"", "Einsum", 1, -1, 1, 1, 12, infer_einsum},
    {"", "MatMulInteger", 2, 4, 1, 1, 10, infer_matmul_integer},
};

}  // namespace

std::span<const OpInfo> matmul_ops() {
  return kOps;
}

}  // namespace narrow::ops
