// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "narrow/core/error.h"
#include "support.h"

namespace narrow {
namespace {

using testing::bytes_of;
using testing::TemporaryFolder;

/// The message and hint of what parsing throws.
std::string refusal(const std::string& yaml) {
  try {
    parse_recipe(yaml, "r.yaml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    return std::string(e.what()) + " | " + e.hint();
  }
  return "accepted";
}

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

TEST(Recipe, EmptyIsTheDefault) {
  for (const char* text : {"", "# nothing\n", "---\n"}) {
    EXPECT_EQ(dump_recipe(parse_recipe(text)), "");
  }
}

TEST(Recipe, ReadsEveryKey) {
  const Recipe r =
      load_recipe(std::string(NARROW_SOURCE_DIR) + "/tests/fuzz/corpus/recipe_fuzz/full.yaml");
  EXPECT_EQ(r.quantize.mode, Mode::static_);
  EXPECT_EQ(r.quantize.weights->text(), "int8");
  EXPECT_EQ(r.quantize.granularity, Granularity::per_axis);
  EXPECT_EQ(r.observer.kind, ObserverKind::percentile);
  EXPECT_EQ(r.observer.percentile, 99.99);
  EXPECT_EQ(r.data->kind, "mnist");
  EXPECT_EQ(r.data->options.at("split"), "train");
  EXPECT_EQ(r.eval_data->path, "photos, old/");
  EXPECT_EQ(r.eval_data->options.at("mean"), "0.485/0.456/0.406");
  EXPECT_EQ(r.bias_correction, BiasCorrection::fast);
  EXPECT_EQ(r.seed, 7u);
  EXPECT_EQ(r.max_drop, 0.5);
  EXPECT_EQ(r.quantize.exclude, (std::vector<std::string>{"conv?", "a, b"}));
  EXPECT_EQ(r.quantize.keep_float, std::vector<std::string>{"head"});
  ASSERT_EQ(r.quantize.layers.size(), 2u);
  EXPECT_EQ(r.quantize.layers[0].match, "*conv1*");
  EXPECT_EQ(r.quantize.layers[0].weights->bits, 4);
  EXPECT_TRUE(r.quantize.layers[1].activations->floating);
  EXPECT_EQ(r.quantize.layers[1].group_size, 32);
}

TEST(Recipe, FullCorpusFileHoldsEveryKey) {
  const std::string text =
      bytes_of(std::string(NARROW_SOURCE_DIR) + "/tests/fuzz/corpus/recipe_fuzz/full.yaml");
  for (const RecipeKey& key : recipe_keys()) {
    expect_in("\n" + text, "\n" + std::string(key.name) + ":");
  }
}

TEST(Recipe, DumpReadsBackToItself) {
  Recipe r =
      load_recipe(std::string(NARROW_SOURCE_DIR) + "/tests/fuzz/corpus/recipe_fuzz/full.yaml");
  r.quantize.exclude.push_back("odd \"name\"\\ \t\x01 # : - {}");
  r.quantize.exclude.push_back("null");
  for (const DumpDefaults defaults : {DumpDefaults::omit, DumpDefaults::include}) {
    const std::string dump = dump_recipe(r, defaults);
    const Recipe again = parse_recipe(dump);
    EXPECT_EQ(dump_recipe(again, defaults), dump);
    EXPECT_EQ(again.quantize.exclude, r.quantize.exclude);
    EXPECT_EQ(again.eval_data->text(), r.eval_data->text());
  }
}

TEST(Recipe, DumpLeavesDefaultsOut) {
  Recipe r;
  set_recipe_key(r, "weights", "int4");
  set_recipe_key(r, "seed", "1");  // the default
  EXPECT_EQ(dump_recipe(r), "weights: int4\n");
}

TEST(Recipe, FlagsEqualTheFile) {
  Recipe flags;
  for (const auto& [key, value] :
       std::initializer_list<std::pair<const char*, const char*>>{{"mode", "weight_only"},
                                                                  {"weights", "int4"},
                                                                  {"group_size", "32"},
                                                                  {"exclude", "a,b*"},
                                                                  {"exclude", "c"},
                                                                  {"max_drop", "0.3"}}) {
    set_recipe_key(flags, key, value);
  }
  const Recipe file = parse_recipe(
      "mode: weight_only\nweights: int4\ngroup_size: 32\nexclude: [a, b*, c]\nmax_drop: 0.3\n");
  EXPECT_EQ(dump_recipe(flags), dump_recipe(file));
}

TEST(Recipe, RefusesWithPlaceAndNearestName) {
  expect_in(refusal("mode: static\nwieghts: int8\n"), "r.yaml:2:1: unknown key 'wieghts'");
  expect_in(refusal("wieghts: int8\n"), "did you mean 'weights'?");
  expect_in(refusal("mode: statik\n"), "r.yaml:1:7: mode: 'statik' is not possible");
  expect_in(refusal("mode: statik\n"), "did you mean 'static'?");
  expect_in(refusal("weights: int9\n"), "'int9' is no number type");
  expect_in(refusal("weights: [int8]\n"), "weights: one value");
  expect_in(refusal("weights:\n"), "weights: one value");
  expect_in(refusal("seed: 1.5\n"), "'1.5' is no integer");
  expect_in(refusal("seed: -1\n"), "no integer from 0");
  expect_in(refusal("max_drop: nan\n"), "is no number from 0 to 100");
  expect_in(refusal("max_drop: 1e999\n"), "is no number");
  expect_in(refusal("integer_only: yes\n"), "neither true nor false");
  expect_in(refusal("target: tensorflow\n"), "unknown target 'tensorflow'");
  expect_in(refusal("data: nothing:here\n"), "r.yaml:1:7: data:");
  expect_in(refusal("data: {kind: npz}\n"), "needs a path");
  expect_in(refusal("exclude: ['']\n"), "an empty pattern");
  expect_in(refusal("layers: {match: a}\n"), "layers: a list");
  expect_in(refusal("layers: [{weights: int8}]\n"), "'match' is missing");
  expect_in(refusal("layers: [{match: a, wights: int8}]\n"), "unknown key of a layer 'wights'");
  expect_in(refusal("- a\n"), "a recipe is a map");
  expect_in(refusal("weights: int8\nweights: int4\n"), "stands here again, first in line 1");
}

TEST(Recipe, RefusesWhatYamlCanDoBeyond) {
  expect_in(refusal("a: &x b\n"), "anchors are not supported");
  expect_in(refusal("a: *x\n"), "the referenced anchor is not defined");
  expect_in(refusal("weights: !!str int8\n"), "tags are not supported");
  expect_in(refusal("[a]: b\n"), "a key must be a plain word");
  expect_in(refusal("a: {b\n"), "r.yaml:");
  expect_in(refusal("--- {}\n--- {}\n"), "a second document");
  expect_in(refusal("- - - - - - - - - - a\n"), "nested too deeply");
  EXPECT_NE(refusal("a: " + std::string(100000, '[')), "accepted");
  expect_in(refusal(std::string((size_t{1} << 20) + 1, ' ')), "too many for a recipe");
}

TEST(Recipe, KeysAreUniqueAndSettable) {
  std::set<std::string> names;
  for (const RecipeKey& key : recipe_keys()) {
    EXPECT_TRUE(names.insert(key.name).second) << key.name;
    Recipe r;
    EXPECT_THROW(set_recipe_key(r, key.name, ""), Error) << key.name;
  }
  Recipe r;
  EXPECT_THROW(set_recipe_key(r, "layers", "x"), Error);
}

TEST(Recipe, ValidateChecksTheWhole) {
  const auto check = [](const std::string& yaml) {
    try {
      validate(parse_recipe(yaml));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("valid");
  };
  EXPECT_EQ(check(""), "valid");
  EXPECT_EQ(check("weights: float32\n"), "valid");  // activations alone
  EXPECT_EQ(check("mode: weight_only\nweights: int4\ngroup_size: 32\n"), "valid");
  EXPECT_EQ(check("mode: weight_only\nweights: float16\n"), "valid");
  EXPECT_EQ(check("activations: uint16\n"), "valid");
  expect_in(check("group_size: 32\n"), "groups of weights are not possible in mode static");
  expect_in(check("weights: float16\n"), "need mode weight_only");
  expect_in(check("weights: int16\n"), "weights int16 are not supported");
  expect_in(check("mode: dynamic\nactivations: int8\n"), "not possible in mode dynamic");
  expect_in(check("mode: weight_only\nactivations: int8\n"), "contradict mode weight_only");
  expect_in(check("target: tensorrt\nactivations: uint8\n"), "does not fit target tensorrt");
  expect_in(check("target: tensorrt\nactivation_symmetry: asymmetric\n"), "needs");
  expect_in(check("target: cmsis\nmode: weight_only\n"), "target cmsis has no weight_only mode");
  expect_in(check("target: cmsis\nmode: dynamic\n"), "target cmsis has no dynamic mode");
  expect_in(check("target: tensorrt\nmode: dynamic\n"), "target tensorrt has no dynamic mode");
  EXPECT_EQ(check("target: ort\nmode: dynamic\nweights: uint8\n"), "valid");
  expect_in(check("target: ort\nmode: dynamic\nweights: uint8\ngranularity: per_axis\n"),
            "one zero_point");
  expect_in(check("target: ort\nopset: 99\n"), "above what target ort reads");
  expect_in(check("format: qoperator\nmode: dynamic\n"), "not possible in mode dynamic");
  expect_in(check("format: qoperator\ntarget: openvino\n"), "openvino does not read format qoper");
  expect_in(check("max_drop: 1\nmode: dynamic\n"), "need data to measure on");
  expect_in(check("weight_symmetry: offset\n"), "symmetry offset cannot be written");
}

}  // namespace
}  // namespace narrow
