// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/runtime/infer_node.h"
#include "narrow/runtime/prepare.h"
#include "narrow/runtime/program.h"
#include "narrow/runtime/state_impl.h"

namespace narrow {
namespace {

PlanOptions plan_options(const SessionOptions& options) {
  if (options.bfloat16 &&
      !(cpu_multiplies_bfloat16() && active_isa() == supported_isas().front())) {
    throw Error(ErrorCode::unsupported, "no products of bfloat16 numbers on this CPU",
                "they need AVX-512 BF16 or AMX, and no lower NARROW_ISA or --isa");
  }
  PlanOptions plan;
  plan.step.deterministic_reference = options.reference;
  plan.step.bfloat16 = options.bfloat16;
  plan.step.repack = options.repack;
  plan.profile = options.profile;
  plan.progress = options.progress;
  plan.observed = options.observed;
  return plan;
}

std::vector<std::string> names_of(const Graph& graph, const std::vector<ValueId>& ids,
                                  const std::vector<int>& states) {
  std::vector<std::string> names;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (states[i] < 0) names.push_back(graph.value(ids[i]).name);
  }
  return names;
}

uint64_t next_number() {
  static std::atomic<uint64_t> next = 0;
  return ++next;
}

/// Lets one run at a time use a state.
class Borrowed {
 public:
  explicit Borrowed(State::Impl* state) : state_(state) {
    if (state_ != nullptr && state_->busy.exchange(true)) {
      throw Error(ErrorCode::invalid_argument, "the state is in use by another run");
    }
  }
  ~Borrowed() {
    if (state_ != nullptr) state_->busy = false;
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

 private:
  State::Impl* state_;
};

/// 0 leaves the limit of the calling thread in force, which is all CPUs unless it set one.
int thread_count(int wanted) {
  return wanted > 0 ? wanted : current_threads();
}

std::unique_ptr<Program> make_program(Graph graph, const SessionOptions& options,
                                      const std::vector<StatePosition>& states,
                                      LoweringReport& lowering) {
  const ThreadLimit limit(thread_count(options.threads));
  lowering = prepare(graph, options);
  check_states(graph, states);
  PlanOptions plan = plan_options(options);
  plan.states = states;
  return std::make_unique<Program>(std::move(graph), plan);
}

}  // namespace

struct Session::Impl {
  SessionOptions options;
  LoweringReport lowering;
  std::vector<std::string> input_names;
  std::vector<std::string> output_names;
  uint64_t number = next_number();  // of all sessions so far: states know whose they are
  std::vector<StatePosition> states;
  std::vector<int> state_of_input;  // by position in the graph; -1: an input of run()
  std::vector<int> state_of_output;
  std::unique_ptr<Program> program;

  const Value& input(size_t i) const {
    const Graph& graph = program->plan().graph;
    return graph.value(graph.inputs()[i]);
  }

  /// One for each input of the graph, from those that are no states and `state(index)`.
  template <class T, class StateOf>
  std::vector<T> all_inputs(const std::vector<T>& inputs, const StateOf& state) const {
    if (inputs.size() != input_names.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} input{} expected ({}), got {}", input_names.size(),
                              input_names.size() == 1 ? "" : "s", fmt::join(input_names, ", "),
                              inputs.size()));
    }
    std::vector<T> all;
    size_t next = 0;
    for (const int s : state_of_input) all.push_back(s < 0 ? inputs[next++] : state(s));
    return all;
  }

  std::vector<Dims> all_dims(const std::vector<Dims>& inputs) const {
    if (states.empty()) return inputs;
    return all_inputs(inputs, [&](int s) {
      return state_dims(input(static_cast<size_t>(states[static_cast<size_t>(s)].input)), {});
    });
  }
};

Session::Session(Graph graph, SessionOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->states = find_states(graph, options.states);
  impl_->state_of_input.resize(graph.inputs().size(), -1);
  impl_->state_of_output.resize(graph.outputs().size(), -1);
  for (size_t i = 0; i < impl_->states.size(); ++i) {
    impl_->state_of_input[static_cast<size_t>(impl_->states[i].input)] = static_cast<int>(i);
    impl_->state_of_output[static_cast<size_t>(impl_->states[i].output)] = static_cast<int>(i);
  }
  impl_->input_names = names_of(graph, graph.inputs(), impl_->state_of_input);
  impl_->output_names = names_of(graph, graph.outputs(), impl_->state_of_output);
  impl_->program = make_program(std::move(graph), options, impl_->states, impl_->lowering);
  impl_->options = std::move(options);
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

State Session::make_state(const std::map<std::string, int64_t>& sizes) const {
  auto state = std::make_unique<State::Impl>();
  state->session = impl_->number;
  for (const StatePosition& position : impl_->states) {
    const Value& value = impl_->input(static_cast<size_t>(position.input));
    state->names.push_back(value.name);
    state->tensors.emplace_back(value.dtype, state_dims(value, sizes));
  }
  return State(std::move(state));
}

std::vector<Tensor> Session::run(const std::vector<Tensor>& inputs,
                                 const RunOptions& options) const {
  return run_with(inputs, nullptr, options);
}
std::vector<Tensor> Session::run(const std::vector<Tensor>& inputs, State& state,
                                 const RunOptions& options) const {
  return run_with(inputs, state.impl_.get(), options);
}
std::map<std::string, Tensor> Session::run_named(const std::map<std::string, Tensor>& inputs,
                                                 const RunOptions& options) const {
  return run_named_with(inputs, nullptr, options);
}
std::map<std::string, Tensor> Session::run_named(const std::map<std::string, Tensor>& inputs,
                                                 State& state, const RunOptions& options) const {
  return run_named_with(inputs, state.impl_.get(), options);
}

std::vector<Tensor> Session::run_with(const std::vector<Tensor>& inputs, State::Impl* state,
                                      const RunOptions& options) const {
  const ThreadLimit limit(thread_count(impl_->options.threads));
  if (state == nullptr && impl_->states.empty()) return impl_->program->run(inputs, options);
  if (state == nullptr) {
    throw Error(ErrorCode::invalid_argument, "the session keeps a state, and none was given",
                "make one with make_state()");
  }
  if (state->session != impl_->number) {
    throw Error(ErrorCode::invalid_argument, "the state was made by another session");
  }
  const Borrowed borrowed(state);
  const std::vector<Tensor> all =
      impl_->all_inputs(inputs, [&](int s) { return state->tensors[static_cast<size_t>(s)]; });
  std::vector<Tensor> results = impl_->program->run(all, options);
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < results.size(); ++i) {
    if (impl_->state_of_output[i] < 0) outputs.push_back(std::move(results[i]));
  }
  return outputs;
}

std::map<std::string, Tensor> Session::run_named_with(const std::map<std::string, Tensor>& inputs,
                                                      State::Impl* state,
                                                      const RunOptions& options) const {
  std::vector<Tensor> ordered;
  for (const std::string& name : impl_->input_names) {
    const auto it = inputs.find(name);
    if (it == inputs.end()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("input '{}' is missing", name),
                  fmt::format("the model's inputs are {}", fmt::join(impl_->input_names, ", ")));
    }
    ordered.push_back(it->second);
  }
  for (const auto& [name, tensor] : inputs) {
    const auto& known = impl_->input_names;
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("the model has no input '{}'", name),
                  fmt::format("the model's inputs are {}", fmt::join(known, ", ")));
    }
  }
  std::vector<Tensor> outputs = run_with(ordered, state, options);
  std::map<std::string, Tensor> named;
  for (size_t i = 0; i < outputs.size(); ++i) {
    named.emplace(impl_->output_names[i], std::move(outputs[i]));
  }
  return named;
}

const Graph& Session::graph() const {
  return impl_->program->plan().graph;
}
const std::vector<std::string>& Session::input_names() const {
  return impl_->input_names;
}
const std::vector<std::string>& Session::output_names() const {
  return impl_->output_names;
}
const LoweringReport& Session::lowering() const {
  return impl_->lowering;
}

std::vector<KernelChoice> Session::kernel_choices() const {
  std::vector<KernelChoice> choices;
  impl_->program->collect_choices("", choices);
  return choices;
}

MemoryReport Session::memory() const {
  return impl_->program->memory();
}

std::vector<NodeProfile> Session::profile() const {
  std::vector<NodeProfile> profile;
  impl_->program->collect_profile("", profile);
  return profile;
}

void Session::reset_profile() {
  impl_->program->reset_profile();
}

void Session::plan(const std::vector<Dims>& input_dims) const {
  const ThreadLimit limit(thread_count(impl_->options.threads));  // oneDNN plans for so many
  impl_->program->shape_plan(impl_->all_dims(input_dims));
}

Session::MacCount Session::count_macs(const std::vector<Dims>& input_dims) const {
  const ThreadLimit limit(thread_count(impl_->options.threads));
  return impl_->program->count_macs(impl_->all_dims(input_dims));
}

std::vector<Tensor> evaluate_constant(const Graph& graph, const Node& node,
                                      std::span<const Tensor> inputs) {
  std::vector<NodeOperand> operands(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    operands[i].present = inputs[i].defined();
    operands[i].value = inputs[i];
  }
  try {
    const Program program(single_node_graph(graph, node, operands), {});
    const std::vector<Tensor> results = program.run({}, {});
    std::vector<Tensor> outputs(node.outputs.size());  // undefined where the node has none
    size_t next = 0;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (node.outputs[i] != kNoId) outputs[i] = results[next++];
    }
    return outputs;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::unsupported) return {};
    throw;
  }
}

}  // namespace narrow
