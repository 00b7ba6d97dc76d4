// SPDX-License-Identifier: Apache-2.0
// 16-bit floats as kernels see them: bits with a meaning, and no functions (see kernel_types.h).
#pragma once

#include <cstdint>

namespace narrow::kernels {

struct Float16 {  // IEEE binary16
  uint16_t bits;
};
struct BrainFloat {  // the upper half of a float32
  uint16_t bits;
};

}  // namespace narrow::kernels
