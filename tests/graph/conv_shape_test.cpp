// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/conv_shape.h"

#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/core/error.h"

namespace narrow {
namespace {

Node node_with(const std::string& op, Attributes attributes) {
  Node node;
  node.name = "n";
  node.op = op;
  node.attributes = std::move(attributes);
  return node;
}

/// The definition: how many windows fit when they are placed one after the other.
int64_t windows(int64_t in, int64_t begin, int64_t end, int64_t reach, int64_t stride,
                bool ceil_mode) {
  int64_t count = 0;
  for (int64_t start = -begin;; start += stride) {
    const bool whole = start + reach <= in + end;
    if (!whole) {
      // With ceil_mode one window may stick out, for a rest that no window covers, if it begins
      // before the padding behind the input.
      const bool rest = start - stride + reach < in + end;
      return count + (ceil_mode && rest && start < in ? 1 : 0);
    }
    ++count;
  }
}

TEST(ConvShape, OutputExtentsAreWhatPlacingWindowsGives) {
  for (int64_t in = 1; in <= 9; ++in) {
    for (int64_t kernel = 1; kernel <= 3; ++kernel) {
      for (int64_t stride = 1; stride <= 3; ++stride) {
        for (int64_t dilation = 1; dilation <= 2; ++dilation) {
          for (int64_t pads = 0; pads < 9; ++pads) {
            const int64_t begin = pads % 3;
            const int64_t end = pads / 3;
            const int64_t reach = (kernel - 1) * dilation + 1;
            if (reach > in + begin + end) continue;
            for (const bool ceil_mode : {false, true}) {
              const Node node = node_with("MaxPool", {{"kernel_shape", Ints{kernel}},
                                                      {"strides", Ints{stride}},
                                                      {"dilations", Ints{dilation}},
                                                      {"pads", Ints{begin, end}},
                                                      {"ceil_mode", int64_t{ceil_mode}}});
              const ConvGeometry g = pool_geometry(node, Dims{1, 1, in});
              EXPECT_EQ(g.output[0], windows(in, begin, end, reach, stride, ceil_mode))
                  << in << " k" << kernel << " s" << stride << " d" << dilation << " p" << begin
                  << "," << end << (ceil_mode ? " ceil" : "");
            }
          }
        }
      }
    }
  }
}

TEST(ConvShape, SamePaddingCoversTheInputAndSplitsTheOddOne) {
  const Node upper =
      node_with("Conv", {{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{2, 1}}});
  const ConvGeometry g = conv_geometry(upper, Dims{1, 3, 8, 5}, Dims{4, 3, 3, 2});
  EXPECT_EQ(g.output, (Dims{4, 5}));
  EXPECT_EQ(g.pads(), (Ints{0, 0, 1, 1}));
  const Node lower =
      node_with("Conv", {{"auto_pad", std::string("SAME_LOWER")}, {"strides", Ints{2, 1}}});
  EXPECT_EQ(conv_geometry(lower, Dims{1, 3, 8, 5}, Dims{4, 3, 3, 2}).pads(), (Ints{1, 1, 0, 0}));
  // A stride past the kernel needs no padding at all.
  const Node wide =
      node_with("Conv", {{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{3}}});
  const ConvGeometry w = conv_geometry(wide, Dims{1, 1, 7}, Dims{1, 1, 1});
  EXPECT_EQ(w.output, (Dims{3}));
  EXPECT_EQ(w.pads(), (Ints{0, 0}));
}

TEST(ConvShape, ValidIgnoresDeclaredPads) {
  const Node node = node_with("Conv", {{"auto_pad", std::string("VALID")}, {"pads", Ints{9, 9}}});
  const ConvGeometry g = conv_geometry(node, Dims{1, 1, 7}, Dims{1, 1, 3});
  EXPECT_EQ(g.output, (Dims{5}));
  EXPECT_EQ(g.pads(), (Ints{0, 0}));
}

TEST(ConvShape, UnknownExtentsGiveUnknownOutputs) {
  const ConvGeometry g = conv_geometry(node_with("Conv", {}), Dims{-1, 3, -1, 8}, Dims{4, 3, 3, 3});
  EXPECT_EQ(g.output, (Dims{-1, 6}));
  EXPECT_EQ(g.kernel, (Dims{3, 3}));
  EXPECT_EQ(g.window(), 9);
}

TEST(ConvShape, TransposedOutputShapeDecidesThePads) {
  const Attributes common = {{"strides", Ints{2}}, {"output_shape", Ints{10}}};
  Attributes upper = common;
  upper["auto_pad"] = std::string("SAME_UPPER");
  // A whole output has 4 * 2 + 3 = 11 positions: one is cut, by default at the begin.
  const ConvGeometry g =
      conv_transpose_geometry(node_with("ConvTranspose", common), Dims{1, 2, 5}, Dims{2, 1, 3});
  EXPECT_EQ(g.output, (Dims{10}));
  EXPECT_EQ(g.pads(), (Ints{1, 0}));
  const ConvGeometry u =
      conv_transpose_geometry(node_with("ConvTranspose", upper), Dims{1, 2, 5}, Dims{2, 1, 3});
  EXPECT_EQ(u.pads(), (Ints{0, 1}));
}

TEST(ConvShape, TransposedGroupsAndChannels) {
  const Node node = node_with("ConvTranspose", {{"group", int64_t{2}}});
  EXPECT_EQ(conv_transpose_geometry(node, Dims{1, 4, 5}, Dims{4, 3, 2}).output, (Dims{6}));
  EXPECT_THROW(conv_transpose_geometry(node, Dims{1, 3, 5}, Dims{3, 3, 2}), Error);
  EXPECT_THROW(conv_transpose_geometry(node, Dims{1, 2, 5}, Dims{4, 3, 2}), Error);
}

TEST(ConvShape, EmptyBatchesAndInputsAreFine) {
  EXPECT_EQ(conv_geometry(node_with("Conv", {}), Dims{0, 1, 4}, Dims{1, 1, 3}).output, (Dims{2}));
  const Node same = node_with("Conv", {{"auto_pad", std::string("SAME_UPPER")}});
  EXPECT_EQ(conv_geometry(same, Dims{1, 1, 0}, Dims{1, 1, 3}).output, (Dims{0}));
}

}  // namespace
}  // namespace narrow
