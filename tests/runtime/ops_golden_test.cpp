// SPDX-License-Identifier: Apache-2.0
// Every implementation row of runtime/ops against answers of onnx and onnxruntime: in both memory
// orders, with constant and run-time weights, in place and not, and in 16-bit floats.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/ops/float_ops.h"
#include "runtime/ops_cases.h"

namespace narrow::testing {
namespace {

using Cases = std::map<std::string, std::vector<OpCase>>;  // by "domain::op"

std::string key_of(std::string_view domain, std::string_view op) {
  return std::string(domain) + "::" + std::string(op);
}

const Cases& all_cases() {
  static const Cases kCases = [] {
    Cases by_op;
    const std::filesystem::path folder =
        std::filesystem::path(NARROW_SOURCE_DIR) / "tests/corpus/ops";
    for (const char* name : {"onnx_node.cases", "ort.cases"}) {
      for (OpCase& c : read_op_cases(folder / name)) {
        by_op[key_of(c.domain, c.op)].push_back(std::move(c));
      }
    }
    return by_op;
  }();
  return kCases;
}

std::vector<std::string> all_ops_with_cases() {
  std::vector<std::string> names;
  for (const auto& [op, cases] : all_cases()) names.push_back(op);
  return names;
}

std::vector<const OpImpl*> rows_of(const OpCase& c) {
  std::vector<const OpImpl*> rows;
  for (const OpImpl& row : float_op_impls()) {
    if (c.domain == row.domain && c.op == row.op) rows.push_back(&row);
  }
  return rows;
}

bool is_bfloat16_row(const OpImpl& row) {
  return std::string_view(row.name).ends_with(":bfloat16");
}

bool accepts(const OpImpl& row, const OpCase& c, Constants constants) {
  const Graph graph = graph_of(c, constants);
  return row.accepts(graph, node_of(graph), {.bfloat16 = is_bfloat16_row(row)}).empty();
}

bool is_reference(const OpImpl& row) {
  return std::string_view(row.name) == "reference";
}

bool is_half_row(const OpImpl& row) {
  return std::string_view(row.name) == "reference:float16";
}

std::string describe(const OpImpl& row, const OpCase& c, const RunVariant& v) {
  return c.name + " with " + row.name +
         (v.constants == Constants::none ? "" : ", constant weights") +
         (v.common == Common::plain ? "" : ", channels_last") +
         (v.place == Place::own ? "" : ", in place");
}

constexpr Tolerance kOfBfloat16{3e-2, 1e-2, 100};

Tolerance tolerance_for(const OpImpl& row, const OpCase& c) {
  if (is_bfloat16_row(row)) return kOfBfloat16;
  for (const auto* operands : {&c.inputs, &c.outputs}) {
    for (const Tensor& t : *operands) {
      // 11 and 8 bits of mantissa; the reference evaluator rounds at every step.
      if (t.defined() && t.dtype() == DType::float16) return {4e-3, 2e-3, 100};
      if (t.defined() && t.dtype() == DType::bfloat16) return kOfBfloat16;
    }
  }
  return {};
}

void expect_answer(const OpImpl& row, const OpCase& c, const RunVariant& variant) {
  SCOPED_TRACE(describe(row, c, variant));
  try {
    const std::vector<Tensor> results = run_row(row, c, variant);
    for (size_t i = 0; i < results.size(); ++i) {
      if (!c.outputs[i].defined()) continue;
      EXPECT_EQ(difference(c.outputs[i], results[i], tolerance_for(row, c)), "") << "output " << i;
    }
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
  }
}

class OpGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(OpGolden, EveryRowInEveryVariant) {
  for (const OpCase& c : all_cases().at(GetParam())) {
    int answers = 0;
    for (const OpImpl* row : rows_of(c)) {
      for (const Constants constants : {Constants::none, Constants::all_but_first}) {
        if (!accepts(*row, c, constants)) continue;
        const Graph graph = graph_of(c, constants);
        const auto step = row->create(graph, node_of(graph), {});
        for (const Common common : {Common::plain, Common::channels_last}) {
          for (const Place place : {Place::own, Place::in_place}) {
            const RunVariant variant{constants, common, place};
            if (!applies(*step, c, variant)) continue;
            expect_answer(*row, c, variant);
            ++answers;
          }
        }
      }
    }
    EXPECT_GT(answers, 0) << "no row takes " << c.name;
  }
}

/// The case with its float32 tensors in 16 bits, and the same values back in float32.
struct HalfCase {
  OpCase half;
  OpCase wide;
};

Tensor as_dtype(const Tensor& t, DType dtype) {
  return Tensor::from_floats(t.to_floats(), dtype, t.dims());
}

HalfCase to_16_bits(const OpCase& c, DType dtype) {
  HalfCase pair{c, c};
  for (auto operands : {&OpCase::inputs, &OpCase::outputs}) {
    for (size_t i = 0; i < (c.*operands).size(); ++i) {
      const Tensor& t = (c.*operands)[i];
      if (!t.defined() || t.dtype() != DType::float32) continue;
      if (c.op == "Resize" && operands == &OpCase::inputs && i == 2) continue;  // scales: float32
      (pair.half.*operands)[i] = as_dtype(t, dtype);
      (pair.wide.*operands)[i] = as_dtype((pair.half.*operands)[i], DType::float32);
    }
  }
  return pair;
}

/// A 16-bit row is the float32 reference on the rounded inputs, rounded once at the end.
TEST_P(OpGolden, HalfRowsAreTheReferenceRounded) {
  for (const OpCase& c : all_cases().at(GetParam())) {
    const OpImpl* reference = nullptr;
    const OpImpl* half = nullptr;
    for (const OpImpl* row : rows_of(c)) {
      if (is_reference(*row)) reference = row;
      if (is_half_row(*row)) half = row;
    }
    if (reference == nullptr || half == nullptr) continue;
    for (const DType dtype : {DType::float16, DType::bfloat16}) {
      const HalfCase pair = to_16_bits(c, dtype);
      if (!accepts(*half, pair.half, Constants::none)) continue;
      if (!accepts(*reference, pair.wide, Constants::none)) continue;
      SCOPED_TRACE(c.name + std::string(" in ") + to_string(dtype));
      const auto expected = run_row(*reference, pair.wide, {});
      const auto actual = run_row(*half, pair.half, {});
      for (size_t i = 0; i < expected.size(); ++i) {
        if (!expected[i].defined()) continue;
        const bool rounded = expected[i].dtype() == DType::float32;
        const Tensor wanted = rounded ? as_dtype(expected[i], dtype) : expected[i];
        EXPECT_EQ(difference(wanted, actual[i], {0, 0, 0}), "") << "output " << i;
      }
    }
  }
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char ch) { return std::isalnum(ch) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, OpGolden, ::testing::ValuesIn(all_ops_with_cases()), test_name);

TEST(OpRows, EachIsReachedByACase) {
  std::set<std::string> unreached;
  for (const OpImpl& row : float_op_impls()) {
    const auto found = all_cases().find(key_of(row.domain, row.op));
    bool reached = false;
    if (found != all_cases().end()) {
      for (const OpCase& c : found->second) {
        const OpCase& used = is_half_row(row) ? to_16_bits(c, DType::float16).half : c;
        reached = reached || accepts(row, used, Constants::none) ||
                  accepts(row, used, Constants::all_but_first);
      }
    }
    if (!reached) unreached.insert(key_of(row.domain, row.op) + " " + row.name);
  }
  EXPECT_EQ(unreached, std::set<std::string>{});
}

}  // namespace
}  // namespace narrow::testing
