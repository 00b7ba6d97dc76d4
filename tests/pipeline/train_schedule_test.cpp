// SPDX-License-Identifier: Apache-2.0
// Schedules of phases: what a file says, and what is wrong with it.
#include "narrow/pipeline/train_schedule.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"
#include "support.h"

namespace narrow {
namespace {

TrainJob base() {
  TrainJob job;
  job.arch = "resnet20";
  job.output = "out.onnx";
  job.data = parse_data_spec("mnist:DIR");
  return job;
}

std::vector<TrainPhase> parse(const std::string& yaml) {
  return parse_schedule(yaml, "s.yaml", base());
}

constexpr const char* kThree =
    "lr: 1e-4\n"
    "batch: 50\n"
    "phases:\n"
    "  - name: prune\n"
    "    epochs: 4\n"
    "    prune: {sparsity: 0.7, method: magnitude, layers: [stage1*, stage2*], except: [fc]}\n"
    "  - name: distil\n"
    "    epochs: 1\n"
    "    lr: 2e-5\n"
    "    loss: distill\n"
    "    teacher: big.onnx\n"
    "    schedule: cosine\n"
    "  - qat: w4a4\n"
    "    low_rank: energy=0.9\n";

TEST(TrainScheduleTest, PhasesTakeWhatTheFileSays) {
  const auto phases = parse(kThree);
  ASSERT_EQ(phases.size(), 3u);
  EXPECT_EQ(phases[0].name, "prune");
  EXPECT_EQ(phases[0].job.options.lr, 1e-4);
  EXPECT_EQ(phases[0].job.options.batch, 50);
  EXPECT_EQ(to_text(phases[0].job.options.prune),
            "magnitude,sparsity=0.7,scope=global,layers=stage1*,layers=stage2*,except=fc");
  EXPECT_EQ(phases[0].job.arch, "resnet20");
  EXPECT_EQ(phases[1].job.options.lr, 2e-5);
  EXPECT_EQ(phases[1].job.teacher, "big.onnx");
  EXPECT_EQ(phases[1].job.options.schedule, train::ScheduleKind::cosine);
  EXPECT_TRUE(phases[1].job.arch.empty());  // goes on from the first
  // What was pruned stays so.
  EXPECT_EQ(to_text(phases[1].job.options.prune), "keep");
  EXPECT_EQ(to_text(phases[2].job.options.prune), "keep");
  EXPECT_EQ(phases[2].name, "phase 3");
  EXPECT_EQ(phases[2].job.qat, "w4a4");
  EXPECT_EQ(to_text(phases[2].job.low_rank), "energy=0.9");
  // Who teaches nobody is not loaded.
  EXPECT_TRUE(
      parse("teacher: big.onnx\nphases: [{epochs: 1}, {loss: mse}]")[0].job.teacher.empty());
  // A stamp depends on what came before.
  EXPECT_NE(phases[0].stamp, phases[1].stamp);
  EXPECT_NE(phases[0].stamp, parse("phases: [{epochs: 4}]")[0].stamp);
  EXPECT_EQ(phases[1].stamp, parse(kThree)[1].stamp);
}

TEST(TrainScheduleTest, MistakesHaveAPlace) {
  const auto refused = [](const std::string& yaml, const char* place, const char* part) {
    try {
      parse(yaml);
      ADD_FAILURE() << "accepted: " << yaml;
    } catch (const Error& e) {
      const std::string text = std::string(e.what()) + " / " + e.hint();
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
      EXPECT_NE(text.find(place), std::string::npos) << text;
      EXPECT_NE(text.find(part), std::string::npos) << text;
    }
  };
  refused("phases:\n  - epoch: 3\n", "s.yaml:2:5", "epochs");
  refused("phases:\n  - epochs: many\n", "s.yaml:2:5", "many");
  refused("phases:\n  - teacher: big.onnx\n", "s.yaml:2:5", "distill");
  refused("teacher: big.onnx\nphases:\n  - epochs: 1\n", "s.yaml", "distill");
  refused("phases:\n  - epochs: [1, 2]\n", "s.yaml:2", "one value");
  refused("phases:\n  - qat: w1a1\n", "s.yaml:2:5", "w1a1");
  refused("phases:\n  - prune: {method: magnitud}\n", "s.yaml:2:5", "magnitude");
  refused("phases:\n  - prune: {method: magnitude, end: 9}\n    epochs: 2\n", "s.yaml:2", "end");
  refused("phases:\n  - freeze: {a: b}\n", "s.yaml:2", "one value");
  refused("phases:\n  - lora: {rang: 3}\n", "s.yaml:2:5", "rank");
  refused("lr: 1\n", "s.yaml:1", "phases");
  refused("phases: []\n", "s.yaml:1", "phases");
  refused("- a\n", "s.yaml:1", "phases");
  refused("phases:\n  - 3\n", "s.yaml:2", "map");
}

TEST(TrainScheduleTest, PlansNameLayers) {
  const SchedulePlan plan = plan_schedule(parse(kThree));
  ASSERT_EQ(plan.phases.size(), 3u);
  EXPECT_EQ(plan.phases[0].layers.size(), 13u);  // six in the first stage, seven in the second
  EXPECT_EQ(plan.phases[0].epochs, 4);
  EXPECT_NE(to_text(plan).find("qat w4a4"), std::string::npos) << to_text(plan);
  try {
    plan_schedule(parse("phases:\n  - prune: {method: level, layers: [stage1.block1.conv3]}\n"));
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(e.hint().find("did you mean 'stage1.block1.conv"), std::string::npos) << e.hint();
    EXPECT_NE(e.context().find("phase 1"), std::string::npos) << e.context();
  }
}

}  // namespace
}  // namespace narrow
