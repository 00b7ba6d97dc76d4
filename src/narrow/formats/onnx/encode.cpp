// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/encode.h"

#include <type_traits>

#include "narrow/formats/onnx/tensor_proto.h"

namespace narrow::onnx {
namespace {

WireWriter encode_graph(const ProtoGraph& graph, const PlaceTensor& place);

WireWriter encode_entry(const std::string& key, const std::string& value) {
  WireWriter w;
  w.bytes(1, key);
  w.bytes(2, value);
  return w;
}

WireWriter encode_value_info(const ProtoValueInfo& info) {
  WireWriter tensor;
  tensor.integer(1, data_type_of(info.dtype));
  if (info.shape) {
    WireWriter shape;
    for (const Dim& dim : *info.shape) {
      WireWriter d;
      if (dim.known()) {
        d.integer(1, dim.value);
      } else {
        d.text(2, dim.name);
      }
      shape.message(1, std::move(d));
    }
    tensor.message(2, std::move(shape));
  }
  WireWriter type;
  type.message(1, std::move(tensor));
  WireWriter w;
  w.bytes(1, info.name);
  w.message(2, std::move(type));
  return w;
}

/// The fields of AttributeProto; its type (field 20) is the field of the value less one.
WireWriter encode_attribute(const std::string& name, const ProtoAttribute& attribute,
                            const PlaceTensor& place) {
  WireWriter w;
  w.bytes(1, name);
  const auto typed = [&w](int64_t type) { w.integer(20, type); };
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, float>) {
          w.float32(2, v);
          typed(1);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          w.integer(3, v);
          typed(2);
        } else if constexpr (std::is_same_v<T, std::string>) {
          w.bytes(4, v);
          typed(3);
        } else if constexpr (std::is_same_v<T, Tensor>) {
          w.message(5, encode_tensor({}, v, place));
          typed(4);
        } else if constexpr (std::is_same_v<T, std::shared_ptr<ProtoGraph>>) {
          w.message(6, encode_graph(*v, place));
          typed(5);
        } else if constexpr (std::is_same_v<T, std::vector<float>>) {
          w.packed_floats(7, v);
          typed(6);
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
          w.packed_integers(8, v);
          typed(7);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          for (const std::string& s : v) w.bytes(9, s);
          typed(8);
        }
      },
      attribute.value);
  return w;
}

WireWriter encode_node(const ProtoNode& node, const PlaceTensor& place) {
  WireWriter w;
  for (const std::string& input : node.inputs) w.bytes(1, input);
  for (const std::string& output : node.outputs) w.bytes(2, output);
  w.text(3, node.name);
  w.bytes(4, node.op);
  for (const auto& [name, attribute] : node.attributes) {
    w.message(5, encode_attribute(name, attribute, place));
  }
  w.text(6, node.doc);
  w.text(7, node.domain);
  w.text(8, node.overload);
  return w;
}

WireWriter encode_graph(const ProtoGraph& graph, const PlaceTensor& place) {
  WireWriter w;
  for (const ProtoNode& node : graph.nodes) w.message(1, encode_node(node, place));
  w.bytes(2, graph.name);
  for (const ProtoTensor& t : graph.initializers) {
    w.message(5, encode_tensor(t.name, t.tensor, place));
  }
  w.text(10, graph.doc);
  for (const ProtoValueInfo& info : graph.inputs) w.message(11, encode_value_info(info));
  for (const ProtoValueInfo& info : graph.outputs) w.message(12, encode_value_info(info));
  for (const ProtoValueInfo& info : graph.value_info) w.message(13, encode_value_info(info));
  return w;
}

}  // namespace

WireWriter encode_tensor(const std::string& name, const Tensor& tensor, const PlaceTensor& place) {
  WireWriter w;
  for (const int64_t d : tensor.dims()) w.integer(1, d);
  w.integer(2, data_type_of(tensor.dtype()));
  w.text(8, name);
  const auto external = place ? place(tensor) : std::nullopt;
  if (!external) {
    w.tensor_bytes(9, tensor);
    return w;
  }
  w.message(13, encode_entry("location", external->location));
  w.message(13, encode_entry("offset", std::to_string(external->offset)));
  w.message(13, encode_entry("length", std::to_string(tensor.bytes())));
  w.integer(14, 1);
  return w;
}

WireWriter encode_model(const ProtoModel& model, const PlaceTensor& place) {
  WireWriter w;
  w.integer(1, model.ir_version);
  w.text(2, model.producer_name);
  w.text(3, model.producer_version);
  w.text(6, model.doc);
  w.message(7, encode_graph(model.graph, place));
  for (const auto& [domain, version] : model.opsets) {
    WireWriter opset;
    opset.bytes(1, domain);
    opset.integer(2, version);
    w.message(8, std::move(opset));
  }
  for (const auto& [key, value] : model.metadata) w.message(14, encode_entry(key, value));
  return w;
}

}  // namespace narrow::onnx
