// SPDX-License-Identifier: Apache-2.0
// TorchScript models (.pt) into ONNX files, checked against libtorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow {

/// By the name: .pt or .ts.
bool is_torchscript(const std::filesystem::path& path);

/// "Nx3x32x32": numbers and names, from the outside to the inside. Throws invalid_argument.
SymbolicShape parse_input_shape(std::string_view text);

struct ScriptGraph {
  Graph graph;                // cleaned up, shapes inferred
  double largest_difference;  // to libtorch's outputs for a random input, in parts of their largest
};

/// Throws what Plugin::import_torchscript and load_plugin() throw, and numeric_failure where the
/// graph computes something else than libtorch.
ScriptGraph read_torchscript(const std::filesystem::path& path,
                             const std::vector<SymbolicShape>& inputs);

}  // namespace narrow
