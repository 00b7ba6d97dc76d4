// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "narrow/core/error.h"

namespace narrow::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "libnarrow_train.so";
constexpr const char* kHint =
    "training needs libtorch: install libtorch-dev (Debian, Ubuntu) and build narrow again, or "
    "name "
    "the library in NARROW_TRAIN_LIBRARY";

std::vector<std::string> candidates() {
  const char* named = std::getenv("NARROW_TRAIN_LIBRARY");
  if (named != nullptr && *named != '\0') return {named};
  std::vector<std::string> paths;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  if (!ignored) {
    const fs::path folder = program.parent_path();
    paths.push_back((folder / kName).string());
    paths.push_back((folder.parent_path() / "lib" / kName).string());
  }
  paths.emplace_back(kName);  // the system's places
  return paths;
}

const Plugin& open() {
  std::string why;
  for (const std::string& path : candidates()) {
    std::error_code ignored;
    if (path.find('/') != std::string::npos && !fs::exists(path, ignored)) continue;
    void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* reason = ::dlerror();
      if (why.empty()) why = reason;  // of the place that comes first: a later one may be a guess
      continue;
    }
    const auto get = reinterpret_cast<PluginFunction>(::dlsym(handle, kPluginSymbol));
    const Plugin* plugin = get != nullptr ? get() : nullptr;
    if (plugin == nullptr || plugin->version != kPluginVersion) {
      throw Error(ErrorCode::unsupported, fmt::format("{} is of another build of narrow", path),
                  "build both from the same sources");
    }
    return *plugin;
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("{} cannot be loaded{}{}", kName, why.empty() ? "" : ": ", why), kHint);
}

}  // namespace

const Plugin& load_plugin() {
  static const Plugin& plugin = open();
  return plugin;
}

}  // namespace narrow::train
