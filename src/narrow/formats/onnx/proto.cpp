// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/proto.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/tensor_proto.h"
#include "narrow/formats/onnx/wire.h"

namespace narrow::onnx {
namespace {

ProtoGraph parse_graph(WireReader m, Source& source, int depth);

std::pair<std::string, std::string> parse_entry(WireReader m) {
  std::pair<std::string, std::string> out;
  while (m.next()) {
    if (m.field() == 1) out.first = m.string();
    if (m.field() == 2) out.second = m.string();
  }
  return out;
}

// --- types ---------------------------------------------------------------------------------------

Dim parse_dim(WireReader m) {
  Dim dim;
  while (m.next()) {
    if (m.field() == 1) {
      // Some exporters write -1 or 0 for "unknown"; 0 is a legal size, so only negatives are.
      const int64_t value = m.integer();
      dim.value = value < 0 ? -1 : value;
    }
    if (m.field() == 2) dim.name = m.string();
  }
  if (dim.known()) dim.name.clear();
  return dim;
}

void parse_tensor_type(WireReader m, ProtoValueInfo& info) {
  while (m.next()) {
    if (m.field() == 1) {
      const int64_t type = m.integer();
      const auto dtype = dtype_of(type);
      if (dtype) {
        info.dtype = *dtype;
      } else if (const char* name = foreign_data_type(type)) {
        info.other = fmt::format("tensor({})", name);
      } else if (type != 0) {
        m.fail(fmt::format("unknown data type {}", type));
      }
    }
    if (m.field() == 2) {
      info.shape.emplace();
      WireReader shape = m.message();
      while (shape.next()) {
        if (shape.field() == 1) info.shape->push_back(parse_dim(shape.message()));
      }
    }
  }
}

ProtoValueInfo parse_value_info(WireReader m) {
  ProtoValueInfo info;
  while (m.next()) {
    if (m.field() == 1) info.name = m.string();
    if (m.field() != 2) continue;
    WireReader type = m.message();
    while (type.next()) {
      if (type.field() == 1) {
        parse_tensor_type(type.message(), info);
      } else if (type.field() != 6) {  // 6: denotation, a comment
        info.other = "a sequence, map, optional or sparse tensor";
      }
    }
  }
  return info;
}

// --- nodes ---------------------------------------------------------------------------------------

/// Numbers of AttributeProto.AttributeType.
enum AttributeType : int64_t {
  kUndefined = 0,
  kFloat = 1,
  kInt = 2,
  kString = 3,
  kTensor = 4,
  kGraph = 5,
  kFloats = 6,
  kInts = 7,
  kStrings = 8,
};

ProtoValue empty_value(int64_t type) {
  switch (type) {
    case kFloat:
      return 0.0f;
    case kInt:
      return int64_t{0};
    case kString:
      return std::string();
    case kFloats:
      return std::vector<float>();
    case kInts:
      return std::vector<int64_t>();
    case kStrings:
      return std::vector<std::string>();
    default:
      return Unreadable{"a list of tensors, graphs or types, or a sparse tensor"};
  }
}

/// The AttributeType that a field of AttributeProto holds; kUndefined for the fields about it.
int64_t type_of_field(uint32_t field) {
  constexpr uint32_t kFieldOfF = 2;
  constexpr uint32_t kFieldOfStrings = 9;
  // f, i, s, t, g are fields 2 to 6 and floats, ints, strings 7 to 9: one more than their type.
  return field >= kFieldOfF && field <= kFieldOfStrings ? field - 1 : int64_t{kUndefined};
}

void parse_value(const WireReader& m, ProtoValue& value, Source& source, int depth) {
  switch (type_of_field(m.field())) {
    case kFloat:
      value = m.float32();
      return;
    case kInt:
      value = m.integer();
      return;
    case kString:
      value = m.string();
      return;
    case kTensor: {
      ProtoTensor t = parse_tensor(m.message(), source);
      if (t.unreadable.empty()) {
        value = std::move(t.tensor);
      } else {
        value = Unreadable{t.unreadable};
      }
      return;
    }
    case kGraph:
      value = std::make_shared<ProtoGraph>(parse_graph(m.message(), source, depth + 1));
      return;
    case kFloats:
      m.each_fixed<float>([&](float f) { std::get<std::vector<float>>(value).push_back(f); });
      return;
    case kInts:
      m.each_integer([&](int64_t i) { std::get<std::vector<int64_t>>(value).push_back(i); });
      return;
    case kStrings:
      std::get<std::vector<std::string>>(value).push_back(m.string());
      return;
    default:
      return;
  }
}

/// Files of IR version 1 to 3 may leave the type out; then the first field that is there says it.
int64_t attribute_type(WireReader m, int64_t& stated) {
  int64_t found = kUndefined;
  while (m.next()) {
    if (m.field() == 20) stated = m.integer();
    if (found == kUndefined) found = type_of_field(m.field());
  }
  return stated != kUndefined ? stated : found;
}

std::pair<std::string, ProtoAttribute> parse_attribute(WireReader m, Source& source, int depth) {
  std::pair<std::string, ProtoAttribute> out;
  int64_t stated = kUndefined;
  const int64_t type = attribute_type(m, stated);
  ProtoAttribute& attribute = out.second;
  attribute.value = empty_value(type);
  bool seen = false;
  WireReader fields = m;
  while (fields.next()) {
    if (fields.field() == 1) out.first = fields.string();
    if (fields.field() == 21) attribute.ref = fields.string();
    if (type != kUndefined && type_of_field(fields.field()) == type) {
      parse_value(fields, attribute.value, source, depth);
      seen = true;
    }
  }
  if (out.first.empty()) m.fail("an attribute has no name");
  if (!seen && attribute.ref.empty() && (type == kTensor || type == kGraph)) {
    m.fail(fmt::format("attribute '{}' has no value", out.first));
  }
  return out;
}

ProtoNode parse_node(WireReader m, Source& source, int depth) {
  ProtoNode n;
  if (++source.nodes > kMaxNodes) m.fail(fmt::format("more than {} nodes", kMaxNodes));
  const WireReader start = m;
  while (m.next()) {
    switch (m.field()) {
      case 1:
        n.inputs.push_back(m.string());
        break;
      case 2:
        n.outputs.push_back(m.string());
        break;
      case 3:
        n.name = m.string();
        break;
      case 4:
        n.op = m.string();
        break;
      case 5: {
        auto attribute = parse_attribute(m.message(), source, depth);
        const std::string key = attribute.first;
        if (!n.attributes.insert(std::move(attribute)).second) {
          m.fail(fmt::format("{}: attribute '{}' is there twice", n.describe(), key));
        }
        break;
      }
      case 6:
        n.doc = m.string();
        break;
      case 7:
        n.domain = canonical_domain(m.string());
        break;
      case 8:
        n.overload = m.string();
        break;
      default:
        break;
    }
  }
  if (n.op.empty()) start.fail(fmt::format("node '{}' has no operator", n.name));
  return n;
}

// --- graphs and models ---------------------------------------------------------------------------

ProtoGraph parse_graph(WireReader m, Source& source, int depth) {
  if (depth > kMaxSubgraphDepth) {
    m.fail(fmt::format("subgraphs are nested deeper than {}", kMaxSubgraphDepth));
  }
  ProtoGraph g;
  while (m.next()) {
    switch (m.field()) {
      case 1:
        g.nodes.push_back(parse_node(m.message(), source, depth));
        break;
      case 2:
        g.name = m.string();
        break;
      case 5:
        g.initializers.push_back(parse_tensor(m.message(), source));
        break;
      case 10:
        g.doc = m.string();
        break;
      case 11:
        g.inputs.push_back(parse_value_info(m.message()));
        break;
      case 12:
        g.outputs.push_back(parse_value_info(m.message()));
        break;
      case 13:
        g.value_info.push_back(parse_value_info(m.message()));
        break;
      case 15: {
        // SparseTensorProto: its values tensor (field 1) carries the name.
        std::string name;
        WireReader sparse = m.message();
        while (sparse.next()) {
          if (sparse.field() == 1) name = parse_tensor(sparse.message(), source).name;
        }
        throw Error(ErrorCode::unsupported, fmt::format("initializer '{}' is sparse", name),
                    "store it as a dense initializer");
      }
      default:
        break;
    }
  }
  return g;
}

void parse_opset(WireReader m, OpsetImports& opsets) {
  std::string domain;
  int64_t version = 0;
  while (m.next()) {
    if (m.field() == 1) domain = canonical_domain(m.string());
    if (m.field() == 2) version = m.integer();
  }
  const auto [it, inserted] = opsets.emplace(domain, version);
  if (!inserted && it->second != version) {
    m.fail(fmt::format("the operator set '{}' is imported as {} and as {}", domain, it->second,
                       version));
  }
}

ProtoFunction parse_function(WireReader m, Source& source) {
  ProtoFunction f;
  while (m.next()) {
    switch (m.field()) {
      case 1:
        f.name = m.string();
        break;
      case 4:
        f.inputs.push_back(m.string());
        break;
      case 5:
        f.outputs.push_back(m.string());
        break;
      case 6:
        f.attributes.push_back(m.string());
        break;
      case 7:
        f.nodes.push_back(parse_node(m.message(), source, 0));
        break;
      case 9:
        parse_opset(m.message(), f.opsets);
        break;
      case 10:
        f.domain = canonical_domain(m.string());
        break;
      case 11:
        f.defaults.insert(parse_attribute(m.message(), source, 0));
        break;
      case 13:
        f.overload = m.string();
        break;
      default:
        break;
    }
  }
  return f;
}

}  // namespace

std::string canonical_domain(std::string domain) {
  return domain == "ai.onnx" ? std::string() : std::move(domain);
}

void ProtoNode::set_input(size_t i, std::string value) {
  if (i >= inputs.size()) inputs.resize(i + 1);
  inputs[i] = std::move(value);
  while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
}

std::string ProtoNode::describe() const {
  std::string label = name;
  if (label.empty() && !outputs.empty()) label = outputs[0];
  return fmt::format("node '{}' ({}{}{})", label, domain, domain.empty() ? "" : "::", op);
}

void ProtoNode::wrong_type(std::string_view key) const {
  throw Error(ErrorCode::corrupt_data,
              fmt::format("{}: attribute '{}' has the wrong type", describe(), key));
}

ProtoModel parse_model(std::string_view bytes, Source& source) {
  ProtoModel model;
  bool has_graph = false;
  WireReader m(bytes, source.begin);
  while (m.next()) {
    switch (m.field()) {
      case 1:
        model.ir_version = m.integer();
        break;
      case 2:
        model.producer_name = m.string();
        break;
      case 3:
        model.producer_version = m.string();
        break;
      case 6:
        model.doc = m.string();
        break;
      case 7:
        if (has_graph) m.fail("a second graph");
        model.graph = parse_graph(m.message(), source, 0);
        has_graph = true;
        break;
      case 8:
        parse_opset(m.message(), model.opsets);
        break;
      case 14: {
        auto [key, value] = parse_entry(m.message());
        model.metadata.insert_or_assign(std::move(key), std::move(value));
        break;
      }
      case 25:
        model.functions.push_back(parse_function(m.message(), source));
        break;
      default:
        break;
    }
  }
  if (!has_graph) {
    throw Error(ErrorCode::corrupt_data, "there is no graph: this is no ONNX model",
                "check that the file is complete and of the ONNX format");
  }
  return model;
}

}  // namespace narrow::onnx
