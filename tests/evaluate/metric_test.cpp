// SPDX-License-Identifier: Apache-2.0
// Metrics on outputs that are known, and what is refused.
#include <cmath>
#include <limits>

#include "evaluate/evaluate_testing.h"
#include "narrow/evaluate/evaluate.h"

namespace narrow {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Metric, NamesReadBack) {
  for (const Metric m :
       {Metric::top1, Metric::top5, Metric::mse, Metric::agreement, Metric::cosine}) {
    EXPECT_EQ(metric_from_string(to_string(m)), m);
  }
  EXPECT_FALSE(metric_from_string("top2").has_value());
  EXPECT_FALSE(metric_from_string("").has_value());
}

TEST(WilsonInterval, EqualsTheRootsOfItsDefinition) {
  struct Case {
    int64_t hits;
    int64_t samples;
    double low;
    double high;
  };
  // Roots q of (p - q)^2 = z^2 q (1 - q) / n, computed with 40 digits.
  for (const Case& c : {Case{0, 10, 0, 27.753279986},
                        {10, 10, 72.246720014, 100},
                        {50, 100, 40.383153037, 59.616846963},
                        {1, 3, 6.149194472, 79.23403992},
                        {9232, 10000, 91.781709256, 92.825789122},
                        {1, 1, 20.654931438, 100}}) {
    const Interval i = wilson_interval(c.hits, c.samples);
    EXPECT_NEAR(i.low, c.low, 1e-8) << c.hits << " of " << c.samples;
    EXPECT_NEAR(i.high, c.high, 1e-8) << c.hits << " of " << c.samples;
  }
  EXPECT_EQ(wilson_interval(0, 0).low, 0);
  EXPECT_EQ(wilson_interval(0, 0).high, 100);
}

TEST(CountHits, EarlierClassesStandFirstAmongEquals) {
  const Tensor y = Tensor::from<float>({5, 5, 1, 5, 0, 5, 1, 1}, {2, 4});
  EXPECT_EQ(count_hits(y, std::vector<int64_t>{0, 1}, 1), 2);
  EXPECT_EQ(count_hits(y, std::vector<int64_t>{1, 2}, 1), 0);
  EXPECT_EQ(count_hits(y, std::vector<int64_t>{1, 2}, 2), 2);
  EXPECT_EQ(count_hits(y, std::vector<int64_t>{3, 3}, 2), 0);
  EXPECT_EQ(count_hits(y, std::vector<int64_t>{2, 0}, 3), 0);
  EXPECT_EQ(count_hits(y, std::vector<int64_t>{2, 0}, 5), 2) << "more places than classes";
  EXPECT_EQ(argmax_per_sample(y), (std::vector<int64_t>{0, 1}));
}

TEST(CountHits, RefusesWhatCannotBeCounted) {
  const Tensor y = counting(2, 3);
  expect_in(refusal([&] {
              count_hits(y, std::vector<int64_t>{0, 3}, 1, 40);
            }),
            "sample 41 has label 3, the model 3 classes (0 to 2)");
  expect_in(refusal([&] { count_hits(y, std::vector<int64_t>{-1}, 1); }), "label -1");
  expect_in(refusal([&] { count_hits(y, std::vector<int64_t>{0, 1, 2}, 1); }), "3 labels");
  const Tensor bad = Tensor::from<float>({0, 1, 2, kNan}, {2, 2});
  expect_in(refusal(
                [&] {
                  count_hits(bad, std::vector<int64_t>{0, 1}, 1, 40);
                },
                ErrorCode::numeric_failure),
            "sample 41: the model's output holds NaN");
  expect_in(refusal([&] { argmax_per_sample(bad, 40); }, ErrorCode::numeric_failure), "sample 41");
  EXPECT_EQ(count_hits(bad, std::vector<int64_t>{1}, 1), 1) << "only what is counted is looked at";
  for (const Dims& dims : {Dims{}, Dims{2}, Dims{2, 1}, Dims{2, 3, 2}}) {
    expect_in(refusal([&] { argmax_per_sample(Tensor(DType::float32, dims)); }),
              "is no list of class scores");
  }
  EXPECT_TRUE(is_classification({5, 2}));
  EXPECT_TRUE(is_classification({5, 2, 1, 1}));
}

/// Scores whose best class is `best`, for 6 classes; the others follow in the order of their
/// number.
Tensor scores(const std::vector<int64_t>& best) {
  std::vector<float> values;
  for (const int64_t b : best) {
    for (int64_t c = 0; c < 6; ++c) values.push_back(c == b ? 10.0f : static_cast<float>(5 - c));
  }
  return Tensor::from(values, {static_cast<int64_t>(best.size()), 6});
}

TEST(Evaluate, TopKCountsEverySampleOnce) {
  // 7 samples in fixed batches of 4: the copies that fill the last batch do not count.
  const RowData data(scores({0, 1, 2, 3, 4, 5, 5}), {0, 1, 2, 0, 0, 4, 4});
  for (const int64_t batch : {int64_t{0}, int64_t{4}}) {
    const Session session(adder(1, 6, batch));
    const MetricResult top1 = evaluate(session, data, {.metric = Metric::top1});
    EXPECT_EQ(top1.samples, 7);
    EXPECT_DOUBLE_EQ(top1.value, 300.0 / 7);
    const Interval interval = wilson_interval(3, 7);
    EXPECT_EQ(*top1.low, interval.low);
    EXPECT_EQ(*top1.high, interval.high);
    // Behind 5 come 0, 1, 2, 3: class 4 is the sixth.
    EXPECT_DOUBLE_EQ(evaluate(session, data, {.metric = Metric::top5}).value, 500.0 / 7);
  }
}

TEST(Evaluate, BatchAndThreadsChangeNothing) {
  const RowData data(scores({0, 1, 2, 3, 4, 5, 5}), {0, 1, 2, 0, 0, 4, 4});
  const Session session(adder(1, 6));
  const Session reference(adder(0.75f, 6));
  for (const Metric metric : {Metric::top1, Metric::mse, Metric::cosine}) {
    const auto value = [&](int64_t batch, int threads) {
      return evaluate(session, data, {.metric = metric, .batch = batch, .threads = threads},
                      &reference)
          .value;
    };
    for (const int64_t batch : {1, 2, 3, 7, 100}) {
      EXPECT_EQ(value(batch, 1), value(batch, 3)) << batch;
      EXPECT_NEAR(value(batch, 1), value(7, 1), 1e-12);
    }
  }
}

TEST(Evaluate, AgainstAReference) {
  const RowData data(scores({0, 1, 2, 3}));
  const Session session(adder(1, 6));
  const Session shifted(adder(3, 6));
  const MetricResult agreement = evaluate(session, data, {.metric = Metric::agreement}, &shifted);
  EXPECT_EQ(agreement.value, 100);
  EXPECT_TRUE(agreement.low.has_value());
  const MetricResult mse = evaluate(session, data, {.metric = Metric::mse}, &shifted);
  EXPECT_DOUBLE_EQ(mse.value, 4);
  EXPECT_FALSE(mse.low.has_value()) << "an interval is one of percentages";
  EXPECT_EQ(evaluate(session, data, {.metric = Metric::cosine}, &session).value, 1);
  EXPECT_LT(evaluate(session, data, {.metric = Metric::cosine}, &shifted).value, 1);
  // Sums below 0 are cut off: all scores of sample 0 are equal then.
  const Session flat(adder(-20, 6));
  EXPECT_EQ(evaluate(flat, data, {.metric = Metric::agreement}, &session).value, 25);
}

TEST(Evaluate, MseToTheLabels) {
  const RowData data(Tensor::from<float>({1, 2, 3}, {3, 1}), {2, 2, 7});
  // Outputs 2, 3, 4 against 2, 2, 7.
  EXPECT_DOUBLE_EQ(evaluate(Session(adder(1, 1)), data, {.metric = Metric::mse}).value,
                   (0.0 + 1.0 + 9.0) / 3);
  const RowData wide(counting(3, 2), {1, 2, 3});
  expect_in(refusal([&] { evaluate(Session(adder(1, 2)), wide, {.metric = Metric::mse}); }),
            "not one number per sample");
}

TEST(Evaluate, Refusals) {
  const Session session(adder(1, 6));
  const RowData unlabelled(scores({0, 1}));
  const RowData labelled(scores({0, 1}), {0, 9});
  for (const Metric m : {Metric::top1, Metric::top5, Metric::mse}) {
    expect_in(refusal([&] { evaluate(session, unlabelled, {.metric = m}); }), "needs labels");
  }
  for (const Metric m : {Metric::agreement, Metric::cosine}) {
    expect_in(refusal([&] { evaluate(session, unlabelled, {.metric = m}); }),
              "compares with a reference model");
  }
  expect_in(refusal([&] { evaluate(session, labelled, {}); }), "sample 1 has label 9");
  expect_in(refusal([&] { evaluate(session, labelled, {.output = "z"}); }), "no output 'z'");
  expect_in(refusal([&] { evaluate(session, labelled, {.output = "y"}); }), "label 9");
  const RowData empty(Tensor(DType::float32, {0, 6}), {0});
  expect_in(refusal([&] { evaluate(session, empty, {}); }), "the data set is empty");
  const RowData fine(scores({0, 1}), {0, 1});
  EXPECT_EQ(evaluate(session, fine, {.batch = -1}).value, 100) << "as if none was given";
}

TEST(Evaluate, NanNamesTheSampleOfTheDataSet) {
  std::vector<float> values = scores(std::vector<int64_t>(50, 1)).to_floats();
  values[41 * 6 + 2] = kNan;
  const RowData data(Tensor::from(values, {50, 6}), std::vector<int64_t>(50, 1));
  const Session session(adder(1, 6));
  for (const Metric m : {Metric::top1, Metric::top5, Metric::agreement}) {
    expect_in(refusal([&] { evaluate(session, data, {.metric = m, .batch = 8}, &session); },
                      ErrorCode::numeric_failure),
              "sample 41: the model's output holds NaN");
  }
  // The same NaN on both sides is no difference; one side's is an infinite one.
  EXPECT_EQ(evaluate(session, data, {.metric = Metric::mse}, &session).value, 0);
  const RowData clean(scores({1, 1}), {1, 1});
  EXPECT_EQ(evaluate(session, clean, {.metric = Metric::top1}).value, 100);
}

}  // namespace
}  // namespace narrow
