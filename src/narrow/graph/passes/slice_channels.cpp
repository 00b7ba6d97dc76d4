// SPDX-License-Identifier: Apache-2.0
// Reshapes, transposes and picks that together take every s-th channel of an image (the shuffles of
// ShuffleNet's units) are one Slice over channels, which needs no change of memory order.
#include <algorithm>

#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

constexpr size_t kLongestChain = 8;

/// Where the elements of a value lie in the row-major memory of another.
struct Strided {
  Dims dims;
  Dims strides;
  int64_t offset = 0;
};

Strided row_major(const Dims& dims) {
  Strided out{dims, Dims(dims.size()), 0};
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    out.strides[i] = stride;
    stride *= dims[i];
  }
  return out;
}

/// The same elements in other extents; nothing where axes would be joined that do not lie behind
/// each other. No extent is 0.
std::optional<Strided> reshaped(const Strided& v, const Dims& dims) {
  Strided old{{}, {}, v.offset};
  for (size_t i = 0; i < v.dims.size(); ++i) {
    if (v.dims[i] == 1) continue;
    old.dims.push_back(v.dims[i]);
    old.strides.push_back(v.strides[i]);
  }
  Strided out{dims, Dims(dims.size(), 0), v.offset};
  size_t j = 0;
  for (size_t i = 0; i < old.dims.size();) {
    const size_t first = i;
    const size_t to = j;
    int64_t have = old.dims[i++];
    int64_t want = 1;
    while (want != have) {
      if (want < have) {
        if (j == dims.size()) return std::nullopt;
        want *= dims[j++];
      } else {
        if (i == old.dims.size()) return std::nullopt;
        have *= old.dims[i++];
      }
    }
    for (size_t k = first; k + 1 < i; ++k) {
      if (old.strides[k] != old.strides[k + 1] * old.dims[k + 1]) return std::nullopt;
    }
    int64_t stride = old.strides[i - 1];
    for (size_t k = j; k-- > to;) {
      out.strides[k] = stride;
      stride *= dims[k];
    }
  }
  return out;
}

std::optional<Dims> dims_of(const Graph& graph, ValueId id) {
  const auto& shape = graph.value(id).shape;
  auto dims = shape ? concrete(*shape) : std::nullopt;
  if (dims && std::any_of(dims->begin(), dims->end(), [](int64_t d) { return d <= 0; })) return {};
  return dims;
}

std::optional<Strided> transposed(const Strided& v, const Node& node) {
  const std::vector<int64_t> perm = node.ints_or("perm", {});
  if (perm.size() != v.dims.size()) return std::nullopt;
  Strided out{{}, {}, v.offset};
  for (const int64_t p : perm) {
    const auto axis = static_cast<size_t>(normalize_axis(p, v.dims.size()));
    out.dims.push_back(v.dims[axis]);
    out.strides.push_back(v.strides[axis]);
  }
  return out;
}

/// One index of an axis.
std::optional<Strided> picked(const Strided& v, const Graph& graph, const Node& node,
                              const Dims& dims) {
  const auto index = constant_ints(graph, node, 1);
  if (!index || index->size() != 1) return std::nullopt;
  const auto axis = static_cast<size_t>(normalize_axis(node.int_or("axis", 0), v.dims.size()));
  const int64_t at = index->front() < 0 ? index->front() + v.dims[axis] : index->front();
  if (at < 0 || at >= v.dims[axis]) return std::nullopt;
  Strided out = v;
  out.offset += at * v.strides[axis];
  out.dims[axis] = 1;
  return reshaped(out, dims);
}

bool moves(const Node& node) {
  if (!node.domain.empty()) return false;
  for (const char* op : {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather"}) {
    if (node.op == op) return true;
  }
  return false;
}

/// The image [N, C, ...] that y [N, C', ...] is channels start, start + step, ... of.
struct ChannelSlice {
  ValueId x;
  int64_t start;
  int64_t step;
};

std::optional<ChannelSlice> as_slice(const Graph& graph, ValueId x, const Dims& from,
                                     const std::vector<const Node*>& chain, const Dims& to) {
  std::optional<Strided> v = row_major(from);
  const Dims image = v->strides;
  for (auto it = chain.rbegin(); it != chain.rend() && v; ++it) {
    const Node& node = **it;
    const auto dims = dims_of(graph, node.outputs[0]);
    if (!dims) return std::nullopt;
    v = node.is("Transpose") ? transposed(*v, node)
        : node.is("Gather")  ? picked(*v, graph, node, *dims)
                             : reshaped(*v, *dims);
  }
  if (!v || v->dims != to) return std::nullopt;
  for (size_t i = 0; i < to.size(); ++i) {
    if (i != 1 && to[i] > 1 && v->strides[i] != image[i]) return std::nullopt;
  }
  const int64_t plane = image[1];
  const int64_t stride = to[1] > 1 ? v->strides[1] : plane;
  if (stride <= 0 || stride % plane != 0 || v->offset % plane != 0) return std::nullopt;
  return ChannelSlice{x, v->offset / plane, stride / plane};
}

std::optional<ChannelSlice> find_slice(const Graph& graph, ValueId y) {
  const auto to = dims_of(graph, y);
  if (!to || to->size() < 3) return std::nullopt;
  std::vector<const Node*> chain;
  bool reorders = false;
  for (const Node* node = graph.producer(y); node != nullptr && moves(*node);) {
    chain.push_back(node);
    reorders = reorders || node->is("Transpose");
    if (chain.size() > kLongestChain) break;
    const ValueId x = node->inputs[0];
    const auto from = dims_of(graph, x);
    const bool image = from && from->size() == to->size() && (*from)[0] == (*to)[0] &&
                       std::equal(from->begin() + 2, from->end(), to->begin() + 2);
    if (image && reorders) {
      if (auto slice = as_slice(graph, x, *from, chain, *to)) return slice;
    }
    node = graph.producer(x);
  }
  return std::nullopt;
}

void replace(Graph& graph, ValueId y, const ChannelSlice& slice) {
  const std::string name = graph.value(y).name;
  const int64_t channels = (*dims_of(graph, y))[1];
  const auto constant = [&](const char* what, int64_t value) {
    return graph.add_initializer(graph.unique_name(name + what),
                                 Tensor::vector(std::vector<int64_t>{value}));
  };
  const int64_t end = slice.start + (channels - 1) * slice.step + 1;
  const NodeId node = graph.add_node(
      "Slice",
      {slice.x, constant("_starts", slice.start), constant("_ends", end), constant("_axes", 1),
       constant("_steps", slice.step)},
      {graph.unique_name(name + "_channels")}, {}, "", graph.unique_name(name + "_channels"));
  take_place(graph, y, graph.node(node).outputs[0]);
}

}  // namespace

int64_t slice_channels(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  graph.sort();
  for (const NodeId id : std::vector<NodeId>(graph.nodes())) {
    if (!moves(graph.node(id))) continue;
    const ValueId y = graph.node(id).outputs[0];
    if (graph.value(y).is_output) continue;
    const auto slice = find_slice(graph, y);
    if (!slice) continue;
    replace(graph, y, *slice);
    ++changes;
  }
  if (changes > 0) {
    graph.remove_dead();
    graph.sort();
  }
  return changes;
}

}  // namespace narrow
