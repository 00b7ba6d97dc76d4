// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <set>
#include <unordered_map>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/formats/onnx/decompose.h"
#include "narrow/formats/onnx/downgrade.h"
#include "narrow/formats/onnx/encode.h"
#include "narrow/formats/onnx/exporter.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/formats/onnx/opset.h"
#include "narrow/formats/onnx/upgrade.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow {
namespace {

using onnx::ExternalPlace;
using onnx::PlaceTensor;
using onnx::ProtoModel;
using onnx::WireWriter;

// Protobuf's limit for one message; other readers refuse larger files.
constexpr uint64_t kMaxModelBytes = (uint64_t{1} << 31) - 1;
// Smaller tensors stay in a model that must be split: they are shapes and scales.
constexpr uint64_t kSmallTensorBytes = 1024;
// Tensors of the data file start at pages, so that readers can map them, small ones at cache lines.
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kLineBytes = 64;

/// Lays tensors out in the data file, each storage once, in the order of the first call.
class DataLayout {
 public:
  DataLayout(std::string location, uint64_t threshold)
      : location_(std::move(location)), threshold_(threshold) {}

  std::optional<ExternalPlace> place(const Tensor& tensor) {
    const uint64_t bytes = tensor.bytes();
    if (bytes == 0 || bytes < threshold_) return std::nullopt;
    // Shapes, axes and scales: other readers look for these in the model itself.
    if (tensor.rank() <= 1 && bytes < kSmallTensorBytes) return std::nullopt;
    const auto key = std::make_pair(tensor.raw(), bytes);
    const auto known = offsets_.find(key);
    if (known != offsets_.end()) return ExternalPlace{location_, known->second};
    const uint64_t alignment = bytes >= kPageBytes ? kPageBytes : kLineBytes;
    const uint64_t offset = (end_ + alignment - 1) / alignment * alignment;
    offsets_.emplace(key, offset);
    tensors_.push_back({offset, tensor});
    end_ = offset + bytes;
    return ExternalPlace{location_, offset};
  }

  uint64_t bytes() const { return end_; }
  void write_to(AtomicFile& file) const {
    const std::string zeros(kPageBytes, '\0');
    for (const auto& [offset, tensor] : tensors_) {
      file.write(zeros.data(), offset - file.position());
      file.write(tensor.raw(), tensor.bytes());
    }
  }

 private:
  std::string location_;
  uint64_t threshold_;
  uint64_t end_ = 0;
  std::map<std::pair<const std::byte*, uint64_t>, uint64_t> offsets_;
  std::vector<std::pair<uint64_t, Tensor>> tensors_;
};

void refuse_own_operators(const Graph& graph, std::string& list) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.domain == ops::kDomain) {
      list +=
          fmt::format("{}'{}' ({}::{})", list.empty() ? "" : ", ", node.name, node.domain, node.op);
    }
    for (const auto& [key, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute);
      if (body != nullptr && *body) refuse_own_operators(**body, list);
    }
  }
}

void check_opset(int64_t wanted) {
  if (wanted != 0 && (wanted < onnx::kLowestWrittenOpset || wanted > onnx::kNewestOpset)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("opset {} cannot be written; {} to {} can", wanted,
                            onnx::kLowestWrittenOpset, onnx::kNewestOpset));
  }
}

int64_t choose_opset(const Graph& graph, int64_t wanted) {
  std::string reason;
  const int64_t lowest = onnx::GraphExporter(graph).lowest_opset(&reason);
  if (wanted != 0 && wanted < lowest) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the model cannot be written at opset {}: {} needs opset {}", wanted,
                            reason, lowest),
                fmt::format("write opset {} or newer", lowest));
  }
  return wanted != 0 ? wanted : lowest;
}

ProtoModel make_model(const Graph& graph, int64_t opset) {
  ProtoModel model;
  model.ir_version = onnx::ir_version_of(opset);
  model.producer_name = "narrow";
  model.doc = graph.doc;
  model.metadata = graph.metadata;
  model.graph = onnx::GraphExporter(graph).to_proto(opset);
  std::set<std::string> domains;
  onnx::GraphExporter::collect_domains(graph, domains);
  model.opsets[""] = opset;
  for (const std::string& domain : domains) {
    if (domain.empty()) continue;
    const auto source = graph.source_opsets.find(domain);
    model.opsets[domain] = source == graph.source_opsets.end() ? 1 : source->second;
  }
  return model;
}

}  // namespace

OnnxWriteReport write_onnx(const Graph& given, const std::filesystem::path& path,
                           const OnnxWriteOptions& options) {
  check_opset(options.opset);
  Graph older;
  const bool rewrite =
      options.opset != 0 && onnx::GraphExporter(given).lowest_opset(nullptr) > options.opset;
  if (rewrite) {
    older = given;
    onnx::decompose(older, options.opset);
  }
  const Graph& graph = rewrite ? older : given;
  std::string own;
  refuse_own_operators(graph, own);
  if (!own.empty()) {
    throw Error(ErrorCode::unsupported, "these nodes are no ONNX operators: " + own,
                "write the graph in QDQ form, before it is lowered");
  }
  OnnxWriteReport report;
  report.opset = static_cast<int>(choose_opset(graph, options.opset));
  const ProtoModel model = make_model(graph, report.opset);
  WireWriter message = onnx::encode_model(model, {});
  const auto data_path = std::filesystem::path(path).concat(".data");
  DataLayout layout(data_path.filename().string(), options.external_threshold > 0
                                                       ? options.external_threshold
                                                       : kSmallTensorBytes);
  if (options.external_threshold > 0 || message.size() > kMaxModelBytes) {
    message = onnx::encode_model(model, [&](const Tensor& t) { return layout.place(t); });
  }
  if (message.size() > kMaxModelBytes) {
    throw Error(ErrorCode::unsupported,
                fmt::format("'{}' would have {} bytes; ONNX files end at 2 GB", path.string(),
                            message.size()),
                "lower the threshold of external data");
  }
  // Both files are complete before either gets its name.
  AtomicFile file(path);
  message.write_to(file);
  if (layout.bytes() > 0) {
    AtomicFile data(data_path);
    layout.write_to(data);
    data.commit();
  }
  report.bytes = file.position();
  report.external_bytes = layout.bytes();
  file.commit();
  return report;
}

void write_onnx_tensor(const Tensor& tensor, const std::string& name,
                       const std::filesystem::path& path) {
  AtomicFile file(path);
  onnx::encode_tensor(name, tensor, {}).write_to(file);
  file.commit();
}

}  // namespace narrow
