// SPDX-License-Identifier: Apache-2.0
// TorchScript (.pt of torch.jit.trace or torch.jit.script) into the graph.
#pragma once

#include <string>
#include <vector>

#include "narrow/train/plugin.h"

namespace narrow::train {

/// See Plugin::import_torchscript.
ScriptImport import_torchscript(const std::string& path, const std::vector<SymbolicShape>& inputs);

}  // namespace narrow::train
