// SPDX-License-Identifier: Apache-2.0
// Every case of goldens/shape_inference.txt (onnx's own inference, see make_shape_inference.py):
// what onnx knows of an output, narrow must know too, and the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

struct Expected {
  std::string dtype;
  std::string dims;  // "unranked", "scalar" or a list
};

struct Case {
  std::string name;
  std::string op;
  Graph graph;
  std::vector<ValueId> inputs;
  Attributes attributes;
  std::vector<Expected> outputs;
};

SymbolicShape parse_dims(const std::string& text) {
  SymbolicShape shape;
  if (text == "scalar") return shape;
  std::istringstream in(text);
  for (std::string d; std::getline(in, d, ',');) {
    if (d == "?") {
      shape.emplace_back();
    } else if (std::isdigit(static_cast<unsigned char>(d[0])) != 0) {
      shape.emplace_back(std::stoll(d));
    } else {
      shape.push_back(Dim::symbol(d));
    }
  }
  return shape;
}

template <class T>
std::vector<T> rest(std::istringstream& in) {
  std::vector<T> values;
  for (T v; in >> v;) values.push_back(v);
  return values;
}

Tensor parse_tensor(std::istringstream& in) {
  std::string dtype_name;
  std::string dims;
  in >> dtype_name >> dims;
  const DType dtype = dtype_from_string(dtype_name).value();
  const Dims shape = concrete(parse_dims(dims)).value();
  return is_float(dtype) ? Tensor::from_floats(rest<float>(in), dtype, shape)
                         : Tensor::from_ints(rest<int64_t>(in), dtype, shape);
}

Attribute parse_attribute(std::istringstream& in) {
  std::string kind;
  in >> kind;
  if (kind == "tensor") return parse_tensor(in);
  if (kind == "ints") return rest<int64_t>(in);
  if (kind == "floats") return rest<float>(in);
  if (kind == "int") return rest<int64_t>(in).at(0);
  if (kind == "float") return rest<float>(in).at(0);
  return rest<std::string>(in).at(0);
}

void parse_line(const std::string& line, std::vector<Case>& cases) {
  std::istringstream in(line);
  std::string word;
  in >> word;
  if (word == "case") {
    in >> cases.emplace_back().name;
    return;
  }
  Case& c = cases.back();
  const std::string value_name = "i" + std::to_string(c.inputs.size());
  if (word == "op") {
    in >> c.op;
  } else if (word == "absent") {
    c.inputs.push_back(kNoId);
  } else if (word == "input") {
    std::string dtype;
    std::string dims;
    in >> dtype >> dims;
    c.inputs.push_back(
        c.graph.add_input(value_name, dtype_from_string(dtype).value(), parse_dims(dims)));
  } else if (word == "const") {
    c.inputs.push_back(c.graph.add_initializer(value_name, parse_tensor(in)));
  } else if (word == "attr") {
    std::string key;
    in >> key;
    c.attributes[key] = parse_attribute(in);
  } else {
    ASSERT_EQ(word, "output");
    in >> c.outputs.emplace_back().dtype >> c.outputs.back().dims;
  }
}

std::vector<Case> read_cases() {
  std::ifstream file(NARROW_SOURCE_DIR "/tests/goldens/shape_inference.txt");
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    if (line[0] != '#') parse_line(line, cases);
  }
  return cases;
}

void expect_output(const Case& c, const Value& value, const Expected& expected) {
  SCOPED_TRACE(c.name);
  if (expected.dtype != "undefined") {
    EXPECT_EQ(to_string(value.dtype), expected.dtype);
  }
  if (expected.dims == "unranked") return;
  ASSERT_TRUE(value.shape.has_value());
  const SymbolicShape wanted = parse_dims(expected.dims);
  ASSERT_EQ(value.shape->size(), wanted.size()) << to_string(*value.shape);
  for (size_t i = 0; i < wanted.size(); ++i) {
    // Where onnx gives up, knowing more is no fault.
    if (wanted[i] == Dim()) continue;
    EXPECT_EQ((*value.shape)[i], wanted[i])
        << to_string(*value.shape) << " wanted " << expected.dims;
  }
}

TEST(InferGolden, AgreesWithOnnx) {
  std::vector<Case> cases = read_cases();
  ASSERT_GT(cases.size(), 500u);
  std::set<std::string> ops;
  for (Case& c : cases) {
    std::vector<std::string> names;
    for (size_t i = 0; i < c.outputs.size(); ++i) names.push_back("o" + std::to_string(i));
    const NodeId id = c.graph.add_node(c.op, c.inputs, names, c.attributes);
    for (const ValueId out : c.graph.node(id).outputs) c.graph.add_output(out);
    try {
      infer_shapes(c.graph);
      verify(c.graph);
    } catch (const Error& e) {
      ADD_FAILURE() << c.name << ": " << e.what();
      continue;
    }
    for (size_t i = 0; i < c.outputs.size(); ++i) {
      expect_output(c, c.graph.value(c.graph.node(id).outputs[i]), c.outputs[i]);
    }
    ops.insert(c.op);
  }
  EXPECT_GT(ops.size(), 120u);
}

constexpr int64_t kExtremes[] = {std::numeric_limits<int64_t>::min(),
                                 std::numeric_limits<int64_t>::max(),
                                 std::numeric_limits<int32_t>::min(),
                                 std::numeric_limits<int32_t>::max(),
                                 int64_t{1} << 40,
                                 int64_t{1} << 62,
                                 -2,
                                 -1,
                                 0,
                                 1,
                                 2,
                                 5,
                                 1000};

int64_t extreme(Rng& rng) {
  return kExtremes[rng.below(std::size(kExtremes))];
}

void mutate_attribute(Attributes& attributes, Rng& rng) {
  if (attributes.empty()) return;
  auto it = attributes.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(rng.below(attributes.size())));
  if (auto* one = std::get_if<int64_t>(&it->second)) {
    *one = extreme(rng);
  } else if (auto* many = std::get_if<std::vector<int64_t>>(&it->second)) {
    if (rng.below(4) == 0) many->resize(rng.below(6));
    if (!many->empty()) (*many)[rng.below(many->size())] = extreme(rng);
  }
}

void mutate_input(Graph& graph, const std::vector<ValueId>& inputs, Rng& rng) {
  if (inputs.empty()) return;
  const ValueId id = inputs[rng.below(inputs.size())];
  if (id == kNoId) return;
  Value& v = graph.mutable_value(id);
  if (v.is_constant()) {
    if (v.dtype != DType::int64 || v.constant.elements() == 0) return;
    std::vector<int64_t> values = v.constant.to_ints();
    values[rng.below(values.size())] = extreme(rng);
    graph.set_constant(id, Tensor::from_ints(values, DType::int64, v.constant.dims()));
  } else if (rng.below(4) == 0) {
    v.shape->resize(rng.below(6));
  } else if (!v.shape->empty()) {
    (*v.shape)[rng.below(v.shape->size())] = std::max<int64_t>(extreme(rng), -1);
  }
}

TEST(InferGolden, MutatedCasesAreInferredOrRefused) {
  int64_t refused = 0;
  int64_t accepted = 0;
  for (const Case& original : read_cases()) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      Rng rng(seed);
      Case c = original;
      for (uint64_t i = 0; i <= seed % 3; ++i) {
        mutate_attribute(c.attributes, rng);
        mutate_input(c.graph, c.inputs, rng);
      }
      std::vector<std::string> names(c.outputs.size(), "o");
      c.graph.add_node(c.op, c.inputs, names, c.attributes);
      try {
        infer_shapes(c.graph);
        ++accepted;
      } catch (const Error& e) {
        ++refused;
        EXPECT_NE(e.code(), ErrorCode::internal) << original.name << ": " << e.what();
        EXPECT_NE(std::string(e.what()).find("node '"), std::string::npos)
            << original.name << ": " << e.what();
      }
    }
  }
  EXPECT_GT(refused, 3000);
  EXPECT_GT(accepted, 3000);
}

}  // namespace
}  // namespace narrow
