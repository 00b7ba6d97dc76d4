// SPDX-License-Identifier: Apache-2.0
// Attention over one stretch of keys, and smooth activations.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/float_types.h"
#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

#include "narrow/kernels/x86/avx512_vnni/float_vec.h"
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

}  // namespace narrow::kernels::avx512_vnni

#endif
