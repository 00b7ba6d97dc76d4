// SPDX-License-Identifier: Apache-2.0
// docs/llm_architectures.md says what the table of architectures says. After a change:
//   NARROW_REWRITE_DOCS=1 build/release/bin/llm_test --gtest_filter='ArchitectureDocs.*'
#include "narrow/llm/architecture.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

#include "support.h"

namespace narrow::llm {
namespace {

const char* word_of(Size size) {
  switch (size) {
    case Size::none:
      return "1";
    case Size::vocab:
      return "vocabulary";
    case Size::hidden:
      return "hidden";
    case Size::q:
      return "heads * head_dim";
    case Size::kv:
      return "kv_heads * head_dim";
    case Size::qkv:
      return "(heads + 2 kv_heads) * head_dim";
    case Size::head:
      return "head_dim";
    case Size::ffn:
      return "intermediate";
    case Size::context:
      return "context";
    case Size::token_types:
      return "token types";
    case Size::rope_pairs:
      return "rope_dim / 2";
  }
  return "?";
}

const char* word_of(Need need) {
  switch (need) {
    case Need::always:
      return "";
    case Need::untied:
      return "where the embedding is not tied";
    case Need::qkv_bias:
    case Need::output_bias:
    case Need::ffn_bias:
      return "where the config has biases";
    case Need::qk_norm:
      return "where heads are normalized";
    case Need::rope_divisors:
      return "with llama 3's scaling";
  }
  return "?";
}

const char* word_of(Difference difference) {
  switch (difference) {
    case Difference::none:
      return "";
    case Difference::rotation_q:
    case Difference::rotation_k:
      return "rows in the order of rotation";
    case Difference::transposed:
      return "transposed";
    case Difference::minus_one:
      return "less one";
    case Difference::computed:
      return "in no file";
  }
  return "?";
}

std::string names_of(std::span<const std::string_view> names) {
  std::string text;
  for (const std::string_view name : names) {
    const std::string word = name.empty() ? "none" : fmt::format("`{}`", name);
    text += fmt::format("{}{}", text.empty() ? "" : ", ", word);
  }
  return text;
}

std::string tensors_of(const Architecture& a) {
  std::string text =
      "\n| GGUF | Hugging Face | shape | when | there differs |\n|---|---|---|---|---|\n";
  for (const TensorRow& t : a.tensors) {
    const std::string shape = t.columns == Size::none
                                  ? word_of(t.rows)
                                  : fmt::format("{} x {}", word_of(t.rows), word_of(t.columns));
    const std::string hf = t.hf.empty() ? "" : fmt::format("`{}`", t.hf);
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", t.gguf, hf, shape, word_of(t.need),
                        word_of(t.difference));
  }
  return text;
}

std::string document() {
  std::string text =
      "# Architectures of language models\n\n"
      "Made from the program's own table (`src/narrow/llm/architecture.cpp`) by "
      "`tests/llm/architecture_test.cpp`, which fails when they differ.\n\n"
      "| GGUF's `general.architecture` | `model_type` of `config.json` | its class | what is "
      "special |\n|---|---|---|---|\n";
  for (const Architecture& a : architectures()) {
    text += fmt::format("| `{}` | {} | `{}` | {} |\n", a.name, names_of(a.hf_types), a.hf_class,
                        a.special);
  }
  text +=
      "\nBelow are the tensors of each. `{}` is the number of a layer; Hugging Face's names stand "
      "behind the prefix of the model, but for those that begin with `/`. What differs there from "
      "GGUF is turned when the file is read or written.\n";
  for (const Architecture& a : architectures()) {
    text += fmt::format("\n## {}\n\nPrefixes: {}. Left out: {}.\n{}", a.name, names_of(a.prefixes),
                        names_of(a.unused), tensors_of(a));
  }
  return text;
}

TEST(ArchitectureDocs, SayWhatTheTableSays) {
  const auto path = std::filesystem::path(NARROW_SOURCE_DIR) / "docs/llm_architectures.md";
  if (std::getenv("NARROW_REWRITE_DOCS") != nullptr) std::ofstream(path) << document();
  EXPECT_EQ(narrow::testing::bytes_of(path), document())
      << "run this test with NARROW_REWRITE_DOCS=1, and look at what changes";
}

TEST(Architectures, AreFoundByTheirNamesAndHaveWholeRows) {
  for (const Architecture& a : architectures()) {
    EXPECT_EQ(find_architecture(a.name), &a);
    for (const std::string_view type : a.hf_types) EXPECT_EQ(find_hf_architecture(type), &a);
    EXPECT_FALSE(a.special.empty()) << a.name;
    EXPECT_FALSE(a.hf_class.empty()) << a.name;
    EXPECT_FALSE(a.prefixes.empty()) << a.name;
  }
  EXPECT_EQ(find_architecture("t5"), nullptr);
}

}  // namespace
}  // namespace narrow::llm
