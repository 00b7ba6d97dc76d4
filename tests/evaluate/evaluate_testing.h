// SPDX-License-Identifier: Apache-2.0
// Data in memory and models whose results are known.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/session.h"

namespace narrow::testing {

/// The rows of one float32 tensor as the input "x".
class RowData final : public Dataset {
 public:
  explicit RowData(Tensor rows, std::vector<int64_t> labels = {}, int64_t fixed = 0)
      : rows_(std::move(rows)), labels_(std::move(labels)), fixed_(fixed) {}

  int64_t size() const override { return rows_.dims()[0]; }
  bool labelled() const override { return !labels_.empty(); }
  int64_t fixed_batch() const override { return fixed_; }
  std::string fingerprint() const override { return "rows"; }
  Batch get(std::span<const int64_t> indices) const override {
    Dims dims = rows_.dims();
    dims[0] = static_cast<int64_t>(indices.size());
    Tensor x(DType::float32, dims);
    const size_t bytes = rows_.bytes() / static_cast<size_t>(size());
    Batch batch;
    for (size_t i = 0; i < indices.size(); ++i) {
      const auto row = static_cast<size_t>(indices[i]);
      std::memcpy(x.mutable_raw() + i * bytes, rows_.raw() + row * bytes, bytes);
      if (labelled()) batch.labels.push_back(labels_[row]);
    }
    batch.inputs["x"] = std::move(x);
    return batch;
  }

 private:
  Tensor rows_;
  std::vector<int64_t> labels_;
  int64_t fixed_;
};

/// y = Relu(x + constant): for inputs of at least -constant what an Add gives. `batch` 0: any.
inline Graph adder(float constant, int64_t columns, int64_t batch = 0,
                   const std::string& input = "x") {
  Graph g;
  SymbolicShape shape{batch > 0 ? Dim(batch) : Dim::symbol("N"), columns};
  const ValueId x = g.add_input(input, DType::float32, shape);
  const ValueId c = g.add_initializer("c", Tensor::scalar(constant));
  const NodeId add = g.add_node("Add", {x, c}, {"sum"}, {}, "", "add");
  const NodeId relu = g.add_node("Relu", {g.node(add).outputs[0]}, {"y"}, {}, "", "relu");
  g.add_output(g.node(relu).outputs[0]);
  infer_shapes(g);
  return g;
}

/// Row i holds i, i + 1, ... (columns of them).
inline Tensor counting(int64_t rows, int64_t columns) {
  std::vector<float> values;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) values.push_back(static_cast<float>(r + c));
  }
  return Tensor::from(values, {rows, columns});
}

template <class F>
std::string refusal(F&& act, ErrorCode code = ErrorCode::invalid_argument) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return std::string(e.what()) + " | " + e.hint();
  }
  return "accepted";
}

inline void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

}  // namespace narrow::testing
