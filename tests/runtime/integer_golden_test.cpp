// SPDX-License-Identifier: Apache-2.0
// Every implementation of the integer operators against numbers of another program:
// tests/goldens/integer_ops.txt, written by make_integer_ops.py beside it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "integer_rig.h"

namespace narrow {
namespace {

using testing::NodeRig;

std::map<std::string, Tensor> read_goldens() {
  std::ifstream file(std::string(NARROW_SOURCE_DIR) + "/tests/goldens/integer_ops.txt");
  std::map<std::string, Tensor> out;
  std::string head;
  std::string body;
  while (std::getline(file, head) && std::getline(file, body)) {
    std::istringstream h(head);
    std::string name;
    std::string kind;
    size_t rank = 0;
    h >> name >> kind >> rank;
    Dims dims(rank);
    for (int64_t& d : dims) h >> d;
    std::istringstream values(body);
    std::string text;
    std::vector<float> floats;
    std::vector<int64_t> ints;
    while (values >> text) {
      if (kind == "float32") {
        floats.push_back(std::strtof(text.c_str(), nullptr));
      } else {
        ints.push_back(std::strtoll(text.c_str(), nullptr, 10));
      }
    }
    out[name] = kind == "float32" ? Tensor::from(floats, dims)
                                  : Tensor::from_ints(ints, *dtype_from_string(kind), dims);
  }
  return out;
}

class IntegerGoldens : public ::testing::Test {
 protected:
  const Tensor& golden(const std::string& name) {
    static const std::map<std::string, Tensor> all = read_goldens();
    const auto it = all.find(name);
    if (it == all.end()) throw std::runtime_error("no golden named " + name);
    return it->second;
  }

  /// All rows that accept the node, the reference among them, give exactly this.
  void expect(NodeRig& rig, const Tensor& wanted) {
    size_t ran = 0;
    for (const OpImpl* row : rig.rows()) {
      if (!rig.refusal(row->name).empty()) continue;
      ++ran;
      const Tensor got = rig.run(row->name);
      EXPECT_TRUE(identical(got, wanted)) << row->name;
    }
    EXPECT_GE(ran, 2u) << rig.refusals();
  }

  void check_conv(const std::string& tag, int64_t zx, int64_t zw, const Attributes& attributes) {
    SCOPED_TRACE(tag);
    const Tensor& x = golden(tag + ".x");
    const Tensor& w = golden(tag + ".w");
    const Tensor& y = golden(tag + ".y");
    NodeRig rig("narrow", "QConv");
    for (const auto& [name, value] : attributes) rig.attribute(name.c_str(), value);
    rig.activation(x).grid(0.043f, zx, x.dtype()).constant(w).constant(golden(tag + ".w_scale"));
    rig.constant(Tensor::from_ints(std::vector<int64_t>{zw}, w.dtype(), {}));
    rig.grid(0.31f, 3, x.dtype()).constant(golden(tag + ".bias")).output(y.dtype(), y.dims());
    expect(rig, y);
  }
};

using Ints = std::vector<int64_t>;

TEST_F(IntegerGoldens, Convolutions) {
  check_conv("conv_u8", 121, 0, {{"pads", Ints{1, 1, 1, 1}}});
  check_conv("conv_s8", -7, 0, {{"strides", Ints{2, 2}}});
  check_conv("conv_uw", 130, 99, {{"pads", Ints{0, 1, 2, 1}}, {"dilations", Ints{2, 1}}});
  check_conv("conv_dw", 4, 0, {{"pads", Ints{1, 1, 1, 1}}, {"group", int64_t{20}}});
}

TEST_F(IntegerGoldens, Products) {
  for (const auto& [tag, za, zb] : {std::tuple{"gemm_u8", 9, 0}, std::tuple{"gemm_uu", 200, 17}}) {
    const std::string name = tag;
    const Tensor& b = golden(name + ".b");
    const Tensor& y = golden(name + ".y");
    NodeRig rig("narrow", "QGemm");
    rig.attribute("qmin", int64_t{60}).attribute("qmax", int64_t{250});
    rig.activation(golden(name + ".a")).grid(0.05f, za, DType::uint8);
    rig.constant(b).grid(0.011f, zb, b.dtype());
    rig.grid(0.4f, 60, DType::uint8).output(y.dtype(), y.dims());
    expect(rig, y);
  }
}

TEST_F(IntegerGoldens, SumsAndProductsOfCodes) {
  for (const std::string op : {"Add", "Mul"}) {
    const Tensor& y = golden(op == "Add" ? "add.y" : "mul.y");
    NodeRig rig("narrow", "QBinary");
    rig.attribute("op", op);
    rig.activation(golden("add.a")).grid(0.031f, 5, DType::uint8);
    rig.activation(golden("add.b")).grid(0.017f, -9, DType::int8);
    rig.grid(0.04f, 12, DType::uint8).output(y.dtype(), y.dims());
    expect(rig, y);
  }
}

TEST_F(IntegerGoldens, GlobalMean) {
  const Tensor& y = golden("mean.y");
  NodeRig rig("narrow", "QGlobalAveragePool");
  rig.activation(golden("mean.x")).grid(0.3f, -7, DType::int8);
  rig.grid(0.02f, -5, DType::int8).output(y.dtype(), y.dims());
  expect(rig, y);
}

}  // namespace
}  // namespace narrow
