// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/tables/tables.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/ptq/rtn/rtn.h"

namespace narrow {

QuantizedTable quantize_table(Graph& graph, const std::string& table, const Tensor& x) {
  Scheme scheme;
  scheme.granularity = Granularity::per_axis;
  scheme.axis = 0;
  const QuantizedTensor q = round_weights(x, scheme);
  QuantizedTable result;
  result.bytes = q.codes.bytes() + q.params.scale.bytes();
  result.error = measure_error(x, dequantize(q.codes, q.params));
  const ValueId value = *graph.find_value(table);
  const ValueId codes = graph.add_initializer(graph.unique_name(table + "_quantized"), q.codes);
  const ValueId scales = graph.add_initializer(graph.unique_name(table + "_scale"),
                                               q.params.scale.reshaped({x.dim(0), 1}));
  const std::vector<Use> uses = graph.value(value).uses;
  for (const Use& use : uses) {
    const Node gather = graph.node(use.node);  // a copy: the graph changes below
    if (!gather.is("Gather") || use.index != 0 || gather.int_or("axis", 0) != 0) {
      throw Error(ErrorCode::internal,
                  fmt::format("'{}' gathers no rows of '{}'", gather.name, table));
    }
    const std::string name = graph.value(gather.outputs[0]).name;
    const auto add = [&](const char* op, std::vector<ValueId> inputs, const char* suffix,
                         Attributes attributes) {
      const NodeId node = graph.add_node(op, std::move(inputs), {graph.unique_name(name + suffix)},
                                         std::move(attributes), "", gather.name + suffix);
      return graph.node(node).outputs[0];
    };
    const ValueId ids = gather.inputs[1];
    constexpr int64_t kFloat = 1;  // TensorProto.FLOAT
    const ValueId rows = add("Gather", {codes, ids}, "_codes", {{"axis", int64_t{0}}});
    const ValueId real = add("Cast", {rows}, "_cast", {{"to", kFloat}});
    const ValueId scale = add("Gather", {scales, ids}, "_scales", {{"axis", int64_t{0}}});
    const ValueId y = add("Mul", {real, scale}, "_rows", {});
    graph.replace_uses(gather.outputs[0], y);
  }
  graph.sort();
  graph.remove_dead();
  return result;
}

}  // namespace narrow
