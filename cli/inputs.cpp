// SPDX-License-Identifier: Apache-2.0
#include "inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/data/npz.h"
#include "narrow/formats/onnx/onnx.h"

namespace narrow::cli {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

class InputSet {
 public:
  explicit InputSet(const Graph& graph) {
    for (const ValueId id : graph.inputs()) names_.push_back(graph.value(id).name);
  }

  const std::vector<std::string>& names() const { return names_; }
  bool knows(const std::string& name) const {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }

  void add(const std::string& name, Tensor tensor) {
    if (!knows(name)) {
      refuse(fmt::format("the model has no input '{}'", name), did_you_mean(name, names_));
    }
    if (!inputs_.emplace(name, std::move(tensor)).second) {
      refuse(fmt::format("input '{}' is given twice", name));
    }
  }

  std::map<std::string, Tensor> finish(const char* how) && {
    std::vector<std::string> missing;
    for (const std::string& name : names_) {
      if (inputs_.count(name) == 0) missing.push_back(name);
    }
    if (!missing.empty()) {
      refuse(fmt::format("nothing is given for input {}", fmt::join(missing, ", ")), how);
    }
    return std::move(inputs_);
  }

 private:
  std::vector<std::string> names_;
  std::map<std::string, Tensor> inputs_;
};

bool has_extension(const std::string& path, const char* extension) {
  return fs::path(path).extension() == extension;
}

/// The array that stands for one input: named as it, or the only one.
Tensor array_for(const std::string& path, const std::string& name) {
  std::map<std::string, Tensor> arrays = read_npz(path);
  if (const auto it = arrays.find(name); it != arrays.end()) return it->second;
  if (arrays.size() == 1) return arrays.begin()->second;
  std::vector<std::string> names;
  for (const auto& [key, value] : arrays) names.push_back(key);
  refuse(fmt::format("{}: no array '{}'; it has: {}", path, name, fmt::join(names, ", ")));
}

void add_all_arrays(const std::string& path, InputSet& inputs) {
  std::map<std::string, Tensor> arrays = read_npz(path);
  const bool one = inputs.names().size() == 1 && arrays.size() == 1;
  for (auto& [name, tensor] : arrays) {
    inputs.add(one ? inputs.names()[0] : name, std::move(tensor));
  }
}

void add_input(const std::string& text, InputSet& inputs) {
  // The name may hold '=', and so may the path: the first one that ends a known name separates.
  for (size_t at = text.find('='); at != std::string::npos; at = text.find('=', at + 1)) {
    const std::string name = text.substr(0, at);
    if (!inputs.knows(name)) continue;
    const std::string path = text.substr(at + 1);
    inputs.add(name, has_extension(path, ".npz") ? array_for(path, name) : read_npy(path));
    return;
  }
  std::error_code ignored;
  if (text.find('=') != std::string::npos && !fs::exists(text, ignored)) {
    const std::string name = text.substr(0, text.find('='));
    refuse(fmt::format("the model has no input '{}'", name), did_you_mean(name, inputs.names()));
  }
  if (has_extension(text, ".npz")) return add_all_arrays(text, inputs);
  if (inputs.names().size() != 1) {
    refuse(fmt::format("--input {}: the model has {} inputs", text, inputs.names().size()),
           fmt::format("write --input NAME={}; inputs: {}", text, fmt::join(inputs.names(), ", ")));
  }
  inputs.add(inputs.names()[0], read_npy(text));
}

/// input_0.pb, input_1.pb, ... in the order of their numbers.
std::vector<fs::path> numbered_inputs(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw Error(ErrorCode::not_found, fmt::format("'{}' is no folder", folder.string()));
  }
  std::vector<fs::path> paths;
  for (size_t i = 0;; ++i) {
    const fs::path path = folder / fmt::format("input_{}.pb", i);
    if (!fs::exists(path, error)) break;
    paths.push_back(path);
  }
  if (paths.empty()) {
    throw Error(ErrorCode::not_found, fmt::format("'{}' has no input_0.pb", folder.string()),
                "ONNX test data are files input_0.pb, input_1.pb, ...");
  }
  return paths;
}

}  // namespace

std::map<std::string, Tensor> read_inputs(const std::vector<std::string>& texts,
                                          const Graph& graph) {
  InputSet inputs(graph);
  for (const std::string& text : texts) add_input(text, inputs);
  return std::move(inputs).finish("add --input NAME=FILE.npy");
}

std::map<std::string, Tensor> read_input_folder(const std::string& folder, const Graph& graph) {
  InputSet inputs(graph);
  const std::vector<fs::path> paths = numbered_inputs(folder);
  for (size_t i = 0; i < paths.size(); ++i) {
    std::string name;
    Tensor tensor = read_onnx_tensor(paths[i], &name);
    if (!inputs.knows(name)) {
      if (i >= inputs.names().size()) {
        refuse(fmt::format("'{}': the model has only {} inputs", paths[i].string(),
                           inputs.names().size()));
      }
      name = inputs.names()[i];
    }
    inputs.add(name, std::move(tensor));
  }
  return std::move(inputs).finish("the folder needs one input_N.pb for each input");
}

}  // namespace narrow::cli
