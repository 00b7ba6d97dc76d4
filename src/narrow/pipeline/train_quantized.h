// SPDX-License-Identifier: Apache-2.0
// Training of a model that is quantized already, on the grids of its file.
#pragma once

#include <map>
#include <string>

#include "narrow/pipeline/train.h"
#include "narrow/ptq/lift.h"

namespace narrow {

/// Whether layers have codes in place of float numbers.
bool is_quantized(const Graph& graph);

/// Takes the model apart. Throws unsupported for forms of quantization that have no grids to train
/// on, and for what the job asks beside that needs a float model.
LiftedModel open_quantized(const Graph& graph, const TrainJob& job);

/// The file's grids, and its weights as parameters.
void add_file_grids(const LiftedModel& lifted, train::TrainPlan& plan);

/// Once it is known what learns: weights that do not keep their grids, and with that their codes;
/// with adapters beside the codes all grids stay, as the file does.
void fix_file_grids(train::TrainPlan& plan, train::QatOptions& options);

/// The file with what was trained; adapters are not looked at.
Graph on_file_grids(const LiftedModel& lifted, const train::TrainState& state);

/// A quantized graph whose weights have adapters beside their codes: these weights in float.
Graph beside_codes(Graph quantized, const std::map<std::string, train::Adapter>& adapters);

/// "on the grids of the file: 4 weights (w8), 7 values".
std::string describe_grids(const LiftedModel& lifted);

}  // namespace narrow
