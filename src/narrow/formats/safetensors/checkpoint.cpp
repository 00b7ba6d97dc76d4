// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/formats/safetensors/safetensors.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kMaxIndexBytes = size_t{1} << 26;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

/// name -> shard; names once each.
std::map<std::string, std::string> weight_map(const std::string& text) {
  std::set<std::string> names;
  const auto once = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::key && depth == 2 &&
        !names.insert(value.get<std::string>()).second) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("'{}' stands there twice", value.get<std::string>()));
    }
    return true;
  };
  Json json;
  try {
    json = Json::parse(text, once);
  } catch (const Json::exception&) {
    throw Error(ErrorCode::corrupt_data, "it is not JSON");
  }
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    throw Error(ErrorCode::corrupt_data, "it has no object 'weight_map'");
  }
  std::map<std::string, std::string> map;
  for (const auto& [name, shard] : json["weight_map"].items()) {
    const std::string file = shard.is_string() ? shard.get<std::string>() : std::string();
    // A plain name: an index does not reach out of its folder.
    if (file.empty() || fs::path(file).filename() != file || file == "." || file == "..") {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("the shard of '{}' is not the name of a file", name));
    }
    map[name] = file;
  }
  return map;
}

std::vector<fs::path> safetensors_files(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

SafetensorsCheckpoint SafetensorsCheckpoint::open(const fs::path& file_or_folder) {
  SafetensorsCheckpoint c;
  std::error_code ignored;
  if (!fs::is_directory(file_or_folder, ignored)) {
    c.add_single(file_or_folder);
    return c;
  }
  const fs::path index = file_or_folder / kIndex;
  if (fs::exists(file_or_folder / kSingle, ignored)) {
    c.add_single(file_or_folder / kSingle);
  } else if (fs::exists(index, ignored)) {
    c.read_index(file_or_folder, index);
  } else {
    const std::vector<fs::path> files = safetensors_files(file_or_folder);
    if (files.size() != 1) {
      throw Error(ErrorCode::not_found,
                  fmt::format("'{}' has neither {} nor {}, and {} other .safetensors files",
                              file_or_folder.string(), kSingle, kIndex, files.size()),
                  "name one file, or add the index");
    }
    c.add_single(files[0]);
  }
  return c;
}

void SafetensorsCheckpoint::add_single(const fs::path& path) {
  files_.push_back(SafetensorsFile::open(path));
  paths_.push_back(path);
  for (const SafetensorsEntry& e : files_[0].entries()) where_[e.name] = 0;
}

void SafetensorsCheckpoint::read_index(const fs::path& folder, const fs::path& index) {
  try {
    std::map<std::string, size_t> shards;
    for (const auto& [name, shard] : weight_map(read_text(index, kMaxIndexBytes))) {
      const auto [it, added] = shards.emplace(shard, files_.size());
      if (added) {
        paths_.push_back(folder / shard);
        files_.push_back(SafetensorsFile::open(paths_.back()));
      }
      if (files_[it->second].find(name) == nullptr) {
        throw Error(ErrorCode::corrupt_data,
                    fmt::format("tensor '{}' is not in its shard '{}'", name, shard),
                    "fetch the checkpoint again");
      }
      where_[name] = it->second;
    }
  } catch (Error& e) {
    e.add_context(index.string());
    throw;
  }
}

std::vector<std::string> SafetensorsCheckpoint::names() const {
  std::vector<std::string> out;
  for (const auto& [name, file] : where_) out.push_back(name);
  return out;
}

const SafetensorsEntry* SafetensorsCheckpoint::find(std::string_view name) const {
  const auto it = where_.find(name);
  return it == where_.end() ? nullptr : files_[it->second].find(name);
}

Tensor SafetensorsCheckpoint::tensor(std::string_view name) const {
  const auto it = where_.find(name);
  if (it == where_.end()) {
    throw Error(ErrorCode::not_found, fmt::format("the checkpoint has no tensor '{}'", name),
                closest_name(name, names()));
  }
  return files_[it->second].tensor(name);
}

uint64_t SafetensorsCheckpoint::bytes() const {
  uint64_t sum = 0;
  for (const auto& [name, file] : where_) sum += files_[file].find(name)->bytes.size();
  return sum;
}

}  // namespace narrow
