// SPDX-License-Identifier: Apache-2.0
// TorchScript models against what PyTorch computed (tests/goldens/make_torchscript.py).
#include "narrow/pipeline/torchscript.h"

#include <gtest/gtest.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/data/npz.h"
#include "narrow/graph/graph.h"
#include "narrow/runtime/session.h"
#include "support.h"
#include "train/train_testing.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
const fs::path kGoldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens/torchscript";

class TorchScript : public train::PluginTest {};

ScriptGraph read(const std::string& name, const std::vector<std::string>& shapes) {
  std::vector<SymbolicShape> inputs;
  for (const std::string& shape : shapes) inputs.push_back(parse_input_shape(shape));
  return read_torchscript(kGoldens / (name + ".pt"), inputs);
}

std::string error_of(const std::string& name, const std::vector<std::string>& shapes) {
  try {
    read(name, shapes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST_F(TorchScript, ComputesWhatPyTorchComputes) {
  const std::pair<const char*, const char*> models[] = {{"residual", "Nx3x16x16"},
                                                        {"transformer", "NxTx8"},
                                                        {"shapes", "Nx2x6x6"},
                                                        {"scripted", "Nx3x4"}};
  const std::map<std::string, Tensor> arrays = read_npz(kGoldens / "outputs.npz");
  for (const auto& [name, shape] : models) {
    const ScriptGraph script = read(name, {shape});
    EXPECT_LT(script.largest_difference, 1e-5) << name;
    // Three samples, where the import looked at two.
    const std::vector<Tensor> outputs =
        Session(script.graph).run({arrays.at(std::string(name) + ".x")});
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Tensor& wanted = arrays.at(std::string(name) + ".y" + std::to_string(i));
      ASSERT_EQ(outputs[i].dims(), wanted.dims()) << name;
      const std::vector<float> a = outputs[i].to_floats();
      const std::vector<float> b = wanted.to_floats();
      for (size_t k = 0; k < a.size(); ++k) {
        ASSERT_NEAR(a[k], b[k], 1e-4 * std::max(1.0F, std::fabs(b[k]))) << name << " " << k;
      }
    }
  }
}

TEST_F(TorchScript, LayersKeepTheirForm) {
  const Graph graph = read("residual", {"Nx3x16x16"}).graph;
  std::map<std::string, int> count;
  for (const NodeId id : graph.nodes()) ++count[graph.node(id).op];
  EXPECT_EQ(count["Conv"], 6);
  EXPECT_EQ(count["BatchNormalization"], 4);
  EXPECT_EQ(count["Gemm"], 1);
  EXPECT_EQ(count["Dropout"] + count["Identity"], 0);
}

TEST_F(TorchScript, WhatCannotBeReadIsNamed) {
  const std::string unknown = error_of("unknown", {"4x4"});
  EXPECT_NE(unknown.find("aten::fft_fft"), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("aten::linalg_inv"), std::string::npos) << unknown;
  EXPECT_NE(error_of("data_dependent", {"4x4"}).find("decides by its data"), std::string::npos);
  EXPECT_NE(error_of("residual", {"Nx5x16x16"}).find("channels"), std::string::npos);
  EXPECT_NE(error_of("residual", {"4", "4"}).find("has 1 input"), std::string::npos);
  EXPECT_NE(error_of("none", {"4"}).find("no file"), std::string::npos);
}

TEST_F(TorchScript, BrokenFilesAreErrors) {
  const testing::TemporaryFolder folder;
  const std::string whole = testing::bytes_of(kGoldens / "scripted.pt");
  for (const size_t size : {size_t{0}, size_t{10}, whole.size() / 2, whole.size() - 1}) {
    const fs::path path = folder.write("broken.pt", whole.substr(0, size));
    EXPECT_THROW(read_torchscript(path, {parse_input_shape("Nx3x4")}), Error) << size;
  }
}

TEST(InputShape, NumbersAndNames) {
  const SymbolicShape shape = parse_input_shape("Nx3x32");
  ASSERT_EQ(shape.size(), 3u);
  EXPECT_EQ(shape[0].name, "N");
  EXPECT_EQ(shape[1].value, 3);
  for (const char* wrong : {"", "x", "3x", "3x-1", "0", "3x3.5", "99999999999x1", "3,3"}) {
    EXPECT_THROW(parse_input_shape(wrong), Error) << wrong;
  }
}

}  // namespace
}  // namespace narrow
