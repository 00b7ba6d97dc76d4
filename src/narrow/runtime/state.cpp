// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/runtime/shape_plan.h"
#include "narrow/runtime/state_impl.h"

namespace narrow {
namespace {

int position(const Graph& graph, const std::vector<ValueId>& ids, const std::string& name,
             const char* what) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (graph.value(ids[i]).name == name) return static_cast<int>(i);
  }
  throw Error(ErrorCode::not_found,
              fmt::format("the graph has no {} '{}' for a state", what, name));
}

std::string describe(const Value& value) {
  return fmt::format("'{}' {}{}", value.name, to_string(value.dtype),
                     value.shape ? to_string(*value.shape) : "");
}

bool contradict(const std::optional<SymbolicShape>& a, const std::optional<SymbolicShape>& b) {
  if (!a || !b) return false;
  if (a->size() != b->size()) return true;
  for (size_t i = 0; i < a->size(); ++i) {
    if ((*a)[i].known() && (*b)[i].known() && (*a)[i].value != (*b)[i].value) return true;
  }
  return false;
}

}  // namespace

State::State(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
State::State(State&&) noexcept = default;
State& State::operator=(State&&) noexcept = default;
State::~State() = default;

void State::reset() {
  for (Tensor& tensor : impl_->tensors) {
    if (tensor.bytes() > 0) std::memset(tensor.mutable_raw(), 0, tensor.bytes());
  }
}

size_t State::bytes() const {
  size_t bytes = 0;
  for (const Tensor& tensor : impl_->tensors) bytes += tensor.bytes();
  return bytes;
}

State State::clone() const {
  auto copy = std::make_unique<Impl>();
  copy->session = impl_->session;
  copy->names = impl_->names;
  for (const Tensor& tensor : impl_->tensors) copy->tensors.push_back(tensor.clone());
  return State(std::move(copy));
}

const Tensor& State::tensor(std::string_view input) const {
  const auto it = std::find(impl_->names.begin(), impl_->names.end(), input);
  if (it == impl_->names.end()) {
    throw Error(ErrorCode::not_found, fmt::format("no state '{}'", input));
  }
  return impl_->tensors[static_cast<size_t>(it - impl_->names.begin())];
}

std::vector<StatePosition> find_states(const Graph& graph, const std::vector<StatePair>& pairs) {
  std::vector<StatePosition> states;
  for (const StatePair& pair : pairs) {
    const StatePosition state{position(graph, graph.inputs(), pair.input, "input"),
                              position(graph, graph.outputs(), pair.output, "output")};
    for (const StatePosition& other : states) {
      if (other.input == state.input || other.output == state.output) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("the state '{}' to '{}' shares an end with another state",
                                pair.input, pair.output));
      }
    }
    states.push_back(state);
  }
  return states;
}

void check_states(const Graph& graph, const std::vector<StatePosition>& states) {
  for (const StatePosition& state : states) {
    const Value& in = graph.value(graph.inputs()[static_cast<size_t>(state.input)]);
    const Value& out = graph.value(graph.outputs()[static_cast<size_t>(state.output)]);
    if (in.dtype == out.dtype && !contradict(in.shape, out.shape)) continue;
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("a state goes in as {} and comes out as {}", describe(in), describe(out)));
  }
}

Dims state_dims(const Value& input, const std::map<std::string, int64_t>& sizes) {
  Dims dims;
  if (!input.shape) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the state '{}' has no declared shape", input.name));
  }
  for (const Dim& dim : *input.shape) {
    const auto size = sizes.find(dim.name);
    if (dim.known()) {
      dims.push_back(dim.value);
    } else if (!dim.name.empty() && size != sizes.end() && size->second >= 0) {
      dims.push_back(size->second);
    } else {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the state {} needs a size for '{}'", describe(input), dim.name));
    }
  }
  activation_bytes(input.dtype, dims);  // refuses what no machine can hold
  return dims;
}

}  // namespace narrow
