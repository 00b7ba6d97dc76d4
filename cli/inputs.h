// SPDX-License-Identifier: Apache-2.0
// Inputs of a model from files: --input and --inputs of `run` and `bench`.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"

namespace narrow::cli {

/// Each text is FILE.npz (arrays named as the inputs), NAME=FILE.npy, NAME=FILE.npz (one array, or
/// one named NAME), or FILE.npy for a model with one input. Throws invalid_argument for what the
/// model does not have, what is given twice and what is missing.
std::map<std::string, Tensor> read_inputs(const std::vector<std::string>& texts,
                                          const Graph& graph);
/// The .pb tensors of a folder: by the names stored in them, else input_0.pb, input_1.pb ... by
/// position.
std::map<std::string, Tensor> read_input_folder(const std::string& folder, const Graph& graph);

}  // namespace narrow::cli
