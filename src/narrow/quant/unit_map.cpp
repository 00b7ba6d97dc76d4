// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/unit_map.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow {

UnitMap::UnitMap(std::span<const int64_t> dims, const Scheme& scheme) {
  switch (scheme.granularity) {
    case Granularity::per_tensor:
      inner = num_elements(dims);
      break;
    case Granularity::per_axis:
    case Granularity::per_group: {
      const auto axis = static_cast<size_t>(normalize_axis(scheme.axis, dims.size()));
      outer = num_elements(dims, 0, axis);
      length = dims[axis];
      inner = num_elements(dims, axis + 1, dims.size());
      if (scheme.granularity == Granularity::per_axis) {
        group_step = 1;
        units = length;
        break;
      }
      group = std::clamp<int64_t>(scheme.group_size, 1, std::max<int64_t>(length, 1));
      const int64_t groups = (length + group - 1) / group;
      group_step = inner;
      outer_step = groups * inner;
      inner_step = 1;
      units = outer * outer_step;
      break;
    }
    case Granularity::per_token:
      if (dims.empty()) {
        throw Error(ErrorCode::invalid_argument, "per_token needs a tensor with dimensions");
      }
      outer = num_elements(dims, 0, dims.size() - 1);
      length = dims.back();
      outer_step = 1;
      units = outer;
      break;
  }
}

}  // namespace narrow
