// SPDX-License-Identifier: Apache-2.0
// Training of language models: text in packed sequences through the graph that llm/ builds, in
// float or on the grids of train_llm_grids.h, towards the next tokens or a teacher's distributions.
// What is written is what was trained: a GGUF file has the very codes.
#pragma once

#include "narrow/pipeline/train.h"

namespace narrow {

/// The model is the folder of a Hugging Face model or a GGUF file, the data are of kind "text"
/// (train_text.h), the output is .gguf, .onnx or a folder. The metric on the eval data: perplexity,
/// or with losses to a teacher the mean KL divergence from it. Throws as run_train().
TrainReport run_llm_train(const TrainJob& job);

}  // namespace narrow
