// SPDX-License-Identifier: Apache-2.0
// A call of a TorchScript function while it is turned into nodes. Each value is known twice: as
// what stands for it in the graph, and as what it is for an example input (for ranks and sizes).
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow::train::script {

struct Item {
  c10::IValue example;
  ValueId id = kNoId;       // kNoId: a constant, which the example is
  std::vector<Item> parts;  // of a list or tuple with parts that are no constants
  bool constant() const { return id == kNoId && parts.empty(); }
};

/// Inputs of one call, and the graph that it adds to.
class Call {
 public:
  Call(Graph& graph, std::vector<Item> inputs, std::string name)
      : graph_(graph), in_(std::move(inputs)), name_(std::move(name)) {}

  size_t size() const { return in_.size(); }
  const Item& item(size_t i) const;
  /// None, or not there at all.
  bool none(size_t i) const;

  // Constants. Throw unsupported where the value is computed.
  int64_t integer(size_t i) const;
  double number(size_t i) const;
  bool flag(size_t i) const;
  std::vector<int64_t> ints(size_t i) const;
  /// One number stands for `count` equal ones; none for `count` times `fallback`.
  std::vector<int64_t> ints(size_t i, size_t count, int64_t fallback) const;

  /// Of a tensor, for the example.
  int64_t rank(size_t i) const;
  int64_t size_of(size_t i, int64_t axis) const;
  /// From 0 on.
  int64_t axis(size_t i, int64_t rank) const;

  // In the graph: constants become initializers.
  ValueId tensor(size_t i, const char* role = "constant");
  ValueId tensor(const Item& item, const char* role = "constant");
  /// A tensor, or a number as a scalar of the element type of `like`.
  ValueId operand(size_t i, size_t like);
  /// A list of integers as a vector, computed or not.
  ValueId int_vector(size_t i);
  ValueId constant(Tensor tensor, const char* role);
  ValueId int_constant(const std::vector<int64_t>& values);
  ValueId scalar(double value);

  /// A node with one output, named after the call.
  ValueId add(const char* op, std::vector<ValueId> inputs, Attributes attributes = {});
  std::vector<ValueId> add_many(const char* op, std::vector<ValueId> inputs, size_t outputs,
                                Attributes attributes = {});

 private:
  Graph& graph_;
  std::vector<Item> in_;
  std::string name_;
};

/// What one function becomes: ids of its outputs.
using Convert = std::vector<ValueId> (*)(Call& call);
struct Conversion {
  const char* function;
  Convert convert;
};
std::span<const Conversion> layer_conversions();
std::span<const Conversion> math_conversions();
std::span<const Conversion> shape_conversions();

/// Element type of the graph for a tensor of libtorch.
DType dtype_of(c10::ScalarType type);

}  // namespace narrow::train::script
