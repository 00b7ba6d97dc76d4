// SPDX-License-Identifier: Apache-2.0
// The scale of one group of weights with the least weighted squared rounding error. Internal to
// ptq/rtn/.
#pragma once

#include <span>

#include "narrow/quant/quantize.h"

namespace narrow {

/// `weights` are non-negative, one per value, or empty for equal ones. Symmetric and asymmetric
/// schemes; the scale is not rounded to the scheme's type. Never worse than the grid of the
/// extremes; among equal candidates the first counts, so that the result is the same everywhere.
ScaleZeroPoint search_scale(std::span<const float> values, std::span<const float> weights,
                            const Scheme& scheme);

}  // namespace narrow
