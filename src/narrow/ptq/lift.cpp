// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/lift.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "narrow/core/error.h"
#include "narrow/graph/qdq.h"
#include "narrow/ptq/op_class.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

/// The fewest bits that hold these codes; those of the type where all codes are 0.
int used_bits(int64_t low, int64_t high, DType type) {
  const int most = bits(type);
  if (low == 0 && high == 0) return most;
  for (int b = 2; b < most; ++b) {
    const int64_t qmin = is_signed_integer(type) ? -(int64_t{1} << (b - 1)) : 0;
    const int64_t qmax = (int64_t{1} << (is_signed_integer(type) ? b - 1 : b)) - 1;
    if (low >= qmin && high <= qmax) return b;
  }
  return most;
}

bool same_grid(const QuantParams& a, const QuantParams& b) {
  const bool zeros = a.zero_point.defined()
                         ? b.zero_point.defined() && identical(a.zero_point, b.zero_point)
                         : !b.zero_point.defined();
  return a.scheme == b.scheme && identical(a.scale, b.scale) && zeros;
}

class Lifter {
 public:
  explicit Lifter(const Graph& qdq) { out_.file = qdq; }

  LiftedModel run() {
    Graph& file = out_.file;
    for (const NodeId id : file.nodes()) {
      if (file.node(id).is("DequantizeLinear")) take_constant(id);
      if (file.node(id).is("QuantizeLinear")) take_value(id);
    }
    out_.graph = file;
    for (const Constant& constant : constants_) lift_constant(constant);
    std::vector<ValueId> lifted;
    for (const Pair& pair : pairs_) lifted.push_back(lift_value(pair));
    out_.graph.sort();
    out_.graph.remove_dead();
    const std::vector<ValueId> live = out_.graph.live_values();
    const std::set<ValueId> left(live.begin(), live.end());
    for (size_t i = 0; i < pairs_.size(); ++i) {
      if (!left.contains(lifted[i])) continue;
      out_.activations[out_.graph.value(lifted[i]).name] = pairs_[i].activation;
    }
    const auto gone = [&](const auto& entry) { return !out_.graph.find_value(entry.first); };
    std::erase_if(out_.weights, gone);
    std::erase_if(out_.biases, gone);
    find_layers();
    share_grids();
    return std::move(out_);
  }

 private:
  /// QuantizeLinear and what reads its codes.
  struct Pair {
    NodeId quantize = kNoId;
    NodeId clip = kNoId;
    std::vector<NodeId> dequantize;
    LiftedActivation activation;
  };
  struct Constant {
    Tensor real;
    std::string name;
    LiftedWeight weight;  // of a bias: where its numbers are
    bool is_bias = false;
  };

  [[noreturn]] void refuse(ValueId id, const std::string& what) const {
    throw Error(ErrorCode::corrupt_data, fmt::format("'{}': {}", out_.file.value(id).name, what));
  }

  /// An initializer that nodes besides these read becomes a copy for these.
  ValueId own(ValueId id, const std::set<NodeId>& nodes) {
    Graph& file = out_.file;
    if (id == kNoId) return id;
    const std::vector<Use> uses = file.value(id).uses;
    const bool alone = std::all_of(uses.begin(), uses.end(),
                                   [&](const Use& use) { return nodes.contains(use.node); });
    if (alone && !file.value(id).is_output) return id;
    const ValueId copy =
        file.add_initializer(file.unique_name(file.value(id).name), file.value(id).constant);
    for (const Use& use : uses) {
      if (nodes.contains(use.node)) file.set_input(use.node, static_cast<size_t>(use.index), copy);
    }
    return copy;
  }

  /// Positive numbers, as many as there are units.
  void check_scale(ValueId id, int64_t units) const {
    const Tensor& scale = *out_.file.constant(id);
    if (scale.elements() != units) {
      refuse(id, fmt::format("{} scales for {} units", scale.elements(), units));
    }
    for (const float s : scale.data<float>()) {
      if (!(s > 0) || !std::isfinite(s)) refuse(id, fmt::format("a scale of {}", s));
    }
  }

  /// Fills in numbers and bits. `low` and `high`: the codes that are there.
  QuantParams params_of(const QdqGrid& grid, Scheme scheme, const Dims& shape, int64_t low,
                        int64_t high) const {
    QuantParams params;
    const Tensor& scale = *out_.file.constant(grid.scale);
    check_scale(grid.scale, num_elements(shape));
    params.scale = scale.reshaped(shape);
    std::vector<int32_t> zeros(static_cast<size_t>(scale.elements()), 0);
    if (grid.zero_point != kNoId) {
      const std::vector<int64_t> codes = out_.file.constant(grid.zero_point)->to_ints();
      if (codes.size() != zeros.size()) refuse(grid.zero_point, "not one zero point for a scale");
      for (size_t i = 0; i < codes.size(); ++i) {
        zeros[i] = static_cast<int32_t>(codes[i]);
        low = std::min(low, codes[i]);
        high = std::max(high, codes[i]);
      }
    }
    scheme.is_signed = is_signed_integer(grid.code_dtype);
    scheme.bits = used_bits(low, high, grid.code_dtype);
    const bool shifted = std::any_of(zeros.begin(), zeros.end(), [](int32_t z) { return z != 0; });
    scheme.symmetry = shifted || !scheme.is_signed ? Symmetry::asymmetric : Symmetry::symmetric;
    if (scheme.symmetry == Symmetry::asymmetric) {
      params.zero_point = Tensor::vector(zeros).reshaped(shape);
    }
    constexpr int kByte = 8;
    scheme.narrow_range = scheme.symmetry == Symmetry::symmetric && scheme.bits == kByte &&
                          low > integer_min(DType::int8);
    params.scheme = scheme;
    return params;
  }

  bool lifts(const QdqGrid& grid) const {
    const Tensor* scale = out_.file.constant(grid.scale);
    return scale->dtype() == DType::float32 && is_integer(grid.code_dtype);
  }

  void take_constant(NodeId id) {
    Graph& file = out_.file;
    const ValueId real = file.node(id).outputs[0];
    std::optional<QdqGrid> grid = dequantized_from(file, real);
    if (!grid || file.constant(grid->codes) == nullptr || file.value(real).is_output) return;
    const Tensor codes = *file.constant(grid->codes);
    grid->code_dtype = codes.dtype();
    constexpr int kMostBits = 8;
    const bool bias = codes.dtype() == DType::int32;
    if (!lifts(*grid) || codes.elements() == 0 || (!bias && bits(codes.dtype()) > kMostBits)) {
      return;
    }
    grid->codes = own(grid->codes, {id});
    grid->scale = own(grid->scale, {id});
    grid->zero_point = own(grid->zero_point, {id});
    Constant constant;
    constant.is_bias = bias;
    LiftedWeight& w = constant.weight;
    w = {.params = {},
         .node = "",
         .input = "",
         .real = real,
         .codes = grid->codes,
         .scale = grid->scale,
         .zero_point = grid->zero_point};
    const std::vector<int64_t> values = codes.to_ints();
    if (bias) {
      constant.real = real_bias(*grid, values, codes.dims());
    } else {
      Scheme scheme;
      scheme.granularity = grid->block_size > 0 ? Granularity::per_group
                           : grid->per_tensor   ? Granularity::per_tensor
                                                : Granularity::per_axis;
      scheme.group_size = grid->block_size;
      if (!grid->per_tensor) {
        scheme.axis = static_cast<int64_t>(normalize_axis(grid->axis, codes.rank()));
      }
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      w.params = params_of(*grid, scheme, scale_dims(codes.dims(), scheme), *low, *high);
      constant.real = dequantize(codes, w.params);
    }
    constant.name = file.value(w.codes).name;
    constants_.push_back(std::move(constant));
  }

  /// One scale, or one for each element of the last axis.
  Tensor real_bias(const QdqGrid& grid, const std::vector<int64_t>& codes, const Dims& dims) const {
    const Tensor& scale = *out_.file.constant(grid.scale);
    const int64_t units = scale.elements() == 1 ? 1 : dims.back();
    check_scale(grid.scale, units);
    const std::span<const float> s = scale.data<float>();
    Tensor out(DType::float32, dims);
    std::span<float> y = out.mutable_data<float>();
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = static_cast<float>(codes[i]) * s[i % static_cast<size_t>(units)];
    }
    return out;
  }

  void take_value(NodeId id) {
    Graph& file = out_.file;
    const std::optional<QdqGrid> grid = quantizes_to(file, id);
    if (!grid || !grid->per_tensor || !lifts(*grid) || file.value(grid->codes).is_output) return;
    Pair pair;
    pair.quantize = id;
    int outputs = 0;
    for (const Use& use : file.value(grid->codes).uses) {
      const std::optional<QdqGrid> back = dequantized_from(file, file.node(use.node).output(0));
      if (!back || use.index != 0 || !equal(grid->scale, back->scale) ||
          !equal(grid->zero_point, back->zero_point)) {
        return;
      }
      pair.dequantize.push_back(use.node);
      outputs += file.value(back->real).is_output ? 1 : 0;
    }
    if (pair.dequantize.empty() || outputs > 1) return;
    LiftedActivation& a = pair.activation;
    a.params =
        params_of(*grid, {}, {}, integer_min(grid->code_dtype), integer_max(grid->code_dtype));
    a.params.scheme.narrow_range = false;
    take_numbers(*grid, pair);
    take_clip(pair);
    pairs_.push_back(std::move(pair));
  }

  bool equal(ValueId a, ValueId b) const {
    if (a == b) return true;
    const Tensor* x = out_.file.constant(a);
    const Tensor* y = out_.file.constant(b);
    return x != nullptr && y != nullptr && x->dtype() == y->dtype() && x->elements() == 1 &&
           y->elements() == 1 && x->to_floats() == y->to_floats();
  }

  /// One scale and one zero point for all nodes of the pair.
  void take_numbers(const QdqGrid& grid, Pair& pair) {
    Graph& file = out_.file;
    LiftedActivation& a = pair.activation;
    a.scale = grid.scale;
    a.zero_point = grid.zero_point;
    if (a.zero_point == kNoId) {
      a.zero_point =
          file.add_initializer(file.unique_name(file.value(grid.codes).name + "_zero_point"),
                               Tensor(grid.code_dtype, file.constant(grid.scale)->dims()));
    }
    std::set<NodeId> nodes(pair.dequantize.begin(), pair.dequantize.end());
    nodes.insert(pair.quantize);
    for (const NodeId node : nodes) {
      file.set_input(node, 1, a.scale);
      if (file.node(node).inputs.size() > 2) {
        file.set_input(node, 2, a.zero_point);
      } else {
        file.add_node_input(node, a.zero_point);
      }
    }
    a.zero_point = own(a.zero_point, nodes);
  }

  /// A Clip to codes of fewer bits than the type has belongs to the grid.
  void take_clip(Pair& pair) {
    Graph& file = out_.file;
    const NodeId clip = file.producer_id(file.node(pair.quantize).inputs[0]);
    if (clip == kNoId || !file.node(clip).is("Clip") ||
        file.single_user(file.node(clip).outputs[0]) != pair.quantize) {
      return;
    }
    LiftedActivation& a = pair.activation;
    const float scale = a.params.scale.item<float>();
    const int64_t zero = a.params.zero_point.defined() ? a.params.zero_point.to_ints()[0] : 0;
    int64_t ends[2];
    for (const size_t i : {size_t{1}, size_t{2}}) {
      const Tensor* bound = file.constant(file.node(clip).input(i));
      if (bound == nullptr || bound->dtype() != DType::float32 || bound->elements() != 1) return;
      const float code = bound->to_floats()[0] / scale;
      constexpr float kMost = 65536;
      if (!(std::abs(code) <= kMost) || std::abs(code - std::nearbyint(code)) > 1e-3F) return;
      ends[i - 1] = static_cast<int64_t>(std::nearbyint(code)) + zero;
    }
    Scheme scheme = a.params.scheme;
    for (int b = 2; b < a.params.scheme.bits; ++b) {
      scheme.bits = b;
      if (ends[0] != scheme.qmin() || ends[1] != scheme.qmax()) continue;
      a.params.scheme = scheme;
      a.clip_min = own(file.node(clip).inputs[1], {clip});
      a.clip_max = own(file.node(clip).inputs[2], {clip});
      pair.clip = clip;
      return;
    }
  }

  void lift_constant(const Constant& constant) {
    Graph& g = out_.graph;
    const ValueId real = constant.weight.real;
    g.set_constant(real, constant.real);
    constexpr std::string_view kEnd = "_quantized";
    std::string name = constant.name;
    if (name.ends_with(kEnd)) name.resize(name.size() - kEnd.size());
    if (!g.find_value(name)) g.rename_value(real, name);
    name = g.value(real).name;
    if (constant.is_bias) {
      out_.biases[name] = {"", constant.weight.codes, constant.weight.scale};
    } else {
      out_.weights[name] = constant.weight;
    }
  }

  /// The value that has the grid: what was quantized, where nobody else reads it, else a copy.
  ValueId lift_value(const Pair& pair) {
    Graph& g = out_.graph;
    const NodeId first = pair.clip != kNoId ? pair.clip : pair.quantize;
    ValueId x = g.node(first).inputs[0];
    std::vector<ValueId> reals;
    bool output = false;
    for (const NodeId id : pair.dequantize) {
      reals.push_back(g.node(id).outputs[0]);
      output |= g.value(reals.back()).is_output;
    }
    const bool alone = g.single_user(x) == first && !(output && g.value(x).is_input);
    if (!alone) {
      const NodeId copy =
          g.add_node("Identity", {x}, {g.unique_name(g.value(x).name + "_rounded")});
      const ValueId y = g.node(copy).outputs[0];
      g.mutable_value(y).dtype = g.value(x).dtype;
      g.mutable_value(y).shape = g.value(x).shape;
      x = y;
    }
    for (const ValueId real : reals) g.replace_uses(real, x);
    return x;
  }

  void find_layers() {
    const Graph& g = out_.graph;
    for (const NodeId id : g.nodes()) {
      std::string reason;
      const std::optional<Layer> layer = layer_of(g, id, &reason);
      if (!layer) continue;
      const auto weight = out_.weights.find(g.value(layer->weights).name);
      if (weight == out_.weights.end()) continue;
      LiftedWeight& w = weight->second;
      w.node = g.node(id).name;
      w.channel_axis = layer->channel_axis;
      const std::string& input = g.value(layer->input).name;
      if (!out_.activations.contains(input)) continue;
      w.input = input;
      if (layer->bias == kNoId) continue;
      const auto bias = out_.biases.find(g.value(layer->bias).name);
      if (bias != out_.biases.end() && is_product(bias->second, w)) {
        bias->second.weights = weight->first;
      }
    }
  }

  /// Whether the bias's scale is the input's times the weights', as one for each channel or one.
  bool is_product(const LiftedBias& bias, const LiftedWeight& w) const {
    const float input = out_.activations.at(w.input).params.scale.item<float>();
    const std::span<const float> weights = w.params.scale.data<float>();
    const std::span<const float> sums = out_.file.constant(bias.scale)->data<float>();
    if (sums.size() != weights.size() || w.params.scheme.granularity == Granularity::per_group) {
      return false;
    }
    constexpr float kClose = 1e-4F;
    for (size_t i = 0; i < sums.size(); ++i) {
      const float product = input * weights[i];
      if (!(std::abs(sums[i] - product) <= kClose * product)) return false;
    }
    return true;
  }

  void share_grids() {
    // Groups by name of their first member.
    const auto join = [&](const std::string& from, const std::string& to) {
      if (from == to) return;
      for (auto& [name, a] : out_.activations) {
        if (a.group == from) a.group = to;
      }
    };
    std::map<ValueId, std::string> by_scale;
    for (auto& [name, a] : out_.activations)
      a.group = by_scale.emplace(a.scale, name).first->second;
    const Graph& g = out_.graph;
    for (const NodeId id : g.nodes()) {
      const Node& node = g.node(id);
      const OpClass c = classify(g, node).op_class;
      if (c != OpClass::movement && c != OpClass::concat) continue;
      const auto y = out_.activations.find(g.value(node.outputs[0]).name);
      if (y == out_.activations.end()) continue;
      for (const ValueId in : node.inputs) {
        if (in == kNoId) continue;
        const auto x = out_.activations.find(g.value(in).name);
        if (x == out_.activations.end()) continue;
        if (same_grid(x->second.params, y->second.params)) join(y->second.group, x->second.group);
      }
    }
  }

  LiftedModel out_;
  std::vector<Pair> pairs_;
  std::vector<Constant> constants_;
};

}  // namespace

LiftedModel lift(const Graph& qdq) {
  return Lifter(qdq).run();
}

}  // namespace narrow
