// SPDX-License-Identifier: Apache-2.0
// If, Loop and Scan: steps that run the programs of their bodies. Bodies are closed (see kCaptures
// in graph/graph.h), so an outer value is an input like any other. Internal to the runtime.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/runtime/op_impl.h"
#include "narrow/runtime/plan.h"
#include "narrow/runtime/session.h"

namespace narrow {

class Program;

bool is_control_flow(const Node& node);

/// The attributes of a control flow node that hold a body: then_branch, else_branch, body.
std::vector<std::string> body_attributes(const Node& node);

/// Gives the body's inputs the dtypes and shapes that the node hands it. A loop's state whose shape
/// changes from one iteration to the next keeps what stays the same.
void annotate_body(const Graph& graph, const Node& node, Graph& body);

struct Body {
  std::string name;  // of the attribute
  std::unique_ptr<Program> program;
};

class ControlFlow : public Step {
 public:
  explicit ControlFlow(std::vector<Body> bodies);
  ~ControlFlow() override;
  bool dynamic_outputs() const override { return true; }
  const std::vector<Body>& bodies() const { return bodies_; }
  /// Of one run with these input shapes, as far as shapes tell: a loop's body once, a branch's
  /// larger side, nothing for bodies whose input shapes change.
  virtual Session::MacCount count_macs(std::span<const Dims> inputs) const = 0;

 protected:
  const Program& body(size_t i) const { return *bodies_[i].program; }

 private:
  std::vector<Body> bodies_;
};

/// nullptr for any other step.
const ControlFlow* as_control_flow(const Step* step);

/// Throws NodesNotSupported for nodes inside the bodies, corrupt_data for bodies that do not fit
/// the node.
std::unique_ptr<Step> make_control_flow(const Graph& graph, const Node& node,
                                        const PlanOptions& options);

}  // namespace narrow
