// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "narrow/core/parallel.h"
#include "narrow/runtime/infer_node.h"
#include "narrow/runtime/prepare.h"
#include "narrow/runtime/program.h"

namespace narrow {
namespace {

PlanOptions plan_options(const SessionOptions& options) {
  PlanOptions plan;
  plan.step.deterministic_reference = options.reference;
  plan.profile = options.profile;
  plan.observed = options.observed;
  return plan;
}

std::vector<std::string> names_of(const Graph& graph, const std::vector<ValueId>& ids) {
  std::vector<std::string> names;
  for (const ValueId id : ids) names.push_back(graph.value(id).name);
  return names;
}

/// 0 leaves the limit of the calling thread in force, which is all CPUs unless it set one.
int thread_count(int wanted) {
  return wanted > 0 ? wanted : current_threads();
}

std::unique_ptr<Program> make_program(Graph graph, const SessionOptions& options,
                                      LoweringReport& lowering) {
  const ThreadLimit limit(thread_count(options.threads));
  lowering = prepare(graph, options);
  return std::make_unique<Program>(std::move(graph), plan_options(options));
}

}  // namespace

struct Session::Impl {
  SessionOptions options;
  LoweringReport lowering;
  std::vector<std::string> input_names;
  std::vector<std::string> output_names;
  std::unique_ptr<Program> program;
};

Session::Session(Graph graph, SessionOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->input_names = names_of(graph, graph.inputs());
  impl_->output_names = names_of(graph, graph.outputs());
  impl_->program = make_program(std::move(graph), options, impl_->lowering);
  impl_->options = std::move(options);
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

std::vector<Tensor> Session::run(const std::vector<Tensor>& inputs,
                                 const RunOptions& options) const {
  const ThreadLimit limit(thread_count(impl_->options.threads));
  return impl_->program->run(inputs, options);
}

std::map<std::string, Tensor> Session::run_named(const std::map<std::string, Tensor>& inputs,
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
  std::vector<Tensor> outputs = run(ordered, options);
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
  impl_->program->shape_plan(input_dims);
}

Session::MacCount Session::count_macs(const std::vector<Dims>& input_dims) const {
  const ThreadLimit limit(thread_count(impl_->options.threads));
  return impl_->program->count_macs(input_dims);
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
