// SPDX-License-Identifier: Apache-2.0
// Small plain implementations of a few operators, each with one trait that the plan must cope with:
// in place, either layout, channels_last only, scratch, data-dependent shapes. Float32 and int64.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/runtime/op_impl.h"
#include "narrow/runtime/plan.h"

namespace narrow::toy {

/// Where the element with this logical index stands in memory.
inline int64_t position(const TensorView& view, const std::vector<int64_t>& index) {
  std::vector<size_t> order(view.dims.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (view.layout == Layout::channels_last && order.size() >= 3) {
    std::rotate(order.begin() + 1, order.begin() + 2, order.end());
  }
  int64_t at = 0;
  for (const size_t axis : order) at = at * view.dims[axis] + index[axis];
  return at;
}

/// Calls visit(index) for every logical index.
template <class Visit>
void for_each_index(const Dims& dims, Visit visit) {
  const int64_t count = num_elements(dims);
  std::vector<int64_t> index(dims.size(), 0);
  for (int64_t i = 0; i < count; ++i) {
    visit(index);
    for (size_t axis = dims.size(); axis-- > 0;) {
      if (++index[axis] < dims[axis]) break;
      index[axis] = 0;
    }
  }
}

inline float at_broadcast(const TensorView& view, const std::vector<int64_t>& index) {
  std::vector<int64_t> own(view.dims.size());
  const size_t skip = index.size() - own.size();
  for (size_t i = 0; i < own.size(); ++i) own[i] = view.dims[i] == 1 ? 0 : index[skip + i];
  return view.as<float>()[position(view, own)];
}

class Relu : public Step {
 public:
  void run(RunContext& c) const override {
    const float* x = c.inputs[0].as<float>();
    float* y = c.outputs[0].as<float>();
    for (int64_t i = 0; i < c.inputs[0].elements(); ++i) y[i] = std::max(x[i], 0.0f);
  }
  bool layout_agnostic() const override { return true; }
  int aliases(size_t) const override { return 0; }
};

/// Add or Mul with broadcasting; reads its inputs through scratch, so that wrong scratch shows.
class Binary : public Step {
 public:
  explicit Binary(bool multiply) : multiply_(multiply) {}
  void run(RunContext& c) const override {
    const TensorView& y = c.outputs[0];
    float* scratch = reinterpret_cast<float*>(c.scratch.data());
    for_each_index(y.dims, [&](const std::vector<int64_t>& index) {
      const float a = at_broadcast(c.inputs[0], index);
      const float b = at_broadcast(c.inputs[1], index);
      scratch[position(y, index)] = multiply_ ? a * b : a + b;
    });
    std::memcpy(y.data, scratch, static_cast<size_t>(y.elements()) * sizeof(float));
  }
  size_t scratch_bytes(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return static_cast<size_t>(num_elements(outputs[0])) * sizeof(float);
  }
  bool layout_agnostic() const override { return true; }
  int aliases(size_t) const override { return 0; }
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return multiply_ ? num_elements(outputs[0]) : 0;
  }

 private:
  bool multiply_;
};

/// y[i] = a[i] - b[last - i]: in place over a it must not be, where b is the same memory.
class SubReversed : public Step {
 public:
  void run(RunContext& c) const override {
    const int64_t n = c.outputs[0].elements();
    for (int64_t i = 0; i < n; ++i) {
      c.outputs[0].as<float>()[i] = c.inputs[0].as<float>()[i] - c.inputs[1].as<float>()[n - 1 - i];
    }
  }
  int aliases(size_t) const override { return 0; }
};

/// Depth-wise: y = 2 x + channel, computed on channels_last memory only.
class ChannelsLast : public Step {
 public:
  void run(RunContext& c) const override {
    const TensorView& x = c.inputs[0];
    const TensorView& y = c.outputs[0];
    const int64_t channels = x.dims[1];
    for (int64_t i = 0; i < x.elements(); ++i) {
      y.as<float>()[i] = 2 * x.as<float>()[i] + static_cast<float>(i % channels);
    }
  }
  Layout input_layout(size_t) const override { return Layout::channels_last; }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t packed_bytes() const override { return 100; }
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return num_elements(inputs[0]);
  }
  bool integer_macs() const override { return true; }
};

/// Reshape and its kin, Identity: equal bytes.
class Copy : public Step {
 public:
  explicit Copy(bool agnostic) : agnostic_(agnostic) {}
  void run(RunContext& c) const override {
    const TensorView& x = c.inputs[0];
    if (x.data == c.outputs[0].data) return;
    std::memcpy(c.outputs[0].data, x.data, packed_bytes(x.dtype, x.elements()));
  }
  using Step::packed_bytes;
  bool layout_agnostic() const override { return agnostic_; }
  int aliases(size_t) const override { return 0; }
  static size_t packed_bytes(DType dtype, int64_t n) { return narrow::packed_bytes(dtype, n); }

 private:
  bool agnostic_;
};

/// Concat of two plain operands along axis 0.
class Concat : public Step {
 public:
  void run(RunContext& c) const override {
    std::byte* out = c.outputs[0].data;
    for (const TensorView& x : c.inputs) {
      const size_t bytes = packed_bytes_of(x);
      if (bytes > 0) std::memcpy(out, x.data, bytes);
      out += bytes;
    }
  }

 private:
  static size_t packed_bytes_of(const TensorView& x) {
    return narrow::packed_bytes(x.dtype, x.elements());
  }
};

class NonZero : public Step {
 public:
  void run(RunContext& c) const override {
    const TensorView& x = c.inputs[0];
    const auto rank = static_cast<int64_t>(x.dims.size());
    std::vector<std::vector<int64_t>> hits;
    for_each_index(x.dims, [&](const std::vector<int64_t>& index) {
      if (x.as<float>()[position(x, index)] != 0) hits.push_back(index);
    });
    const auto count = static_cast<int64_t>(hits.size());
    const TensorView& y = c.allocate_output(0, {rank, count});
    for (int64_t r = 0; r < rank; ++r) {
      for (int64_t i = 0; i < count; ++i) y.as<int64_t>()[r * count + i] = hits[i][r];
    }
  }
  bool dynamic_outputs() const override { return true; }
};

class ShapeOf : public Step {
 public:
  void run(RunContext& c) const override {
    for (size_t i = 0; i < c.inputs[0].dims.size(); ++i) {
      c.outputs[0].as<int64_t>()[i] = c.inputs[0].dims[i];
    }
  }
};

/// int64 to float32 only.
class Cast : public Step {
 public:
  void run(RunContext& c) const override {
    for (int64_t i = 0; i < c.inputs[0].elements(); ++i) {
      c.outputs[0].as<float>()[i] = static_cast<float>(c.inputs[0].as<int64_t>()[i]);
    }
  }
};

class LessScalar : public Step {
 public:
  void run(RunContext& c) const override {
    *c.outputs[0].as<bool>() = *c.inputs[0].as<float>() < *c.inputs[1].as<float>();
  }
};

class Throws : public Step {
 public:
  void run(RunContext&) const override { throw Error(ErrorCode::numeric_failure, "no logarithm"); }
};

inline Refusal accept(const Graph&, const Node&, const StepOptions&) {
  return {};
}
inline Refusal refuse(const Graph&, const Node&, const StepOptions&) {
  return "not today";
}
template <class T, auto... Args>
std::unique_ptr<Step> make(const Graph&, const Node&, const StepOptions&) {
  return std::make_unique<T>(Args...);
}

inline const OpImpl kRows[] = {
    {"", "Relu", "fast", refuse, make<Relu>},
    {"", "Relu", "reference", accept, make<Relu>},
    {"", "Add", "reference", accept, make<Binary, false>},
    {"", "Mul", "reference", accept, make<Binary, true>},
    {"", "Sub", "reference", accept, make<SubReversed>},
    {"", "Softplus", "nhwc", accept, make<ChannelsLast>},
    {"", "Reshape", "reference", accept, make<Copy, false>},
    {"", "Flatten", "reference", accept, make<Copy, false>},
    {"", "Identity", "reference", accept, make<Copy, true>},
    {"", "Concat", "reference", accept, make<Concat>},
    {"", "NonZero", "reference", accept, make<NonZero>},
    {"", "Shape", "reference", accept, make<ShapeOf>},
    {"", "Cast", "reference", accept, make<Cast>},
    {"", "Less", "reference", accept, make<LessScalar>},
    {"", "Log", "throws", accept, make<Throws>},
    {"", "Exp", "first", refuse, make<Relu>},
    {"", "Exp", "second", refuse, make<Relu>},
};

inline std::vector<const OpImpl*> rows(std::string_view domain, std::string_view op) {
  std::vector<const OpImpl*> found;
  for (const OpImpl& row : kRows) {
    if (domain == row.domain && op == row.op) found.push_back(&row);
  }
  return found;
}

inline PlanOptions options() {
  PlanOptions o;
  o.rows = rows;
  return o;
}

}  // namespace narrow::toy
