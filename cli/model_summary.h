// SPDX-License-Identifier: Apache-2.0
// What `inspect` says about a model: the file, its graph, and the plan that would run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/graph/op_table.h"
#include "narrow/quant/overflow.h"
#include "narrow/runtime/session.h"

namespace narrow::cli {

struct TensorInfo {
  std::string name;
  std::string dtype;
  std::string shape;   // "[N, 3, 224, 224]"; "?" where unknown
  uint64_t bytes = 0;  // of constants
};

struct NodeInfo {
  std::string name;
  std::string op;
  std::string weights;  // its largest constant input, "float32[32, 1, 3, 3]"; empty: none
  std::string output;   // "float32[N, 32, 26, 26]"
};

/// The accumulators of one layer with integer weights, from its actual codes.
struct LayerProof {
  std::string node;
  std::string op;
  std::string weights;  // "int8[32, 1, 3, 3]"
  int64_t min = 0;
  int64_t max = 0;
  double headroom_bits = 0;
  bool fits_int32 = true;
};

struct PlanSummary {
  std::optional<Session::MacCount> macs;  // absent where shapes are not known
  int64_t batch = 1;
  std::map<std::string, int64_t> ops;  // of the executed graph: "narrow::QConv" -> 2
  int64_t integer_layers = 0;          // convolutions and products on integers
  int64_t dynamic_layers = 0;          // activations quantized at run time
  int64_t weight_only_layers = 0;
  int64_t float_layers = 0;
  std::vector<LayerProof> proofs;
  std::vector<LoweringRefusal> not_lowered;
  std::optional<MemoryReport> memory;
};

struct ModelSummary {
  std::string path;
  uint64_t file_bytes = 0;
  std::string producer;
  std::map<std::string, int64_t> opsets;
  std::map<std::string, std::string> metadata;
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  std::map<std::string, int64_t> ops;  // as in the file
  std::vector<NodeInfo> nodes;
  int64_t parameters = 0;           // weights and biases
  uint64_t parameter_bytes = 0;     // as stored
  std::vector<TensorInfo> tensors;  // constants, largest first
  std::vector<UnsupportedNode> unsupported;
  std::optional<PlanSummary> plan;
  std::string plan_error;  // why there is none

  /// Layers whose sums could pass int32.
  std::vector<std::string> overflowing() const;
};

/// `batch` fills an unknown leading dimension.
ModelSummary summarize(const std::string& path, int64_t batch, const SessionOptions& options);

/// Worst accumulators of every layer with integer weights of a lowered graph.
std::vector<LayerProof> prove_layers(const Graph& lowered);

}  // namespace narrow::cli
