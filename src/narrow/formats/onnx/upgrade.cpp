// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/upgrade.h"

namespace narrow::onnx {

std::span<const UpgradeRow> upgrade_rows() {
  return {};
}

void upgrade_node(ProtoNode& node, GraphBuilder& builder) {
  if (!node.domain.empty()) return;
  for (const UpgradeRow& row : upgrade_rows()) {
    if (node.opset < row.below && node.op == row.op) row.edit(node, builder);
  }
}

}  // namespace narrow::onnx
