// SPDX-License-Identifier: Apache-2.0
// What of a graph's execution does not depend on input shapes: one implementation per node with its
// weights packed, the memory layout of every value, and the reorders between layouts. Internal to
// the runtime; users have session.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/progress.h"
#include "narrow/graph/graph.h"
#include "narrow/runtime/op_impl.h"

namespace narrow {

using RowLookup = std::vector<const OpImpl*> (*)(std::string_view domain, std::string_view op);

/// An input and an output, by position, that are one piece of memory kept between runs.
struct StatePosition {
  int input;
  int output;
};

struct PlanOptions {
  StepOptions step;
  RowLookup rows = implementations;
  bool profile = false;
  bool reuse_memory = true;           // off: every value has memory of its own (for tests)
  std::vector<std::string> observed;  // names of values, also inside subgraphs
  std::vector<StatePosition> states;  // of this graph, not of its subgraphs
  Progress progress;                  // "load": bytes of large constants
};

/// One value in one layout. A value that is wanted in two layouts has two slots.
struct Slot {
  ValueId value = kNoId;
  DType dtype = DType::undefined;
  Layout layout = Layout::plain;
  int input = -1;   // which graph input, if it is one
  Tensor constant;  // elements in `layout` order, if it is one
};

struct PlannedStep {
  NodeId node = kNoId;  // kNoId: a reorder that the plan inserted
  std::string name;
  std::string op;
  std::string implementation;
  std::unique_ptr<Step> step;
  std::vector<int> inputs;   // slots; -1: absent
  std::vector<int> outputs;  // likewise
  bool is_view = false;      // output 0 is input 0 under another shape or name
  bool is_reorder() const { return node == kNoId; }
};

struct ObservedSlot {
  int step;  // handed over after this step has run; -1: before the first
  int slot;
  std::string name;
};

struct Plan {
  Graph graph;
  std::vector<Slot> slots;
  std::vector<PlannedStep> steps;  // in the order in which they run
  std::vector<int> inputs;         // slots, by position
  std::vector<int> outputs;
  std::vector<ObservedSlot> observed;  // by step
  std::vector<StatePosition> states;
  std::vector<KernelChoice> choices;
  int64_t reorders = 0;
  bool reuse_memory = true;
};

/// Nodes that no implementation accepts; the message lists them all.
class NodesNotSupported : public Error {
 public:
  explicit NodesNotSupported(std::vector<std::string> nodes);
  const std::vector<std::string>& nodes() const { return nodes_; }

 private:
  std::vector<std::string> nodes_;  // "'conv1' (Conv): why"
};

/// The graph must be final: optimised and lowered. Throws NodesNotSupported. Steps may refer to the
/// plan's graph, which is why it does not move.
std::unique_ptr<const Plan> make_plan(Graph graph, const PlanOptions& options);

}  // namespace narrow
