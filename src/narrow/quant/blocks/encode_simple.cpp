// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/encode_simple_body.h"
