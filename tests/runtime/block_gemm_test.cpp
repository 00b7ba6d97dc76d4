// SPDX-License-Identifier: Apache-2.0
// Graphs with weights in blocks: what is written, what is lowered, and how far they differ.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "graph/net.h"
#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/graph/pass.h"
#include "narrow/quant/blocks/block_codec.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

struct Weights {
  std::vector<float> values;  // as decoded
  Tensor stored;
};

Weights weights(BlockType type, int64_t n, int64_t k, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<size_t>(n * k));
  for (float& v : x) v = static_cast<float>(rng.normal());
  Weights w;
  w.stored = Tensor(DType::uint8, {n, static_cast<int64_t>(row_bytes(type, k))});
  const std::span<std::byte> bytes(w.stored.mutable_raw(), w.stored.bytes());
  encode_rows(type, x, k, bytes, {.method = EncodeMethod::rtn});
  w.values.resize(x.size());
  decode_rows(type, bytes, k, w.values);
  return w;
}

Tensor noise(Dims dims, uint64_t seed) {
  Rng rng(seed);
  Tensor t(DType::float32, std::move(dims));
  for (float& v : t.mutable_data<float>()) v = static_cast<float>(rng.normal());
  return t;
}

struct Model {
  Net net;
  explicit Model(BlockType type, const Tensor& w, int64_t k) {
    const ValueId x = net.input(SymbolicShape{Dim::symbol("batch"), Dim::symbol("length"), k});
    const ValueId decoded =
        net.op("DecodeBlocks", {net.constant(w)},
               {{"type", std::string(to_string(type))}, {"columns", k}}, "narrow");
    net.output(net.op("MatMul",
                      {x, net.op("Transpose", {decoded}, {{"perm", std::vector<int64_t>{1, 0}}})}));
    net.infer();
  }
  Graph quantized() const {
    Graph g = net.g;
    const std::string_view names[] = {"quantize_activations"};
    run_passes(g, names, {});
    return g;
  }
};

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  const auto x = a.data<float>();
  const auto y = b.data<float>();
  EXPECT_EQ(a.dims(), b.dims());
  for (size_t i = 0; i < x.size(); ++i) {
    most = std::max(most, std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
  }
  return most;
}

std::string chosen(const Session& session) {
  std::string all;
  for (const KernelChoice& c : session.kernel_choices()) {
    all += (all.empty() ? "" : " ") + c.op + ":" + c.chosen;
  }
  return all;
}

TEST(BlockGemm, EveryTypeInEveryMode) {
  constexpr int64_t kK = 512;
  constexpr int64_t kN = 37;
  for (const BlockCodec& codec : block_codecs()) {
    const Weights w = weights(codec.type, kN, kK, 5);
    const Model model(codec.type, w.stored, kK);
    const Tensor x = noise({2, 3, kK}, 6);
    std::vector<Tensor> y;
    for (const bool quantize : {false, true}) {
      const Graph g = quantize ? model.quantized() : model.net.g;
      const Tensor written = Session(g, {.lower = false}).run({x})[0];
      const Session session(g);
      const Tensor lowered = session.run({x})[0];
      ASSERT_EQ(lowered.dims(), (Dims{2, 3, kN}));
      const bool codes = codec.block_values > 1;
      EXPECT_EQ(chosen(session), std::string(!codes     ? "narrow::WBlockGemm:dot"
                                             : quantize ? "narrow::BlockGemm:panels"
                                                        : "narrow::WBlockGemm:panels"))
          << codec.name;
      // Sums of 512 products of numbers around 1, in other orders.
      EXPECT_LT(largest_difference(lowered, written), 2e-4) << codec.name;
      const Tensor reference = Session(g, {.reference = true}).run({x})[0];
      if (quantize && codes) {
        EXPECT_TRUE(identical(reference, lowered)) << codec.name;
      } else {
        EXPECT_LT(largest_difference(reference, lowered), 2e-4) << codec.name;
      }
      y.push_back(lowered);
    }
    const double change = largest_difference(y[0], y[1]);
    EXPECT_LT(change, 1.5) << codec.name;  // half steps of 1/127 of some 3, 512 times
    if (codec.block_values > 1) {
      EXPECT_GT(change, 1e-3) << codec.name;
    }
  }
}

TEST(BlockGemm, ShapesChangeFromRunToRun) {
  const Weights w = weights(BlockType::q4_k, 64, 256, 7);
  const Session session(Model(BlockType::q4_k, w.stored, 256).quantized());
  const Tensor x = noise({1, 40, 256}, 8);
  const Tensor all = session.run({x})[0];
  for (const int64_t row : {0, 13, 39}) {
    Tensor one(DType::float32, {1, 1, 256});
    std::memcpy(one.mutable_raw(), x.raw() + row * 1024, 1024);
    const Tensor y = session.run({one})[0];
    EXPECT_EQ(std::memcmp(y.raw(), all.raw() + row * 64 * 4, 64 * 4), 0) << row;
  }
  EXPECT_EQ(session.run({Tensor(DType::float32, {1, 0, 256})})[0].elements(), 0);
}

TEST(BlockGemm, EmbeddingDecodesWhatIsLookedUp) {
  const Weights w = weights(BlockType::q6_k, 50, 256, 9);
  Net n;
  const ValueId ids = n.input(SymbolicShape{Dim::symbol("length")}, DType::int64);
  const ValueId table = n.op("DecodeBlocks", {n.constant(w.stored)},
                             {{"type", std::string("q6_k")}, {"columns", int64_t{256}}}, "narrow");
  n.output(n.op("Abs", {n.op("Gather", {table, ids})}));
  n.infer();
  const Session session(n.g);
  EXPECT_NE(chosen(session).find("DecodeBlocks"), std::string::npos);
  const Tensor y = session.run({Tensor::vector<int64_t>({49, 0, -3})})[0];
  const int64_t rows[] = {49, 0, 47};
  for (int64_t i = 0; i < 3 * 256; ++i) {
    const float value = w.values[static_cast<size_t>(rows[i / 256] * 256 + i % 256)];
    ASSERT_EQ(y.data<float>()[static_cast<size_t>(i)], std::fabs(value));
  }
  EXPECT_LT(session.memory().activation_bytes, size_t{50} * 256 * 4) << "the whole table";
}

TEST(DynamicQuantize, BlocksOfAnySize) {
  for (const int64_t block : {32, 256, 7}) {
    Net n;
    const ValueId x = n.input(SymbolicShape{3, 96});
    const NodeId q = n.node("DynamicQuantize", {x}, {{"block_size", block}}, 2, "narrow");
    const std::vector<ValueId> parts = n.g.node(q).outputs;
    n.output(parts[0]);
    n.output(parts[1]);
    n.output(n.op("DequantizeLinear", parts, {{"axis", int64_t{-1}}, {"block_size", block}}));
    n.infer();
    const Tensor values = noise({3, 96}, 10);
    const auto y = Session(n.g).run({values});
    const int64_t blocks = (96 + block - 1) / block;
    ASSERT_EQ(y[1].dims(), (Dims{3, blocks}));
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t b = 0; b < blocks; ++b) {
        float amax = 0;
        for (int64_t i = b * block; i < std::min<int64_t>(96, (b + 1) * block); ++i) {
          amax = std::max(amax, std::fabs(values.data<float>()[static_cast<size_t>(r * 96 + i)]));
        }
        const float scale = y[1].data<float>()[static_cast<size_t>(r * blocks + b)];
        EXPECT_EQ(scale, amax / 127.0F);
        for (int64_t i = b * block; i < std::min<int64_t>(96, (b + 1) * block); ++i) {
          const auto at = static_cast<size_t>(r * 96 + i);
          const float code = y[0].data<int8_t>()[at];
          EXPECT_EQ(code, std::nearbyint(values.data<float>()[at] / scale));
          EXPECT_EQ(y[2].data<float>()[at], code * scale);
        }
      }
    }
  }
}

}  // namespace
}  // namespace narrow
