// SPDX-License-Identifier: Apache-2.0
// Batches: borders, the short last one, fixed sizes; and results folded in order.
#include "narrow/evaluate/runner.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "evaluate/evaluate_testing.h"
#include "narrow/evaluate/ordered_merge.h"

namespace narrow {
namespace {

using namespace testing;

struct Seen {
  int64_t first;
  int64_t samples;
  int64_t batch;
  std::vector<float> inputs;
  std::vector<float> outputs;
  std::vector<int64_t> labels;
};

std::map<int64_t, Seen> run_all(const Graph& graph, const Dataset& data, RunnerOptions options) {
  std::map<int64_t, Seen> seen;
  std::mutex mutex;
  const Session session(graph);
  run_batches(session, data, options, {}, [&](RunBatch& run) {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(run.outputs[0].dims()[0], run.samples);
    const bool fresh = seen.emplace(run.index, Seen{run.first, run.samples, run.batch,
                                                    run.inputs.at("x").to_floats(),
                                                    run.outputs[0].to_floats(), run.labels})
                           .second;
    EXPECT_TRUE(fresh) << "batch " << run.index << " twice";
  });
  return seen;
}

TEST(RunBatches, TheLastBatchIsShort) {
  const RowData data(counting(10, 2), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  const auto seen = run_all(adder(1, 2), data, {.batch = 4});
  ASSERT_EQ(seen.size(), 3u);
  for (const auto& [index, s] : seen) {
    EXPECT_EQ(s.first, 4 * index);
    EXPECT_EQ(s.samples, index == 2 ? 2 : 4);
    EXPECT_EQ(s.batch, s.samples) << "nothing is filled up where the model takes any batch";
    ASSERT_EQ(s.labels.size(), static_cast<size_t>(s.samples));
    for (int64_t i = 0; i < s.samples; ++i) {
      EXPECT_EQ(s.labels[static_cast<size_t>(i)], s.first + i);
      EXPECT_EQ(s.outputs[static_cast<size_t>(2 * i)], static_cast<float>(s.first + i + 1));
    }
  }
}

TEST(RunBatches, AFixedBatchIsFilledWithItsLastSample) {
  const RowData data(counting(10, 2), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  const auto seen = run_all(adder(1, 2, 4), data, {});
  ASSERT_EQ(seen.size(), 3u);
  const Seen& last = seen.at(2);
  EXPECT_EQ(last.samples, 2);
  EXPECT_EQ(last.batch, 4);
  EXPECT_EQ(last.inputs, (std::vector<float>{8, 9, 9, 10, 9, 10, 9, 10}));
  EXPECT_EQ(last.outputs, (std::vector<float>{9, 10, 10, 11}));
  EXPECT_EQ(last.labels, (std::vector<int64_t>{8, 9}));
}

TEST(RunBatches, FewerSamplesThanTheFixedBatch) {
  const auto seen = run_all(adder(0, 1, 8), RowData(counting(1, 1)), {});
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen.at(0).batch, 8);
  EXPECT_EQ(seen.at(0).outputs, std::vector<float>{0});
}

TEST(RunBatches, ModelAndDataInsistOnTheirBatch) {
  const RowData four(counting(8, 2), {}, 4);
  EXPECT_EQ(run_all(adder(1, 2), four, {}).size(), 2u);
  EXPECT_EQ(run_all(adder(1, 2), four, {.batch = 4}).size(), 2u);
  expect_in(refusal([&] { run_all(adder(1, 2), four, {.batch = 3}); }),
            "a batch of 3 is not possible: model or data have 4");
  const RowData any(counting(8, 2));
  expect_in(refusal([&] { run_all(adder(1, 2, 2), any, {.batch = 8}); }), "model or data have 2");
}

TEST(RunBatches, ResultsDoNotDependOnThreads) {
  const RowData data(counting(101, 3));
  const auto one = run_all(adder(0.25f, 3), data, {.batch = 7, .threads = 1});
  for (const int threads : {2, 3, 8}) {
    const auto many = run_all(adder(0.25f, 3), data, {.batch = 7, .threads = threads});
    ASSERT_EQ(many.size(), one.size());
    for (const auto& [index, s] : many) EXPECT_EQ(s.outputs, one.at(index).outputs);
  }
}

TEST(RunBatches, EmptyAndForeignDataAreRefused) {
  const RowData empty(Tensor(DType::float32, {0, 2}));
  expect_in(refusal([&] { run_all(adder(1, 2), empty, {}); }), "the data set is empty");
  expect_in(refusal([&] { run_all(adder(1, 2, 4), empty, {}); }), "the data set is empty");
  const RowData data(counting(3, 2));
  const Session other(adder(1, 2, 0, "image"));
  expect_in(refusal([&] { run_batches(other, data, {}, {}, [](RunBatch&) {}); }),
            "the data have nothing for the model's input 'image'");
  expect_in(refusal([&] { run_batches(other, data, {.batch = 2}, {}, [](RunBatch&) {}); }),
            "'image'");
}

TEST(RunBatches, ErrorsAndCancellingEndTheRun) {
  const RowData data(counting(64, 2));
  const Session session(adder(1, 2));
  EXPECT_EQ(refusal(
                [&] {
                  run_batches(session, data, {.batch = 1}, {}, [](RunBatch& run) {
                    if (run.index == 5) throw Error(ErrorCode::numeric_failure, "five");
                  });
                },
                ErrorCode::numeric_failure),
            "five | ");
  std::atomic<bool> cancel{false};
  RunnerOptions options{.batch = 1, .threads = 1};
  options.progress = Progress([&](const ProgressEvent& e) { cancel = e.done >= 10; }, &cancel);
  int64_t done = 0;
  EXPECT_NE(refusal([&] { run_batches(session, data, options, {}, [&](RunBatch&) { ++done; }); },
                    ErrorCode::cancelled),
            "accepted");
  EXPECT_EQ(done, 10);
}

TEST(ChooseBatch, DependsOnWhatARunHolds) {
  const RowData small(counting(2, 4));
  EXPECT_EQ(choose_batch(Session(adder(1, 4)), small), 32);
  EXPECT_EQ(choose_batch(Session(adder(1, 4, 5)), small), 5);
  // Two values of 4 MiB each between input and result.
  constexpr int64_t kWide = int64_t{1} << 20;
  Graph g = adder(1, kWide);
  const ValueId twice = g.add_initializer("two", Tensor::scalar(2.0f));
  const NodeId mul = g.add_node("Mul", {g.inputs()[0], twice}, {"m"});
  const NodeId cat = g.add_node("Concat", {g.outputs()[0], g.node(mul).outputs[0]}, {"both"},
                                {{"axis", int64_t{1}}});
  const ValueId axes = g.add_initializer("axes", Tensor::vector<int64_t>({1}));
  const NodeId max = g.add_node("ReduceMax", {g.node(cat).outputs[0], axes}, {"max"});
  g.replace_output(g.outputs()[0], g.node(max).outputs[0]);
  infer_shapes(g);
  const RowData large(counting(2, kWide));
  const Session session(g);
  const int64_t reused = choose_batch(session, large);
  const int64_t kept = choose_batch(session, large, Activations::kept);
  EXPECT_GE(kept, 1);
  EXPECT_LE(kept, reused);
  EXPECT_LE(reused, kRunBytes / (int64_t{4} << 20));
}

TEST(CutBatch, CutsOnlyWhatHasTheBatch) {
  const Tensor t = counting(4, 2);
  EXPECT_EQ(cut_batch(t, 4, 3).to_floats(), (std::vector<float>{0, 1, 1, 2, 2, 3}));
  EXPECT_EQ(cut_batch(t, 4, 4).dims(), (Dims{4, 2}));
  EXPECT_EQ(cut_batch(t, 8, 3).dims(), (Dims{4, 2}));
  EXPECT_EQ(cut_batch(Tensor::scalar(1.0f), 4, 3).dims(), Dims{});
  const Tensor packed = Tensor::from_ints(std::vector<int64_t>{1, 2, 3, 4}, DType::int4, {4, 1});
  EXPECT_EQ(cut_batch(packed, 4, 3).dims(), (Dims{4, 1}));
}

TEST(DataHints, AreTheModelsInputs) {
  const DataHints hints = data_hints(adder(1, 7));
  ASSERT_EQ(hints.inputs.size(), 1u);
  EXPECT_EQ(hints.inputs[0].name, "x");
  EXPECT_EQ(hints.inputs[0].dims, (Dims{-1, 7}));
}

TEST(OrderedMerge, FoldsInTheOrderOfTheIndices) {
  std::vector<int64_t> order{0, 1, 2, 3, 4};
  do {
    std::vector<int64_t> folded;
    OrderedMerge<int64_t> merge([&](int64_t& part) { folded.push_back(part); });
    for (size_t i = 0; i < order.size(); ++i) {
      merge.add(order[i], order[i]);
      // As far as there is no gap, and no further.
      int64_t next = 0;
      while (std::count(order.begin(), order.begin() + static_cast<int64_t>(i) + 1, next) > 0) {
        ++next;
      }
      EXPECT_EQ(folded.size(), static_cast<size_t>(next));
    }
    EXPECT_TRUE(std::is_sorted(folded.begin(), folded.end()));
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(OrderedMerge, SumsAreTheSameFromAnyThread) {
  const auto sum = [](int threads) {
    double total = 0;
    OrderedMerge<double> merge([&](double& part) { total += part; });
    std::atomic<int64_t> next{0};
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&] {
        for (int64_t i = next++; i < 500; i = next++) {
          merge.add(i, 1.0 / static_cast<double>(i + 1) * (i % 2 == 0 ? 1e9 : 1e-9));
        }
      });
    }
    for (std::thread& w : workers) w.join();
    return total;
  };
  const double one = sum(1);
  EXPECT_EQ(sum(2), one);
  EXPECT_EQ(sum(4), one);
}

}  // namespace
}  // namespace narrow
