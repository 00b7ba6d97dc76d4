// SPDX-License-Identifier: Apache-2.0
// Which grids a network is trained on.
#pragma once

#include <string>
#include <string_view>

#include "narrow/graph/graph.h"
#include "narrow/pipeline/train.h"
#include "narrow/ptq/assign.h"

namespace narrow {

/// "w4a4": bits of weights and activations, 2 to 8 each. Throws invalid_argument.
struct QatBits {
  int weights = 8;
  int activations = 8;
};
QatBits parse_qat(std::string_view text);

/// What `narrow quantize` would be told, with the bits of the first and last layer that the job
/// asks for.
QuantizeOptions qat_quantization(const Graph& graph, const TrainJob& job);

/// What comes in and the scores that go out keep 8 bits.
void keep_ends_at_8_bits(const Graph& graph, Assignment& assignment);

std::string qat_fingerprint(const TrainJob& job);

}  // namespace narrow
