// SPDX-License-Identifier: Apache-2.0
// Attention over one stretch of keys.
#include <bit>

#include "narrow/kernels/float_types.h"
#include "narrow/kernels/portable/kernels.h"

namespace narrow::kernels::portable {
namespace {

#include "narrow/kernels/portable/float_vec.h"
// The body follows.
#include "narrow/kernels/attention_body.h"

}  // namespace

void attend(const AttendArgs& args) noexcept {
  if (args.half != 0) {
    attend_body<Float16>(args);
  } else {
    attend_body<float>(args);
  }
}

}  // namespace narrow::kernels::portable
