// SPDX-License-Identifier: Apache-2.0
// The messages of onnx.proto as plain structures: what reading parses into and writing encodes. In
// between stand the rows that bring nodes from one opset to another; they edit these nodes, by
// name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "narrow/core/file.h"
#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"

namespace narrow::onnx {

struct ProtoGraph;

/// Something that a file may hold and a Graph cannot: an error only where it is used.
struct Unreadable {
  std::string what;
};

using ProtoValue =
    std::variant<int64_t, float, std::string, Tensor, std::shared_ptr<ProtoGraph>,
                 std::vector<int64_t>, std::vector<float>, std::vector<std::string>, Unreadable>;

struct ProtoAttribute {
  ProtoValue value = int64_t{0};
  std::string ref;  // inside a function: the attribute of the call that stands here
};

struct ProtoNode {
  std::string op;
  std::string domain;
  std::string overload;
  std::string name;
  std::string doc;
  std::vector<std::string> inputs;  // "" where absent
  std::vector<std::string> outputs;
  std::map<std::string, ProtoAttribute, std::less<>> attributes;
  int64_t opset = 0;  // version of the domain that the node is written in

  bool has(std::string_view key) const { return attributes.find(key) != attributes.end(); }
  bool has_input(size_t i) const { return i < inputs.size() && !inputs[i].empty(); }
  bool has_output(size_t i) const { return i < outputs.size() && !outputs[i].empty(); }
  std::string input(size_t i) const { return i < inputs.size() ? inputs[i] : std::string(); }
  /// The attribute if it is there and of the type T; throws corrupt_data for another type.
  template <class T>
  std::optional<T> get(std::string_view key) const {
    const auto it = attributes.find(key);
    if (it == attributes.end()) return std::nullopt;
    if (const T* value = std::get_if<T>(&it->second.value)) return *value;
    wrong_type(key);
  }
  template <class T>
  T get_or(std::string_view key, T fallback) const {
    auto value = get<T>(key);
    return value ? *std::move(value) : std::move(fallback);
  }
  void set(std::string_view key, ProtoValue value) {
    attributes.insert_or_assign(std::string(key), ProtoAttribute{std::move(value), {}});
  }
  void erase(std::string_view key) {
    const auto it = attributes.find(key);
    if (it != attributes.end()) attributes.erase(it);
  }
  /// Puts an input at a place, with absent ones before it where needed; drops absent ones at the
  /// end.
  void set_input(size_t i, std::string value);
  /// "node 'conv1' (Conv)", for messages.
  std::string describe() const;
  [[noreturn]] void wrong_type(std::string_view key) const;
};

struct ProtoTensor {
  std::string name;
  Tensor tensor;
  std::string unreadable;  // why there is no tensor (strings, float8); empty if there is one
};

/// A ValueInfoProto; other types than tensors have dtype undefined and `other` set.
struct ProtoValueInfo {
  std::string name;
  DType dtype = DType::undefined;
  std::optional<SymbolicShape> shape;
  std::string other;
};

struct ProtoGraph {
  std::string name;
  std::string doc;
  std::vector<ProtoNode> nodes;
  std::vector<ProtoTensor> initializers;
  std::vector<ProtoValueInfo> inputs;
  std::vector<ProtoValueInfo> outputs;
  std::vector<ProtoValueInfo> value_info;
};

using OpsetImports = std::map<std::string, int64_t>;

struct ProtoFunction {
  std::string name;
  std::string domain;
  std::string overload;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<std::string> attributes;
  std::map<std::string, ProtoAttribute, std::less<>> defaults;
  std::vector<ProtoNode> nodes;
  OpsetImports opsets;
};

struct ProtoModel {
  int64_t ir_version = 0;
  std::string producer_name;
  std::string producer_version;
  std::string doc;
  OpsetImports opsets;
  std::map<std::string, std::string> metadata;
  std::vector<ProtoFunction> functions;
  ProtoGraph graph;
};

/// Deepest nesting of subgraphs; real models have two or three. Inference goes through the body of
/// a loop a few times, at every level again.
inline constexpr int kMaxSubgraphDepth = 8;
/// Deepest nesting of function calls; exporters make a function of each module.
inline constexpr int kMaxCallDepth = 32;
/// Nodes of a file, counted after functions are inlined: keeps small files from growing huge.
inline constexpr int64_t kMaxNodes = int64_t{1} << 21;

/// Where the bytes come from, and what was opened on the way.
struct Source {
  std::shared_ptr<const void> owner;
  const char* begin = nullptr;
  std::filesystem::path folder;  // of external data; empty: refused
  std::map<std::string, std::shared_ptr<const MappedFile>> external;
  int64_t nodes = 0;
};

ProtoModel parse_model(std::string_view bytes, Source& source);

/// The domain as it is compared everywhere: "ai.onnx" is "".
std::string canonical_domain(std::string domain);

}  // namespace narrow::onnx
