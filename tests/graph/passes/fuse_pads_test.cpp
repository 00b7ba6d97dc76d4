// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

TEST(FusePads, AxesMayBeNamed) {
  Net n;
  const ValueId x = n.input(SymbolicShape{Dim::symbol("N"), 3, 8, 8});
  const ValueId padded = n.op("Pad", {x, n.ints({1, 2, 3, 4}), kNoId, n.ints({-1, 2})});
  const ValueId y = n.op("Conv", {padded, n.zeros({4, 3, 3, 3})}, {{"pads", Ints{0, 0, 1, 0}}});
  n.output(y);
  n.infer();
  const std::string before = n.shape(y);
  EXPECT_EQ(fuse_pads(n.g, {}), 1);
  ASSERT_EQ(n.g.num_nodes(), 1u);
  EXPECT_EQ(n.g.node(n.g.nodes()[0]).ints_or("pads", {}), (Ints{2, 1, 5, 3}));
  n.infer();
  EXPECT_EQ(n.shape(y), before);
  verify(n.g);
}

TEST(FusePads, ChannelsAndCroppingStay) {
  for (const Ints& pads : {Ints{0, 1, 0, 0, 0, 0, 0, 0}, Ints{0, 0, -1, 0, 0, 0, 0, 0}}) {
    Net n;
    const ValueId padded = n.op("Pad", {n.input(SymbolicShape{1, 3, 8, 8}), n.ints(pads)});
    const int64_t channels = 3 + pads[1];
    n.output(n.op("Conv", {padded, n.zeros({4, channels, 3, 3})}));
    n.infer();
    EXPECT_EQ(fuse_pads(n.g, {}), 0);
  }
}

}  // namespace
}  // namespace narrow
