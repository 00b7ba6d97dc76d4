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

namespace narrow::testing {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(NARROW_SOURCE_DIR) / "tests/goldens/data" / name;
}

/// The folder of real models and data; tests skip where it is absent.
inline std::filesystem::path assets() {
  const char* named = std::getenv("NARROW_ASSETS");
  return named != nullptr ? std::filesystem::path(named)
                          : std::filesystem::path(NARROW_SOURCE_DIR) / "../shared/assets";
}

inline constexpr const char* kFashionMnist = "/usr/share/datasets/fashion-mnist";

/// A folder of its own for one test, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "narrow-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    const auto path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  std::filesystem::path path_;
};

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

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
