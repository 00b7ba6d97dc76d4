// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/einsum.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"

namespace narrow {
namespace {

EinsumEquation parse(const std::string& equation, const std::vector<size_t>& ranks) {
  Node node;
  node.name = "e";
  node.op = "Einsum";
  node.attributes["equation"] = equation;
  return parse_einsum(node, ranks);
}

using Labels = std::vector<int>;
constexpr int kDots = EinsumEquation::kEllipsis;

TEST(Einsum, LettersAreLabels) {
  const EinsumEquation e = parse("ij, jk -> ik", {2, 2});
  EXPECT_EQ(e.inputs, (std::vector<Labels>{{'i', 'j'}, {'j', 'k'}}));
  EXPECT_EQ(e.output, (Labels{'i', 'k'}));
}

TEST(Einsum, WithoutArrowSingleLettersAreSorted) {
  EXPECT_EQ(parse("ba,ca", {2, 2}).output, (Labels{'b', 'c'}));
  EXPECT_EQ(parse("ii", {2}).output, Labels{});
  EXPECT_EQ(parse("b...a", {3}).output, (Labels{kDots, 'a', 'b'}));
}

TEST(Einsum, EllipsesAlignAtTheirRightEnd) {
  const EinsumEquation e = parse("...ij,...jk->...ik", {4, 3});
  EXPECT_EQ(e.inputs[0], (Labels{kDots + 1, kDots, 'i', 'j'}));
  EXPECT_EQ(e.inputs[1], (Labels{kDots, 'j', 'k'}));
  EXPECT_EQ(e.output, (Labels{kDots + 1, kDots, 'i', 'k'}));
}

TEST(Einsum, MalformedEquationsAreRefused) {
  const std::vector<size_t> one = {2};
  for (const char* equation : {"", "i", "ijk", "ij,jk->ik", "ij->ik", "ij->ii", "i1", "i.j",
                               "......", "ij->->i", "...ijk->i"}) {
    EXPECT_THROW(parse(equation, one), Error) << equation;
  }
}

}  // namespace
}  // namespace narrow
