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
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/pipeline/train_adapters.h"
#include "narrow/report/train_report.h"
#include "narrow/train/prune/low_rank.h"
#include "narrow/train/prune/thin.h"
#include "narrow/train/trainer.h"

namespace narrow {

struct TrainJob {
  /// ONNX; the folder of a Hugging Face model or a GGUF file (train_llm.h); empty with `arch`.
  std::filesystem::path model;
  std::string arch;                 // a built-in description: train/networks.h, train_llm_arch.h
  std::filesystem::path tokenizer;  // of a language model from scratch
  std::filesystem::path output;
  DataSpec data;
  std::optional<DataSpec> eval_data;  // empty: no metric while training
  std::vector<std::string> freeze;    // globs on parameters
  AdapterOptions adapters;
  std::string qat;                         // "w4a4", "w8a8"; empty: float
  int first_last = 0;                      // bits of the first and last layer; 0: those of qat
  std::optional<Granularity> granularity;  // of weights: per_axis, per_tensor
  std::filesystem::path teacher;   // ONNX; empty: the float model itself where the loss asks
  train::ThinOptions thin;         // filters removed before training
  train::LowRankOptions low_rank;  // layers factored before training
  train::TrainOptions options;
  std::filesystem::path checkpoint;  // empty: beside the output
  bool resume = false;
  int64_t checkpoint_steps = 0;  // besides after each epoch; 0: not
  bool keep_norms = false;       // in a float model that is written: batch norms are not folded
  std::map<std::string, std::string> metadata;  // of the model that is written, besides its own
  std::filesystem::path log;   // of the epochs, CSV or JSON by its name; may be empty
  std::filesystem::path plot;  // SVG of loss and metric; may be empty
  Progress progress;
  std::function<void(const train::EpochRecord&)> epoch;
};

/// What of the options decides about the result, for fingerprints.
std::string options_text(const TrainJob& job, int ranks = 1);
/// Writes the log of the job, a line for each epoch, and tells the job. The job must outlive it.
/// `before`: the epochs of the run that is resumed.
std::function<void(const train::EpochRecord&)> epoch_log(
    const TrainJob& job, std::vector<train::EpochRecord> before = {});
/// Where the state of a run is kept.
std::filesystem::path checkpoint_of(const TrainJob& job);

/// Throws unsupported where libnarrow_train.so cannot be loaded, and Error naming what is wrong
/// with model, data or options.
TrainReport run_train(const TrainJob& job);

}  // namespace narrow
