// SPDX-License-Identifier: Apache-2.0
// Rounding weights shifts the mean output of each channel; the bias takes the shift back:
//   b += E[y_float] - E[y_quantized]
// fast: (W - W_rounded) E[x] from the means of the layer's inputs, borders of padding ignored.
// empirical: measured outputs, layer after layer, so that what earlier layers did counts too.
#pragma once

#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/moments.h"
#include "narrow/ptq/targets.h"

namespace narrow {

/// The shift of one layer by output channel; all zeros if the weights are exact, or if the moments
/// do not fit the layer. Sums in double.
std::vector<double> rounding_shift(const Graph& graph, const AssignedLayer& layer,
                                   const QuantizedTensor& weights, const ChannelMoments& moments);

/// Adds the shift to the layer's bias, which is created where there is none (the assignment then
/// names it). `graph` is the float graph that the assignment was made for. Throws numeric_failure
/// for a shift that is not finite.
void shift_bias(Graph& graph, AssignedLayer& layer, const std::vector<double>& shift,
                BiasForm form);

}  // namespace narrow
