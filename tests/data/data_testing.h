// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of data/: golden files, folders that vanish, the error that a call throws.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "support.h"

namespace narrow::testing {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(NARROW_SOURCE_DIR) / "tests/goldens/data" / name;
}

inline constexpr const char* kFashionMnist = "/usr/share/datasets/fashion-mnist";

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// The narrow::Error that `call` throws; the test fails if it throws none.
inline Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::internal, "nothing was thrown");
}

inline void expect_contains(const std::string& text, const std::string& piece) {
  EXPECT_NE(text.find(piece), std::string::npos) << '"' << text << "\" lacks \"" << piece << '"';
}

}  // namespace narrow::testing
