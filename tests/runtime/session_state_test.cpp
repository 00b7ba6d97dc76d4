// SPDX-License-Identifier: Apache-2.0
// State that a session keeps between runs: caches updated in place, copies where a graph does not
// allow that, several sequences, and a decoder whose cached steps equal the whole at once.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <thread>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

constexpr int64_t kHeads = 4;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kWidth = 8;
constexpr int64_t kCapacity = 1024;

ValueId add(Graph& g, const char* op, std::vector<ValueId> inputs, const std::string& output,
            Attributes attributes = {}) {
  return g.node(g.add_node(op, std::move(inputs), {output}, std::move(attributes))).outputs[0];
}

Tensor random_tensor(Dims dims, uint64_t seed) {
  Tensor t(DType::float32, std::move(dims));
  Rng rng(seed);
  for (float& v : t.mutable_data<float>()) v = static_cast<float>(rng.below(2001)) / 1000.0F - 1;
  return t;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
  return "nothing thrown";
}

float largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.dims(), b.dims());
  float largest = 0;
  const auto x = a.to_floats();
  const auto y = b.to_floats();
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

ValueId projected(Graph& g, ValueId x, int64_t heads, uint64_t seed, const std::string& name) {
  const ValueId w =
      g.add_initializer(name + "_w", random_tensor({kHeads * kWidth, heads * kWidth}, seed));
  const ValueId rows = add(g, "MatMul", {x, w}, name + "_rows");
  const ValueId shape =
      g.add_initializer(name + "_shape", Tensor::vector<int64_t>({0, 0, heads, kWidth}));
  const ValueId split = add(g, "Reshape", {rows, shape}, name + "_split");
  return add(g, "Transpose", {split}, name, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
}

/// One attention layer on x [B, S, 32]: caches [B, 2, capacity, 8] of `cache` type, written at
/// `at` [B] and read up to `total` [B].
Graph decoder(DType cache = DType::float32) {
  Graph g;
  const Dim batch = Dim::symbol("B");
  const ValueId x =
      g.add_input("x", DType::float32, SymbolicShape{batch, Dim::symbol("S"), kHeads * kWidth});
  const ValueId at = g.add_input("at", DType::int64, SymbolicShape{batch});
  const ValueId past_k =
      g.add_input("past_k", cache, SymbolicShape{batch, kKvHeads, kCapacity, kWidth});
  const ValueId total = g.add_input("total", DType::int64, SymbolicShape{batch});
  const ValueId past_v =
      g.add_input("past_v", cache, SymbolicShape{batch, kKvHeads, kCapacity, kWidth});
  const auto cast = [&](ValueId v, DType to, const std::string& name) {
    if (cache == DType::float32) return v;
    return add(g, "Cast", {v}, name, {{"to", int64_t{to == DType::float32 ? 1 : 10}}});
  };
  const ValueId q = projected(g, x, kHeads, 1, "q");
  const ValueId k = cast(projected(g, x, kKvHeads, 2, "k"), cache, "k_narrow");
  const ValueId v = cast(projected(g, x, kKvHeads, 3, "v"), cache, "v_narrow");
  const ValueId keys = add(g, "TensorScatter", {past_k, k, at}, "keys");
  const ValueId values = add(g, "TensorScatter", {past_v, v, at}, "values");
  const ValueId y =
      g.node(g.add_node("Attention",
                        {q, cast(keys, DType::float32, "k_wide"),
                         cast(values, DType::float32, "v_wide"), kNoId, kNoId, kNoId, total},
                        {"attended"}, {{"is_causal", int64_t{1}}}))
          .outputs[0];
  g.add_output(keys);
  g.add_output(add(g, "Relu", {y}, "y"));
  g.add_output(values);
  return g;
}

SessionOptions with_states() {
  SessionOptions options;
  options.states = {{"past_k", "keys"}, {"past_v", "values"}};
  return options;
}

Tensor lengths(std::vector<int64_t> n) {
  return Tensor::vector(n);
}

/// Tokens [from, to) of x.
Tensor tokens(const Tensor& x, int64_t from, int64_t to) {
  const int64_t row = x.dim(2);
  Tensor part(DType::float32, {1, to - from, row});
  std::copy_n(x.data<float>().data() + from * row, (to - from) * row,
              part.mutable_data<float>().data());
  return part;
}

/// Output tokens of a run over [from, to) with what the state holds before.
Tensor step(const Session& session, State& state, const Tensor& x, int64_t from, int64_t to) {
  return session.run({tokens(x, from, to), lengths({from}), lengths({to})}, state).at(0);
}

/// [1, heads, S, width] of token rows: the part [from, to).
Tensor part_of(const Tensor& y, int64_t from, int64_t to) {
  Tensor part(DType::float32, {1, kHeads, to - from, kWidth});
  for (int64_t h = 0; h < kHeads; ++h) {
    std::copy_n(y.data<float>().data() + (h * y.dim(2) + from) * kWidth, (to - from) * kWidth,
                part.mutable_data<float>().data() + h * (to - from) * kWidth);
  }
  return part;
}

/// The same layer with caches of int8 and their scales; blocks of 4 leave it to the reference.
Graph quantized_decoder(int64_t block, double softcap = 0, int64_t window = -1) {
  Graph g;
  const Dim batch = Dim::symbol("B");
  const int64_t blocks = (kWidth + block - 1) / block;
  const ValueId x =
      g.add_input("x", DType::float32, SymbolicShape{batch, Dim::symbol("S"), kHeads * kWidth});
  const ValueId at = g.add_input("at", DType::int64, SymbolicShape{batch});
  const ValueId total = g.add_input("total", DType::int64, SymbolicShape{batch});
  const auto cached = [&](const std::string& name, const std::string& next, uint64_t seed) {
    const ValueId update = projected(g, x, kKvHeads, seed, name + "_new");
    const NodeId quantize =
        g.add_node("DynamicQuantize", {update}, {name + "_codes", name + "_scales"},
                   {{"block_size", block}}, "narrow");
    const ValueId codes = g.node(quantize).outputs[0];
    const ValueId scales = g.node(quantize).outputs[1];
    const ValueId past =
        g.add_input(name, DType::int8, SymbolicShape{batch, kKvHeads, kCapacity, kWidth});
    const ValueId past_scales = g.add_input(name + "_scale", DType::float32,
                                            SymbolicShape{batch, kKvHeads, kCapacity, blocks});
    const ValueId all = add(g, "TensorScatter", {past, codes, at}, next);
    const ValueId all_scales = add(g, "TensorScatter", {past_scales, scales, at}, next + "_scale");
    g.add_output(all);
    g.add_output(all_scales);
    return add(g, "DequantizeLinear", {all, all_scales}, name + "_wide",
               {{"axis", int64_t{-1}}, {"block_size", block}});
  };
  const ValueId q = projected(g, x, kHeads, 1, "q");
  const ValueId k = cached("past_k", "keys", 2);
  const ValueId v = cached("past_v", "values", 3);
  Attributes attributes{{"is_causal", int64_t{1}},
                        {"softcap", static_cast<float>(softcap)},
                        {"left_window_size", window}};
  const ValueId y = g.node(g.add_node("Attention", {q, k, v, kNoId, kNoId, kNoId, total},
                                      {"attended"}, std::move(attributes)))
                        .outputs[0];
  g.add_output(add(g, "Relu", {y}, "y"));
  return g;
}

SessionOptions with_quantized_states() {
  SessionOptions options = with_states();
  options.states.push_back({"past_k_scale", "keys_scale"});
  options.states.push_back({"past_v_scale", "values_scale"});
  return options;
}

std::string attention_of(const Session& session) {
  for (const KernelChoice& choice : session.kernel_choices()) {
    if (choice.op.find("Attention") != std::string::npos) return choice.op + " " + choice.chosen;
  }
  return "none";
}

TEST(SessionState, QuantizedCacheIsWhatTheGraphSays) {
  struct Form {
    int64_t block;
    double softcap;
    int64_t window;
    const char* chosen;
  };
  for (const Form& form : {Form{32, 0, -1, "tiled"}, Form{8, 3, 6, "tiled"},
                           Form{4, 0, -1, "reference"}, Form{4, 3, 6, "reference"}}) {
    const Graph graph = quantized_decoder(form.block, form.softcap, form.window);
    const Session lowered(graph, with_quantized_states());
    SessionOptions plain = with_quantized_states();
    plain.lower = false;
    const Session written(graph, plain);
    EXPECT_EQ(attention_of(lowered), std::string("narrow::Attention ") + form.chosen);
    EXPECT_EQ(attention_of(written), "Attention tiled");
    State one = lowered.make_state({{"B", 1}});
    State other = written.make_state({{"B", 1}});
    const Tensor x = random_tensor({1, 600, kHeads * kWidth}, 7);
    // A prompt in chunks, then single tokens: whole tiles and keys split in parts.
    for (const auto& [from, to] : {std::pair{0, 70}, std::pair{70, 599}, std::pair{599, 600}}) {
      const Tensor got = step(lowered, one, x, from, to);
      EXPECT_LT(largest_difference(got, step(written, other, x, from, to)), 2e-5F);
      EXPECT_TRUE(identical(one.tensor("past_k"), other.tensor("past_k")));
      EXPECT_TRUE(identical(one.tensor("past_v_scale"), other.tensor("past_v_scale")));
    }
    EXPECT_EQ(lowered.memory().state_copy_bytes, 0u);
    // The unfused graph widens whole caches; nothing of that size is left.
    EXPECT_GT(written.memory().arena_bytes, one.bytes());
  }
}

TEST(SessionState, QuantizedCacheStaysNarrow) {
  const Session session(quantized_decoder(32), with_quantized_states());
  State state = session.make_state({{"B", 1}});
  EXPECT_EQ(state.bytes(), 2 * kKvHeads * kCapacity * (kWidth + sizeof(float)));
  const Tensor x = random_tensor({1, 6, kHeads * kWidth}, 9);
  for (int64_t t = 0; t < 6; ++t) step(session, state, x, t, t + 1);
  EXPECT_EQ(session.memory().state_copy_bytes, 0u);
  EXPECT_LT(session.memory().arena_bytes, state.bytes() / 2);
}

TEST(SessionState, StepsEqualTheWhole) {
  for (const DType cache : {DType::float32, DType::float16}) {
    const Session session(decoder(cache), with_states());
    EXPECT_EQ(session.input_names(), (std::vector<std::string>{"x", "at", "total"}));
    EXPECT_EQ(session.output_names(), (std::vector<std::string>{"y"}));
    const Tensor x = random_tensor({1, 20, kHeads * kWidth}, 7);
    State whole = session.make_state({{"B", 1}});
    const Tensor expected = step(session, whole, x, 0, 20);
    State state = session.make_state({{"B", 1}});
    EXPECT_LT(largest_difference(step(session, state, x, 0, 7), part_of(expected, 0, 7)), 1e-5F);
    EXPECT_LT(largest_difference(step(session, state, x, 7, 14), part_of(expected, 7, 14)), 1e-5F);
    for (int64_t t = 14; t < 20; ++t) {
      EXPECT_LT(largest_difference(step(session, state, x, t, t + 1), part_of(expected, t, t + 1)),
                1e-5F)
          << "token " << t;
    }
    EXPECT_LT(largest_difference(state.tensor("past_k"), whole.tensor("past_k")), 1e-2F);
  }
}

TEST(SessionState, IsUpdatedInPlace) {
  for (const DType cache : {DType::float32, DType::float16}) {
    const Session session(decoder(cache), with_states());
    State state = session.make_state({{"B", 1}});
    const size_t element = cache == DType::float32 ? 4 : 2;
    EXPECT_EQ(state.bytes(), 2 * kKvHeads * kCapacity * kWidth * element);
    const std::byte* before = state.tensor("past_k").raw();
    // A marker beyond what the steps write: no one may touch it.
    const_cast<std::byte*>(before)[state.tensor("past_k").bytes() - 1] = std::byte{0x11};
    const Tensor x = random_tensor({1, 6, kHeads * kWidth}, 9);
    for (int64_t t = 0; t < 6; ++t) step(session, state, x, t, t + 1);
    EXPECT_EQ(state.tensor("past_k").raw(), before);
    EXPECT_EQ(before[state.tensor("past_k").bytes() - 1], std::byte{0x11});
    EXPECT_EQ(session.memory().state_copy_bytes, 0u);
    // No step of the plan holds a cache of its own.
    EXPECT_LT(session.memory().arena_bytes, state.bytes() / 4);
  }
}

TEST(SessionState, AlternatingShapesArePlannedOnce) {
  const Session session(decoder(), with_states());
  State state = session.make_state({{"B", 1}});
  const Tensor x = random_tensor({1, 20, kHeads * kWidth}, 9);
  for (int round = 0; round < 4; ++round) {
    state.reset();
    step(session, state, x, 0, 8);
    for (int64_t t = 8; t < 12; ++t) step(session, state, x, t, t + 1);
    step(session, state, x, 12, 20);
  }
  EXPECT_EQ(session.memory().shape_plans, 2);
}

TEST(SessionState, SequencesDoNotMix) {
  const Session session(decoder(), with_states());
  const Tensor a = random_tensor({1, 6, kHeads * kWidth}, 10);
  const Tensor b = random_tensor({1, 6, kHeads * kWidth}, 11);
  State alone = session.make_state({{"B", 1}});
  State first = session.make_state({{"B", 1}});
  State second = session.make_state({{"B", 1}});
  State branch = session.make_state({{"B", 1}});
  for (int64_t t = 0; t < 6; ++t) {
    if (t == 3) branch = first.clone();
    const Tensor expected = step(session, alone, a, t, t + 1);
    EXPECT_TRUE(identical(step(session, first, a, t, t + 1), expected));
    step(session, second, b, t, t + 1);
    if (t >= 3) {
      EXPECT_TRUE(identical(step(session, branch, a, t, t + 1), expected));
    }
  }
  EXPECT_FALSE(identical(first.tensor("past_v"), second.tensor("past_v")));
  second.reset();
  for (int64_t t = 0; t < 6; ++t) step(session, second, a, t, t + 1);
  EXPECT_TRUE(identical(first.tensor("past_v"), second.tensor("past_v")));
}

TEST(SessionState, SequencesRunAtOnce) {
  SessionOptions options = with_states();
  options.threads = 1;
  const Session session(decoder(), options);
  const Tensor x = random_tensor({1, 20, kHeads * kWidth}, 12);
  State whole = session.make_state({{"B", 1}});
  for (int64_t t = 0; t < 20; ++t) step(session, whole, x, t, t + 1);
  std::vector<State> states;
  for (int i = 0; i < 3; ++i) states.push_back(session.make_state({{"B", 1}}));
  std::vector<std::thread> threads;
  for (State& state : states) {
    threads.emplace_back([&] {
      for (int64_t t = 0; t < 20; ++t) step(session, state, x, t, t + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const State& state : states) {
    EXPECT_TRUE(identical(state.tensor("past_k"), whole.tensor("past_k")));
  }
}

/// next = state + x, and old values are outputs too: the state cannot be overwritten early.
Graph counter(bool keeps_old) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{3});
  const ValueId state = g.add_input("state", DType::float32, SymbolicShape{3});
  const ValueId next = add(g, "Add", {state, x}, "next");
  g.add_output(next);
  g.add_output(add(g, "Neg", {next}, "negative"));
  if (keeps_old) g.add_output(add(g, "Identity", {state}, "old"));
  return g;
}

TEST(SessionState, CopiedWhereTheOldIsStillWanted) {
  for (const bool keeps_old : {false, true}) {
    SessionOptions options;
    options.states = {{"state", "next"}};
    const Session session(counter(keeps_old), options);
    State state = session.make_state();
    const std::byte* memory = state.tensor("state").raw();
    const Tensor x = Tensor::vector<float>({1, 2, 3});
    for (float n = 1; n < 4; ++n) {
      const auto out = session.run_named({{"x", x}}, state);
      EXPECT_TRUE(identical(out.at("negative"), Tensor::vector<float>({-n, -2 * n, -3 * n})));
      if (keeps_old) {
        EXPECT_TRUE(identical(out.at("old"), Tensor::vector<float>({n - 1, 2 * n - 2, 3 * n - 3})));
      }
      EXPECT_TRUE(identical(state.tensor("state"), Tensor::vector<float>({n, 2 * n, 3 * n})));
    }
    EXPECT_EQ(state.tensor("state").raw(), memory);
    EXPECT_EQ(session.memory().state_copy_bytes, keeps_old ? 12u : 0u);
  }
}

TEST(SessionState, TwoThatChangePlaces) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  const ValueId a = g.add_input("a", DType::float32, SymbolicShape{2});
  const ValueId b = g.add_input("b", DType::float32, SymbolicShape{2});
  g.add_output(add(g, "Identity", {b}, "next_a"));
  g.add_output(add(g, "Add", {a, x}, "next_b"));
  g.add_output(add(g, "Relu", {b}, "y"));
  SessionOptions options;
  options.states = {{"a", "next_a"}, {"b", "next_b"}};
  const Session session(g, options);
  State state = session.make_state();
  const Tensor one = Tensor::vector<float>({1, 10});
  for (const float expected : {0.0F, 1.0F, 1.0F, 2.0F, 2.0F, 3.0F}) {
    EXPECT_TRUE(identical(session.run({one}, state).at(0),
                          Tensor::vector<float>({expected, 10 * expected})));
  }
}

TEST(SessionState, Refusals) {
  SessionOptions options;
  options.states = {{"state", "next"}};
  const Session session(counter(false), options);
  const Session other(counter(false), options);
  const Tensor x = Tensor::vector<float>({1, 2, 3});
  State state = session.make_state();
  EXPECT_EQ(message_of([&] { other.run({x}, state); }),
            "invalid_argument: the state was made by another session");
  EXPECT_NE(message_of([&] { session.run({x}); }).find("keeps a state, and none was given"),
            std::string::npos);
  EXPECT_EQ(message_of([&] {
              session.run({x, x}, state);
            }),
            "invalid_argument: 1 input expected (x), got 2");
  EXPECT_EQ(message_of([&] { state.tensor("next"); }), "not_found: no state 'next'");
  RunOptions reentrant;
  reentrant.observe = [&](const std::string&, const Tensor&) { session.run({x}, state); };
  options.observed = {"next"};
  const Session observing(counter(false), options);
  State watched = observing.make_state();
  reentrant.observe = [&](const std::string&, const Tensor&) { observing.run({x}, watched); };
  EXPECT_NE(
      message_of([&] { observing.run({x}, watched, reentrant); }).find("in use by another run"),
      std::string::npos);
  observing.run({x}, watched);  // free again

  const auto declared = [&](std::vector<StatePair> pairs) {
    return message_of([&] {
      SessionOptions wrong;
      wrong.states = std::move(pairs);
      const Session refused(counter(false), wrong);
    });
  };
  EXPECT_EQ(declared({{"nothing", "next"}}),
            "not_found: the graph has no input 'nothing' for a state");
  EXPECT_EQ(declared({{"state", "x"}}), "not_found: the graph has no output 'x' for a state");
  EXPECT_EQ(declared({{"state", "next"}, {"x", "next"}}),
            "invalid_argument: the state 'x' to 'next' shares an end with another state");

  const auto unequal = [&](const char* op, Attributes attributes) {
    return message_of([&] {
      Graph g;
      const ValueId in = g.add_input("state", DType::float32, SymbolicShape{2, 3});
      g.add_output(add(g, op, {in}, "next", std::move(attributes)));
      const Session refused(g, options);
    });
  };
  options.observed.clear();
  EXPECT_EQ(unequal("Transpose", {}),
            "invalid_argument: a state goes in as 'state' float32[2, 3] and comes out as 'next' "
            "float32[3, 2]");
  EXPECT_EQ(unequal("Cast", {{"to", int64_t{10}}}),
            "invalid_argument: a state goes in as 'state' float32[2, 3] and comes out as 'next' "
            "float16[2, 3]");

  const Session open(decoder(), with_states());
  EXPECT_NE(message_of([&] { open.make_state(); }).find("needs a size for 'B'"), std::string::npos);
  State two = open.make_state({{"B", 2}});
  EXPECT_NE(message_of([&] {
              step(open, two, random_tensor({1, 4, 32}, 1), 0, 4);
            }).find("invalid_argument"),
            std::string::npos);
  State full = open.make_state({{"B", 1}});
  EXPECT_NE(
      message_of([&] {
        open.run({random_tensor({1, 4, 32}, 1), lengths({kCapacity - 3}), lengths({4})}, full);
      }).find("do not fit a cache of 1024"),
      std::string::npos);
}

}  // namespace
}  // namespace narrow
