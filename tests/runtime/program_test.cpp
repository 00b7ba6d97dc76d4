// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/program.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "runtime/toy_ops.h"

namespace narrow {
namespace {

ValueId add(Graph& g, const char* op, std::vector<ValueId> inputs, const char* output,
            Attributes attributes = {}) {
  return g.node(g.add_node(op, std::move(inputs), {output}, std::move(attributes))).outputs[0];
}

Tensor ramp(Dims dims, float start = 0) {
  Tensor t(DType::float32, std::move(dims));
  for (float& v : t.mutable_data<float>()) v = start++;
  return t;
}

Tensor floats(std::vector<float> values, Dims dims) {
  return Tensor::from(values, std::move(dims));
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

/// What the toy Softplus computes.
Tensor softplus(const Tensor& x) {
  Tensor y = x.clone();
  const int64_t pixels = num_elements(x.dims(), 2, x.rank());
  auto out = y.mutable_data<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = 2 * out[i] + static_cast<float>(static_cast<int64_t>(i) / pixels % x.dims()[1]);
  }
  return y;
}

// --- layouts ------------------------------------------------------------------------------------

TEST(ProgramLayout, StaysChannelsLastThroughAgnosticSteps) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3, 4, 5});
  ValueId y = add(g, "Softplus", {x}, "a");
  y = add(g, "Relu", {y}, "b");
  y = add(g, "Identity", {y}, "c");
  y = add(g, "Softplus", {y}, "d");
  y = add(g, "Flatten", {y}, "e");
  g.add_output(y);
  const Program program(g, toy::options());
  EXPECT_EQ(program.plan().reorders, 2);  // in front of the first, and before Flatten
  const Tensor in = ramp({2, 3, 4, 5});
  const auto out = program.run(std::vector{in}, {});
  EXPECT_TRUE(identical(out[0], softplus(softplus(in)).reshaped({2, 60})));
}

TEST(ProgramLayout, OneReorderServesAllReaders) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 3, 4, 5});
  g.add_output(add(g, "Flatten", {add(g, "Softplus", {x}, "a")}, "fa"));
  g.add_output(add(g, "Flatten", {add(g, "Softplus", {x}, "b")}, "fb"));
  const Program program(g, toy::options());
  EXPECT_EQ(program.plan().reorders, 3);
  const auto out = program.run(std::vector{ramp({1, 3, 4, 5})}, {});
  EXPECT_TRUE(identical(out[0], out[1]));
}

TEST(ProgramLayout, AgnosticStepLooksAtBothSides) {
  for (const bool then_flat : {true, false}) {
    Graph g;
    const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 3, 4, 5});
    const ValueId y = g.add_input("y", DType::float32, SymbolicShape{1, 3, 4, 5});
    ValueId z = add(g, "Add", {add(g, "Softplus", {x}, "a"), y}, "sum");
    z = add(g, "Relu", {z}, "r");
    z = add(g, then_flat ? "Flatten" : "Softplus", {z}, "z");
    g.add_output(z);
    const Program program(g, toy::options());
    // Plain: x and a are reordered. Channels last: x, y and the result.
    EXPECT_EQ(program.plan().reorders, then_flat ? 2 : 3);
    const Tensor in = ramp({1, 3, 4, 5}, -30);
    Tensor sum = softplus(in);
    for (size_t i = 0; i < 60; ++i) {
      float& v = sum.mutable_data<float>()[i];
      v = std::max(v + in.data<float>()[i], 0.0f);
    }
    const Tensor out = program.run(std::vector{in, in}, {})[0];
    EXPECT_TRUE(identical(out, then_flat ? sum.reshaped({1, 60}) : softplus(sum)));
  }
}

struct BroadcastCase {
  Dims dims;
  int64_t reorders;
};
class ProgramBroadcast : public testing::TestWithParam<BroadcastCase> {};

TEST_P(ProgramBroadcast, ConstantAgainstChannelsLast) {
  const auto& [dims, reorders] = GetParam();
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 3, 2, 2});
  const ValueId c = g.add_initializer("c", ramp(dims, 100));
  ValueId y = add(g, "Softplus", {x}, "a");
  y = add(g, "Add", {y, c}, "b");
  y = add(g, "Softplus", {y}, "d");
  g.add_output(y);
  const Program program(g, toy::options());
  EXPECT_EQ(program.plan().reorders, reorders);
  const Tensor in = ramp({1, 3, 2, 2});
  Tensor sum = softplus(in);
  const Tensor constant = ramp(dims, 100);
  size_t i = 0;
  toy::for_each_index(sum.dims(), [&](const std::vector<int64_t>& index) {
    TensorView view{DType::float32, dims, Layout::plain, const_cast<std::byte*>(constant.raw())};
    sum.mutable_data<float>()[i++] += toy::at_broadcast(view, index);
  });
  EXPECT_TRUE(identical(program.run(std::vector{in}, {})[0], softplus(sum)));
}

INSTANTIATE_TEST_SUITE_P(Constants, ProgramBroadcast,
                         testing::Values(BroadcastCase{{}, 2}, BroadcastCase{{1}, 2},
                                         BroadcastCase{{1, 3, 2, 2}, 2},
                                         BroadcastCase{{1, 3, 1, 1}, 2},
                                         BroadcastCase{{1, 1, 2, 2}, 2},
                                         // Another rank: the Add runs plain.
                                         BroadcastCase{{3, 1, 1}, 4}, BroadcastCase{{2}, 4}));

TEST(ProgramLayout, NoCopyWhereTheOrderIsTheSame) {
  for (const Dims& dims : {Dims{4, 1, 6, 7}, Dims{4, 9, 1, 1}}) {
    Graph g;
    const ValueId x = g.add_input("x", DType::float32, symbolic(dims));
    g.add_output(add(g, "Flatten", {add(g, "Softplus", {x}, "a")}, "b"));
    const Program program(g, toy::options());
    const auto shapes = program.shape_plan({dims});
    for (size_t k = 0; k < shapes->steps.size(); ++k) {
      EXPECT_EQ(shapes->steps[k].runs, program.plan().steps[k].op == "Softplus");
    }
    const Tensor in = ramp(dims);
    const Tensor expected = softplus(in);
    const Tensor out = program.run(std::vector{in}, {})[0];
    EXPECT_TRUE(identical(out, expected.reshaped(out.dims())));
  }
}

TEST(ProgramLayout, ReordersAreListed) {
  Graph g;
  const ValueId x = g.add_input("image", DType::float32, SymbolicShape{1, 3, 4, 5});
  g.add_output(add(g, "Softplus", {x}, "a"));
  const Program program(g, toy::options());
  std::vector<KernelChoice> choices;
  program.collect_choices("", choices);
  ASSERT_EQ(choices.size(), 3u);
  EXPECT_EQ(choices[0].node, "reorder image to channels_last");
  EXPECT_EQ(choices[0].chosen, "reorder");
  EXPECT_EQ(choices[1].chosen, "nhwc");
  EXPECT_EQ(choices[2].node, "reorder a to plain");
}

// --- memory -------------------------------------------------------------------------------------

TEST(ProgramMemory, ChainsRunInPlace) {
  Graph g;
  ValueId y = g.add_input("x", DType::float32, SymbolicShape{1000});
  for (int i = 0; i < 10; ++i) y = add(g, "Relu", {y}, ("r" + std::to_string(i)).c_str());
  g.add_output(add(g, "Concat", {y, y}, "z", {{"axis", int64_t{0}}}));
  const Program program(g, toy::options());
  const auto shapes = program.shape_plan({{1000}});
  EXPECT_LT(shapes->arena_bytes, 2 * 4000u);  // one buffer; the result is the caller's
  EXPECT_EQ(shapes->activation_bytes, 10 * 4000 + 8000u);
  const Tensor in = ramp({1000}, -500);
  const Tensor out = program.run(std::vector{in}, {})[0];
  EXPECT_EQ(out.data<float>()[0], 0);
  EXPECT_EQ(out.data<float>()[999], 499);
  EXPECT_EQ(out.data<float>()[1999], 499);
  EXPECT_EQ(in.data<float>()[0], -500);  // the caller's tensor is not written
}

TEST(ProgramMemory, ValueNeededLaterIsNotOverwritten) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{4});
  const ValueId a = add(g, "Add", {x, x}, "a");
  const ValueId b = add(g, "Relu", {a}, "b");
  g.add_output(add(g, "Add", {a, b}, "c"));
  const Program program(g, toy::options());
  const auto out = program.run(std::vector{floats({-1, 2, -3, 4}, {4})}, {});
  EXPECT_TRUE(identical(out[0], floats({-2, 8, -6, 16}, {4})));
}

TEST(ProgramMemory, NotInPlaceOverWhatIsReadTwice) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{4});
  const ValueId a = add(g, "Add", {x, x}, "a");
  const ValueId b = add(g, "Sub", {a, add(g, "Identity", {a}, "i")}, "b");
  g.add_output(add(g, "Concat", {b, b}, "y", {{"axis", int64_t{0}}}));
  const Program program(g, toy::options());
  const auto out = program.run(std::vector{floats({1, 2, 3, 4}, {4})}, {});
  EXPECT_TRUE(identical(out[0], floats({-6, -2, 2, 6, -6, -2, 2, 6}, {8})));
}

TEST(ProgramMemory, ViewKeepsItsSourceAlive) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3});
  const ValueId shape = g.add_initializer("shape", Tensor::vector<int64_t>({3, 2}));
  const ValueId a = add(g, "Add", {x, x}, "a");
  const ValueId v = add(g, "Reshape", {a, shape}, "v");
  const ValueId b = add(g, "Relu", {a}, "b");  // must not write where v still looks
  const ValueId c = add(g, "Relu", {b}, "c");
  g.add_output(add(g, "Add", {c, c}, "d"));
  g.add_output(add(g, "Add", {v, v}, "w"));
  const Program program(g, toy::options());
  const auto out = program.run(std::vector{floats({-1, 2, -3, 4, -5, 6}, {2, 3})}, {});
  EXPECT_TRUE(identical(out[0], floats({0, 8, 0, 16, 0, 24}, {2, 3})));
  EXPECT_TRUE(identical(out[1], floats({-4, 8, -12, 16, -20, 24}, {3, 2})));
}

TEST(ProgramMemory, OutputsThatAreInputsConstantsAndEachOther) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 2});
  const ValueId c = g.add_initializer("c", ramp({3}));
  const ValueId shape = g.add_initializer("shape", Tensor::vector<int64_t>({4}));
  const ValueId a = add(g, "Add", {x, x}, "a");
  for (const ValueId id : {x, c, add(g, "Identity", {x}, "ix"), add(g, "Identity", {c}, "ic"), a,
                           add(g, "Identity", {a}, "ia"), add(g, "Reshape", {a, shape}, "ra"),
                           add(g, "Relu", {a}, "r")}) {
    g.add_output(id);
  }
  const Program program(g, toy::options());
  const Tensor in = floats({-1, 2, -3, 4}, {2, 2});
  const auto out = program.run(std::vector{in}, {});
  EXPECT_TRUE(identical(out[0], in));
  EXPECT_NE(out[0].raw(), in.raw());
  EXPECT_TRUE(identical(out[1], ramp({3})));
  EXPECT_NE(out[1].raw(), g.value(c).constant.raw());
  EXPECT_TRUE(identical(out[2], in));
  EXPECT_TRUE(identical(out[3], ramp({3})));
  const Tensor twice = floats({-2, 4, -6, 8}, {2, 2});
  EXPECT_TRUE(identical(out[4], twice));
  EXPECT_TRUE(identical(out[5], twice));
  EXPECT_TRUE(identical(out[6], twice.reshaped({4})));
  EXPECT_TRUE(identical(out[7], floats({0, 4, 0, 8}, {2, 2})));
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_TRUE(out[i].writable());
    for (size_t j = i + 1; j < out.size(); ++j) EXPECT_NE(out[i].raw(), out[j].raw());
  }
}

TEST(ProgramMemory, OneValueAsTwoOutputs) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  const ValueId a = add(g, "Add", {x, x}, "a");
  g.add_output(a);
  g.add_output(a);
  const auto out = Program(g, toy::options()).run(std::vector{floats({1, 2}, {2})}, {});
  EXPECT_TRUE(identical(out[0], floats({2, 4}, {2})));
  EXPECT_TRUE(identical(out[1], out[0]));
  EXPECT_NE(out[1].raw(), out[0].raw());
}

TEST(ProgramMemory, BorrowedAndUnalignedInputs) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{3});
  g.add_output(add(g, "Relu", {x}, "y"));
  auto owner = std::make_shared<std::vector<std::byte>>(13);
  const Tensor values = floats({-1, 2, 3}, {3});
  std::memcpy(owner->data() + 1, values.raw(), 12);
  const Tensor borrowed = Tensor::view(owner, owner->data() + 1, 12, DType::float32, {3});
  const auto out = Program(g, toy::options()).run(std::vector{borrowed}, {});
  EXPECT_TRUE(identical(out[0], floats({0, 2, 3}, {3})));
}

TEST(ProgramMemory, Report) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 3, 4, 5});
  const ValueId c = g.add_initializer("c", ramp({1, 3, 4, 5}));
  g.add_output(add(g, "Softplus", {add(g, "Add", {x, c}, "a")}, "b"));
  const Program program(g, toy::options());
  EXPECT_EQ(program.memory().arena_bytes, 0u);  // nothing planned yet
  program.shape_plan({{1, 3, 4, 5}});
  const MemoryReport report = program.memory();
  EXPECT_EQ(report.packed_bytes, 100u);
  EXPECT_EQ(report.constant_bytes, 240u);
  EXPECT_EQ(report.reorders, 2);
  EXPECT_EQ(report.activation_bytes, 5 * 240u);  // a, a and b channels_last, b plain, scratch
  EXPECT_GE(report.arena_bytes, 2 * 240u);
}

// --- shapes -------------------------------------------------------------------------------------

TEST(ProgramShapes, ManyBatchSizes) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 3, Dim(), 5});
  g.add_output(add(g, "Softplus", {add(g, "Relu", {x}, "a")}, "b"));
  const Program program(g, toy::options());
  for (int round = 0; round < 2; ++round) {
    for (int64_t n = 0; n < 12; ++n) {  // more than are cached
      const Tensor in = ramp({n, 3, n + 1, 5});
      EXPECT_TRUE(identical(program.run(std::vector{in}, {})[0], softplus(in)));
    }
  }
}

TEST(ProgramShapes, EmptyTensors) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 2});
  const ValueId y = g.add_input("y", DType::float32, SymbolicShape{Dim::symbol("M"), 2});
  g.add_output(add(g, "Relu", {x}, "a"));
  g.add_output(add(g, "Concat", {x, y}, "b", {{"axis", int64_t{0}}}));
  g.add_output(x);
  const Program program(g, toy::options());
  const Tensor none(DType::float32, {0, 2});
  const Tensor some = ramp({3, 2});
  auto out = program.run(std::vector{none, some}, {});
  EXPECT_EQ(out[0].dims(), (Dims{0, 2}));
  EXPECT_TRUE(identical(out[1], some));
  EXPECT_EQ(out[2].dims(), (Dims{0, 2}));
  out = program.run(std::vector{none, none}, {});
  EXPECT_EQ(out[1].dims(), (Dims{0, 2}));
}

TEST(ProgramShapes, KnownShapeArithmeticDoesNotRun) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 3, 4});
  const ValueId shape = add(g, "Shape", {x}, "s");
  const ValueId flat = add(g, "Flatten", {x}, "f");
  g.add_output(add(g, "Reshape", {flat, shape}, "y"));
  g.add_output(shape);
  const Program program(g, toy::options());
  const Tensor in = ramp({2, 3, 4});
  const auto out = program.run(std::vector{in}, {});
  EXPECT_TRUE(identical(out[0], in));
  EXPECT_TRUE(identical(out[1], Tensor::vector<int64_t>({2, 3, 4})));
  const auto shapes = program.shape_plan({{2, 3, 4}});
  for (const StepPlace& place : shapes->steps) EXPECT_FALSE(place.runs);
}

TEST(ProgramShapes, DataDependentShapes) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 3});
  const ValueId two = g.add_initializer("two", Tensor::vector<int64_t>({-1}));
  const ValueId half = g.add_initializer("half", Tensor::scalar(0.5f));
  const ValueId hits = add(g, "NonZero", {x}, "hits");
  ValueId y = add(g, "Cast", {hits}, "c", {{"to", int64_t{1}}});
  y = add(g, "Reshape", {y, two}, "flat");
  y = add(g, "Add", {y, half}, "sum");
  y = add(g, "Relu", {y}, "y");
  g.add_output(y);
  g.add_output(add(g, "Shape", {hits}, "shape"));
  g.add_output(add(g, "Relu", {x}, "fixed"));
  const Program program(g, toy::options());
  for (int round = 0; round < 2; ++round) {
    auto out = program.run(std::vector{floats({0, 1, 0, 2, 0, 3}, {2, 3})}, {});
    EXPECT_TRUE(identical(out[0], floats({0.5, 1.5, 1.5, 1.5, 0.5, 2.5}, {6})));
    EXPECT_TRUE(identical(out[1], Tensor::vector<int64_t>({2, 3})));
    EXPECT_TRUE(identical(out[2], floats({0, 1, 0, 2, 0, 3}, {2, 3})));
    out = program.run(std::vector{floats({0, 0, 0, 0, 0, 7}, {2, 3})}, {});
    EXPECT_TRUE(identical(out[0], floats({1.5, 2.5}, {2})));
    out = program.run(std::vector{Tensor(DType::float32, {2, 3})}, {});
    EXPECT_EQ(out[0].dims(), Dims{0});
    EXPECT_TRUE(identical(out[1], Tensor::vector<int64_t>({2, 0})));
  }
}

TEST(ProgramShapes, ReshapeByAnInput) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3, 4});
  const ValueId s = g.add_input("s", DType::int64, SymbolicShape{Dim::symbol("R")});
  ValueId y = add(g, "Reshape", {add(g, "Softplus", {x}, "a"), s}, "r");
  g.add_output(add(g, "Relu", {y}, "y"));
  const Program program(g, toy::options());
  const Tensor in = ramp({2, 3, 4});
  for (const Dims& dims : {Dims{4, 6}, Dims{24}, Dims{1, 2, 3, 4}}) {
    const auto out = program.run(std::vector{in, Tensor::vector<int64_t>(dims)}, {});
    EXPECT_TRUE(identical(out[0], softplus(in).reshaped(dims)));
  }
}

// --- inputs -------------------------------------------------------------------------------------

class ProgramInputs : public testing::Test {
 protected:
  ProgramInputs() {
    Graph g;
    const SymbolicShape shape = {Dim::symbol("N"), 3};
    const ValueId a = g.add_input("first", DType::float32, shape);
    const ValueId b = g.add_input("second", DType::float32, shape);
    g.add_output(add(g, "Add", {a, b}, "y"));
    program_ = std::make_unique<Program>(g, toy::options());
  }
  std::string refusal(const std::vector<Tensor>& inputs) {
    return message_of([&] { program_->run(inputs, {}); });
  }
  std::unique_ptr<Program> program_;
};

TEST_F(ProgramInputs, WrongOnesAreNamed) {
  const Tensor good = ramp({2, 3});
  EXPECT_EQ(refusal({good}), "2 inputs expected ('first', 'second'), got 1");
  EXPECT_EQ(refusal({good, Tensor(DType::int8, {2, 3})}),
            "input 'second' must be float32[N, 3], got int8[2, 3]");
  EXPECT_EQ(refusal({good, Tensor()}),
            "input 'second' must be float32[N, 3], got an undefined tensor");
  EXPECT_EQ(refusal({ramp({2, 3, 1}), good}),
            "input 'first' must be float32[N, 3], got float32[2, 3, 1]");
  EXPECT_EQ(refusal({ramp({2, 4}), good}),
            "input 'first' must be float32[N, 3], got float32[2, 4]");
  EXPECT_EQ(refusal({good, ramp({1, 3})}),
            "input 'second' must be float32[N, 3], got float32[1, 3] where 'N' is 2 in input "
            "'first'");
  EXPECT_EQ(program_->run(std::vector{good, good}, {})[0].dims(), (Dims{2, 3}));
}

// --- implementations, profile, errors
// -------------------------------------------------------------

TEST(ProgramChoices, RefusalsAreKept) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  g.add_output(add(g, "Relu", {x}, "y"));
  const Program program(g, toy::options());
  std::vector<KernelChoice> choices;
  program.collect_choices("", choices);
  ASSERT_EQ(choices.size(), 1u);
  EXPECT_EQ(choices[0].chosen, "reference");
  ASSERT_EQ(choices[0].refused.size(), 1u);
  EXPECT_EQ(choices[0].refused[0], (std::pair<std::string, std::string>("fast", "not today")));
}

TEST(ProgramChoices, EveryUnsupportedNodeIsListed) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  const ValueId a = add(g, "Exp", {x}, "a");
  const ValueId b = add(g, "Relu", {a}, "b");
  g.add_output(add(g, "Sqrt", {b}, "c"));
  EXPECT_EQ(message_of([&] { const Program program(g, toy::options()); }),
            "2 nodes cannot run:\n  'Exp_a' (Exp): first: not today; second: not today\n"
            "  'Sqrt_c' (Sqrt): no implementation");
}

TEST(ProgramChoices, NodesThatNothingNeedsAreLeftOut) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  add(g, "Sqrt", {x}, "unused");
  g.add_output(add(g, "Relu", {x}, "y"));
  EXPECT_EQ(Program(g, toy::options()).plan().steps.size(), 1u);
}

TEST(ProgramErrors, NameTheNode) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  g.add_output(add(g, "Log", {add(g, "Relu", {x}, "a")}, "b"));
  const Program program(g, toy::options());
  const auto run = [&] { program.run(std::vector{ramp({2})}, {}); };
  EXPECT_EQ(message_of(run), "node 'Log_b': no logarithm");
  EXPECT_EQ(message_of(run), "node 'Log_b': no logarithm");  // also with a workspace lost
}

TEST(ProgramProfile, CountsRunsAndMacs) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 3, 4, 5});
  const ValueId a = add(g, "Softplus", {x}, "a");
  g.add_output(add(g, "Mul", {a, a}, "b"));
  PlanOptions options = toy::options();
  options.profile = true;
  const Program program(g, options);
  for (int i = 0; i < 3; ++i) program.run(std::vector{ramp({2, 3, 4, 5})}, {});
  std::vector<NodeProfile> profile;
  program.collect_profile("", profile);
  ASSERT_EQ(profile.size(), 4u);
  EXPECT_EQ(profile[0].op, "Reorder");
  EXPECT_EQ(profile[1].node, "Softplus_a");
  EXPECT_EQ(profile[1].implementation, "nhwc");
  EXPECT_EQ(profile[1].macs, 120);
  for (const NodeProfile& node : profile) {
    EXPECT_EQ(node.runs, 3);
    EXPECT_GT(node.microseconds, 0);
    EXPECT_EQ(node.depth, 0);
    EXPECT_EQ(node.is_reorder, node.op == "Reorder");
    if (node.is_reorder) {
      EXPECT_EQ(node.bytes, 2u * 480);
    }
  }
  EXPECT_TRUE(profile[1].integer_macs);
  EXPECT_FALSE(profile[3].integer_macs);
  EXPECT_EQ(profile[1].bytes, 2u * 480 + 100) << "input, output and packed weights";
  const Session::MacCount macs = program.count_macs({{2, 3, 4, 5}});
  EXPECT_EQ(macs.integer, 120);
  EXPECT_EQ(macs.total, 240);
  program.reset_profile();
  profile.clear();
  program.collect_profile("", profile);
  EXPECT_EQ(profile[1].runs, 0);
  EXPECT_EQ(profile[1].microseconds, 0);
}

}  // namespace
}  // namespace narrow
