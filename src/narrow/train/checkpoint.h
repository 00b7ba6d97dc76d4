// SPDX-License-Identifier: Apache-2.0
// Where a training run stands, as a safetensors file: another process goes on from
// it to the same bits.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/train/trainer.h"

namespace narrow::train {

struct Checkpoint {
  int64_t epoch = 0;    // epochs that are done
  int64_t samples = 0;  // of the next one that are done
  double loss_sum = 0;  // theirs
  int64_t best_epoch = 0;
  double best_metric = 0;
  std::vector<EpochRecord> epochs;
  std::map<std::string, Tensor> tensors;  // parameters, buffers, grids, optimizer, averages, best
};

void write_checkpoint(const CheckpointPlace& place, const Checkpoint& checkpoint);
/// Throws not_found, corrupt_data, and invalid_argument where the file is of another model or of
/// other options.
Checkpoint read_checkpoint(const CheckpointPlace& place);

}  // namespace narrow::train
