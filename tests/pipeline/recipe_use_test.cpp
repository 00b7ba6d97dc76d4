// SPDX-License-Identifier: Apache-2.0
// What a recipe promises: it is documented, it says all that decides the file, its gate counts
// exactly, and the order of the data does not matter.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "narrow/core/error.h"
#include "narrow/data/npz.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/pipeline/quantize.h"
#include "narrow/pipeline/recipe_keys.h"
#include "narrow/pipeline/samples.h"
#include "narrow/pipeline/verify.h"
#include "narrow/ptq/targets.h"
#include "support.h"

namespace narrow {
namespace {

using testing::bytes_of;
using testing::TemporaryFolder;

namespace fs = std::filesystem;

constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist";

std::string documentation() {
  return bytes_of(fs::path(NARROW_SOURCE_DIR) / "docs" / "recipe.md");
}

/// The rows of the tables below a heading, by their first cell.
std::map<std::string, std::string> rows_below(const std::string& text, const std::string& heading) {
  const size_t begin = text.find("\n## " + heading + "\n");
  EXPECT_NE(begin, std::string::npos) << heading;
  const std::string part = text.substr(begin + 1, text.find("\n## ", begin + 1) - begin - 1);
  std::map<std::string, std::string> rows;
  const std::regex row("\\| `([^`]+)` \\|([^\n]*)");
  for (auto it = std::sregex_iterator(part.begin(), part.end(), row); it != std::sregex_iterator();
       ++it) {
    EXPECT_TRUE(rows.emplace((*it)[1], (*it)[2]).second) << (*it)[1] << " twice";
  }
  return rows;
}

std::vector<std::string> alternatives(const std::string& values) {
  std::vector<std::string> out;
  const std::regex word("[a-z0-9_]+");
  if (values.find('|') == std::string::npos) return out;
  for (auto it = std::sregex_iterator(values.begin(), values.end(), word);
       it != std::sregex_iterator(); ++it) {
    out.push_back(it->str());
  }
  return out;
}

TEST(RecipeDocs, EveryKeyWithItsValuesAndItsDefault) {
  const auto rows = rows_below(documentation(), "Keys");
  const Recipe defaults;
  std::set<std::string> known{"layers"};
  for (const RecipeField& field : recipe_fields()) {
    const std::string name = field.key.name;
    known.insert(name);
    ASSERT_EQ(rows.count(name), 1u) << "docs/recipe.md does not explain " << name;
    const std::string& row = rows.at(name);
    std::vector<std::string> words = alternatives(field.key.values);
    for (const std::string& value : field.get(defaults)) words.push_back(value);
    for (const std::string& word : words) {
      EXPECT_NE(row.find("`" + word + "`"), std::string::npos) << name << " lacks " << word;
    }
  }
  for (const auto& [name, row] : rows) {
    EXPECT_EQ(known.count(name), 1u) << "there is no key " << name;
  }
  EXPECT_EQ(rows.count("layers"), 1u);
}

TEST(RecipeDocs, LayerKeysTargetsAndObservers) {
  const std::string text = documentation();
  const auto layers = rows_below(text, "Layers");
  EXPECT_EQ(layers.size(), layer_fields().size());
  for (const LayerField& field : layer_fields()) EXPECT_EQ(layers.count(field.name), 1u);
  const auto targets = rows_below(text, "Targets");
  EXPECT_EQ(targets.size(), all_targets().size());
  for (const TargetProfile& target : all_targets()) {
    ASSERT_EQ(targets.count(target.name), 1u) << target.name;
    EXPECT_NE(targets.at(target.name).find(std::to_string(target.max_opset)), std::string::npos)
        << "highest opset of " << target.name;
    EXPECT_NE(targets.at(target.name).find(target.bias == BiasForm::int32 ? "int32" : "float32"),
              std::string::npos)
        << "bias of " << target.name;
  }
  const auto observers = rows_below(text, "Which observer");
  for (const auto kind : {ObserverKind::minmax, ObserverKind::moving_average,
                          ObserverKind::percentile, ObserverKind::mse, ObserverKind::entropy}) {
    EXPECT_EQ(observers.count(to_string(kind)), 1u) << to_string(kind);
  }
}

TEST(RecipeDocs, ExamplesAreRecipes) {
  const std::string text = documentation();
  int examples = 0;
  for (size_t begin = text.find("```yaml\n"); begin != std::string::npos;
       begin = text.find("```yaml\n", begin)) {
    begin += 8;
    const std::string yaml = text.substr(begin, text.find("```", begin) - begin);
    SCOPED_TRACE(yaml);
    EXPECT_NO_THROW(validate(parse_recipe(yaml, "docs/recipe.md")));
    ++examples;
  }
  EXPECT_GE(examples, 4);
}

TEST(Gate, WhatIsAllowedExactlyPasses) {
  Recipe recipe;
  const auto failure = [&](int64_t before, int64_t after, int64_t samples, const char* max_drop) {
    set_recipe_key(recipe, "max_drop", max_drop);
    Verification v;
    v.metric = Metric::top1;
    v.float_value = 100.0 * static_cast<double>(before) / static_cast<double>(samples);
    v.quantized_value = 100.0 * static_cast<double>(after) / static_cast<double>(samples);
    return gate_failure(recipe, v);
  };
  // Three of 1000 are 0.3 points, whatever 50.1 - 49.8 is in binary.
  EXPECT_EQ(failure(501, 498, 1000, "0.3"), "");
  EXPECT_NE(failure(501, 497, 1000, "0.3"), "");
  for (int64_t hits = 100; hits <= 1000; ++hits) {
    EXPECT_EQ(failure(hits, hits - 5, 1000, "0.5"), "") << hits;
    EXPECT_NE(failure(hits, hits - 6, 1000, "0.5"), "") << hits;
  }
  EXPECT_EQ(failure(500, 500, 1000, "0"), "");
  EXPECT_NE(failure(500, 499, 1000, "0"), "");
}

class RecipeUse : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kFashion)) GTEST_SKIP() << "needs Debian's dataset-fashion-mnist";
  }
  static fs::path model() { return fs::path(NARROW_SOURCE_DIR) / "assets" / "fashion_cnn.onnx"; }
  QuantizeReport quantize(const Recipe& recipe, const std::string& name) {
    QuantizeJob job;
    job.model = model();
    job.output = folder.path() / name;
    job.recipe = recipe;
    return run_quantize(job);
  }
  std::string file(const std::string& name) const { return bytes_of(folder.path() / name); }

  TemporaryFolder folder;
};

TEST_F(RecipeUse, ADumpedRecipeGivesTheSameFile) {
  using Keys = std::vector<std::pair<const char*, const char*>>;
  const Keys recipes[] = {
      {{"observer", "percentile"}, {"percentile", "99.9"}, {"equalize", "true"}, {"seed", "5"}},
      {{"mode", "weight_only"}, {"weights", "int4"}, {"group_size", "32"}},
      {{"mode", "dynamic"}, {"weight_symmetry", "asymmetric"}, {"weights", "uint8"}},
      {{"target", "tensorrt"}, {"bias_correction", "empirical"}, {"keep_float", "/fc2/*"}},
      {{"target", "ort"}, {"format", "qoperator"}, {"scale_type", "power_of_two"}},
  };
  for (const Keys& keys : recipes) {
    Recipe recipe =
        parse_recipe("layers:\n  - match: \"*conv1*\"\n    weight_symmetry: symmetric\n");
    set_recipe_key(recipe, "data", std::string("mnist:") + kFashion + ",split=test");
    set_recipe_key(recipe, "calibration_samples", "24");
    set_recipe_key(recipe, "eval_samples", "16");
    for (const auto& [key, value] : keys) set_recipe_key(recipe, key, value);
    SCOPED_TRACE(dump_recipe(recipe));
    const QuantizeReport report = quantize(recipe, "a.onnx");
    const std::string expected = file("a.onnx");
    quantize(parse_recipe(dump_recipe(recipe)), "b.onnx");
    EXPECT_TRUE(file("b.onnx") == expected);
    // What the file itself says of how it was made, too.
    const Graph written = read_onnx(folder.path() / "a.onnx");
    EXPECT_EQ(written.metadata.at("narrow.recipe"), report.recipe);
    quantize(parse_recipe(written.metadata.at("narrow.recipe")), "c.onnx");
    EXPECT_TRUE(file("c.onnx") == expected);
  }
}

TEST_F(RecipeUse, TheOrderOfTheDataDoesNotMatter) {
  const Graph graph = read_onnx(model());
  const auto train = open_dataset(
      parse_data_spec(std::string("mnist:") + kFashion + ",split=train"), data_hints(graph));
  constexpr int64_t kSamples = 3000;
  std::vector<int64_t> indices(kSamples);
  for (int64_t i = 0; i < kSamples; ++i) indices[static_cast<size_t>(i)] = i;
  const auto write = [&](const std::string& name) {
    const Batch batch = train->get(indices);
    write_npz(folder.path() / name,
              {{"x", batch.inputs.begin()->second}, {"y", Tensor::vector(batch.labels)}});
    return "npz:" + (folder.path() / name).string();
  };
  const std::string mixed = write("mixed.npz");
  const std::vector<int64_t> labels = train->get(indices).labels;
  std::stable_sort(indices.begin(), indices.end(), [&](int64_t a, int64_t b) {
    return labels[static_cast<size_t>(a)] < labels[static_cast<size_t>(b)];
  });
  const std::string by_class = write("sorted.npz");

  Recipe recipe;
  set_recipe_key(recipe, "data", by_class);
  set_recipe_key(recipe, "calibration_samples", "300");
  const SampleSets sets = open_samples(recipe, graph);
  std::vector<int64_t> all(static_cast<size_t>(sets.calibration->size()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  std::map<int64_t, int> drawn;
  for (const int64_t label : sets.calibration->get(all).labels) ++drawn[label];
  ASSERT_EQ(drawn.size(), 10u) << "every class is among 300 of a sorted set";
  for (const auto& [label, times] : drawn) {
    EXPECT_GE(times, 15) << label;  // 30 are expected, the deviation is 5
    EXPECT_LE(times, 45) << label;
  }

  set_recipe_key(recipe, "eval_data", std::string("mnist:") + kFashion + ",split=test");
  set_recipe_key(recipe, "eval_samples", "2000");
  for (const char* observer : {"minmax", "percentile"}) {
    set_recipe_key(recipe, "observer", observer);
    set_recipe_key(recipe, "data", by_class);
    const double sorted_top1 = quantize(recipe, "s.onnx").verification.quantized_value;
    set_recipe_key(recipe, "data", mixed);
    const double mixed_top1 = quantize(recipe, "m.onnx").verification.quantized_value;
    // Three of 2000: other samples of the same set differ as much.
    EXPECT_LE(std::abs(sorted_top1 - mixed_top1), 0.15 + 1e-9) << observer;
  }
}

}  // namespace
}  // namespace narrow
