// SPDX-License-Identifier: Apache-2.0
// The mirror of upgrade.h: canonical nodes become those of an older operator set where that can
// express them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "narrow/formats/onnx/exporter.h"
#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

/// The oldest opset that is written: it has QuantizeLinear with an axis.
inline constexpr int64_t kLowestWrittenOpset = 13;

struct DowngradeRow {
  const char* op;
  int below;         // applies to files of the opsets below this one
  const char* what;  // what asks for the newer opset where the edit fails
  /// Rewrites the node; false if older opsets cannot express it. Called on copies to find out.
  bool (*edit)(ProtoNode&, GraphExporter&);
};

/// The highest `below` first.
std::span<const DowngradeRow> downgrade_rows();

/// The lowest opset for the node, without its bodies; `why` says what asks for it.
int64_t needed_opset(const ProtoNode& node, GraphExporter& graph, std::string* why);

/// Rewrites the node for the opset, which needed_opset() allows.
void downgrade_node(ProtoNode& node, int64_t opset, GraphExporter& graph);

}  // namespace narrow::onnx
