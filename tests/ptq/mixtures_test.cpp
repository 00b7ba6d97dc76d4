// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/mixtures.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "narrow/core/error.h"

namespace narrow {
namespace {

/// A llama of `layers` layers with rows of `columns`.
std::vector<MixtureTensor> llama(int layers, int64_t columns = 256, bool tied = false) {
  std::vector<MixtureTensor> all = {{"token_embd.weight", {512, columns}},
                                    {"output_norm.weight", {columns}}};
  if (!tied) all.push_back({"output.weight", {512, columns}});
  // From the last layer to the first: the order of the file must not matter.
  for (int i = layers; i-- > 0;) {
    const std::string p = "blk." + std::to_string(i) + ".";
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"}) {
      all.push_back({p + name + ".weight", {64, columns}});
    }
    all.push_back({p + "ffn_down.weight", {columns, 3 * columns}});
    all.push_back({p + "attn_norm.weight", {columns}});
  }
  return all;
}

std::map<std::string, std::string> types(const char* format, const ModelTraits& traits,
                                         const std::vector<MixtureTensor>& tensors) {
  std::map<std::string, std::string> result;
  const auto choices = choose_types(*find_file_format(format), traits, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) {
    result[tensors[i].name] = to_string(*choices[i].type);
  }
  return result;
}

/// Layers in which the tensor has this type.
std::set<int> layers_with(const std::map<std::string, std::string>& types, const char* tensor,
                          const char* type, int layers) {
  std::set<int> found;
  for (int i = 0; i < layers; ++i) {
    if (types.at("blk." + std::to_string(i) + "." + tensor + ".weight") == type) found.insert(i);
  }
  return found;
}

TEST(Mixtures, FormatsAreFoundInAnyCase) {
  EXPECT_EQ(file_formats().size(), 19u);
  EXPECT_STREQ(find_file_format("Q4_K_M")->name, "q4_k_m");
  EXPECT_EQ(find_file_format("q4_k_m")->file_type, 15u);
  EXPECT_EQ(find_file_format("iq4_xs")->file_type, 30u);
  EXPECT_EQ(find_file_format("q4_k_x"), nullptr);
  std::set<uint32_t> numbers;
  for (const FileFormat& f : file_formats()) EXPECT_TRUE(numbers.insert(f.file_type).second);
}

/// The letters of tests/goldens/make_mixtures.py.
char letter_of(BlockType type) {
  const std::pair<const char*, char> letters[] = {
      {"f32", 'F'},  {"f16", 'H'},  {"q4_0", 'a'},   {"q4_1", 'b'},  {"q5_0", 'c'},
      {"q5_1", 'd'}, {"q8_0", 'e'}, {"q2_k", '2'},   {"q3_k", '3'},  {"q4_k", '4'},
      {"q5_k", '5'}, {"q6_k", '6'}, {"iq4_nl", 'n'}, {"iq4_xs", 'x'}};
  for (const auto& [name, letter] : letters) {
    if (std::string_view(name) == to_string(type)) return letter;
  }
  return '?';
}

TEST(Mixtures, TheDocumentHasEveryFormat) {
  std::ifstream in(std::string(NARROW_SOURCE_DIR) + "/docs/llm_formats.md");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  for (const FileFormat& f : file_formats()) {
    EXPECT_NE(text.find("`" + std::string(f.name) + "`"), std::string::npos) << f.name;
  }
}

TEST(Mixtures, AreThoseOfLlamaQuantize) {
  std::ifstream file(NARROW_SOURCE_DIR "/tests/goldens/mixtures.txt");
  std::string line;
  ModelTraits traits;
  std::string model;
  std::vector<MixtureTensor> tensors;
  int compared = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string what;
    std::string name;
    words >> what >> name;
    if (what == "model") {
      model = name;
      tensors.clear();
      words >> traits.architecture >> traits.layers >> traits.experts >> traits.heads_per_key;
    } else if (what == "tensor") {
      Dims dims;
      for (int64_t d = 0; words >> d;) dims.push_back(d);
      tensors.push_back({name, dims});
    } else {
      std::string wanted;
      words >> traits.importance >> wanted;
      const FileFormat* format = find_file_format(name);
      ASSERT_NE(format, nullptr) << name;
      const auto choices = choose_types(*format, traits, tensors);
      ASSERT_EQ(choices.size(), wanted.size());
      for (size_t i = 0; i < choices.size(); ++i) {
        ASSERT_EQ(letter_of(*choices[i].type), wanted[i])
            << model << " " << name << " importance " << traits.importance << ": "
            << tensors[i].name;
      }
      ++compared;
    }
  }
  EXPECT_EQ(compared, 6 * 17 * 2);
}

TEST(Mixtures, Q4KMGivesMoreBitsWhereItMatters) {
  const ModelTraits traits{.architecture = "llama", .layers = 16};
  const auto t = types("q4_k_m", traits, llama(16));
  EXPECT_EQ(t.at("output.weight"), "q6_k");
  EXPECT_EQ(t.at("token_embd.weight"), "q4_k");
  EXPECT_EQ(t.at("output_norm.weight"), "f32");
  EXPECT_EQ(t.at("blk.3.attn_norm.weight"), "f32");
  // The first and last eighth and every third between.
  const std::set<int> more = {0, 1, 4, 7, 10, 13, 14, 15};
  EXPECT_EQ(layers_with(t, "attn_v", "q6_k", 16), more);
  EXPECT_EQ(layers_with(t, "ffn_down", "q6_k", 16), more);
  EXPECT_EQ(layers_with(t, "attn_q", "q4_k", 16).size(), 16u);
}

TEST(Mixtures, ATiedEmbeddingIsTheOutput) {
  const auto t = types("q4_0", {.architecture = "llama", .layers = 8}, llama(8, 256, true));
  EXPECT_EQ(t.at("token_embd.weight"), "q6_k");
  EXPECT_EQ(t.at("blk.0.ffn_down.weight"), "q4_0");
  const auto q8 = types("q8_0", {.architecture = "llama", .layers = 8}, llama(8, 256, true));
  EXPECT_EQ(q8.at("token_embd.weight"), "q8_0");
}

TEST(Mixtures, OtherFormats) {
  const ModelTraits plain{.architecture = "llama", .layers = 16, .heads_per_key = 1};
  ModelTraits shared = plain;
  shared.heads_per_key = 4;
  ModelTraits informed = plain;
  informed.importance = true;
  const auto tensors = llama(16);
  auto t = types("q2_k", plain, tensors);
  EXPECT_EQ(t.at("blk.5.attn_v.weight"), "q3_k");
  EXPECT_EQ(t.at("blk.5.ffn_down.weight"), "q3_k");
  EXPECT_EQ(t.at("blk.5.attn_output.weight"), "q3_k");
  EXPECT_EQ(t.at("blk.5.attn_q.weight"), "q2_k");
  EXPECT_EQ(types("q2_k", shared, tensors).at("blk.5.attn_v.weight"), "q4_k");
  t = types("q3_k_m", plain, tensors);
  EXPECT_EQ(layers_with(t, "attn_v", "q5_k", 16), (std::set<int>{0, 1}));
  EXPECT_EQ(layers_with(t, "ffn_down", "q5_k", 16), std::set<int>{0});
  EXPECT_EQ(layers_with(t, "ffn_down", "q4_k", 16).size(), 15u);
  EXPECT_EQ(t.at("blk.9.attn_output.weight"), "q4_k");
  t = types("q3_k_l", plain, tensors);
  EXPECT_EQ(t.at("blk.9.ffn_down.weight"), "q5_k");
  t = types("q4_k_s", plain, tensors);
  EXPECT_EQ(layers_with(t, "attn_v", "q5_k", 16), (std::set<int>{0, 1, 2, 3}));
  EXPECT_EQ(layers_with(t, "ffn_down", "q5_k", 16), (std::set<int>{0, 1}));
  t = types("iq4_xs", plain, tensors);
  EXPECT_EQ(layers_with(t, "ffn_down", "q5_k", 16), (std::set<int>{0, 1}));
  EXPECT_EQ(layers_with(types("iq4_xs", informed, tensors), "ffn_down", "iq4_xs", 16).size(), 16u);
  EXPECT_EQ(types("iq4_xs", shared, tensors).at("blk.9.attn_v.weight"), "q5_k");
  EXPECT_EQ(layers_with(types("q4_0", informed, tensors), "ffn_down", "q4_1", 16),
            (std::set<int>{0, 1}));
  EXPECT_EQ(layers_with(types("q4_0", plain, tensors), "ffn_down", "q4_0", 16).size(), 16u);
  t = types("f16", plain, tensors);
  EXPECT_EQ(t.at("output.weight"), "f16");
  EXPECT_EQ(t.at("blk.0.attn_norm.weight"), "f32");
}

TEST(Mixtures, EightExpertsKeepTheirAttention) {
  const ModelTraits traits{.architecture = "llama", .layers = 4, .experts = 8};
  std::vector<MixtureTensor> tensors = llama(4);
  for (int i = 0; i < 4; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    tensors.push_back({p + "ffn_gate_inp.weight", {8, 256}});
    tensors.push_back({p + "ffn_down_exps.weight", {8, 256, 512}});
  }
  const auto t = types("q4_k_m", traits, tensors);
  EXPECT_EQ(t.at("blk.1.attn_v.weight"), "q8_0");
  EXPECT_EQ(t.at("blk.1.attn_k.weight"), "q8_0");
  EXPECT_EQ(t.at("blk.1.attn_output.weight"), "q5_k");
  EXPECT_EQ(t.at("blk.1.ffn_gate_inp.weight"), "f32");
  EXPECT_EQ(t.at("blk.3.ffn_down_exps.weight"), "q6_k") << "the layer counts, not the tensor";
}

TEST(Mixtures, RowsThatAreNoWholeBlocksFallBack) {
  const std::vector<MixtureTensor> tensors = {{"blk.0.attn_q.weight", {64, 288}},
                                              {"blk.0.attn_v.weight", {64, 288}},
                                              {"blk.0.attn_k.weight", {64, 40}},
                                              {"output.weight", {64, 288}}};
  const ModelTraits traits{.architecture = "llama", .layers = 1};
  const auto choices = choose_types(*find_file_format("q4_k_m"), traits, tensors);
  EXPECT_EQ(choices[0].type, BlockType::q5_0);
  EXPECT_EQ(choices[0].wanted, BlockType::q4_k);
  EXPECT_NE(choices[0].reason.find("288"), std::string::npos);
  EXPECT_EQ(choices[1].wanted, BlockType::q6_k);
  EXPECT_EQ(choices[1].type, BlockType::q8_0);
  EXPECT_EQ(choices[2].type, BlockType::f16);
  EXPECT_EQ(choices[3].type, BlockType::q8_0);
  const auto xs = choose_types(*find_file_format("iq4_xs"), traits, tensors);
  EXPECT_EQ(xs[0].type, BlockType::iq4_nl);
  EXPECT_EQ(choose_types(*find_file_format("q2_k"), traits, tensors)[0].type, BlockType::q4_0);
  EXPECT_EQ(choose_types(*find_file_format("q5_k_m"), traits, tensors)[0].type, BlockType::q5_1);
}

TEST(Mixtures, LaterRulesWin) {
  const auto tensors = llama(2);
  const ModelTraits traits{.architecture = "llama", .layers = 2};
  const FileFormat& format = *find_file_format("q4_k_m");
  const std::vector<TensorTypeRule> rules = {{"blk.*.attn_?.weight", BlockType::q8_0},
                                             {"blk.1.attn_q*", BlockType::q6_k},
                                             {"output.weight", std::nullopt}};
  const auto choices = choose_types(format, traits, tensors, rules);
  std::map<std::string, std::optional<BlockType>> types;
  for (size_t i = 0; i < tensors.size(); ++i) types[tensors[i].name] = choices[i].type;
  EXPECT_EQ(types.at("blk.0.attn_q.weight"), BlockType::q8_0);
  EXPECT_EQ(types.at("blk.1.attn_q.weight"), BlockType::q6_k);
  EXPECT_EQ(types.at("output.weight"), std::nullopt);
  EXPECT_THROW(choose_types(format, traits, tensors, {{{"attn_x", BlockType::q8_0}}}), Error);
  EXPECT_THROW(choose_types(format, traits, tensors, {{{"*_norm*", BlockType::q8_0}}}), Error);
}

}  // namespace
}  // namespace narrow
