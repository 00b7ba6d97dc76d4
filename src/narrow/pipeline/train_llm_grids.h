// SPDX-License-Identifier: Apache-2.0
// The grids on which a language model's weights are trained, and trained weights as the blocks of a
// GGUF file.
//
//   wN[gG]    N = 2..8 bits, symmetric, a binary16 scale for G = 32 (64, 128, 256) weights of a
//             row, which is learned. Up to 4 bits its values are those of Q4_0, from 5 bits on
//             those of Q8_0, whose blocks of 32 repeat the scale of a larger group. The embedding
//             and the output matrix have 8 bits.
//   a format  of GGUF files ("q4_k_m", "q8_0"; a block type such as "q4_k" means its plain format):
//             each step rounds to the blocks that the file will have. Which tensor gets which type
//             is said by ptq/mixtures.h.
//   a8        what enters the products is rounded to 8 bits in blocks of 32 for each token, as the
//             runtime does it
//   kv8       keys and values likewise
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "narrow/graph/graph.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/ptq/mixtures.h"
#include "narrow/train/trainer.h"

namespace narrow {

struct LlmGrids {
  int bits = 0;                        // of wN; 0: another form
  int64_t group = 32;                  // of wN
  const FileFormat* format = nullptr;  // of a format
  bool a8 = false;
  bool kv8 = false;
};

/// "w4", "w3g32a8", "w4a8+kv8", "q4_k_m", "q4_0+a8". Throws invalid_argument.
LlmGrids parse_llm_grids(std::string_view text);

/// The graph of a model whose weights are float32, all of them parameters.
train::TrainPlan plan_of(const llm::Checkpoint& model, int64_t context);

/// Adds grids for the weights of `graph` (that of `model`, all weights float32) to the plan. Throws
/// invalid_argument naming every matrix whose rows are no whole groups.
void add_grids(const LlmGrids& grids, const llm::Checkpoint& model, train::TrainPlan& plan);

/// Weights of a state as blocks: equal, value for value, to what training computed with.
llm::TensorInMemory as_blocks(const Tensor& weights, const QuantParams& params);
llm::TensorInMemory as_blocks(const Tensor& weights, BlockType type);

}  // namespace narrow
