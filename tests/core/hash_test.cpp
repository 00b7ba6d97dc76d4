// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace narrow {
namespace {

uint64_t hash_of(const std::string& text) {
  Hash64 h;
  h.add(text.data(), text.size());
  return h.value();
}

TEST(Hash64, CutsDoNotMatter) {
  const std::string text = "the quick brown fox jumps over the lazy dog";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Hash64 h;
    h.add(text.data(), cut);
    h.add(text.data() + cut, text.size() - cut);
    EXPECT_EQ(h.value(), hash_of(text)) << cut;
  }
}

TEST(Hash64, EveryByteAndTheLengthCount) {
  std::set<uint64_t> seen;
  for (size_t n = 0; n < 40; ++n) seen.insert(hash_of(std::string(n, '\0')));
  EXPECT_EQ(seen.size(), 40u);
  const std::string base(33, 'a');
  for (size_t i = 0; i < base.size(); ++i) {
    std::string changed = base;
    changed[i] = 'b';
    EXPECT_NE(hash_of(changed), hash_of(base)) << i;
  }
}

TEST(Hash64, TextsKeepTheirBorders) {
  Hash64 a, b;
  a.add_text("ab");
  a.add_text("c");
  b.add_text("a");
  b.add_text("bc");
  EXPECT_NE(a.value(), b.value());
}

// The value is stored in models: it may never change.
TEST(Hash64, ValueIsFixed) {
  Hash64 h;
  h.add_text("narrow");
  EXPECT_EQ(h.hex().size(), 16u);
  EXPECT_EQ(h.hex(), "77ec28429810ddd1");
}

}  // namespace
}  // namespace narrow
