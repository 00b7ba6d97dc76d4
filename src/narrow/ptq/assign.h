// SPDX-License-Identifier: Apache-2.0
// Which values of a graph are quantized, on which grid, and why the rest is not: uniform by the
// options, changed by rules for layers, bounded by what the target runs.
//
//   Graph graph = ...;                     // float, cleaned up, shapes inferred
//   Assignment a = assign(graph, resolve(options));
//   // calibrate a.observed(), then make_plan() (rtn/plan.h)
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/ptq/op_class.h"
#include "narrow/ptq/options.h"
#include "narrow/quant/scheme.h"

namespace narrow {

struct AssignedLayer {
  std::string node;
  std::string op;
  std::string input;    // value
  std::string weights;  // initializer; of its own, shared with no other layer
  std::string bias;     // initializer, likewise; may be empty
  std::string output;   // value behind bias and activation
  int64_t channel_axis = 0;
  int64_t channels = 0;
  int64_t groups = 1;                   // of a convolution
  std::optional<Scheme> weight_scheme;  // nullopt: weights stay floating
  bool half_weights = false;            // stored as float16
  bool quantized_input = false;         // static: the input has a grid; dynamic: at run time
  bool integer_bias = false;
  bool integer_layer = false;  // static, codes of at most 8 bits on both sides
};

struct KeptFloat {
  std::string node;
  std::string op;
  std::string reason;
};

/// The grid of one activation. Values that share a grid have the same sources: its range comes
/// from the statistics of all of them.
struct AssignedActivation {
  Scheme scheme;
  std::vector<std::string> sources;
};

struct Assignment {
  Mode mode = Mode::static_;
  std::vector<AssignedLayer> layers;  // in graph order
  std::map<std::string, AssignedActivation> activations;
  std::map<std::string, Scheme> constants;  // operands of elementwise operators
  std::vector<KeptFloat> kept_float;
  std::vector<std::string> notes;

  /// Every value whose statistics are needed.
  std::vector<std::string> observed() const;
};

/// `options` are resolved (targets.h). Gives layers that share constants copies of their own, and
/// convolution weights that are quantized in groups the form [channels, rest] behind a Reshape.
/// Throws invalid_argument for a pattern that matches no node, and for layers that are quantized
/// already (all named), when nothing can be quantized, ...
Assignment assign(Graph& graph, const QuantizeOptions& options);

/// Gives the layers that assign() would quantize weights and biases of their own, and changes
/// nothing else: for transforms that come between (equalize/).
void separate_constants(Graph& graph, const QuantizeOptions& options);

/// Names of layers (Conv, Gemm, ...) that the graph holds in quantized form already.
std::vector<std::string> quantized_layers(const Graph& graph);

}  // namespace narrow
