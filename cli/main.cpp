// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "narrow/core/version.h"

int main() {
  std::printf("narrow %s\n", narrow::kVersion);
  return 0;
}
