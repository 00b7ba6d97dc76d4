// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/assign.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "narrow/core/error.h"
#include "narrow/graph/qdq.h"
#include "narrow/ptq/select.h"

namespace narrow {
namespace {

Scheme weight_scheme(const QuantizeOptions& options, const LayerChoice& choice,
                     const Layer& layer) {
  Scheme scheme;
  scheme.bits = choice.weights->bits;
  scheme.is_signed = choice.weights->is_signed;
  scheme.symmetry = choice.weight_symmetry;
  scheme.granularity = choice.granularity;
  scheme.scale_type = options.scale_type;
  if (choice.granularity == Granularity::per_axis) scheme.axis = layer.channel_axis;
  if (choice.granularity == Granularity::per_group) {
    scheme.axis = layer.reduce_axis;
    scheme.group_size = choice.group_size;
  }
  return scheme;
}

/// Which inputs of which nodes are the layer's weights and bias.
struct Slot {
  NodeId node;
  size_t index;
};

Slot bias_slot(const Graph& graph, const Layer& layer) {
  if (!graph.node(layer.node).is("MatMul")) return {layer.node, 2};
  const NodeId add = layer.absorbed.front();
  return {add, graph.node(add).inputs[0] == layer.bias ? size_t{0} : size_t{1}};
}

/// A constant that others read too gets a copy under a new name.
ValueId own_constant(Graph& graph, ValueId constant, Slot slot) {
  if (graph.value(constant).uses.size() == 1 && !graph.value(constant).is_output) return constant;
  const std::string name =
      graph.unique_name(graph.value(constant).name + "_" + graph.node(slot.node).name);
  const ValueId copy = graph.add_initializer(name, *graph.constant(constant));
  graph.set_input(slot.node, slot.index, copy);
  return copy;
}

/// Convolution weights in groups: the matrix [channels, rest] behind a Reshape to their own shape.
ValueId as_matrix(Graph& graph, ValueId weights, NodeId node) {
  const Tensor& w = *graph.constant(weights);
  const Dims dims = w.dims();
  const Tensor matrix = w.reshaped({dims[0], w.elements() / std::max<int64_t>(1, dims[0])});
  const std::string name = graph.value(weights).name;
  const ValueId rows = graph.add_initializer(graph.unique_name(name + "_matrix"), matrix);
  const ValueId shape =
      graph.add_initializer(graph.unique_name(name + "_shape"), Tensor::vector<int64_t>(dims));
  const NodeId reshape =
      graph.add_node("Reshape", {rows, shape}, {graph.unique_name(name + "_kernel")});
  const ValueId kernel = graph.node(reshape).outputs[0];
  graph.mutable_value(kernel).dtype = DType::float32;
  graph.mutable_value(kernel).shape = symbolic(dims);
  graph.set_input(node, 1, kernel);
  return rows;
}

bool is_convolution(const Node& node) {
  return node.is("Conv") || node.is("ConvTranspose");
}

class Assigner {
 public:
  Assigner(Graph& graph, const QuantizeOptions& options)
      : graph_(graph), options_(options), target_(find_target(options.target)) {}

  Assignment run() {
    refuse_quantized();
    const Selection selection = select_nodes(graph_, options_);
    out_.mode = options_.mode;
    out_.kept_float = selection.kept_float;
    activations(selection);
    constants(selection);
    for (const NodeId id : graph_.nodes()) {
      const auto found = selection.layers.find(id);
      if (found != selection.layers.end()) add_layer(found->second);
    }
    graph_.sort();
    graph_.remove_dead();
    if (out_.layers.empty()) refuse_empty();
    note_groups();
    return std::move(out_);
  }

 private:
  void refuse_quantized() const {
    std::string names;
    for (const std::string& name : quantized_layers(graph_)) {
      const auto hit = [&](const std::vector<std::string>& patterns) {
        return std::any_of(patterns.begin(), patterns.end(),
                           [&](const std::string& p) { return glob_match(p, name); });
      };
      const bool selected = options_.include.empty() || hit(options_.include);
      if (!selected || hit(options_.exclude) || hit(options_.keep_float)) continue;
      names += fmt::format("{}'{}'", names.empty() ? "" : ", ", name);
    }
    if (names.empty()) return;
    throw Error(ErrorCode::invalid_argument, fmt::format("already quantized: {}", names),
                "start from the float model, or exclude these layers");
  }

  [[noreturn]] void refuse_empty() const {
    std::string why;
    for (size_t i = 0; i < std::min<size_t>(out_.kept_float.size(), 5); ++i) {
      why += fmt::format("; '{}' ({}): {}", out_.kept_float[i].node, out_.kept_float[i].op,
                         out_.kept_float[i].reason);
    }
    throw Error(ErrorCode::invalid_argument, "no layer can be quantized" + why,
                "include other nodes, or choose another target");
  }

  /// The widest type that a layer asked for.
  NumberType type_of(const Selection& selection, const std::vector<ValueId>& group) const {
    std::optional<NumberType> type;
    for (const ValueId v : group) {
      for (const NumberType& wish : selection.grids.at(v)) {
        if (!type || wish.bits > type->bits) type = wish;
      }
    }
    return type.value_or(*options_.activations);
  }

  void activations(const Selection& selection) {
    for (const auto& group : grid_groups(graph_, selection, target_)) {
      AssignedActivation activation;
      activation.scheme = activation_scheme(options_, type_of(selection, group));
      const std::set<ValueId> members(group.begin(), group.end());
      for (const ValueId v : group) {
        if (!is_copy(selection, v, members)) activation.sources.push_back(graph_.value(v).name);
      }
      std::sort(activation.sources.begin(), activation.sources.end());
      for (const ValueId v : group) out_.activations[graph_.value(v).name] = activation;
    }
  }

  /// Whether the value holds nothing but values of another member of its group.
  bool is_copy(const Selection& selection, ValueId v, const std::set<ValueId>& members) const {
    NodeId producer = graph_.producer_id(v);
    while (producer != kNoId && selection.absorbed.count(producer) > 0) {
      producer = graph_.producer_id(graph_.node(producer).inputs[0]);
    }
    if (producer == kNoId || selection.nodes.count(producer) == 0) return false;
    const Node& node = graph_.node(producer);
    const OpClass c = classify(graph_, node).op_class;
    if (c == OpClass::movement) return members.count(node.inputs[0]) > 0;
    return c == OpClass::concat && target_.equal_concat && graph_.producer_id(v) == producer;
  }

  /// Constant operands of elementwise operators that run on codes. Scalars of table functions are
  /// part of the table.
  void constants(const Selection& selection) {
    std::vector<std::pair<NodeId, size_t>> slots;
    for (const NodeId id : selection.nodes) {
      const Node& node = graph_.node(id);
      const OpClass c = classify(graph_, node).op_class;
      if (c != OpClass::binary && c != OpClass::concat) continue;
      if (is_table_function(graph_, node, c)) continue;
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const Tensor* constant = graph_.constant(node.inputs[i]);
        if (constant != nullptr && constant->dtype() == DType::float32) slots.emplace_back(id, i);
      }
    }
    for (const auto& [id, index] : slots) {
      const ValueId own = own_constant(graph_, graph_.node(id).inputs[index], {id, index});
      out_.constants[graph_.value(own).name] = activation_scheme(options_, *options_.activations);
    }
  }

  void add_layer(Layer layer) {
    LayerChoice choice = choose(options_, graph_.node(layer.node).name);
    bool groups =
        choice.granularity == Granularity::per_group && choice.weights && !choice.weights->floating;
    if (groups && !target_.short_groups && summed_weights(layer) % choice.group_size != 0) {
      add_name(whole_channels_, layer, summed_weights(layer));
      choice.granularity = Granularity::per_axis;
      groups = false;
    }
    if (choice.weights) {
      layer.weights = own_constant(graph_, layer.weights, {layer.node, 1});
      if (groups && is_convolution(graph_.node(layer.node))) {
        if (graph_.node(layer.node).is("ConvTranspose")) {
          // Its matrix would run along the output channels.
          out_.kept_float.push_back({graph_.node(layer.node).name, "ConvTranspose",
                                     "its weights cannot be cut into groups"});
          return;
        }
        layer.weights = as_matrix(graph_, layer.weights, layer.node);
      }
    }
    AssignedLayer a;
    const Node node = graph_.node(layer.node);
    a.node = node.name;
    a.op = node.op;
    a.input = graph_.value(layer.input).name;
    a.weights = graph_.value(layer.weights).name;
    a.output = graph_.value(layer.output).name;
    a.channel_axis = layer.channel_axis;
    a.channels = layer.channels;
    if (is_convolution(node)) a.groups = node.int_or("group", 1);
    a.half_weights = choice.weights && choice.weights->floating;
    if (choice.weights && !a.half_weights) a.weight_scheme = weight_scheme(options_, choice, layer);
    a.quantized_input = options_.mode == Mode::dynamic || out_.activations.count(a.input) > 0;
    a.integer_layer = options_.mode == Mode::static_ && a.quantized_input && a.weight_scheme &&
                      out_.activations.at(a.input).scheme.bits <= 8 && !node.is("ConvTranspose");
    if (layer.bias != kNoId) {
      a.bias = graph_.value(own_constant(graph_, layer.bias, bias_slot(graph_, layer))).name;
      a.integer_bias = a.integer_layer && target_.bias == BiasForm::int32;
    }
    out_.layers.push_back(std::move(a));
  }

  /// Weights of one output channel, which groups cut into pieces.
  int64_t summed_weights(const Layer& layer) const {
    const Tensor& w = *graph_.constant(layer.weights);
    if (!is_convolution(graph_.node(layer.node))) return w.dim(layer.reduce_axis);
    return w.elements() / std::max<int64_t>(1, w.dim(0));
  }

  void add_name(std::string& names, const Layer& layer, int64_t length) const {
    names +=
        fmt::format("{}{} ({})", names.empty() ? "" : ", ", graph_.node(layer.node).name, length);
  }

  void note_groups() {
    if (!whole_channels_.empty()) {
      out_.notes.push_back(
          fmt::format("target {} has no shorter last group; one scale for each channel in: {}",
                      target_.name, whole_channels_));
    }
    std::string names;
    for (const AssignedLayer& layer : out_.layers) {
      if (!layer.weight_scheme || layer.weight_scheme->granularity != Granularity::per_group) {
        continue;
      }
      const Tensor& w = *graph_.constant(*graph_.find_value(layer.weights));
      const int64_t length = w.dim(layer.weight_scheme->axis);
      if (length % layer.weight_scheme->group_size == 0) continue;
      names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", layer.node, length);
    }
    if (!names.empty()) {
      out_.notes.push_back("the last group of each channel is shorter in: " + names);
    }
  }

  Graph& graph_;
  const QuantizeOptions& options_;
  const TargetProfile& target_;
  std::string whole_channels_;  // layers that the target cannot cut into groups
  Assignment out_;
};

}  // namespace

std::vector<std::string> Assignment::observed() const {
  std::set<std::string> names;
  for (const auto& [name, activation] : activations) {
    names.insert(activation.sources.begin(), activation.sources.end());
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> quantized_layers(const Graph& graph) {
  static constexpr const char* kInteger[] = {"ConvInteger", "MatMulInteger", "QLinearConv",
                                             "QLinearMatMul", "QGemm"};
  static constexpr const char* kProducts[] = {"Conv", "ConvTranspose", "Gemm", "MatMul"};
  const auto in = [](const Node& node, const auto& names) {
    return std::any_of(std::begin(names), std::end(names),
                       [&](const char* name) { return node.op == name; });
  };
  const auto dequantized = [&](ValueId value) {
    const Node* producer = graph.producer(value);
    while (producer != nullptr && (producer->is("Reshape") || producer->is("Transpose"))) {
      producer = graph.producer(producer->inputs[0]);
    }
    return producer != nullptr && producer->is("DequantizeLinear");
  };
  std::vector<std::string> names;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const bool by_inputs =
        in(node, kProducts) && (dequantized(node.inputs[0]) || dequantized(node.inputs[1]));
    if (in(node, kInteger) || by_inputs) names.push_back(node.name);
  }
  return names;
}

void separate_constants(Graph& graph, const QuantizeOptions& options) {
  for (const auto& [id, layer] : select_nodes(graph, options).layers) {
    own_constant(graph, layer.weights, {id, 1});
    if (layer.bias != kNoId) own_constant(graph, layer.bias, bias_slot(graph, layer));
  }
}

Assignment assign(Graph& graph, const QuantizeOptions& options) {
  return Assigner(graph, options).run();
}

}  // namespace narrow
