// SPDX-License-Identifier: Apache-2.0
// The output shapes of one node while it runs, when its inputs are there: for nodes behind an
// operator whose output shape depends on data.
#pragma once

#include <span>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"
#include "narrow/runtime/op_impl.h"

namespace narrow {

/// A graph of just this node with fresh inputs: a defined tensor becomes an initializer (so that
/// shape inference sees its value), an undefined one an input of the given dtype and dims. Absent
/// inputs stay absent. Outputs of the node are the outputs of the graph.
struct NodeOperand {
  bool present = false;
  DType dtype = DType::undefined;
  Dims dims;
  Tensor value;  // may be undefined
};
Graph single_node_graph(const Graph& graph, const Node& node,
                        std::span<const NodeOperand> operands);

/// Throws unsupported if a shape stays open.
std::vector<Dims> infer_output_dims(const Graph& graph, const Node& node,
                                    std::span<const TensorView> inputs);

}  // namespace narrow
