// SPDX-License-Identifier: Apache-2.0
// ONNX models from memory: read with and without unknown operators, infer shapes, write.
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"

namespace {

/// What can be read can be written, or is refused with an error.
void write_back(const narrow::Graph& graph) {
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("narrow_onnx_fuzz." + std::to_string(::getpid()));
  narrow::write_onnx(graph, path);
  std::filesystem::remove(path);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy that the tensors may point into; of exactly this size, for the sanitizer.
  const std::shared_ptr<std::byte[]> owner(new std::byte[size]);
  if (size > 0) std::memcpy(owner.get(), data, size);
  const std::span<const std::byte> bytes(owner.get(), size);
  narrow::OnnxReadOptions options;
  for (const bool lenient : {false, true}) {
    options.allow_unknown_ops = lenient;
    options.qoperator_to_qdq = !lenient;
    try {
      narrow::Graph graph = narrow::read_onnx_bytes(owner, bytes, {}, options);
      narrow::infer_shapes(graph);
      if (!lenient) write_back(graph);
    } catch (const narrow::Error& e) {
      if (e.code() == narrow::ErrorCode::internal) __builtin_trap();
    }
  }
  return 0;
}
