// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/op_impl.h"

namespace narrow {

const char* to_string(Layout layout) {
  return layout == Layout::plain ? "plain" : "channels_last";
}

}  // namespace narrow
