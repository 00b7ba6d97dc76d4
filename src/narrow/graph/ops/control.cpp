// SPDX-License-Identifier: Apache-2.0
// If, Loop, Scan: inference into their closed bodies (graph.h, kCaptures).
#include <fmt/format.h>

#include <algorithm>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/subgraph.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// How often the shapes of a loop's state are widened before their rank is given up. One round
/// widens every dimension that changes by itself; chains through other states take one each.
constexpr int kMaxRounds = 8;

std::shared_ptr<Graph> body_of(const InferContext& c, std::string_view key) {
  auto body = c.node().graph(key);
  if (!body) c.fail(fmt::format("attribute {} is missing", key));
  return body;
}

size_t captures_of(const InferContext& c, size_t own_inputs) {
  const int64_t captures = c.node().int_or(kCaptures, 0);
  if (captures < 0 || static_cast<size_t>(captures) + own_inputs > c.node().inputs.size()) {
    c.fail(fmt::format("{} captured values of {} inputs", captures, c.node().inputs.size()));
  }
  return static_cast<size_t>(captures);
}

/// What is known of input i, its value only where every run of the body sees the same.
BodyInput body_input(const InferContext& c, size_t i, bool invariant) {
  BodyInput input;
  input.dtype = c.dtype(i);
  if (const SymbolicShape* shape = c.shape(i)) input.shape = *shape;
  if (const Tensor* value = invariant ? c.constant(i) : nullptr) input.constant = *value;
  return input;
}

void append_captures(const InferContext& c, size_t captures, std::vector<BodyInput>& inputs) {
  const size_t count = c.node().inputs.size();
  for (size_t i = count - captures; i < count; ++i) inputs.push_back(body_input(c, i, true));
}

const Value& body_output(const Graph& body, size_t i) {
  return body.value(body.outputs()[i]);
}

/// The shape of a value that is one or the other: dimensions that differ are unknown.
std::optional<SymbolicShape> either(const std::optional<SymbolicShape>& a,
                                    const std::optional<SymbolicShape>& b) {
  if (!a || !b || a->size() != b->size()) return std::nullopt;
  SymbolicShape out(a->size());
  for (size_t i = 0; i < out.size(); ++i) {
    if ((*a)[i] == (*b)[i]) out[i] = (*a)[i];
  }
  return out;
}

void infer_if(InferContext& c) {
  const size_t captures = captures_of(c, 1);
  if (captures + 1 != c.node().inputs.size()) c.fail("it has inputs that no branch gets");
  std::vector<BodyInput> inputs;
  append_captures(c, captures, inputs);
  const auto then_branch = body_of(c, "then_branch");
  const auto else_branch = body_of(c, "else_branch");
  for (const auto& branch : {then_branch, else_branch}) {
    if (branch->outputs().size() != c.node().outputs.size()) {
      c.fail(fmt::format("branch '{}' has {} outputs, the node {}", branch->name,
                         branch->outputs().size(), c.node().outputs.size()));
    }
    infer_body(c, *branch, inputs);
  }
  for (size_t i = 0; i < c.node().outputs.size(); ++i) {
    const Value& a = body_output(*then_branch, i);
    const Value& b = body_output(*else_branch, i);
    if (a.dtype != b.dtype && a.dtype != DType::undefined && b.dtype != DType::undefined) {
      c.fail(fmt::format("output {} is {} in one branch and {} in the other", i, to_string(a.dtype),
                         to_string(b.dtype)));
    }
    c.set_output(i, a.dtype != DType::undefined ? a.dtype : b.dtype, either(a.shape, b.shape));
  }
}

/// Infers the body until the shapes of the states no longer change from one run to the next. The
/// states are inputs[first_input + i] and body outputs[first_output + i].
void infer_states(InferContext& c, Graph& body, std::vector<BodyInput>& inputs, size_t first_input,
                  size_t first_output, size_t states) {
  for (int round = 0;; ++round) {
    infer_body(c, body, inputs);
    bool changed = false;
    for (size_t i = 0; i < states; ++i) {
      auto& before = inputs[first_input + i].shape;
      auto wider = round < kMaxRounds ? either(before, body_output(body, first_output + i).shape)
                                      : std::nullopt;
      if (wider == before) continue;
      before = std::move(wider);
      changed = true;
    }
    if (!changed) return;
  }
}

/// Inputs (trip count?, condition?, states..., captures...), body (iteration, condition, states...,
/// captures...) -> (condition, states..., scanned...).
void infer_loop(InferContext& c) {
  const size_t captures = captures_of(c, 2);
  const size_t states = c.node().inputs.size() - 2 - captures;
  const auto body = body_of(c, "body");
  if (body->outputs().size() != c.node().outputs.size() + 1 || c.node().outputs.size() < states) {
    c.fail(fmt::format("the body has {} outputs for {} states and {} outputs of the node",
                       body->outputs().size(), states, c.node().outputs.size()));
  }
  std::vector<BodyInput> inputs = {{DType::int64, SymbolicShape{}, {}},
                                   {DType::boolean, SymbolicShape{}, {}}};
  for (size_t i = 0; i < states; ++i) inputs.push_back(body_input(c, i + 2, false));
  append_captures(c, captures, inputs);
  infer_states(c, *body, inputs, 2, 1, states);
  for (size_t i = 0; i < c.node().outputs.size(); ++i) {
    const Value& out = body_output(*body, i + 1);
    if (i < states) {
      c.set_output(i, c.dtype(i + 2) != DType::undefined ? c.dtype(i + 2) : out.dtype,
                   inputs[i + 2].shape);
      continue;
    }
    std::optional<SymbolicShape> scanned = out.shape;
    if (scanned) scanned->insert(scanned->begin(), Dim());
    c.set_output(i, out.dtype, std::move(scanned));
  }
}

/// Inputs (states..., scanned..., captures...), body the same with single slices.
void infer_scan(InferContext& c) {
  const int64_t wanted = c.node().int_or("num_scan_inputs", 0);
  if (wanted < 1 || static_cast<size_t>(wanted) > c.node().inputs.size()) {
    c.fail(fmt::format("num_scan_inputs is {}", wanted));
  }
  const auto scanned = static_cast<size_t>(wanted);
  const size_t captures = captures_of(c, scanned);
  const size_t states = c.node().inputs.size() - scanned - captures;
  const auto body = body_of(c, "body");
  const size_t outputs = c.node().outputs.size();
  if (body->outputs().size() != outputs || outputs < states) {
    c.fail(fmt::format("the body has {} outputs for {} states and {} outputs of the node",
                       body->outputs().size(), states, outputs));
  }
  const auto in_axes = c.node().ints_or("scan_input_axes", std::vector<int64_t>(scanned, 0));
  const auto out_axes =
      c.node().ints_or("scan_output_axes", std::vector<int64_t>(outputs - states, 0));
  if (in_axes.size() != scanned || out_axes.size() != outputs - states) {
    c.fail("scan_input_axes or scan_output_axes has the wrong length");
  }
  std::vector<BodyInput> inputs;
  for (size_t i = 0; i < states; ++i) inputs.push_back(body_input(c, i, false));
  Dim length;
  for (size_t i = 0; i < scanned; ++i) {
    BodyInput input = body_input(c, states + i, false);
    if (input.shape) {
      const size_t axis = axis_in(c, in_axes[i], input.shape->size());
      length = unify(c, length, (*input.shape)[axis], "the scanned axes");
      input.shape->erase(input.shape->begin() + static_cast<std::ptrdiff_t>(axis));
    }
    inputs.push_back(std::move(input));
  }
  append_captures(c, captures, inputs);
  infer_states(c, *body, inputs, 0, 0, states);
  for (size_t i = 0; i < outputs; ++i) {
    const Value& out = body_output(*body, i);
    if (i < states) {
      c.set_output(i, out.dtype, inputs[i].shape);
      continue;
    }
    std::optional<SymbolicShape> stacked = out.shape;
    if (stacked) {
      const size_t axis = axis_in(c, out_axes[i - states], stacked->size() + 1);
      stacked->insert(stacked->begin() + static_cast<std::ptrdiff_t>(axis), length);
    }
    c.set_output(i, out.dtype, std::move(stacked));
  }
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference, inputs that may be absent
    {"", "If", 1, -1, 1, -1, 1, infer_if},
    {"", "Loop", 2, -1, 1, -1, 1, infer_loop, 0b11},
    {"", "Scan", 1, -1, 1, -1, 9, infer_scan},
};

}  // namespace

std::span<const OpInfo> control_ops() {
  return kOps;
}

}  // namespace narrow::ops
