// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/session.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

/// [rows, columns] of rank r.
Tensor product(int64_t rows, int64_t columns, int64_t r, uint64_t seed) {
  const Tensor a = noise({rows, r}, seed);
  const Tensor b = noise({r, columns}, seed + 1);
  Tensor out(DType::float32, {rows, columns});
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < r; ++k) {
        sum += static_cast<double>(a.data<float>()[static_cast<size_t>(i * r + k)]) *
               b.data<float>()[static_cast<size_t>(k * columns + j)];
      }
      out.mutable_data<float>()[static_cast<size_t>(i * columns + j)] = static_cast<float>(sum);
    }
  }
  return out;
}

TEST(SymmetricEigenTest, TakesAMatrixApart) {
  const int64_t n = 9;
  std::vector<double> a(n * n);
  Rng rng(4);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      a[static_cast<size_t>(i * n + j)] = a[static_cast<size_t>(j * n + i)] = rng.normal();
    }
  }
  const Eigen e = symmetric_eigen(a, n);
  for (int64_t i = 0; i < n; ++i) {
    if (i > 0) {
      EXPECT_GE(e.values[static_cast<size_t>(i - 1)], e.values[static_cast<size_t>(i)]);
    }
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < n; ++k) {
        sum += e.values[static_cast<size_t>(k)] * e.vectors[static_cast<size_t>(k * n + i)] *
               e.vectors[static_cast<size_t>(k * n + j)];
      }
      EXPECT_NEAR(sum, a[static_cast<size_t>(i * n + j)], 1e-10);
    }
  }
}

/// Layers of rank 3: wide, tall, as Gemm both ways, MatMul, a 1x1 convolution with stride.
Graph layers_of_rank_3() {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 12, 4, 4});
  const Tensor kernel = product(16, 12, 3, 1).reshaped({16, 12, 1, 1});
  const auto add = [&](const char* op, std::vector<ValueId> in, const std::string& name,
                       Attributes attributes = {}) {
    return g.node(g.add_node(op, std::move(in), {name + ".y"}, std::move(attributes), "", name))
        .outputs[0];
  };
  const ValueId conv = add(
      "Conv", {x, g.add_initializer("conv.w", kernel), g.add_initializer("conv.b", noise({16}, 9))},
      "conv", {{"strides", std::vector<int64_t>{2, 2}}});
  const ValueId flat = add("Flatten", {conv}, "flat", {{"axis", int64_t{1}}});
  const ValueId wide = add("Gemm",
                           {flat, g.add_initializer("wide.w", product(10, 64, 3, 3)),
                            g.add_initializer("wide.b", noise({10}, 8))},
                           "wide", {{"transB", int64_t{1}}});
  const ValueId tall =
      add("Gemm", {wide, g.add_initializer("tall.w", product(10, 30, 3, 5))}, "tall");
  g.add_output(add("MatMul", {tall, g.add_initializer("last.w", product(30, 20, 3, 7))}, "last"));
  infer_shapes(g);
  return g;
}

TEST(LowRankTest, IsExactWhereTheRankIsLow) {
  const Graph whole = layers_of_rank_3();
  Graph factored = whole;
  const auto done = factor_layers(factored, parse_low_rank("energy=0.999999"));
  ASSERT_EQ(done.size(), 4u);
  for (const Factored& f : done) {
    EXPECT_EQ(f.rank, 3) << f.node;
    EXPECT_GT(f.energy, 0.999999);
  }
  EXPECT_EQ(done[1].outputs, 10);
  EXPECT_EQ(done[1].inputs, 64);
  const Tensor x = noise({2, 12, 4, 4}, 2);
  const Tensor y = Session(whole).run({x}).front();
  const Tensor z = Session(factored).run({x}).front();
  ASSERT_EQ(y.dims(), z.dims());
  double most = 0;
  for (const float v : y.data<float>()) most = std::max(most, std::fabs(static_cast<double>(v)));
  for (size_t i = 0; i < y.data<float>().size(); ++i) {
    EXPECT_NEAR(z.data<float>()[i], y.data<float>()[i], 1e-5 * most);
  }
  EXPECT_LT(Session(factored).count_macs({x.dims()}).total,
            Session(whole).count_macs({x.dims()}).total);
}

TEST(LowRankTest, ARatioIsThatOfTheWeights) {
  Graph g = layers_of_rank_3();
  const auto done = factor_layers(g, parse_low_rank("ratio=0.5,layers=wide"));
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].rank, 4);  // 0.5 * 640 / 74
  EXPECT_TRUE(g.find_node("wide/first").has_value());
  EXPECT_FALSE(g.find_node("tall/first").has_value());
}

TEST(LowRankTest, WhatSavesNothingIsRefused) {
  Graph g = layers_of_rank_3();
  EXPECT_THROW(factor_layers(g, parse_low_rank("ratio=1")), Error);
  EXPECT_THROW(factor_layers(g, parse_low_rank("ratio=0.5,layers=none")), Error);
  EXPECT_THROW(parse_low_rank("ratio=0.5,energy=0.5"), Error);
  EXPECT_THROW(parse_low_rank("0.5"), Error);
  EXPECT_EQ(to_text(parse_low_rank("energy=0.9,layers=a,except=b")),
            "energy=0.9,layers=a,except=b");
}

}  // namespace
}  // namespace narrow::train
