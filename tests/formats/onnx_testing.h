// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of formats/onnx: the corpus, models built from messages, graphs compared.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/formats/onnx/encode.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/formats/onnx/opset.h"
#include "narrow/formats/onnx/proto.h"
#include "support.h"

namespace narrow::testing {

namespace fs = std::filesystem;

inline fs::path corpus() {
  return fs::path(NARROW_SOURCE_DIR) / "tests/corpus/onnx";
}

inline fs::path corpus(const std::string& name) {
  return corpus() / (name + ".onnx");
}

inline std::vector<fs::path> corpus_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(corpus())) {
    if (entry.path().extension() == ".onnx") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

inline void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// --- models from messages
// --------------------------------------------------------------------------

inline onnx::ProtoNode make_node(const std::string& op, std::vector<std::string> inputs,
                                 std::vector<std::string> outputs) {
  onnx::ProtoNode n;
  n.op = op;
  n.inputs = std::move(inputs);
  n.outputs = std::move(outputs);
  return n;
}

inline onnx::ProtoValueInfo make_info(const std::string& name, SymbolicShape shape,
                                      DType dtype = DType::float32) {
  return {name, dtype, std::move(shape), {}};
}

/// A model of the given nodes with input x and output y, float[2].
inline onnx::ProtoModel make_model(std::vector<onnx::ProtoNode> nodes, int64_t opset = 13) {
  onnx::ProtoModel m;
  m.ir_version = 8;
  m.opsets[""] = opset;
  m.graph.name = "test";
  m.graph.inputs = {make_info("x", {2})};
  m.graph.outputs = {make_info("y", {2})};
  m.graph.nodes = std::move(nodes);
  return m;
}

inline std::string encode(const onnx::WireWriter& message) {
  TemporaryFolder folder;
  AtomicFile file(folder / "message");
  message.write_to(file);
  file.commit();
  return bytes_of(folder / "message");
}

inline std::string encode(const onnx::ProtoModel& model) {
  return encode(onnx::encode_model(model, {}));
}

inline Graph read_bytes(const std::string& bytes, const OnnxReadOptions& options = {},
                        const fs::path& folder = {}) {
  const auto owner = std::make_shared<std::string>(bytes);
  return read_onnx_bytes(owner, std::as_bytes(std::span(owner->data(), owner->size())), folder,
                         options);
}

inline Graph read_model(const onnx::ProtoModel& model, const OnnxReadOptions& options = {}) {
  return read_bytes(encode(model), options);
}

/// What the call throws; a failure if it throws nothing.
inline Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorCode::internal, "nothing was thrown"};
}

inline void expect_error(const std::function<void()>& call, ErrorCode code,
                         const std::string& part) {
  const Error e = error_of(call);
  EXPECT_STREQ(to_string(e.code()), to_string(code)) << e.what();
  EXPECT_NE(std::string(e.what()).find(part), std::string::npos)
      << "'" << e.what() << "' lacks '" << part << "'";
}

// --- looking at graphs
// -----------------------------------------------------------------------------

/// The only node of this operator.
inline const Node& only(const Graph& graph, const std::string& op) {
  const Node* found = nullptr;
  for (const NodeId id : graph.nodes()) {
    if (graph.node(id).op != op) continue;
    if (found != nullptr) ADD_FAILURE() << "two nodes " << op;
    found = &graph.node(id);
  }
  if (found == nullptr) throw Error(ErrorCode::not_found, "no node " + op);
  return *found;
}

inline std::vector<std::string> op_names(const Graph& graph) {
  std::vector<std::string> ops;
  for (const NodeId id : graph.nodes()) ops.push_back(graph.node(id).op);
  return ops;
}

/// Input i as "name", "name=float32[2]{1, 2}" for a small constant, "-" where absent.
inline std::string input_text(const Graph& graph, const Node& node, size_t i) {
  if (node.input(i) == kNoId) return "-";
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr) return graph.value(node.input(i)).name;
  std::string text = t->describe() + "{";
  const std::vector<float> values = t->to_floats();
  for (size_t k = 0; k < values.size() && k < 16; ++k) {
    if (k > 0) text += ", ";
    char buffer[32];
    std::snprintf(buffer, sizeof(buffer), "%g", static_cast<double>(values[k]));
    text += buffer;
  }
  return text + "}";
}

inline std::vector<std::string> input_texts(const Graph& graph, const Node& node) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < node.inputs.size(); ++i) texts.push_back(input_text(graph, node, i));
  return texts;
}

/// The graph as lines that are equal where graphs mean the same; constants stand by value.
inline std::string graph_text(const Graph& g);

inline std::string tensor_text(const Tensor& t) {
  const std::string_view bytes(reinterpret_cast<const char*>(t.raw()), t.bytes());
  return t.describe() + "#" + std::to_string(std::hash<std::string_view>()(bytes)) + " ";
}

/// The first line of `a` that `b` has not at the same place; empty if they are equal.
inline std::string first_difference(const std::string& a, const std::string& b) {
  std::istringstream left(a), right(b);
  std::string l, r;
  for (int line = 1;; ++line) {
    const bool more = static_cast<bool>(std::getline(left, l));
    if (more != static_cast<bool>(std::getline(right, r)) || (more && l != r)) {
      return "line " + std::to_string(line) + ":\n" + l + "\n" + r;
    }
    if (!more) return {};
  }
}

/// Attributes that say what their absence says, which the writer leaves out for older opsets.
inline bool is_default(const std::string& key, const Attribute& attribute) {
  const auto* i = std::get_if<int64_t>(&attribute);
  return i != nullptr && *i == 0 && (key == "allowzero" || key == "training_mode");
}

inline std::string attribute_text(const Attribute& attribute) {
  std::string text;
  const auto add = [&text](const auto& v) { text += std::to_string(v) + " "; };
  if (const auto* i = std::get_if<int64_t>(&attribute)) add(*i);
  if (const auto* f = std::get_if<float>(&attribute)) add(*f);
  if (const auto* s = std::get_if<std::string>(&attribute)) text = *s;
  if (const auto* t = std::get_if<Tensor>(&attribute)) text = tensor_text(*t);
  if (const auto* v = std::get_if<std::vector<int64_t>>(&attribute)) {
    for (const int64_t i : *v) add(i);
  }
  if (const auto* v = std::get_if<std::vector<float>>(&attribute)) {
    for (const float f : *v) add(f);
  }
  if (const auto* v = std::get_if<std::vector<std::string>>(&attribute)) {
    for (const std::string& s : *v) text += s + " ";
  }
  if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&attribute)) {
    text = "{\n" + graph_text(**body) + "}";
  }
  return std::to_string(attribute.index()) + ":" + text;
}

inline std::string graph_text(const Graph& g) {
  std::string text = g.name + "\n" + g.doc + "\n";
  const auto typed = [&g](ValueId id) {
    const Value& v = g.value(id);
    return v.name + ":" + to_string(v.dtype) + (v.shape ? to_string(*v.shape) : "?") + " ";
  };
  for (const auto& [key, value] : g.metadata) text += key + "=" + value + "\n";
  for (const ValueId id : g.inputs()) text += typed(id);
  text += "=> ";
  for (const ValueId id : g.outputs()) text += typed(id);
  for (const NodeId id : g.nodes()) {
    const Node& n = g.node(id);
    text += "\n" + n.name + " " + n.domain + "::" + n.op + " " + n.doc + "(";
    for (const ValueId in : n.inputs) {
      const Tensor* t = g.constant(in);
      text += t != nullptr ? tensor_text(*t) : in == kNoId ? "- " : typed(in);
    }
    text += ") -> ";
    for (const ValueId out : n.outputs) text += out == kNoId ? "- " : typed(out);
    for (const auto& [key, attribute] : n.attributes) {
      if (!is_default(key, attribute)) text += "\n  " + key + "=" + attribute_text(attribute);
    }
  }
  return text + "\n";
}

}  // namespace narrow::testing
