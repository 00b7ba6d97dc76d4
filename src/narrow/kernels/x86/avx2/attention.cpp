// SPDX-License-Identifier: Apache-2.0
// Attention over one stretch of keys.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/float_types.h"
#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

#include "narrow/kernels/x86/avx2/float_vec.h"
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

}  // namespace narrow::kernels::avx2

#endif
