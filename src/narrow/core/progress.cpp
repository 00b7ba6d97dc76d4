// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/progress.h"

#include "narrow/core/error.h"

namespace narrow {

void Progress::check_cancelled() const {
  if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) {
    throw Error(ErrorCode::cancelled, "stopped on request");
  }
}

}  // namespace narrow
