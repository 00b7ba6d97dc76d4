// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/onnx_types.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

const SymbolicShape kShape = {Dim::symbol("N"), 3, 8, 8};

struct Try {
  const char* name;
  bool goes;
  ValueId (*build)(Net&, ValueId);
};

const Attributes kToFloat = {{"to", int64_t{1}}};
const Attributes kToHalf = {{"to", int64_t{10}}};

const Try kTries[] = {
    {"identity", true, [](Net& n, ValueId x) { return n.op("Identity", {x}); }},
    {"dropout", true,
     [](Net& n, ValueId x) {
       return n.op("Dropout", {x, n.scalar(0.5f)});
     }},
    {"training dropout", false,
     [](Net& n, ValueId x) {
       return n.op("Dropout", {x, n.scalar(0.5f), n.scalar(true)});
     }},
    {"cast to the same", true, [](Net& n, ValueId x) { return n.op("Cast", {x}, kToFloat); }},
    {"cast to another", false, [](Net& n, ValueId x) { return n.op("Cast", {x}, kToHalf); }},
    {"transpose of nothing", true,
     [](Net& n, ValueId x) {
       return n.op("Transpose", {x}, {{"perm", Ints{0, 1, 2, 3}}});
     }},
    {"transpose of equal extents", false,
     [](Net& n, ValueId x) {
       return n.op("Transpose", {x}, {{"perm", Ints{0, 1, 3, 2}}});
     }},
    {"reversing transpose", false, [](Net& n, ValueId x) { return n.op("Transpose", {x}); }},
    {"reshape to the same", true,
     [](Net& n, ValueId x) {
       return n.op("Reshape", {x, n.ints({0, 3, 8, 8})});
     }},
    {"reshape to another", false,
     [](Net& n, ValueId x) {
       return n.op("Reshape", {x, n.ints({0, 3, 64})});
     }},
    {"expand to the same", true,
     [](Net& n, ValueId x) {
       return n.op("Expand", {x, n.ints({1, 8, 1})});
     }},
    {"tile by one", true,
     [](Net& n, ValueId x) {
       return n.op("Tile", {x, n.ints({1, 1, 1, 1})});
     }},
    {"tile by two", false,
     [](Net& n, ValueId x) {
       return n.op("Tile", {x, n.ints({1, 2, 1, 1})});
     }},
    {"slice of all", true,
     [](Net& n, ValueId x) {
       return n.op("Slice", {x, n.ints({0}), n.ints({99}), n.ints({2})});
     }},
    {"reversing slice", false,
     [](Net& n, ValueId x) {
       return n.op("Slice", {x, n.ints({-1}), n.ints({-99}), n.ints({2}), n.ints({-1})});
     }},
    {"empty pad", true,
     [](Net& n, ValueId x) {
       return n.op("Pad", {x, n.ints(Ints(8, 0))});
     }},
    {"turning pad", false,
     [](Net& n, ValueId x) {
       return n.op("Pad", {x, n.ints({0, 0, 1, 0, 0, 0, -1, 0})});
     }},
    {"resize by one", true,
     [](Net& n, ValueId x) {
       return n.op("Resize", {x, kNoId, n.floats({1, 1, 1, 1})});
     }},
    {"resize that rounds back", false,
     [](Net& n, ValueId x) {
       return n.op("Resize", {x, kNoId, n.floats({1, 1, 1.05f, 1.05f})});
     }},
    {"concat of one", true,
     [](Net& n, ValueId x) {
       return n.op("Concat", {x}, {{"axis", int64_t{1}}});
     }},
    {"concat with itself", false,
     [](Net& n, ValueId x) {
       return n.op("Concat", {x, x}, {{"axis", int64_t{1}}});
     }},
    {"max of one", true, [](Net& n, ValueId x) { return n.op("Max", {x}); }},
    {"split into one", true,
     [](Net& n, ValueId x) {
       return n.op("Split", {x}, {{"axis", int64_t{1}}, {"num_outputs", int64_t{1}}});
     }},
    {"pool of one", true,
     [](Net& n, ValueId x) {
       return n.op("MaxPool", {x}, {{"kernel_shape", Ints{1, 1}}});
     }},
    {"strided pool of one", false,
     [](Net& n, ValueId x) {
       return n.op("MaxPool", {x}, {{"kernel_shape", Ints{1, 1}}, {"strides", Ints{2, 1}}});
     }},
    {"clip without bounds", true, [](Net& n, ValueId x) { return n.op("Clip", {x}); }},
    {"clip with a bound", false,
     [](Net& n, ValueId x) {
       return n.op("Clip", {x, n.scalar(0.0f)});
     }},
    {"times one", true,
     [](Net& n, ValueId x) {
       return n.op("Mul", {x, n.scalar(1.0f)});
     }},
    {"less zero", true,
     [](Net& n, ValueId x) {
       return n.op("Sub", {x, n.zeros({8})});
     }},
    {"over two", false,
     [](Net& n, ValueId x) {
       return n.op("Div", {x, n.scalar(2.0f)});
     }},
    {"times ones that broadcast", false,
     [](Net& n, ValueId x) {
       return n.op("Mul", {x, n.constant(Tensor::from<float>({1, 1}, {2, 1, 1, 1, 1}))});
     }},
};

TEST(EliminateIdentities, GoesOrStays) {
  for (const Try& t : kTries) {
    SCOPED_TRACE(t.name);
    Net n;
    const ValueId x = n.op("Sin", {n.input(kShape)});
    n.output(n.op("Cos", {t.build(n, x)}));
    n.infer();
    EXPECT_EQ(eliminate_identities(n.g, {}), t.goes ? 1 : 0);
    EXPECT_EQ(n.g.num_nodes(), t.goes ? 2u : 3u);
    n.infer();
    verify(n.g);
  }
}

TEST(EliminateIdentities, UsedMasksKeepDropout) {
  Net n;
  const NodeId dropout = n.node("Dropout", {n.op("Sin", {n.input(kShape)})}, {}, 2);
  for (const ValueId y : n.g.node(dropout).outputs) n.output(y);
  n.infer();
  EXPECT_EQ(eliminate_identities(n.g, {}), 0);
}

TEST(EliminateIdentities, OutputsKeepTheirNames) {
  Net n;
  const ValueId x = n.input(kShape);
  const ValueId y = n.op("Identity", {n.op("Sin", {x})});
  const ValueId copy = n.op("Identity", {x});  // an output that is an input needs its node
  n.output(y);
  n.output(copy);
  n.infer();
  const std::string name = n.g.value(y).name;
  EXPECT_EQ(eliminate_identities(n.g, {}), 1);
  EXPECT_EQ(n.g.value(n.g.outputs()[0]).name, name);
  EXPECT_EQ(n.g.num_nodes(), 2u);
  verify(n.g);
}

TEST(EliminateIdentities, TransposesInARowBecomeOne) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2, 3, 4});
  const ValueId a = n.op("Transpose", {x}, {{"perm", Ints{1, 2, 0}}});  // [3, 4, 2]
  const ValueId b = n.op("Transpose", {a}, {{"perm", Ints{0, 2, 1}}});  // [3, 2, 4]
  n.output(n.op("Sin", {b}));
  n.infer();
  EXPECT_EQ(n.shape(b), "[3, 2, 4]");
  EXPECT_EQ(eliminate_identities(n.g, {}), 1);
  ASSERT_EQ(n.g.num_nodes(), 2u);
  EXPECT_EQ(n.g.node(n.g.nodes()[0]).ints_or("perm", {}), (Ints{1, 0, 2}));
  n.infer();
  EXPECT_EQ(n.shape(b), "[3, 2, 4]");
}

TEST(EliminateIdentities, SoftmaxBetweenTransposesTurnsItsAxis) {
  for (const bool back : {true, false}) {
    Net n;
    const ValueId x = n.input(SymbolicShape{2, 3, 4, 5});
    const ValueId a = n.op("Transpose", {x}, {{"perm", Ints{0, 3, 2, 1}}});
    const ValueId s = n.op("Softmax", {a}, {{"axis", int64_t{-1}}});
    const ValueId b =
        n.op("Transpose", {s}, {{"perm", back ? Ints{0, 3, 2, 1} : Ints{0, 2, 3, 1}}});
    n.output(n.op("Relu", {b}));
    n.infer();
    const std::string shape = n.shape(n.g.outputs()[0]);
    EXPECT_GE(eliminate_identities(n.g, {}), 1);
    n.infer();
    verify(n.g);
    EXPECT_EQ(n.g.num_nodes(), back ? 2U : 3U);
    EXPECT_EQ(n.shape(n.g.outputs()[0]), shape);
    for (const NodeId id : n.g.nodes()) {
      const Node& node = n.g.node(id);
      if (node.is("Softmax")) {
        EXPECT_EQ(node.int_or("axis", -1), 1);
      }
      if (node.is("Transpose")) {
        EXPECT_EQ(node.ints_or("perm", {}), (Ints{0, 2, 1, 3}));
      }
    }
  }
}

TEST(EliminateIdentities, SoftmaxThatOthersReadKeepsItsAxis) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2, 3, 4});
  const ValueId a = n.op("Transpose", {x}, {{"perm", Ints{0, 2, 1}}});
  const ValueId s = n.op("Softmax", {a}, {{"axis", int64_t{-1}}});
  n.output(n.op("Transpose", {s}, {{"perm", Ints{0, 2, 1}}}));
  n.output(n.op("Relu", {s}));
  n.infer();
  EXPECT_EQ(eliminate_identities(n.g, {}), 0);
}

TEST(EliminateIdentities, TransposesThatCancelGoAltogether) {
  Net n;
  const ValueId x = n.op("Cos", {n.input(SymbolicShape{2, 3, 4})});
  const ValueId a = n.op("Transpose", {x}, {{"perm", Ints{2, 0, 1}}});
  const ValueId b = n.op("Transpose", {a}, {{"perm", Ints{1, 2, 0}}});
  n.output(n.op("Sin", {b}));
  n.infer();
  eliminate_identities(n.g, {});
  EXPECT_EQ(n.g.num_nodes(), 2u);
  verify(n.g);
}

}  // namespace
}  // namespace narrow
