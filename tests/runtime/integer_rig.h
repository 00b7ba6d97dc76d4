// SPDX-License-Identifier: Apache-2.0
// Runs one node by every row that accepts it, in the layouts that the row asks for and on guarded
// memory, and compares the bytes with those of the row named "reference".
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "narrow/core/cpu.h"
#include "narrow/core/parallel.h"
#include "narrow/runtime/ops/integer/integer_ops.h"
#include "narrow/runtime/reorder.h"

namespace narrow::testing {

/// Bytes that end at a page which may not be touched.
class Guarded {
 public:
  explicit Guarded(size_t bytes, size_t alignment = 1) : bytes_(bytes) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t used = (bytes + alignment - 1) / alignment * alignment;
    mapped_ = (used + page - 1) / page * page + page;
    void* p = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    base_ = static_cast<std::byte*>(p);
    ::mprotect(base_ + mapped_ - page, page, PROT_NONE);
    data_ = base_ + mapped_ - page - used;
    std::memset(data_, 0xa5, used);
  }
  ~Guarded() { ::munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  std::byte* data() { return data_; }
  std::span<std::byte> span() { return {data_, bytes_}; }

 private:
  size_t bytes_;
  size_t mapped_;
  std::byte* base_;
  std::byte* data_;
};

/// A graph of one node. Constants are given by value, activations as graph inputs with their data.
class NodeRig {
 public:
  NodeRig(std::string domain, std::string op) : domain_(std::move(domain)), op_(std::move(op)) {}

  NodeRig& activation(Tensor data, bool known_shape = true) {
    const auto i = std::to_string(inputs_.size());
    inputs_.push_back(graph_.add_input(
        "x" + i, data.dtype(), known_shape ? std::optional(symbolic(data.dims())) : std::nullopt));
    data_.push_back(std::move(data));
    return *this;
  }
  NodeRig& constant(Tensor value) {
    inputs_.push_back(graph_.add_initializer("c" + std::to_string(inputs_.size()), value));
    data_.push_back(std::move(value));
    return *this;
  }
  NodeRig& absent() {
    inputs_.push_back(kNoId);
    data_.emplace_back();
    return *this;
  }
  /// A per-tensor grid: scale and zero_point.
  NodeRig& grid(float scale, int64_t zero, DType dtype) {
    constant(Tensor::scalar(scale));
    return constant(Tensor::from_ints(std::array{zero}, dtype, {}));
  }
  template <class T>
  NodeRig& attribute(const char* name, T value) {
    attributes_[name] = std::move(value);
    return *this;
  }
  NodeRig& output(DType dtype, Dims dims) {
    out_dtype_ = dtype;
    out_dims_ = std::move(dims);
    return *this;
  }

  const Graph& graph() {
    if (node_ == kNoId) {
      node_ = graph_.add_node(op_, inputs_, {"y"}, attributes_, domain_);
      Value& y = graph_.mutable_value(graph_.node(node_).outputs[0]);
      y.dtype = out_dtype_;
      y.shape = symbolic(out_dims_);
      graph_.add_output(graph_.node(node_).outputs[0]);
    }
    return graph_;
  }
  const Node& node() { return graph().node(node_); }

  std::vector<const OpImpl*> rows() {
    std::vector<const OpImpl*> out;
    for (const OpImpl& row : integer_op_impls()) {
      if (domain_ == row.domain && op_ == row.op) out.push_back(&row);
    }
    return out;
  }
  const OpImpl* row(const std::string& name) {
    for (const OpImpl* r : rows()) {
      if (name == r->name) return r;
    }
    return nullptr;
  }
  Refusal refusal(const std::string& name) {
    const OpImpl* r = row(name);
    return r == nullptr ? "no such row" : r->accepts(graph(), node(), {});
  }
  std::unique_ptr<Step> step(const std::string& name) {
    return row(name)->create(graph(), node(), {});
  }

  /// The result in plain order.
  Tensor run(const std::string& name) { return run_step(*step(name)); }

  Tensor run_step(const Step& step) {
    std::vector<std::unique_ptr<Guarded>> memory;
    std::vector<TensorView> inputs;
    std::vector<Dims> dims;
    for (size_t i = 0; i < data_.size(); ++i) {
      dims.push_back(data_[i].dims());
      if (!data_[i].defined()) {
        inputs.emplace_back();
        continue;
      }
      const Layout layout =
          layout_of(step.layout_agnostic() ? agnostic : step.input_layout(i), data_[i].dims());
      const Tensor stored = to_layout(data_[i], layout);
      memory.push_back(std::make_unique<Guarded>(stored.bytes()));
      if (stored.bytes() > 0) std::memcpy(memory.back()->data(), stored.raw(), stored.bytes());
      inputs.push_back({stored.dtype(), data_[i].dims(), layout, memory.back()->data()});
    }
    const std::vector<Dims> out_dims{out_dims_};
    Guarded scratch(step.scratch_bytes(dims, out_dims), 64);
    const Layout layout =
        layout_of(step.layout_agnostic() ? agnostic : step.output_layout(0), out_dims_);
    Guarded out(packed_bytes(out_dtype_, num_elements(out_dims_)));
    std::vector<TensorView> outputs{{out_dtype_, out_dims_, layout, out.data()}};
    Context context;
    context.inputs = inputs;
    context.outputs = outputs;
    context.scratch = scratch.span();
    step.run(context);
    Tensor y(out_dtype_, out_dims_);
    reorder(outputs[0], {out_dtype_, out_dims_, Layout::plain, y.mutable_raw()});
    return y;
  }

  /// Every row that accepts the node gives the reference's bytes, whatever the threads; at least
  /// `at_least` fast rows do.
  void check(size_t at_least = 1) {
    const Tensor expected = run("reference");
    size_t fast = 0;
    for (const OpImpl* r : rows()) {
      if (std::string_view(r->name) == "reference") continue;
      if (!r->accepts(graph(), node(), {}).empty()) continue;
      ++fast;
      for (const int threads : {1, 2}) {
        const ThreadLimit limit(threads);
        for (const Layout l : {Layout::plain, Layout::channels_last}) {
          agnostic = l;
          const Tensor got = run(r->name);
          if (!identical(got, expected)) {
            ADD_FAILURE() << op_ << " by " << r->name << " with " << threads << " threads"
                          << first_difference(got, expected);
            return;
          }
        }
        agnostic = Layout::plain;
      }
    }
    EXPECT_GE(fast, at_least) << op_ << ": no fast row accepts: " << refusals();
  }

  std::string refusals() {
    std::string text;
    for (const OpImpl* r : rows()) {
      text += std::string(r->name) + ": " + r->accepts(graph(), node(), {}) + "; ";
    }
    return text;
  }

  Layout agnostic = Layout::plain;  // what layout-agnostic steps get

 private:
  struct Context final : RunContext {
    TensorView& allocate_output(size_t, Dims) override { throw std::logic_error("dynamic output"); }
  };
  static Layout layout_of(Layout wanted, const Dims& dims) {
    return dims.size() < 3 ? Layout::plain : wanted;
  }
  static std::string first_difference(const Tensor& got, const Tensor& expected) {
    const auto a = got.to_floats();
    const auto b = expected.to_floats();
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
      if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
        return ": element " + std::to_string(i) + " is " + std::to_string(a[i]) + ", not " +
               std::to_string(b[i]);
      }
    }
    return ": other sizes";
  }

  std::string domain_;
  std::string op_;
  Graph graph_;
  std::vector<ValueId> inputs_;
  std::vector<Tensor> data_;
  Attributes attributes_;
  DType out_dtype_ = DType::uint8;
  Dims out_dims_;
  NodeId node_ = kNoId;
};

/// Reproducible codes, with the ends of the range often.
inline Tensor random_codes(DType dtype, Dims dims, uint32_t seed) {
  const int64_t lo = integer_min(dtype);
  const int64_t hi = integer_max(dtype);
  std::vector<int64_t> values(static_cast<size_t>(num_elements(dims)));
  uint32_t state = seed * 2654435761u + 12345u;
  for (int64_t& v : values) {
    state = state * 1664525u + 1013904223u;
    const uint32_t r = state >> 8;
    v = r % 8 == 0 ? lo : r % 8 == 1 ? hi : lo + (r >> 3) % static_cast<uint32_t>(hi - lo + 1);
  }
  return Tensor::from_ints(values, dtype, std::move(dims));
}

inline Tensor random_floats(Dims dims, uint32_t seed, float low = -1, float high = 1) {
  Tensor t(DType::float32, std::move(dims));
  uint32_t state = seed * 2654435761u + 777u;
  for (float& v : t.mutable_data<float>()) {
    state = state * 1664525u + 1013904223u;
    v = low + (high - low) * static_cast<float>(state >> 8) / 16777216.0f;
  }
  return t;
}

}  // namespace narrow::testing
