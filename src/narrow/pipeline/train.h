// SPDX-License-Identifier: Apache-2.0
// Training as a job: read, clean up, measure, calibrate the grids, train, export the codes that
// were trained, verify, save.
//
//   TrainJob job{.model = "cnn.onnx", .output = "w4a4.onnx", .data = parse_data_spec("mnist:DIR")};
//   job.qat = "w4a4";
//   TrainReport report = run_train(job);
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/report/train_report.h"
#include "narrow/train/trainer.h"

namespace narrow {

struct TrainJob {
  std::filesystem::path model;  // ONNX; empty with `arch`
  std::string arch;             // a built-in description: train/networks.h
  std::filesystem::path output;
  DataSpec data;
  std::optional<DataSpec> eval_data;       // empty: no metric while training
  std::string qat;                         // "w4a4", "w8a8"; empty: float
  int first_last = 0;                      // bits of the first and last layer; 0: those of qat
  std::optional<Granularity> granularity;  // of weights: per_axis, per_tensor
  std::filesystem::path teacher;  // ONNX; empty: the float model itself where the loss asks
  train::TrainOptions options;
  std::filesystem::path checkpoint;  // empty: beside the output
  bool resume = false;
  int64_t checkpoint_steps = 0;  // besides after each epoch; 0: not
  std::filesystem::path log;     // of the epochs, CSV or JSON by its name; may be empty
  std::filesystem::path plot;    // SVG of loss and metric; may be empty
  Progress progress;
  std::function<void(const train::EpochRecord&)> epoch;
};

/// Throws unsupported where libnarrow_train.so cannot be loaded, and Error naming what is wrong
/// with model, data or options.
TrainReport run_train(const TrainJob& job);

}  // namespace narrow
