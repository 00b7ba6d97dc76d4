// SPDX-License-Identifier: Apache-2.0
// Operators that change the shape and leave the bytes: the plan may let the output share the
// input's memory, otherwise they copy.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

void copy_bytes(const TensorView& to, const TensorView& from) {
  if (to.data == from.data) return;
  const auto bytes = static_cast<int64_t>(view_bytes(from));
  parallel_for(bytes, int64_t{1} << 20, [&](int64_t begin, int64_t end) {
    std::memcpy(to.data + begin, from.data + begin, static_cast<size_t>(end - begin));
  });
}

/// Target computes the dims of the result from the node and the run-time inputs.
template <Dims (*Target)(const Node&, std::span<const TensorView>)>
class ReshapeStep final : public Step {
 public:
  ReshapeStep(const Graph&, const Node& node) : node_(node) {}
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
  void run(RunContext& context) const override {
    copy_bytes(planned_output(context, 0, Target(node_, context.inputs)), context.inputs[0]);
  }

 private:
  Node node_;
};

[[noreturn]] void fail_reshape(std::span<const int64_t> from, std::span<const int64_t> to) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("shape {} cannot become {}", to_string(from), to_string(to)));
}

Dims reshape_target(const Node& node, std::span<const TensorView> inputs) {
  const Dims& from = inputs[0].dims;
  const Dims wanted = read_ints(inputs[1]);
  const bool keep_zero = node.int_or("allowzero", 0) != 0;
  Dims to = wanted;
  int64_t known = 1;
  size_t open = to.size();
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 0 && !keep_zero && i < from.size()) to[i] = from[i];
    if (to[i] == -1 && open == to.size()) {
      open = i;
    } else if (to[i] < 0 || (to[i] > 0 && known > (int64_t{1} << 62) / to[i])) {
      fail_reshape(from, wanted);
    } else {
      known *= to[i];
    }
  }
  const int64_t elements = num_elements(from);
  if (open < to.size()) {
    if (known == 0 || elements % known != 0) fail_reshape(from, wanted);
    to[open] = elements / known;
    known = elements;
  }
  if (known != elements) fail_reshape(from, wanted);
  return to;
}

Dims flatten_target(const Node& node, std::span<const TensorView> inputs) {
  const Dims& from = inputs[0].dims;
  const int64_t axis = node.int_or("axis", 1);
  const auto rank = static_cast<int64_t>(from.size());
  if (axis < -rank || axis > rank) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("axis {} is outside a tensor of rank {}", axis, rank));
  }
  const auto split = static_cast<size_t>(axis < 0 ? axis + rank : axis);
  return {num_elements(from, 0, split), num_elements(from, split, from.size())};
}

Dims squeeze_target(const Node&, std::span<const TensorView> inputs) {
  const Dims& from = inputs[0].dims;
  std::vector<bool> drop(from.size(), false);
  if (present(inputs, 1)) {
    for (const int64_t axis : read_ints(inputs[1])) {
      const auto a = static_cast<size_t>(normalize_axis(axis, from.size()));
      if (from[a] != 1) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("axis {} of shape {} cannot be squeezed", axis, to_string(from)));
      }
      drop[a] = true;
    }
  } else {
    for (size_t i = 0; i < from.size(); ++i) drop[i] = from[i] == 1;
  }
  Dims to;
  for (size_t i = 0; i < from.size(); ++i) {
    if (!drop[i]) to.push_back(from[i]);
  }
  return to;
}

Dims unsqueeze_target(const Node&, std::span<const TensorView> inputs) {
  const Dims& from = inputs[0].dims;
  const Dims axes = read_ints(inputs[1]);
  const size_t rank = from.size() + axes.size();
  std::vector<bool> added(rank, false);
  for (const int64_t axis : axes) {
    const auto a = static_cast<size_t>(normalize_axis(axis, rank));
    if (added[a]) {
      throw Error(ErrorCode::invalid_argument, fmt::format("axis {} is added twice", axis));
    }
    added[a] = true;
  }
  Dims to;
  size_t next = 0;
  for (size_t i = 0; i < rank; ++i) to.push_back(added[i] ? 1 : from[next++]);
  return to;
}

/// Identity, and Dropout as inference has it (its mask is all true).
class IdentityStep final : public Step {
 public:
  IdentityStep(const Graph&, const Node& node) : mask_(node.output(1) != kNoId) {}
  bool layout_agnostic() const override { return true; }
  int aliases(size_t output) const override { return output == 0 ? 0 : -1; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    copy_bytes(planned_output(context, 0, x.dims), x);
    if (mask_)
      std::memset(planned_output(context, 1, x.dims).data, 1, static_cast<size_t>(x.elements()));
  }

 private:
  bool mask_;
};

Refusal accept_dropout(const Graph& graph, const Node& node, const StepOptions&) {
  const ValueId mode = node.input(2);
  if (mode == kNoId) return {};
  const Tensor* training = graph.constant(mode);
  if (training == nullptr) return "training_mode is not a constant";
  return training->to_ints().front() == 0 ? Refusal{} : "training_mode is set";
}

const OpImpl kRows[] = {
    {"", "Identity", "reference", accept_any, make<IdentityStep>},
    {"", "Dropout", "reference", accept_dropout, make<IdentityStep>},
    {"", "Reshape", "reference", accept_any, make<ReshapeStep<reshape_target>>},
    {"", "Flatten", "reference", accept_any, make<ReshapeStep<flatten_target>>},
    {"", "Squeeze", "reference", accept_any, make<ReshapeStep<squeeze_target>>},
    {"", "Unsqueeze", "reference", accept_any, make<ReshapeStep<unsqueeze_target>>},
};

}  // namespace

std::span<const OpImpl> reshape_rows() {
  return kRows;
}

}  // namespace narrow::ops
