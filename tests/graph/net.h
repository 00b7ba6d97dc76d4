// SPDX-License-Identifier: Apache-2.0
// Short words for graphs in tests.
//
//   Net n;
//   const ValueId x = n.input({Dim::symbol("N"), 3});
//   const ValueId y = n.op("Relu", {x});
//   n.infer();
//   EXPECT_EQ(n.shape(y), "[N, 3]");
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"

namespace narrow {

struct Net {
  Graph g;
  std::vector<Tensor> known;  // after infer()

  ValueId input(std::optional<SymbolicShape> shape, DType dtype = DType::float32) {
    return g.add_input(g.unique_name("in"), dtype, std::move(shape));
  }
  ValueId constant(Tensor t) { return g.add_initializer(g.unique_name("const"), std::move(t)); }
  ValueId ints(const std::vector<int64_t>& values) { return constant(Tensor::vector(values)); }
  ValueId floats(const std::vector<float>& values) { return constant(Tensor::vector(values)); }
  template <class T>
  ValueId scalar(T value) {
    return constant(Tensor::scalar(value));
  }
  /// A constant of zeros: for shapes only.
  ValueId zeros(Dims dims, DType dtype = DType::float32) {
    return constant(Tensor(dtype, std::move(dims)));
  }

  NodeId node(std::string name, std::vector<ValueId> inputs, Attributes attributes = {},
              size_t outputs = 1, std::string domain = "") {
    std::vector<std::string> names;
    for (size_t i = 0; i < outputs; ++i) names.push_back(name + "_" + std::to_string(i));
    return g.add_node(std::move(name), std::move(inputs), std::move(names), std::move(attributes),
                      std::move(domain));
  }
  /// A node of one output.
  ValueId op(std::string name, std::vector<ValueId> inputs, Attributes attributes = {},
             std::string domain = "") {
    return g
        .node(node(std::move(name), std::move(inputs), std::move(attributes), 1, std::move(domain)))
        .outputs[0];
  }
  void output(ValueId value) { g.add_output(value); }

  void infer(std::span<const std::optional<Dims>> dims = {}) { known = infer_shapes(g, dims); }
  std::string shape(ValueId value) const {
    const auto& s = g.value(value).shape;
    return s ? to_string(*s) : "unranked";
  }
  DType dtype(ValueId value) const { return g.value(value).dtype; }
  /// What inference found out of the value; empty if nothing.
  std::vector<int64_t> value(ValueId id) const {
    const Tensor& t = known[static_cast<size_t>(id)];
    return t.defined() ? t.to_ints() : std::vector<int64_t>{};
  }
};

using Ints = std::vector<int64_t>;

/// Inference must fail with a message that names the node and holds `text`.
inline void expect_error(Net& n, const std::string& text) {
  try {
    n.infer();
    ADD_FAILURE() << "accepted; expected: " << text;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("node '"), std::string::npos) << e.what();
    EXPECT_TRUE(e.code() == ErrorCode::invalid_argument || e.code() == ErrorCode::corrupt_data)
        << e.what();
  }
}

}  // namespace narrow
