// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/check_inputs.h"

#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>

#include "narrow/core/error.h"

namespace narrow {
namespace {

[[noreturn]] void refuse(const Value& value, const std::string& got) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("input '{}' must be {}{}, got {}", value.name, to_string(value.dtype),
                          value.shape ? to_string(*value.shape) : "", got));
}

void check_count(const Graph& graph, size_t count) {
  const size_t expected = graph.inputs().size();
  if (count == expected) return;
  std::string names;
  for (const ValueId id : graph.inputs()) {
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", graph.value(id).name);
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("{} input{} expected ({}), got {}", expected,
                                                       expected == 1 ? "" : "s", names, count));
}

}  // namespace

void check_input_types(const Graph& graph, std::span<const Tensor> inputs) {
  check_count(graph, inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& value = graph.value(graph.inputs()[i]);
    if (inputs[i].dtype() == value.dtype && inputs[i].defined()) continue;
    refuse(value, inputs[i].defined() ? inputs[i].describe() : "an undefined tensor");
  }
}

void check_input_dims(const Graph& graph, std::span<const Dims> dims) {
  check_count(graph, dims.size());
  std::map<std::string, std::pair<int64_t, std::string>> named;  // size, first input with it
  for (size_t i = 0; i < dims.size(); ++i) {
    const Value& value = graph.value(graph.inputs()[i]);
    const std::string got = fmt::format("{}{}", to_string(value.dtype), to_string(dims[i]));
    num_elements(dims[i]);
    if (!value.shape) continue;
    if (value.shape->size() != dims[i].size()) refuse(value, got);
    for (size_t d = 0; d < dims[i].size(); ++d) {
      const Dim& wanted = (*value.shape)[d];
      if (wanted.known()) {
        if (wanted.value != dims[i][d]) refuse(value, got);
      } else if (!wanted.name.empty()) {
        const auto [it, is_new] = named.emplace(wanted.name, std::pair(dims[i][d], value.name));
        if (!is_new && it->second.first != dims[i][d]) {
          refuse(value, fmt::format("{} where '{}' is {} in input '{}'", got, wanted.name,
                                    it->second.first, it->second.second));
        }
      }
    }
  }
}

}  // namespace narrow
