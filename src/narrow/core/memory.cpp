// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace narrow {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

std::optional<uint64_t> number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

/// The number behind `key` at the beginning of a line.
std::optional<uint64_t> field(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return number(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

std::optional<uint64_t> whole_file(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? number(line) : std::nullopt;
}

/// The names of a control group's files, of version 2 or 1.
struct Names {
  const char* limit;
  const char* used;
  const char* files;  // in memory.stat: pages of files
};

/// What a group leaves; kUnknown without a limit.
uint64_t left_in(const fs::path& group, const Names& names) {
  const auto limit = whole_file(group / names.limit);
  const auto used = whole_file(group / names.used);
  if (!limit || !used) return kUnknown;
  const uint64_t files = field(group / "memory.stat", names.files).value_or(0);
  const uint64_t held = *used - std::min(*used, files);
  return *limit - std::min(*limit, held);
}

/// The least that the group `path` and those around it leave.
uint64_t left_in_all(const fs::path& top, std::string_view path, const Names& names) {
  uint64_t least = left_in(top, names);
  fs::path group = top;
  for (const fs::path& part : fs::path(path).relative_path()) {
    if (part == "..") break;  // outside of what this process sees
    group /= part;
    least = std::min(least, left_in(group, names));
  }
  return least;
}

/// Lines of /proc/self/cgroup are number:controllers:path; version 2 has no controllers.
uint64_t left_in_groups(const fs::path& root) {
  constexpr Names kTwo{"memory.max", "memory.current", "file "};
  constexpr Names kOne{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache "};
  const fs::path groups = root / "sys/fs/cgroup";
  std::ifstream file(root / "proc/self/cgroup");
  uint64_t least = kUnknown;
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string_view path = std::string_view(line).substr(second + 1);
    if (controllers == ",,") least = std::min(least, left_in_all(groups, path, kTwo));
    if (controllers.find(",memory,") != std::string::npos) {
      least = std::min(least, left_in_all(groups / "memory", path, kOne));
    }
  }
  return least;
}

}  // namespace

uint64_t available_memory(const fs::path& root) {
  const auto kilobytes = field(root / "proc/meminfo", "MemAvailable:");
  const uint64_t machine = kilobytes && *kilobytes < kUnknown / 1024 ? *kilobytes * 1024 : kUnknown;
  return std::min(machine, left_in_groups(root));
}

std::string format_bytes(uint64_t bytes) {
  constexpr std::array kUnits = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  // 999.95 would be shown as 1000.0 of the smaller unit.
  while (value >= 999.95 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace narrow
