// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/formats/onnx/builder.h"
#include "narrow/formats/onnx/functions.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/formats/onnx/proto.h"
#include "narrow/formats/onnx/tensor_proto.h"
#include "narrow/formats/onnx/upgrade.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

using onnx::OpsetImports;
using onnx::ProtoGraph;
using onnx::ProtoModel;
using onnx::ProtoNode;
using onnx::Source;

void stamp_opsets(std::vector<ProtoNode>& nodes, const OpsetImports& opsets) {
  for (ProtoNode& node : nodes) {
    const auto it = opsets.find(node.domain);
    node.opset = it == opsets.end() ? 1 : it->second;
    onnx::each_subgraph(node, [&](ProtoGraph& body) { stamp_opsets(body.nodes, opsets); });
  }
}

void check_opset(const OpsetImports& opsets) {
  const auto it = opsets.find("");
  const int64_t opset = it == opsets.end() ? 1 : it->second;
  if (opset < onnx::kOldestOpset || opset > onnx::kNewestOpset) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the model is written in ONNX opset {}; {} to {} are read", opset,
                            onnx::kOldestOpset, onnx::kNewestOpset),
                "export the model again with another opset");
  }
}

void refuse_unsupported(const Graph& graph) {
  const std::vector<UnsupportedNode> nodes = unsupported_nodes(graph);
  if (nodes.empty()) return;
  std::string list;
  for (const UnsupportedNode& n : nodes) {
    list += fmt::format("{}'{}' ({})", list.empty() ? "" : ", ", n.node, n.op);
  }
  throw Error(
      ErrorCode::unsupported,
      fmt::format("{} nodes have operators that narrow does not know: {}", nodes.size(), list));
}

Graph read(std::string_view bytes, Source& source, const OnnxReadOptions& options) {
  ProtoModel model = onnx::parse_model(bytes, source);
  check_opset(model.opsets);
  stamp_opsets(model.graph.nodes, model.opsets);
  for (onnx::ProtoFunction& f : model.functions) {
    f.opsets.insert(model.opsets.begin(), model.opsets.end());  // where it imports none itself
    check_opset(f.opsets);
    stamp_opsets(f.nodes, f.opsets);
  }
  onnx::inline_functions(model);
  Graph graph = onnx::GraphBuilder(std::move(model.graph), options).build();
  if (!model.doc.empty() && model.doc != graph.doc) {
    graph.doc = model.doc + (graph.doc.empty() ? "" : "\n") + graph.doc;
  }
  graph.metadata = std::move(model.metadata);
  graph.source_opsets = std::move(model.opsets);
  graph.producer_name = std::move(model.producer_name);
  graph.producer_version = std::move(model.producer_version);
  if (!options.allow_unknown_ops) refuse_unsupported(graph);
  graph.sort();
  infer_shapes(graph);
  if (!options.allow_unknown_ops) verify(graph);
  return graph;
}

}  // namespace

Graph read_onnx_bytes(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                      const std::filesystem::path& folder, const OnnxReadOptions& options) {
  Source source;
  source.owner = std::move(owner);
  source.begin = reinterpret_cast<const char*>(bytes.data());
  source.folder = folder;
  try {
    return read({source.begin, bytes.size()}, source, options);
  } catch (const Error& e) {
    // Shape inference and the graph's own checks blame the caller; here the file is to blame.
    if (e.code() != ErrorCode::invalid_argument && e.code() != ErrorCode::internal) throw;
    Error blamed(ErrorCode::corrupt_data, e.message(), e.hint());
    if (!e.context().empty()) blamed.add_context(e.context());
    throw blamed;
  }
}

Graph read_onnx(const std::filesystem::path& path, const OnnxReadOptions& options) {
  const auto file = MappedFile::open(path);
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  try {
    return read_onnx_bytes(file, file->bytes(), folder, options);
  } catch (Error& e) {
    e.add_context(path.string());
    throw;
  }
}

Tensor read_onnx_tensor(const std::filesystem::path& path, std::string* name) {
  const auto file = MappedFile::open(path);
  try {
    Source source;
    source.owner = file;
    source.begin = file->text().data();
    source.folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    onnx::ProtoTensor t = onnx::parse_tensor({file->text(), source.begin}, source);
    if (!t.unreadable.empty()) {
      throw Error(ErrorCode::unsupported, fmt::format("tensor '{}' is {}", t.name, t.unreadable));
    }
    if (name != nullptr) *name = std::move(t.name);
    return std::move(t.tensor);
  } catch (Error& e) {
    e.add_context(path.string());
    throw;
  }
}

}  // namespace narrow
