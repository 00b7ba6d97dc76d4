// SPDX-License-Identifier: Apache-2.0
// Functions that move values, and sizes.

#include <algorithm>
#include <limits>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/engine/torchscript/call.h"

namespace narrow::train::script {
namespace {

using Ids = std::vector<ValueId>;
using Ints = std::vector<int64_t>;

/// Nothing happens to values: dropout in evaluation, copies, numbers that become tensors.
Ids same(Call& c) {
  return {c.tensor(0)};
}

Ids reshape(Call& c) {
  return {c.add("Reshape", {c.tensor(0), c.int_vector(1)})};
}

/// x, first axis, last axis.
Ids flatten(Call& c) {
  const int64_t rank = c.rank(0);
  const int64_t first = c.axis(1, rank);
  const int64_t last = c.axis(2, rank);
  if (first == 1 && last == rank - 1) {
    return {c.add("Flatten", {c.tensor(0)}, {{"axis", int64_t{1}}})};
  }
  Ints shape(static_cast<size_t>(first), 0);  // 0: as it was
  shape.push_back(-1);
  if (last + 1 < rank && first > 0) {
    // Axes behind the joined ones are not at their place any more: their sizes are written down.
    for (int64_t i = last + 1; i < rank; ++i) shape.push_back(c.size_of(0, i));
  } else if (last + 1 < rank) {
    throw Error(ErrorCode::unsupported, "a flatten of the first axes");
  }
  return {c.add("Reshape", {c.tensor(0), c.int_constant(shape)})};
}

Ids permuted(Call& c, Ints order) {
  return {c.add("Transpose", {c.tensor(0)}, {{"perm", std::move(order)}})};
}
Ids permute(Call& c) {
  Ints order = c.ints(1);
  for (int64_t& axis : order) axis += axis < 0 ? c.rank(0) : 0;
  return permuted(c, std::move(order));
}
Ints straight(int64_t rank) {
  Ints order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  return order;
}
Ids transpose(Call& c) {
  const int64_t rank = c.rank(0);
  Ints order = straight(rank);
  std::swap(order[static_cast<size_t>(c.axis(1, rank))],
            order[static_cast<size_t>(c.axis(2, rank))]);
  return permuted(c, std::move(order));
}
Ids turned(Call& c) {
  Ints order = straight(c.rank(0));
  std::reverse(order.begin(), order.end());
  return permuted(c, std::move(order));
}

Ids unsqueeze(Call& c) {
  return {c.add("Unsqueeze", {c.tensor(0), c.int_constant({c.integer(1)})})};
}
Ids squeeze(Call& c) {
  const int64_t rank = c.rank(0);
  Ints axes;
  if (c.none(1)) {
    for (int64_t i = 0; i < rank; ++i) {
      if (c.size_of(0, i) == 1) axes.push_back(i);
    }
  } else {
    for (const int64_t axis : c.ints(1)) {
      if (c.size_of(0, axis) == 1) axes.push_back(axis);
    }
  }
  if (axes.empty()) return same(c);
  return {c.add("Squeeze", {c.tensor(0), c.int_constant(axes)})};
}

std::vector<ValueId> tensors_of(Call& c, size_t i) {
  std::vector<ValueId> ids;
  const Item& list = c.item(i);
  if (!list.parts.empty()) {
    for (const Item& part : list.parts) ids.push_back(c.tensor(part));
    return ids;
  }
  for (const c10::IValue& part : list.example.toListRef()) {
    ids.push_back(c.tensor(Item{part, kNoId, {}}));
  }
  return ids;
}
Ids cat(Call& c) {
  return {c.add("Concat", tensors_of(c, 0), {{"axis", c.integer(1)}})};
}
Ids stack(Call& c) {
  const int64_t axis = c.integer(1);
  Ids raised;
  for (const ValueId id : tensors_of(c, 0)) {
    raised.push_back(c.add("Unsqueeze", {id, c.int_constant({axis})}));
  }
  return {c.add("Concat", std::move(raised), {{"axis", axis}})};
}

Ids split_into(Call& c, const Ints& sizes, int64_t axis) {
  return c.add_many("Split", {c.tensor(0), c.int_constant(sizes)}, sizes.size(), {{"axis", axis}});
}
Ints pieces(int64_t total, int64_t size) {
  Ints sizes;
  for (int64_t at = 0; at < total; at += size) sizes.push_back(std::min(size, total - at));
  return sizes;
}
Ids chunk(Call& c) {
  const int64_t axis = c.axis(2, c.rank(0));
  const int64_t total = c.size_of(0, axis);
  return split_into(c, pieces(total, (total + c.integer(1) - 1) / c.integer(1)), axis);
}
/// x, size of a part or sizes, axis.
Ids split(Call& c) {
  const int64_t axis = c.axis(2, c.rank(0));
  const bool equal = c.item(1).example.isInt();
  return split_into(c, equal ? pieces(c.size_of(0, axis), c.integer(1)) : c.ints(1), axis);
}

/// x, axis, start, end, step.
Ids slice(Call& c) {
  const auto at = [&](size_t i, int64_t fallback) {
    if (c.none(i)) return c.int_constant({fallback});
    if (c.item(i).constant()) return c.int_constant({c.integer(i)});
    return c.add("Reshape", {c.tensor(i), c.int_constant({1})});
  };
  const ValueId start = at(2, 0);
  const ValueId end = at(3, std::numeric_limits<int64_t>::max());
  return {c.add("Slice", {c.tensor(0), start, end, c.int_constant({c.integer(1)}), at(4, 1)})};
}
Ids select(Call& c) {
  const ValueId index =
      c.item(2).constant() ? c.constant(Tensor::scalar(c.integer(2)), "index") : c.tensor(2);
  return {c.add("Gather", {c.tensor(0), index}, {{"axis", c.integer(1)}})};
}

/// x, sizes: -1 keeps what is there.
Ids expand(Call& c) {
  const Item& sizes = c.item(1);
  if (!sizes.constant()) return {c.add("Expand", {c.tensor(0), c.int_vector(1)})};
  Ints wanted = c.ints(1);
  for (int64_t& size : wanted) size = size < 0 ? 1 : size;
  return {c.add("Expand", {c.tensor(0), c.int_constant(wanted)})};
}
Ids expand_as(Call& c) {
  return {c.add("Expand", {c.tensor(0), c.add("Shape", {c.tensor(1)})})};
}

/// x, [left, right of the last axis, ...], value.
Ids pad(Call& c) {
  const Ints pairs = c.ints(1);
  const auto rank = static_cast<size_t>(c.rank(0));
  Ints pads(2 * rank, 0);
  for (size_t i = 0; 2 * i + 1 < pairs.size(); ++i) {
    pads[rank - 1 - i] = pairs[2 * i];
    pads[2 * rank - 1 - i] = pairs[2 * i + 1];
  }
  const double value = c.size() > 2 && !c.none(c.size() - 1) ? c.number(c.size() - 1) : 0;
  return {c.add("Pad", {c.tensor(0), c.int_constant(pads), c.scalar(value)},
                {{"mode", std::string("constant")}})};
}

/// x, axis: a number; x alone is dealt with by the importer, as a list.
Ids size(Call& c) {
  const ValueId shape = c.add("Shape", {c.tensor(0)});
  const ValueId index = c.constant(Tensor::scalar(c.axis(1, c.rank(0))), "axis");
  return {c.add("Gather", {shape, index}, {{"axis", int64_t{0}}})};
}

constexpr Conversion kTable[] = {
    {"aten::dropout", same},
    {"aten::feature_dropout", same},
    {"aten::contiguous", same},
    {"aten::clone", same},
    {"aten::detach", same},
    {"aten::alias", same},
    {"aten::Int", same},
    {"aten::IntImplicit", same},
    {"prim::NumToTensor", same},
    {"aten::reshape", reshape},
    {"aten::view", reshape},
    {"aten::_unsafe_view", reshape},
    {"aten::flatten", flatten},
    {"aten::permute", permute},
    {"aten::transpose", transpose},
    {"aten::t", turned},
    {"aten::numpy_T", turned},
    {"aten::unsqueeze", unsqueeze},
    {"aten::squeeze", squeeze},
    {"aten::cat", cat},
    {"aten::concat", cat},
    {"aten::stack", stack},
    {"aten::chunk", chunk},
    {"aten::split", split},
    {"aten::split_with_sizes", split},
    {"aten::slice", slice},
    {"aten::select", select},
    {"aten::expand", expand},
    {"aten::expand_as", expand_as},
    {"aten::constant_pad_nd", pad},
    {"aten::pad", pad},
    {"aten::size", size},
};

}  // namespace

std::span<const Conversion> shape_conversions() {
  return kTable;
}

}  // namespace narrow::train::script
