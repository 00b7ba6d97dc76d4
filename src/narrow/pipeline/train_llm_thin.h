// SPDX-License-Identifier: Apache-2.0
// The part of a training job that makes a language model itself smaller before it learns: heads,
// feed-forward neurons and layers removed. Internal to pipeline/.
#pragma once

#include <cstdint>
#include <memory>

#include "narrow/data/dataset.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/report/thin_report.h"
#include "narrow/train/plugin.h"
#include "narrow/train/prune/thin.h"
#include "narrow/train/trainer.h"

namespace narrow {

/// Where rankings by gradients find them.
struct LlmThinSource {
  std::shared_ptr<const Dataset> data;    // sequences
  const train::Plugin* plugin = nullptr;  // may be absent for l1
  train::TrainOptions options;            // of the run
  int64_t context = 0;                    // of a sequence
};

/// The model (all weights float32) without the parts of the lowest scores, as many of each layer.
/// Both are measured. Throws unsupported for what an architecture's files cannot express,
/// invalid_argument where nothing would go or nothing stay, internal where the smaller model
/// computes something else than the one with zeros in those places.
llm::Checkpoint thin_model(const llm::Checkpoint& model, const train::ThinOptions& thin,
                           const LlmThinSource& source, ThinReport& report);

}  // namespace narrow
