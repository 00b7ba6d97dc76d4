// SPDX-License-Identifier: Apache-2.0
// Fine-tuning of parts: parameters that stay as they are, and low-rank adapters (Hu et al., LoRA:
// Low-Rank Adaptation of Large Language Models, 2021; over quantized weights: Dettmers et al.,
// QLoRA, 2023), read and written as the files of the Python library PEFT.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/train/trainer.h"

namespace narrow {

struct AdapterOptions {
  int64_t rank = 0;  // 0: no adapters
  double alpha = 16;
  std::vector<std::string> layers;  // globs on names of weights; empty: all but embedding, output
  std::filesystem::path input;      // a folder of PEFT to begin with
  /// A folder: the adapters stay beside weights that do not change. Empty: what is written has them
  /// in its weights, rounded as they were while training.
  std::filesystem::path output;

  bool active() const { return rank > 0; }
};

/// "rank=8,alpha=16,layers=GLOB"; layers may be given several times. Throws invalid_argument.
AdapterOptions parse_adapters(std::string_view text);
/// Fills in what the adapters to begin with say. Throws invalid_argument for an output without
/// adapters.
void resolve_adapters(AdapterOptions& options);
/// For fingerprints.
std::string to_text(const AdapterOptions& options);

/// Takes parameters out of the plan. Throws invalid_argument for a glob that matches none, with the
/// nearest names.
void freeze(std::span<const std::string> globs, train::TrainPlan& plan);

/// Adapters for the matrices and kernels that match, beginning as no change; no other parameter is
/// trained. Throws as freeze().
void add_adapters(const AdapterOptions& options, uint64_t seed, train::TrainPlan& plan);

/// w with the adapter added.
Tensor with_adapter(const Tensor& w, const train::Adapter& adapter);

/// Weight -> its name in PEFT's files without ".weight" ("model.layers.0.mlp.up_proj").
using AdapterNames = std::map<std::string, std::string>;

/// adapter_model.safetensors and adapter_config.json in a folder that is not there yet. Kernels of
/// convolutions are [rank, in, h, w] and [out, rank, 1, 1], as PEFT has them.
void write_adapters(const std::filesystem::path& folder, const AdapterOptions& options,
                    const std::map<std::string, train::Adapter>& adapters,
                    const AdapterNames& names, const Graph& graph, const std::string& base);

/// Rank and alpha of such a folder, and its numbers in place of those of the plan. Throws
/// not_found, corrupt_data, and invalid_argument where it is of another model.
AdapterOptions read_adapter_config(const std::filesystem::path& folder);
void read_adapters(const std::filesystem::path& folder, const AdapterNames& names,
                   train::TrainPlan& plan);

}  // namespace narrow
