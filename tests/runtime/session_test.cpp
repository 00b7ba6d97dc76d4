// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <thread>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

Tensor random_tensor(Dims dims, uint64_t seed, double scale = 1) {
  Tensor t(DType::float32, std::move(dims));
  Rng rng(seed);
  for (float& v : t.mutable_data<float>()) v = static_cast<float>(rng.normal() * scale);
  return t;
}

ValueId add(Graph& g, const char* op, std::vector<ValueId> inputs, const char* output,
            Attributes attributes = {}) {
  return g.node(g.add_node(op, std::move(inputs), {output}, std::move(attributes))).outputs[0];
}

/// conv 3x3 -> relu -> conv 3x3 with a residual -> relu -> max-pool -> gemm.
Graph small_network() {
  Graph g;
  const ValueId x = g.add_input("image", DType::float32, SymbolicShape{Dim::symbol("N"), 3, 8, 8});
  const Attributes same = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  const auto weights = [&](const char* name, Dims dims) {
    return g.add_initializer(name, random_tensor(std::move(dims), g.value_capacity(), 0.2));
  };
  ValueId a = add(g, "Conv", {x, weights("w1", {16, 3, 3, 3}), weights("b1", {16})}, "conv1", same);
  a = add(g, "Relu", {a}, "relu1");
  ValueId b =
      add(g, "Conv", {a, weights("w2", {16, 16, 3, 3}), weights("b2", {16})}, "conv2", same);
  b = add(g, "Relu", {add(g, "Add", {b, a}, "sum")}, "relu2");
  b = add(g, "MaxPool", {b}, "pool",
          {{"kernel_shape", std::vector<int64_t>{2, 2}}, {"strides", std::vector<int64_t>{2, 2}}});
  b = add(g, "Flatten", {b}, "flat");
  g.add_output(add(g, "Gemm", {b, weights("w3", {256, 10}), weights("b3", {10})}, "logits"));
  return g;
}

/// What ShuffleNet's and ResNet's units move between convolutions.
Graph shuffling_network() {
  Graph g;
  const ValueId x = g.add_input("image", DType::float32, SymbolicShape{1, 3, 8, 8});
  const auto ints = [&](const char* name, const std::vector<int64_t>& values) {
    return g.add_initializer(name, Tensor::vector(values));
  };
  const auto conv = [&](ValueId from, const char* name, Dims dims) {
    const ValueId w = g.add_initializer(std::string(name) + "_w",
                                        random_tensor(std::move(dims), g.value_capacity(), 0.3));
    return add(g, "Conv", {from, w}, name);
  };
  const ValueId a = conv(x, "a", {12, 3, 1, 1});
  const ValueId pairs = add(g, "Reshape", {a, ints("pairs_to", {6, 2, 64})}, "pairs");
  const ValueId turned =
      add(g, "Transpose", {pairs}, "turned", {{"perm", std::vector<int64_t>{1, 0, 2}}});
  const ValueId both = add(g, "Reshape", {turned, ints("both_to", {2, -1, 6, 8, 8})}, "both");
  const auto pick = [&](int64_t i, const char* name) {
    const ValueId index = g.add_initializer(std::string(name) + "_i", Tensor::scalar(i));
    return add(g, "Gather", {both, index}, name);
  };
  const ValueId odd = conv(pick(1, "odd"), "b", {6, 6, 1, 1});
  const ValueId joined = add(g, "Concat", {pick(0, "even"), odd}, "joined", {{"axis", int64_t{1}}});
  const auto halves = g.node(g.add_node("Split", {joined, ints("sizes", {4, 8})}, {"h0", "h1"},
                                        {{"axis", int64_t{1}}}))
                          .outputs;
  const ValueId thin = add(g, "Slice",
                           {halves[1], ints("starts", {0, 0}), ints("ends", {8, 8}),
                            ints("axes", {2, 3}), ints("steps", {2, 2})},
                           "thin");
  const ValueId wide = add(g, "Pad", {thin, ints("pads", {0, 2, 0, 0, 0, 2, 0, 0})}, "wide");
  g.add_output(conv(wide, "c", {5, 12, 1, 1}));
  g.add_output(conv(halves[0], "d", {5, 4, 1, 1}));
  return g;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.dims(), b.dims());
  double most = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    most = std::max(most, std::fabs(double{a.data<float>()[i]} - double{b.data<float>()[i]}));
  }
  return most;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
  return "nothing thrown";
}

// Sums of 27 + 144 + 256 products of about unit size: 1e-4 is some hundred roundings, and a
// thousandth of what one wrong weight would change.
constexpr double kFloatTolerance = 1e-4;

TEST(Session, ShufflesSplitsAndPadsKeepTheMemoryOrder) {
  const Graph g = shuffling_network();
  const std::vector<Tensor> in{random_tensor({1, 3, 8, 8}, 1)};
  const Session fast(g, {});
  const auto y = fast.run(in);
  EXPECT_EQ(fast.memory().reorders, 3);  // the image, and both outputs
  const auto expected = Session(g, {.reference = true}).run(in);
  for (size_t i = 0; i < 2; ++i) EXPECT_LT(largest_difference(y[i], expected[i]), 1e-5);
}

TEST(Session, EqualsTheReference) {
  SessionOptions plain;
  plain.reference = true;
  plain.optimize = false;
  const Session reference(small_network(), plain);
  const Session session(small_network());
  for (const int64_t batch : {1, 2, 7}) {
    const Tensor x = random_tensor({batch, 3, 8, 8}, 99);
    EXPECT_LT(largest_difference(session.run({x})[0], reference.run({x})[0]), kFloatTolerance);
  }
  for (const KernelChoice& choice : reference.kernel_choices()) {
    EXPECT_TRUE(choice.chosen == "reference" || choice.chosen == "reorder" ||
                std::none_of(choice.refused.begin(), choice.refused.end(),
                             [](const auto& r) { return r.first == "reference"; }))
        << choice.node << " got " << choice.chosen;
  }
}

TEST(Session, EmptyBatch) {
  const Session session(small_network());
  EXPECT_EQ(session.run({Tensor(DType::float32, {0, 3, 8, 8})})[0].dims(), (Dims{0, 10}));
}

TEST(Session, SameForEveryNumberOfThreads) {
  const Tensor x = random_tensor({5, 3, 8, 8}, 3);
  Tensor expected;
  for (const int threads : {1, 2, 3}) {
    SessionOptions options;
    options.threads = threads;
    const Session session(small_network(), options);
    const Tensor y = session.run({x})[0];
    if (!expected.defined()) expected = y;
    EXPECT_TRUE(identical(y, expected)) << threads;
  }
}

TEST(Session, ConcurrentRunsEqualSequentialOnes) {
  SessionOptions options;
  options.threads = 1;
  const Session session(small_network(), options);
  std::vector<Tensor> inputs;
  std::vector<Tensor> expected;
  for (uint64_t t = 0; t < 4; ++t) {
    inputs.push_back(random_tensor({static_cast<int64_t>(1 + t % 2), 3, 8, 8}, t));
    expected.push_back(session.run({inputs[t]})[0]);
  }
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) EXPECT_TRUE(identical(session.run({inputs[t]})[0], expected[t]));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Session, Names) {
  const Session session(small_network());
  EXPECT_EQ(session.input_names(), std::vector<std::string>{"image"});
  EXPECT_EQ(session.output_names(), std::vector<std::string>{"logits"});
  const Tensor x = random_tensor({1, 3, 8, 8}, 5);
  const auto named = session.run_named({{"image", x}});
  EXPECT_TRUE(identical(named.at("logits"), session.run({x})[0]));
  EXPECT_EQ(message_of([&] { session.run_named({}); }),
            "invalid_argument: input 'image' is missing");
  EXPECT_EQ(message_of([&] {
              session.run_named({{"image", x}, {"imgae", x}});
            }),
            "invalid_argument: the model has no input 'imgae'");
}

TEST(Session, WrongInputs) {
  const Session session(small_network());
  EXPECT_EQ(message_of([&] {
              session.run({random_tensor({1, 8, 8, 3}, 1)});
            }),
            "invalid_argument: input 'image' must be float32[N, 3, 8, 8], got float32[1, 8, 8, 3]");
  EXPECT_EQ(message_of([&] {
              session.run({Tensor(DType::uint8, {1, 3, 8, 8})});
            }),
            "invalid_argument: input 'image' must be float32[N, 3, 8, 8], got uint8[1, 3, 8, 8]");
  EXPECT_EQ(message_of([&] {
              session.plan({{1, 3, 9, 8}});
            }),
            "invalid_argument: input 'image' must be float32[N, 3, 8, 8], got float32[1, 3, 9, 8]");
}

TEST(Session, ObservedValuesAreThoseOfThePlainRun) {
  SessionOptions everything;
  everything.observed = {"image", "w1",    "conv1", "relu1", "conv2",
                         "sum",   "relu2", "pool",  "logits"};
  SessionOptions plain = everything;
  plain.optimize = false;
  plain.reference = true;
  const Tensor x = random_tensor({2, 3, 8, 8}, 8);
  const auto observe = [&](const SessionOptions& options) {
    std::map<std::string, Tensor> seen;
    RunOptions run;
    run.observe = [&](const std::string& name, const Tensor& value) {
      EXPECT_TRUE(seen.emplace(name, value).second) << name;
    };
    const Session session(small_network(), options);
    EXPECT_EQ(session.run({x}, run).size(), 1u);
    EXPECT_EQ(session.graph().outputs().size(), 1u);
    return seen;
  };
  const auto expected = observe(plain);
  const auto got = observe(everything);
  ASSERT_EQ(got.size(), everything.observed.size());
  for (const auto& [name, value] : got) {
    EXPECT_LT(largest_difference(value, expected.at(name)), kFloatTolerance) << name;
  }
  EXPECT_TRUE(identical(got.at("image"), x));
}

TEST(Session, ObservingWhatIsNotThere) {
  SessionOptions options;
  options.observed = {"conv7"};
  EXPECT_EQ(message_of([&] { const Session session(small_network(), options); }),
            "not_found: no value 'conv7' to observe");
}

TEST(Session, UnknownOperatorsAreListed) {
  Graph g = small_network();
  const ValueId y = g.outputs()[0];
  const NodeId first = g.add_node("Frobnicate", {y}, {"f"}, {}, "com.example");
  g.add_output(g.node(g.add_node("Blur", {g.node(first).outputs[0]}, {"b"})).outputs[0]);
  EXPECT_EQ(message_of([&] { const Session session(g); }),
            "unsupported: 2 nodes cannot run:\n"
            "  'Frobnicate_f' (com.example::Frobnicate): unknown operator\n"
            "  'Blur_b' (Blur): unknown operator");
}

TEST(Session, MemoryAndMacs) {
  const Session session(small_network());
  const Session::MacCount macs = session.count_macs({{2, 3, 8, 8}});
  EXPECT_EQ(macs.total, 2 * (64 * 16 * 27 + 64 * 16 * 144 + 2560));
  EXPECT_EQ(macs.integer, 0);
  const MemoryReport memory = session.memory();
  EXPECT_GT(memory.arena_bytes, 0u);
  EXPECT_LT(memory.arena_bytes, memory.activation_bytes);
  EXPECT_GE(memory.constant_bytes, 4u * (16 * 27 + 16 * 144 + 2560));
}

TEST(Session, Profile) {
  SessionOptions options;
  options.profile = true;
  Session session(small_network(), options);
  const Tensor x = random_tensor({1, 3, 8, 8}, 8);
  for (int i = 0; i < 3; ++i) session.run({x});
  int64_t macs = 0;
  for (const NodeProfile& node : session.profile()) {
    EXPECT_EQ(node.runs, 3) << node.node;
    macs += node.macs;
  }
  EXPECT_EQ(macs, session.count_macs({{1, 3, 8, 8}}).total);
  session.reset_profile();
  EXPECT_EQ(session.profile()[0].runs, 0);
}

// --- quantized
// ------------------------------------------------------------------------------------

/// Relu(Conv(x, w)) with every activation on an int8 grid and the weights as int8 codes.
Graph quantized_network() {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 4, 6, 6});
  const ValueId scale = g.add_initializer("scale", Tensor::scalar(0.0625f));
  const ValueId zero = g.add_initializer("zero", Tensor::scalar<int8_t>(3));
  const ValueId w_scale = g.add_initializer("w_scale", Tensor::scalar(0.125f));
  const ValueId w_zero = g.add_initializer("w_zero", Tensor::scalar<int8_t>(0));
  Tensor codes(DType::int8, {8, 4, 3, 3});
  Rng rng(4);
  for (int8_t& c : codes.mutable_data<int8_t>()) c = static_cast<int8_t>(rng.below(255));
  const ValueId w = g.add_initializer("w", codes);
  const auto round_trip = [&](ValueId v, const char* q, const char* dq) {
    return add(g, "DequantizeLinear", {add(g, "QuantizeLinear", {v, scale, zero}, q), scale, zero},
               dq);
  };
  const ValueId weights = add(g, "DequantizeLinear", {w, w_scale, w_zero}, "weights");
  ValueId y = add(g, "Conv", {round_trip(x, "xq", "xdq"), weights}, "conv",
                  {{"pads", std::vector<int64_t>{1, 1, 1, 1}}});
  y = add(g, "Relu", {y}, "relu");
  g.add_output(round_trip(y, "yq", "y"));
  return g;
}

TEST(SessionQuantized, LoweredEqualsFloatWithinOneStep) {
  const Session integer(quantized_network());
  SessionOptions as_written;
  as_written.lower = false;
  const Session real(quantized_network(), as_written);
  EXPECT_GE(integer.lowering().lowered, 1);
  EXPECT_EQ(real.lowering().lowered, 0);
  const Tensor x = random_tensor({3, 4, 6, 6}, 12);
  EXPECT_LE(largest_difference(integer.run({x})[0], real.run({x})[0]), 0.0625);
  const Session::MacCount macs = integer.count_macs({{3, 4, 6, 6}});
  EXPECT_EQ(macs.total, 3 * 36 * 8 * 4 * 9);
  EXPECT_EQ(macs.integer, macs.total);
  EXPECT_EQ(real.count_macs({{3, 4, 6, 6}}).integer, 0);
}

TEST(SessionQuantized, ReferenceAndKernelsAgreeBitForBit) {
  SessionOptions slow;
  slow.reference = true;
  const Session reference(quantized_network(), slow);
  const Session session(quantized_network());
  for (const int64_t batch : {1, 5}) {
    const Tensor x = random_tensor({batch, 4, 6, 6}, 17);
    EXPECT_TRUE(identical(session.run({x})[0], reference.run({x})[0]));
  }
}

TEST(SessionQuantized, ObservedFloatValuesSurviveLowering) {
  SessionOptions options;
  options.observed = {"conv", "xq"};
  const Session session(quantized_network(), options);
  std::map<std::string, Tensor> seen;
  RunOptions run;
  run.observe = [&](const std::string& name, const Tensor& value) { seen[name] = value; };
  const Tensor x = random_tensor({1, 4, 6, 6}, 17);
  session.run({x}, run);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen.at("conv").describe(), "float32[1, 8, 6, 6]");
  EXPECT_EQ(seen.at("xq").describe(), "int8[1, 4, 6, 6]");
}

// --- constants
// ------------------------------------------------------------------------------------

TEST(EvaluateConstant, RunsOneNode) {
  Graph g;
  const ValueId a = g.add_initializer("a", Tensor::vector<float>({1, 2, 3}));
  const NodeId node = g.add_node("Add", {a, a}, {"b"});
  g.add_output(g.node(node).outputs[0]);
  const std::vector<Tensor> inputs = {Tensor::vector<float>({1, 2, 3}), Tensor::scalar(10.0f)};
  const auto out = evaluate_constant(g, g.node(node), inputs);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(identical(out[0], Tensor::vector<float>({11, 12, 13})));
}

TEST(EvaluateConstant, AbsentOutputsAndUnknownOperators) {
  Graph g;
  const ValueId x = g.add_initializer("x", Tensor::vector<float>({3, 1, 2}));
  const NodeId split = g.add_node("Split", {x}, {"", "second"}, {{"num_outputs", int64_t{2}}});
  const std::vector<Tensor> inputs = {g.value(x).constant};
  const auto out = evaluate_constant(g, g.node(split), inputs);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_FALSE(out[0].defined());
  EXPECT_TRUE(identical(out[1], Tensor::vector<float>({2})));
  const NodeId odd = g.add_node("Frobnicate", {x}, {"f"}, {}, "com.example");
  EXPECT_TRUE(evaluate_constant(g, g.node(odd), std::vector{inputs[0]}).empty());
}

}  // namespace
}  // namespace narrow
