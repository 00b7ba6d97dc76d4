// SPDX-License-Identifier: Apache-2.0
// Nodes of older operator sets become the newest form (canonical form, see graph/op_table.h), one
// row of a table for each change of a schema that changes how the same thing is written. Changes
// that only admit more types or values need no row.
#pragma once

#include <span>

#include "narrow/formats/onnx/builder.h"
#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

/// Opsets of the domain "" that are read.
inline constexpr int64_t kOldestOpset = 7;
inline constexpr int64_t kNewestOpset = 28;

struct UpgradeRow {
  const char* op;
  int below;  // nodes of the opsets below this one are edited
  void (*edit)(ProtoNode&, GraphBuilder&);
};

/// In order of `below`, so that a node goes through its rows one after the other.
std::span<const UpgradeRow> upgrade_rows();

/// Brings the node to the canonical form; a node without operator afterwards is not needed any
/// more.
void upgrade_node(ProtoNode& node, GraphBuilder& builder);

}  // namespace narrow::onnx
