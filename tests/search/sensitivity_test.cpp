// SPDX-License-Identifier: Apache-2.0
#include "narrow/search/sensitivity.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"

namespace narrow {
namespace {

Graph two_layers() {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 2});
  const ValueId a = g.add_initializer("a.w", Tensor::from<float>({1, 2, 3, 4}, {2, 2}));
  const ValueId b = g.add_initializer("b.w", Tensor::from<float>({5, 6, 7, 8}, {2, 2}));
  const ValueId h = g.node(g.add_node("MatMul", {x, a}, {"h"}, {}, "", "a")).outputs[0];
  g.add_output(g.node(g.add_node("MatMul", {h, b}, {"y"}, {}, "", "b")).outputs[0]);
  return g;
}

double sum_of(const Graph& g, const char* name) {
  double sum = 0;
  for (const float v : g.constant(*g.find_value(name))->data<float>()) sum += v;
  return sum;
}

TEST(SensitivityTest, OneLayerAtATimeIsChanged) {
  const Graph g = two_layers();
  int64_t last = 0;
  Progress progress;
  const SensitivityScan scan = scan_layers(
      g, {{"a", "a.w"}, {"b", "b.w"}}, {1, 2},
      [](const ScanLayer&, const Tensor& w, double level) {
        Tensor out = w.clone();
        for (float& v : out.mutable_data<float>()) v -= static_cast<float>(level);
        return out;
      },
      [&](const Graph& changed) {
        ++last;
        return sum_of(changed, "a.w") + 10 * sum_of(changed, "b.w");
      },
      progress);
  EXPECT_EQ(scan.reference, 10 + 260);
  ASSERT_EQ(scan.layers.size(), 2u);
  EXPECT_EQ(scan.layers[0].values, (std::vector<double>{266, 262}));
  EXPECT_EQ(scan.layers[1].values, (std::vector<double>{230, 190}));
  EXPECT_EQ(scan.layers[1].weights, 4);
  EXPECT_EQ(most_sensitive(scan), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(last, 5);
  EXPECT_EQ(sum_of(g, "a.w"), 10);  // the graph is as it was
}

TEST(SensitivityTest, ALayerThatIsNotThereIsNamed) {
  EXPECT_THROW(scan_layers(
                   two_layers(), {{"a", "none"}}, {1},
                   [](const ScanLayer&, const Tensor& w, double) { return w; },
                   [](const Graph&) { return 0.0; }),
               Error);
}

}  // namespace
}  // namespace narrow
