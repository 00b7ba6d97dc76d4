// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#define NARROW_BLOCKS_ISA avx2
#include "narrow/quant/blocks/encode_symmetric_body.h"
#endif
