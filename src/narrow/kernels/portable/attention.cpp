// SPDX-License-Identifier: Apache-2.0
// Attention over one stretch of keys, and smooth activations.
#include <bit>

#include "narrow/kernels/float_types.h"
#include "narrow/kernels/portable/kernels.h"

namespace narrow::kernels::portable {
namespace {

#include "narrow/kernels/portable/float_vec.h"
// The bodies follow.
#include "narrow/kernels/attention_body.h"
// Apart, so that the order stays.
#include "narrow/kernels/activate_body.h"

}  // namespace

void attend(const AttendArgs& args) noexcept {
  attend_body(args);
}

void activate(SmoothUnit unit, const float* x, float* y, int64_t count) noexcept {
  activate_body(unit, x, y, count);
}

}  // namespace narrow::kernels::portable
