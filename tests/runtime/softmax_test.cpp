// SPDX-License-Identifier: Apache-2.0
// Softmax and LogSoftmax for every length of an axis, whose loops differ, against doubles.
#include <gtest/gtest.h>

#include <cmath>
#include <string_view>

#include "narrow/runtime/ops/float_ops.h"
#include "runtime/ops_cases.h"

namespace narrow::testing {
namespace {

/// [outer, extent, inner] along axis 1.
std::vector<float> expected(const std::vector<float>& x, int64_t outer, int64_t extent,
                            int64_t inner, bool log) {
  std::vector<float> y(x.size());
  for (int64_t line = 0; line < outer * inner; ++line) {
    const int64_t at = line / inner * extent * inner + line % inner;
    double sum = 0;
    for (int64_t i = 0; i < extent; ++i) sum += std::exp(double{x[at + i * inner]} - x[at]);
    for (int64_t i = 0; i < extent; ++i) {
      const double t = double{x[at + i * inner]} - x[at] - std::log(sum);
      y[at + i * inner] = static_cast<float>(log ? t : std::exp(t));
    }
  }
  return y;
}

TEST(Softmax, LinesOfEveryLength) {
  for (const int64_t inner : {1, 3, 65}) {
    for (int64_t extent = 1; extent <= 50; ++extent) {
      // More lines than are taken side by side, and a rest.
      const int64_t outer = inner == 1 ? 70 : 2;
      const Dims dims{outer, extent, inner};
      Tensor x(DType::float32, dims);
      const std::span<float> values = x.mutable_data<float>();
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(static_cast<int64_t>(i * 7919 % 1009) - 500) / 50;
      }
      for (const char* op : {"Softmax", "LogSoftmax"}) {
        OpCase c{"", "", op, {{"axis", int64_t{1}}}, {x}, {Tensor(DType::float32, dims)}};
        const auto want = expected({values.begin(), values.end()}, outer, extent, inner,
                                   std::string_view(op) == "LogSoftmax");
        std::copy(want.begin(), want.end(), c.outputs[0].mutable_data<float>().begin());
        for (const OpImpl& row : float_op_impls()) {
          if (c.op != row.op || std::string_view(row.name) != "reference") continue;
          EXPECT_EQ(difference(c.outputs[0], run_row(row, c, {})[0], {}), "")
              << op << " " << outer << " x " << extent << " x " << inner;
        }
      }
    }
  }
}

}  // namespace
}  // namespace narrow::testing
