// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/functions.h"

#include <fmt/format.h>

#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/builder.h"
#include "narrow/graph/op_table.h"

namespace narrow::onnx {
namespace {

// A file of a few hundred bytes can call functions that call functions ...: bounds on what comes
// out, far above what exporters write.
constexpr int64_t kMaxInlinedNodes = int64_t{1} << 17;
constexpr uint64_t kMaxInlinedBytes = uint64_t{1} << 28;

using Names = std::unordered_map<std::string, std::string>;

uint64_t attribute_bytes(const ProtoValue& value) {
  return std::visit(
      [](const auto& v) -> uint64_t {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                      std::is_same_v<T, std::vector<float>> ||
                      std::is_same_v<T, std::vector<std::string>> ||
                      std::is_same_v<T, std::string>) {
          return v.size() * sizeof(v[0]);
        } else {
          return sizeof(v);
        }
      },
      value);
}

class Inliner {
 public:
  explicit Inliner(ProtoModel& model) : model_(model) {
    for (const ProtoFunction& f : model.functions) {
      const Key key(f.domain, f.name, f.overload);
      if (!functions_.emplace(key, &f).second) {
        throw Error(ErrorCode::corrupt_data,
                    fmt::format("function '{}::{}' is there twice", f.domain, f.name));
      }
    }
    note_names(model.graph);
  }

  void run() { expand(model_.graph.nodes, 0); }

 private:
  using Key = std::tuple<std::string, std::string, std::string>;

  const ProtoFunction* find(const ProtoNode& node) const {
    const auto it = functions_.find(Key(node.domain, node.op, node.overload));
    if (it == functions_.end() || find_op(node.domain, node.op) != nullptr) return nullptr;
    return it->second;
  }

  void note_names(const ProtoGraph& graph) {
    for (const ProtoValueInfo& input : graph.inputs) names_.insert(input.name);
    for (const ProtoTensor& tensor : graph.initializers) names_.insert(tensor.name);
    for (const ProtoNode& node : graph.nodes) {
      names_.insert(node.outputs.begin(), node.outputs.end());
      names_.insert(node.inputs.begin(), node.inputs.end());
      each_subgraph(node, [this](const ProtoGraph& body) { note_names(body); });
    }
  }

  std::string fresh(const std::string& hint) {
    std::string name = hint;
    while (!names_.insert(name).second) name = fmt::format("{}_{}", hint, ++next_suffix_[hint]);
    return name;
  }

  void expand(std::vector<ProtoNode>& nodes, int depth) {
    std::vector<ProtoNode> out;
    out.reserve(nodes.size());
    for (ProtoNode& node : nodes) {
      each_subgraph(node, [&](ProtoGraph& body) { expand(body.nodes, depth); });
      const ProtoFunction* function = find(node);
      if (function == nullptr) {
        out.push_back(std::move(node));
        continue;
      }
      if (depth >= kMaxCallDepth) {
        throw Error(ErrorCode::corrupt_data,
                    fmt::format("{}: functions call each other deeper than {}", node.describe(),
                                kMaxCallDepth));
      }
      std::vector<ProtoNode> inlined = instantiate(node, *function);
      expand(inlined, depth + 1);
      std::move(inlined.begin(), inlined.end(), std::back_inserter(out));
    }
    nodes = std::move(out);
  }

  std::vector<ProtoNode> instantiate(const ProtoNode& call, const ProtoFunction& f) {
    const std::string prefix = (call.name.empty() ? f.name : call.name) + "/";
    Names names;
    for (size_t i = 0; i < f.inputs.size(); ++i) names.insert_or_assign(f.inputs[i], call.input(i));
    std::vector<ProtoNode> nodes;
    for (size_t i = 0; i < f.outputs.size(); ++i) {
      const std::string to = call.has_output(i) ? call.outputs[i] : fresh(prefix + f.outputs[i]);
      const auto passed = names.find(f.outputs[i]);
      if (passed == names.end()) {
        names.emplace(f.outputs[i], to);
        continue;
      }
      // An input, or an output listed before, handed through.
      ProtoNode copy;
      copy.op = "Identity";
      copy.name = prefix + f.outputs[i];
      copy.inputs = {passed->second};
      copy.outputs = {to};
      copy.opset = call.opset;
      nodes.push_back(std::move(copy));
    }
    for (const ProtoNode& node : f.nodes) {
      for (const std::string& output : node.outputs) {
        if (!output.empty() && names.count(output) == 0) {
          names.emplace(output, fresh(prefix + output));
        }
      }
    }
    for (const ProtoNode& node : f.nodes) nodes.push_back(copy_node(node, call, f, prefix, names));
    return nodes;
  }

  void charge(const ProtoNode& node) {
    uint64_t bytes = sizeof(ProtoNode);
    for (const auto& [key, attribute] : node.attributes) bytes += attribute_bytes(attribute.value);
    bytes += (node.inputs.size() + node.outputs.size()) * sizeof(std::string);
    inlined_bytes_ += bytes;
    if (++inlined_nodes_ > kMaxInlinedNodes || inlined_bytes_ > kMaxInlinedBytes) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("the model's functions unfold to more than {} nodes or {} bytes",
                              kMaxInlinedNodes, kMaxInlinedBytes));
    }
  }

  ProtoNode copy_node(const ProtoNode& node, const ProtoNode& call, const ProtoFunction& f,
                      const std::string& prefix, const Names& names) {
    charge(node);
    ProtoNode out = node;
    out.name = prefix + (node.name.empty() ? node.op : node.name);
    const auto rename = [&](std::string& name) {
      if (name.empty()) return;
      const auto it = names.find(name);
      if (it == names.end()) {
        throw Error(ErrorCode::corrupt_data,
                    fmt::format("function '{}::{}' reads '{}', which nothing in it computes",
                                f.domain, f.name, name));
      }
      name = it->second;
    };
    for (std::string& input : out.inputs) rename(input);
    for (std::string& output : out.outputs) rename(output);
    for (auto it = out.attributes.begin(); it != out.attributes.end();) {
      if (!it->second.ref.empty() && !resolve(it->second, call, f)) {
        it = out.attributes.erase(it);
        continue;
      }
      if (auto* body = std::get_if<std::shared_ptr<ProtoGraph>>(&it->second.value)) {
        *body = copy_body(**body, call, f, prefix, names);
      }
      ++it;
    }
    return out;
  }

  /// The call's attribute, else the function's default; false if there is neither.
  static bool resolve(ProtoAttribute& attribute, const ProtoNode& call, const ProtoFunction& f) {
    const auto given = call.attributes.find(attribute.ref);
    if (given != call.attributes.end()) {
      attribute = given->second;
      return true;
    }
    const auto fallback = f.defaults.find(attribute.ref);
    if (fallback == f.defaults.end()) return false;
    attribute = fallback->second;
    return true;
  }

  /// Local names of the body are renamed too: they could meet the names that arguments have.
  std::shared_ptr<ProtoGraph> copy_body(const ProtoGraph& body, const ProtoNode& call,
                                        const ProtoFunction& f, const std::string& prefix,
                                        Names names) {
    auto out = std::make_shared<ProtoGraph>();
    out->name = body.name;
    const auto local = [&](const std::string& name) {
      return name.empty() ? name : names.insert_or_assign(name, fresh(prefix + name)).first->second;
    };
    out->inputs = body.inputs;
    for (ProtoValueInfo& input : out->inputs) input.name = local(input.name);
    out->initializers = body.initializers;
    for (ProtoTensor& tensor : out->initializers) tensor.name = local(tensor.name);
    for (const ProtoNode& node : body.nodes) {
      for (const std::string& output : node.outputs) local(output);
    }
    out->outputs = body.outputs;
    for (ProtoValueInfo& output : out->outputs) {
      const auto it = names.find(output.name);
      if (it != names.end()) output.name = it->second;
    }
    for (const ProtoNode& node : body.nodes) {
      out->nodes.push_back(copy_node(node, call, f, prefix, names));
    }
    return out;
  }

  ProtoModel& model_;
  std::map<Key, const ProtoFunction*> functions_;
  std::unordered_set<std::string> names_;
  std::unordered_map<std::string, int64_t> next_suffix_;
  int64_t inlined_nodes_ = 0;
  uint64_t inlined_bytes_ = 0;
};

}  // namespace

void inline_functions(ProtoModel& model) {
  if (model.functions.empty()) return;
  Inliner(model).run();
}

}  // namespace narrow::onnx
