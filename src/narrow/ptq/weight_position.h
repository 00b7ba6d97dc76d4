// SPDX-License-Identifier: Apache-2.0
// Where an element of a layer's weights stands: its output channel and the input channel that it
// multiplies, for convolutions (groups too) and products in either orientation. Internal to ptq/.
#pragma once

#include <algorithm>
#include <cstdint>

#include "narrow/ptq/assign.h"

namespace narrow {

class WeightPosition {
 public:
  /// `elements` of the weights, `inputs` channels of the layer's input.
  WeightPosition(const AssignedLayer& layer, int64_t elements, int64_t inputs)
      : by_row_(layer.channel_axis != 0),
        channels_(std::max<int64_t>(1, layer.channels)),
        row_(elements / channels_),
        groups_(layer.groups),
        group_inputs_(groups_ > 0 ? inputs / groups_ : 0),
        fits_(groups_ > 0 && inputs > 0 && inputs % groups_ == 0 && channels_ % groups_ == 0 &&
              row_ % group_inputs_ == 0) {}

  /// Whether the input channels divide the rows; the rest may be called only then.
  bool fits() const { return fits_; }
  int64_t channel(int64_t element) const { return by_row_ ? element % channels_ : element / row_; }
  int64_t input(int64_t element) const {
    const int64_t in_row = by_row_ ? element / channels_ : element % row_;
    const int64_t group = channel(element) / (channels_ / groups_);
    return group * group_inputs_ + in_row / (row_ / group_inputs_);
  }

 private:
  bool by_row_;
  int64_t channels_;
  int64_t row_;
  int64_t groups_;
  int64_t group_inputs_;
  bool fits_;
};

}  // namespace narrow
