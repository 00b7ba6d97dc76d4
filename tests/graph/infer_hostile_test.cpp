// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <limits>

#include "graph/net.h"
#include "narrow/core/error.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/onnx_types.h"

namespace narrow {
namespace {

// --- hostile graphs ---------------------------------------------------------------------------

struct Hostile {
  const char* name;
  const char* message;
  void (*build)(Net&);
};

const SymbolicShape kImage = {1, 3, 8, 8};
constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();

ValueId weight(Net& n) {
  return n.zeros({4, 3, 3, 3});
}

const Hostile kHostile[] = {
    {"conv stride 0", "strides",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"strides", Ints{0, 1}}});
     }},
    {"conv stride huge", "strides",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"strides", Ints{kHuge, 1}}});
     }},
    {"conv dilation huge", "dilations",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"dilations", Ints{kHuge, kHuge}}});
     }},
    {"conv dilation too wide", "kernel reaches",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"dilations", Ints{int64_t{1} << 30, 1}}});
     }},
    {"conv negative pad", "pads",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"pads", Ints{-1, 0, 0, 0}}});
     }},
    {"conv pads of wrong count", "pads has 3",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"pads", Ints{1, 1, 1}}});
     }},
    {"conv kernel too large", "kernel reaches",
     [](Net& n) {
       n.op("Conv", {n.input(SymbolicShape{1, 3, 2, 2}), weight(n)});
     }},
    {"conv group 0", "group",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"group", int64_t{0}}});
     }},
    {"conv group wrong", "channels",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"group", int64_t{2}}});
     }},
    {"conv group huge", "group",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"group", kHuge}});
     }},
    {"conv rank", "differ in rank",
     [](Net& n) {
       n.op("Conv", {n.input(SymbolicShape{1, 3, 8}), weight(n)});
     }},
    {"conv no spatial axis", "no spatial axis",
     [](Net& n) {
       n.op("Conv", {n.input(SymbolicShape{1, 3}), n.zeros({4, 3})});
     }},
    {"conv kernel_shape", "kernel_shape",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"kernel_shape", Ints{5, 5}}});
     }},
    {"conv auto_pad", "auto_pad 'UP'",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"auto_pad", std::string("UP")}});
     }},
    {"conv attribute type", "wrong type",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n)}, {{"group", 1.0f}});
     }},
    {"conv huge input", "too large",
     [](Net& n) {
       n.op("Conv", {n.input(SymbolicShape{1, 3, kHuge, 8}), weight(n)});
     }},
    {"conv empty kernel", "out of range",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), n.zeros({4, 3, 0, 3})});
     }},
    {"conv bias", "bias",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), weight(n), n.zeros({5})});
     }},
    {"conv dtype", "should be equal",
     [](Net& n) {
       n.op("Conv", {n.input(kImage), n.zeros({4, 3, 3, 3}, DType::float16)});
     }},
    {"transposed output product", "too large",
     [](Net& n) {
       n.op("ConvTranspose", {n.input(SymbolicShape{1, 3, int64_t{1} << 40, int64_t{1} << 40}),
                              n.zeros({3, 4, 3, 3})});
     }},
    {"transposed pads", "pads cut",
     [](Net& n) {
       n.op("ConvTranspose", {n.input(kImage), n.zeros({3, 4, 3, 3})},
            {{"pads", Ints{9, 9, 9, 9}}});
     }},
    {"transposed group", "group",
     [](Net& n) {
       n.op("ConvTranspose", {n.input(kImage), n.zeros({3, 4, 3, 3})}, {{"group", int64_t{2}}});
     }},
    {"pool without kernel", "kernel_shape is missing",
     [](Net& n) { n.op("MaxPool", {n.input(kImage)}); }},
    {"pool kernel 0", "kernel_shape",
     [](Net& n) {
       n.op("MaxPool", {n.input(kImage)}, {{"kernel_shape", Ints{0, 1}}});
     }},
    {"reshape count", "does not reshape",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.ints({5, 7})});
     }},
    {"reshape rest", "do not reshape",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.ints({5, -1})});
     }},
    {"reshape -1 twice", "twice",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.ints({-1, -1})});
     }},
    {"reshape negative", "holds -7",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.ints({-7, 2})});
     }},
    {"reshape copies nothing", "copies dimension 4",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.ints({1, 3, 8, 8, 0})});
     }},
    {"reshape overflow", "out of range",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.ints({kHuge, kHuge})});
     }},
    {"reshape to a great rank", "the shape is",
     [](Net& n) {
       n.op("Reshape", {n.input(kImage), n.zeros({100000}, DType::int64)});
     }},
    {"reshape to rank 1000", "rank 1000",
     [](Net& n) {
       n.op("Reshape", {n.input(SymbolicShape{1}), n.ints(Ints(1000, 1))});
     }},
    {"expand overflow", "too large",
     [](Net& n) {
       n.op("Expand", {n.input(SymbolicShape{1}), n.ints({kHuge, kHuge})});
     }},
    {"expand negative", "negative",
     [](Net& n) {
       n.op("Expand", {n.input(SymbolicShape{1}), n.ints({-4})});
     }},
    {"tile overflow", "out of range",
     [](Net& n) {
       n.op("Tile", {n.input(SymbolicShape{8}), n.ints({kHuge})});
     }},
    {"tile negative", "negative",
     [](Net& n) {
       n.op("Tile", {n.input(SymbolicShape{8}), n.ints({-1})});
     }},
    {"constant of shape", "2^62",
     [](Net& n) {
       n.op("ConstantOfShape", {n.ints({kHuge, kHuge, 4})});
     }},
    {"range step 0", "steps of 0",
     [](Net& n) {
       n.op("Range", {n.scalar(int64_t{0}), n.scalar(int64_t{4}), n.scalar(int64_t{0})});
     }},
    {"range overflow", "range from",
     [](Net& n) {
       n.op("Range", {n.scalar(kLowest), n.scalar(kHuge), n.scalar(int64_t{1})});
     }},
    {"float range step 0", "a range of",
     [](Net& n) {
       n.op("Range", {n.scalar(0.0f), n.scalar(4.0f), n.scalar(0.0f)});
     }},
    {"slice step 0", "step is 0",
     [](Net& n) {
       n.op("Slice", {n.input(kImage), n.ints({0}), n.ints({1}), n.ints({0}), n.ints({0})});
     }},
    {"slice lengths", "differ in length",
     [](Net& n) {
       n.op("Slice", {n.input(kImage), n.ints({0, 1}), n.ints({1})});
     }},
    {"slice axis", "axis 4 is outside",
     [](Net& n) {
       n.op("Slice", {n.input(kImage), n.ints({0}), n.ints({1}), n.ints({4})});
     }},
    {"slice axis twice", "twice",
     [](Net& n) {
       n.op("Slice", {n.input(kImage), n.ints({0, 0}), n.ints({1, 1}), n.ints({1, -3})});
     }},
    {"pad overflow", "out of range",
     [](Net& n) {
       n.op("Pad", {n.input(SymbolicShape{4}), n.ints({kHuge, kHuge})});
     }},
    {"pad crops too much", "out of range",
     [](Net& n) {
       n.op("Pad", {n.input(SymbolicShape{4}), n.ints({-3, -3})});
     }},
    {"pad count", "pads for",
     [](Net& n) {
       n.op("Pad", {n.input(kImage), n.ints({1, 1})});
     }},
    {"concat rank", "differ in rank",
     [](Net& n) {
       n.op("Concat", {n.input(kImage), n.input(SymbolicShape{1})}, {{"axis", int64_t{1}}});
     }},
    {"concat extents", "dimension 2",
     [](Net& n) {
       n.op("Concat", {n.input(kImage), n.input(SymbolicShape{1, 3, 9, 8})},
            {{"axis", int64_t{1}}});
     }},
    {"concat axis", "axis 4 is outside",
     [](Net& n) {
       n.op("Concat", {n.input(kImage)}, {{"axis", int64_t{4}}});
     }},
    {"split sum", "the sum of the parts",
     [](Net& n) {
       n.node("Split", {n.input(SymbolicShape{6}), n.ints({2, 5})}, {}, 2);
     }},
    {"split negative", "a part has extent",
     [](Net& n) {
       n.node("Split", {n.input(SymbolicShape{6}), n.ints({8, -2})}, {}, 2);
     }},
    {"split outputs", "parts for",
     [](Net& n) {
       n.node("Split", {n.input(SymbolicShape{6}), n.ints({2, 4})}, {}, 3);
     }},
    {"transpose perm", "twice",
     [](Net& n) {
       n.op("Transpose", {n.input(kImage)}, {{"perm", Ints{0, 1, 1, 2}}});
     }},
    {"transpose rank", "perm has 2",
     [](Net& n) {
       n.op("Transpose", {n.input(kImage)}, {{"perm", Ints{1, 0}}});
     }},
    {"squeeze of 3", "is not 1",
     [](Net& n) {
       n.op("Squeeze", {n.input(kImage), n.ints({1})});
     }},
    {"flatten axis", "axis 9",
     [](Net& n) {
       n.op("Flatten", {n.input(kImage)}, {{"axis", int64_t{9}}});
     }},
    {"depth to space", "does not divide",
     [](Net& n) {
       n.op("DepthToSpace", {n.input(kImage)}, {{"blocksize", int64_t{2}}});
     }},
    {"block size", "blocksize",
     [](Net& n) {
       n.op("SpaceToDepth", {n.input(kImage)}, {{"blocksize", kHuge}});
     }},
    {"resize scale 0", "not positive",
     [](Net& n) {
       n.op("Resize", {n.input(SymbolicShape{4}), kNoId, n.floats({0})});
     }},
    {"resize scale huge", "too large",
     [](Net& n) {
       n.op("Resize", {n.input(SymbolicShape{4}), kNoId, n.floats({1e30f})});
     }},
    {"resize both", "exactly one",
     [](Net& n) {
       n.op("Resize", {n.input(SymbolicShape{4}), kNoId, n.floats({1}), n.ints({4})});
     }},
    {"resize neither", "exactly one", [](Net& n) { n.op("Resize", {n.input(SymbolicShape{4})}); }},
    {"matmul inner", "inner dimensions",
     [](Net& n) {
       n.op("MatMul", {n.input(SymbolicShape{2, 3}), n.input(SymbolicShape{4, 2})});
     }},
    {"matmul scalar", "rank 1 or more",
     [](Net& n) {
       n.op("MatMul", {n.input(SymbolicShape{}), n.input(SymbolicShape{4})});
     }},
    {"gemm rank", "expected rank 2",
     [](Net& n) {
       n.op("Gemm", {n.input(SymbolicShape{2, 3, 4}), n.input(SymbolicShape{4, 2})});
     }},
    {"gemm bias", "does not broadcast",
     [](Net& n) {
       n.op("Gemm", {n.input(SymbolicShape{2, 4}), n.zeros({4, 3}), n.zeros({2, 1, 3})});
     }},
    {"add", "do not broadcast",
     [](Net& n) {
       n.op("Add", {n.input(SymbolicShape{3}), n.input(SymbolicShape{4})});
     }},
    {"add types", "should be equal",
     [](Net& n) {
       n.op("Add", {n.input(SymbolicShape{3}), n.input(SymbolicShape{3}, DType::int64)});
     }},
    {"prelu slope", "slope",
     [](Net& n) {
       n.op("PRelu", {n.input(SymbolicShape{3}), n.zeros({2, 3})});
     }},
    {"clip bound", "expected a scalar",
     [](Net& n) {
       n.op("Clip", {n.input(SymbolicShape{3}), n.zeros({3})});
     }},
    {"reduce axis", "axis 4",
     [](Net& n) {
       n.op("ReduceSum", {n.input(kImage), n.ints({4})});
     }},
    {"argmax axis", "axis -5",
     [](Net& n) {
       n.op("ArgMax", {n.input(kImage)}, {{"axis", int64_t{-5}}});
     }},
    {"softmax axis", "axis 7",
     [](Net& n) {
       n.op("Softmax", {n.input(kImage)}, {{"axis", int64_t{7}}});
     }},
    {"gather axis", "axis 4",
     [](Net& n) {
       n.op("Gather", {n.input(kImage), n.ints({0})}, {{"axis", int64_t{4}}});
     }},
    {"gather index", "index 3 is outside",
     [](Net& n) {
       n.op("Gather", {n.ints({1, 2}), n.ints({3})});
     }},
    {"gathernd depth", "do not fit",
     [](Net& n) {
       n.op("GatherND", {n.input(SymbolicShape{2}), n.zeros({1, 5}, DType::int64)});
     }},
    {"topk", "k is 9",
     [](Net& n) {
       n.node("TopK", {n.input(kImage), n.ints({9})}, {}, 2);
     }},
    {"topk negative", "k is -1",
     [](Net& n) {
       n.node("TopK", {n.input(kImage), n.ints({-1})}, {}, 2);
     }},
    {"cast type", "element type 77",
     [](Net& n) {
       n.op("Cast", {n.input(kImage)}, {{"to", int64_t{77}}});
     }},
    {"cast to nothing", "attribute to is missing",
     [](Net& n) {
       n.op("Cast", {n.input(kImage)}, {{"to", int64_t{0}}});
     }},
    {"batch norm channels", "parameters of batch",
     [](Net& n) {
       n.op("BatchNormalization",
            {n.input(kImage), n.zeros({3}), n.zeros({3}), n.zeros({4}), n.zeros({3})});
     }},
    {"batch norm training", "training_mode",
     [](Net& n) {
       n.op("BatchNormalization",
            {n.input(kImage), n.zeros({3}), n.zeros({3}), n.zeros({3}), n.zeros({3})},
            {{"training_mode", int64_t{1}}});
     }},
    {"group norm", "num_groups",
     [](Net& n) {
       n.op("GroupNormalization", {n.input(kImage), n.zeros({3}), n.zeros({3})},
            {{"num_groups", int64_t{2}}});
     }},
    {"lrn size", "size is 0", [](Net& n) { n.op("LRN", {n.input(kImage)}); }},
    {"quantize axis", "axis 9",
     [](Net& n) {
       n.op("QuantizeLinear", {n.input(kImage), n.zeros({3})}, {{"axis", int64_t{9}}});
     }},
    {"quantize scales", "scale along the axis",
     [](Net& n) {
       n.op("QuantizeLinear", {n.input(kImage), n.zeros({4})});
     }},
    {"quantize zero points", "scale and zero_point",
     [](Net& n) {
       n.op("QuantizeLinear", {n.input(kImage), n.zeros({3}), n.zeros({2}, DType::int8)});
     }},
    {"quantize blocks", "blocks of the scale",
     [](Net& n) {
       n.op("QuantizeLinear", {n.input(kImage), n.zeros({1, 3, 3, 8})},
            {{"axis", int64_t{2}}, {"block_size", int64_t{4}}});
     }},
    {"dequantize floats", "expected an integer",
     [](Net& n) {
       n.op("DequantizeLinear", {n.input(kImage), n.scalar(1.0f)});
     }},
    {"dequantize zero point", "should be equal",
     [](Net& n) {
       n.op("DequantizeLinear",
            {n.input(kImage, DType::int8), n.scalar(1.0f), n.scalar(uint8_t{0})});
     }},
    {"one hot depth", "depth is -3",
     [](Net& n) {
       n.op("OneHot", {n.ints({1}), n.scalar(int64_t{-3}), n.floats({0, 1})});
     }},
    {"einsum output", "output label",
     [](Net& n) {
       n.op("Einsum", {n.input(SymbolicShape{2})}, {{"equation", std::string("i->j")}});
     }},
    {"einsum rank", "does not fit input 0",
     [](Net& n) {
       n.op("Einsum", {n.input(SymbolicShape{2, 3})}, {{"equation", std::string("i->i")}});
     }},
    {"if without branches", "then_branch is missing", [](Net& n) { n.op("If", {n.scalar(true)}); }},
    {"captures", "captured values",
     [](Net& n) {
       n.op("If", {n.scalar(true)}, {{kCaptures, kHuge}});
     }},
    {"captures negative", "captured values",
     [](Net& n) {
       n.op("If", {n.scalar(true)}, {{kCaptures, int64_t{-1}}});
     }},
    {"input product", "2^62",
     [](Net& n) {
       n.op("Relu", {n.input(SymbolicShape{kHuge, kHuge})});
     }},
};

TEST(InferShapes, HostileNodesAreNamedErrors) {
  for (const Hostile& h : kHostile) {
    SCOPED_TRACE(h.name);
    Net n;
    h.build(n);
    expect_error(n, h.message);
  }
}

}  // namespace
}  // namespace narrow
