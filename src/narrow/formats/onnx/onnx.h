// SPDX-License-Identifier: Apache-2.0
// ONNX files to and from the graph. Reading maps the file, tensors point into it; older opsets (7
// on) are upgraded to the canonical form, QOperator nodes become QDQ. Writing streams, emits the
// lowest opset that expresses the graph, keeps names and metadata, and replaces the old file only
// when the new one is complete. Source of the wire format: onnx.proto of the ONNX project (field
// numbers are facts).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow {

struct OnnxReadOptions {
  /// Read even when operators are unknown (inspect); otherwise unsupported, all listed at once.
  bool allow_unknown_ops = false;
  /// Turn QLinearConv, QLinearMatMul, QGemm, QLinearAdd ... into QDQ form.
  bool qoperator_to_qdq = true;
};

/// Throws corrupt_data (naming offset or name), unsupported, not_found.
Graph read_onnx(const std::filesystem::path& path, const OnnxReadOptions& options = {});
/// From memory; `folder` is where external data are looked for (empty: external data are refused).
Graph read_onnx_bytes(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                      const std::filesystem::path& folder, const OnnxReadOptions& options = {});

struct OnnxWriteOptions {
  int opset = 0;  // 0: the lowest that expresses the graph, at least 13
  /// Tensors of at least this many bytes go to FILE.data beside the model (vectors below 1 KiB
  /// never do: other readers want shapes and axes in the model); 0: only when the model would pass
  /// 2 GB.
  uint64_t external_threshold = 0;
};

struct OnnxWriteReport {
  int opset = 0;
  uint64_t bytes = 0;           // of the model file
  uint64_t external_bytes = 0;  // of the data file
};

/// Throws unsupported naming node and attribute when an operator cannot be expressed at the opset.
OnnxWriteReport write_onnx(const Graph& graph, const std::filesystem::path& path,
                           const OnnxWriteOptions& options = {});

/// One TensorProto file (.pb), as test_data_set_* folders hold them.
Tensor read_onnx_tensor(const std::filesystem::path& path, std::string* name = nullptr);
void write_onnx_tensor(const Tensor& tensor, const std::string& name,
                       const std::filesystem::path& path);

}  // namespace narrow
