// SPDX-License-Identifier: Apache-2.0
// How much a model suffers when one layer alone has few bits or many zeros, as a job. Needs no
// libtorch: weights are changed, nothing is trained.
//
//   SensitivityJob job{.model = "cnn.onnx", .data = parse_data_spec("mnist:DIR")};
//   SensitivityReport r = run_sensitivity(job);
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/report/sensitivity_report.h"

namespace narrow {

enum class SensitivityBy : uint8_t { bits, sparsity };

struct SensitivityJob {
  std::filesystem::path model;  // ONNX, float
  DataSpec data;
  SensitivityBy by = SensitivityBy::bits;
  std::vector<double> levels;       // bits 2..8, or shares below 1; empty: the usual ones
  std::vector<std::string> layers;  // globs on node names; empty: all
  int64_t samples = 1000;           // drawn from the data; 0: all
  uint64_t seed = 1;
  int threads = 0;
  Progress progress;
};

/// Bits: the weights of the layer rounded to symmetric grids per channel, as `narrow quantize`
/// rounds them. Sparsity: the smallest weights of the layer zero. Judged by top1; without labels by
/// the agreement with the model as it is, or the cosine of the outputs where these are no classes.
/// Throws invalid_argument for levels out of range, for a layer that does not exist (the nearest
/// names are listed) and for a model without float layers.
SensitivityReport run_sensitivity(const SensitivityJob& job);

}  // namespace narrow
