// SPDX-License-Identifier: Apache-2.0
// What the tests of libnarrow_train.so share. They are skipped where it was not built.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "narrow/core/rng.h"
#include "narrow/core/tensor.h"
#include "narrow/train/library.h"
#include "support.h"

namespace narrow::train {

inline const Plugin* plugin() {
#ifdef NARROW_TRAIN_PLUGIN
  static const Plugin& loaded = [&]() -> const Plugin& {
    setenv("NARROW_TRAIN_LIBRARY", NARROW_TRAIN_PLUGIN, 1);
    return load_plugin();
  }();
  return &loaded;
#else
  return nullptr;
#endif
}

class PluginTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (plugin() == nullptr) GTEST_SKIP() << "libtorch was not there when this was built";
  }
};

inline Tensor noise(const Dims& dims, uint64_t seed) {
  Tensor x(DType::float32, dims);
  Rng rng(seed);
  for (float& v : x.mutable_data<float>()) v = static_cast<float>(rng.normal());
  return x;
}

}  // namespace narrow::train
