// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/encode_offset_body.h"
