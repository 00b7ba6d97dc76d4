// SPDX-License-Identifier: Apache-2.0
// Number types, patterns, and what each target makes of open options.
#include "narrow/ptq/options.h"

#include <set>

#include "narrow/ptq/targets.h"
#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;

TEST(Glob, StarsAndQuestionMarks) {
  struct Case {
    const char* pattern;
    const char* text;
    bool match;
  };
  for (const Case& c :
       {Case{"", "", true},        {"", "a", false},           {"*", "", true},
        {"*", "/a/b", true},       {"?", "", false},           {"?", "/", true},
        {"conv1", "conv1", true},  {"conv1", "conv10", false}, {"conv?", "conv10", false},
        {"conv*", "conv10", true}, {"*conv", "a/conv", true},  {"*conv", "a/conv1", false},
        {"*a*b", "xaybzab", true}, {"*a*b", "xaybza", false},  {"a*a", "a", false},
        {"**a**", "a", true},      {"[ab]", "a", false},       {"[ab]", "[ab]", true},
        {"a\\*", "a\\*", true},    {"A", "a", false}}) {
    EXPECT_EQ(glob_match(c.pattern, c.text), c.match) << c.pattern << " on " << c.text;
  }
}

TEST(Glob, ManyStarsOnALongNameEnd) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(glob_match(pattern + "b", std::string(5000, 'a')));
  EXPECT_TRUE(glob_match(pattern, std::string(5000, 'a')));
}

TEST(NumberTypes, EverySpellingReadsBack) {
  const std::set<std::string> known{"int2",  "int3",  "int4",  "int5",   "int6",    "int7",
                                    "int8",  "int16", "uint2", "uint3",  "uint4",   "uint5",
                                    "uint6", "uint7", "uint8", "uint16", "float16", "float32"};
  for (const std::string& name : known) {
    const auto type = number_type_from_string(name);
    ASSERT_TRUE(type.has_value()) << name;
    EXPECT_EQ(type->text(), name);
    EXPECT_EQ(type->floating, name[0] == 'f');
    EXPECT_EQ(type->is_signed, name[0] != 'u');
    EXPECT_EQ(type->bits, std::stoi(name.substr(name.find_first_of("0123456789"))));
  }
  for (const char* name : {"", "int", "int1", "int9", "int32", "uint0", "float8", "float64",
                           "ufloat16", "INT8", "int8 ", " int8", "int08", "bfloat16"}) {
    EXPECT_FALSE(number_type_from_string(name).has_value()) << name;
  }
}

TEST(Names, EveryEnumeratorReadsBack) {
  for (const Mode m : {Mode::static_, Mode::dynamic, Mode::weight_only}) {
    EXPECT_EQ(mode_from_string(to_string(m)), m);
  }
  for (const auto b : {BiasCorrection::automatic, BiasCorrection::none, BiasCorrection::fast,
                       BiasCorrection::empirical}) {
    EXPECT_EQ(bias_correction_from_string(to_string(b)), b);
  }
  EXPECT_FALSE(mode_from_string("static_").has_value());
  EXPECT_FALSE(mode_from_string("").has_value());
  EXPECT_FALSE(symmetry_from_string("Symmetric").has_value());
  EXPECT_EQ(granularity_from_string("per_group"), Granularity::per_group);
  EXPECT_EQ(scale_type_from_string("power_of_two"), ScaleType::power_of_two);
}

/// What the file must be for each program, as its own documentation has it.
struct TargetFacts {
  const char* name;
  const char* activations;  // by default
  Symmetry activation_symmetry;
  Symmetry uint8_weights;  // symmetry of uint8 weights; symmetric where they are refused
  bool takes_uint8_weights;
  BiasForm bias;
  bool quantize_outputs;
  bool equal_concat;
  int max_opset;
};
constexpr TargetFacts kFacts[] = {
    {"narrow", "uint8", Symmetry::asymmetric, Symmetry::asymmetric, true, BiasForm::int32, false,
     false, 25},
    {"ort", "uint8", Symmetry::asymmetric, Symmetry::asymmetric, true, BiasForm::int32, true, false,
     21},
    {"openvino", "uint8", Symmetry::asymmetric, Symmetry::symmetric, false, BiasForm::float32,
     false, true, 21},
    {"tensorrt", "int8", Symmetry::symmetric, Symmetry::symmetric, false, BiasForm::float32, false,
     true, 21},
    {"cmsis", "int8", Symmetry::asymmetric, Symmetry::symmetric, false, BiasForm::int32, true, true,
     25},
};

TEST(Targets, EachHasItsOwnRules) {
  ASSERT_EQ(all_targets().size(), std::size(kFacts));
  for (const TargetFacts& f : kFacts) {
    SCOPED_TRACE(f.name);
    const TargetProfile& target = find_target(f.name);
    EXPECT_EQ(target.bias, f.bias);
    EXPECT_EQ(target.quantize_outputs, f.quantize_outputs);
    EXPECT_EQ(target.equal_concat, f.equal_concat);
    EXPECT_EQ(target.max_opset, f.max_opset);
    const QuantizeOptions o = resolve(options_for(f.name));
    EXPECT_EQ(o.weights->text(), "int8");
    EXPECT_EQ(*o.weight_symmetry, Symmetry::symmetric);
    EXPECT_EQ(o.activations->text(), f.activations);
    EXPECT_EQ(*o.activation_symmetry, f.activation_symmetry);
    EXPECT_EQ(*o.granularity, Granularity::per_axis);
    QuantizeOptions unsigned_weights = options_for(f.name);
    unsigned_weights.weights = number_type_from_string("uint8");
    if (f.takes_uint8_weights) {
      EXPECT_EQ(*resolve(unsigned_weights).weight_symmetry, f.uint8_weights);
    } else {
      expect_in(refusal([&] { resolve(unsigned_weights); }), "weights uint8 does not fit target");
    }
  }
}

TEST(Targets, ProfilesAreConsistent) {
  std::set<std::string> names;
  for (const TargetProfile& target : all_targets()) {
    SCOPED_TRACE(target.name);
    EXPECT_TRUE(names.insert(target.name).second);
    EXPECT_GT(std::string(target.summary).size(), 5u);
    EXPECT_TRUE(runs_quantized(target, "Conv"));
    EXPECT_GE(target.max_opset, 13);  // QuantizeLinear per axis
    const auto listed = [](std::string list) {
      std::vector<std::string> out;
      for (size_t comma; !list.empty(); list.erase(0, comma + 1)) {
        comma = std::min(list.find(','), list.size() - 1);
        out.push_back(list.substr(0, list[comma] == ',' ? comma : comma + 1));
      }
      return out;
    };
    for (const char* list : {target.activations, target.weights, target.weight_only_weights}) {
      for (const std::string& type : listed(list)) {
        EXPECT_TRUE(number_type_from_string(type).has_value()) << type;
      }
    }
    for (const std::string& op : listed(target.operators)) {
      const Graph empty;
      EXPECT_FALSE(op.empty());
      EXPECT_TRUE(runs_quantized(target, op)) << op;
    }
  }
  EXPECT_FALSE(runs_quantized(find_target("tensorrt"), "Con"));
  EXPECT_FALSE(runs_quantized(find_target("tensorrt"), "HardSwish"));
  expect_in(refusal([] { find_target("openvin"); }), "did you mean 'openvino'?");
}

TEST(Resolve, FillsWhatTheModeNeeds) {
  QuantizeOptions o = resolve(options_for("narrow", Mode::dynamic));
  EXPECT_EQ(o.activations->text(), "uint8");
  o = resolve(options_for("narrow", Mode::weight_only));
  EXPECT_TRUE(o.activations->floating);
  o = resolve(options_for("tensorrt", Mode::weight_only));
  EXPECT_EQ(o.weights->text(), "int4");
  QuantizeOptions groups = options_for("narrow", Mode::weight_only);
  groups.group_size = 32;
  EXPECT_EQ(*resolve(groups).granularity, Granularity::per_group);
  const QuantizeOptions twice = resolve(resolve(groups));
  EXPECT_EQ(twice.group_size, 32);
  EXPECT_EQ(*twice.granularity, Granularity::per_group);
}

TEST(Resolve, RefusesContradictions) {
  const auto with = [](const char* target, Mode mode, auto&& change) {
    QuantizeOptions o = options_for(target, mode);
    change(o);
    return refusal([&] { resolve(o); });
  };
  const auto type = [](const char* name) { return number_type_from_string(name); };
  using O = QuantizeOptions;
  const std::string groups = with("narrow", Mode::static_, [](O& o) { o.group_size = 32; });
  expect_in(groups, "not possible in mode static");
  expect_in(with("narrow", Mode::weight_only, [](O& o) { o.group_size = -1; }), "group_size -1");
  expect_in(with("narrow", Mode::weight_only, [](O& o) { o.group_size = int64_t{1} << 40; }),
            "not possible");
  expect_in(with("narrow", Mode::weight_only, [](O& o) { o.granularity = Granularity::per_group; }),
            "needs a group_size");
  expect_in(with("narrow", Mode::static_, [](O& o) { o.granularity = Granularity::per_token; }),
            "per_token is not one of weights");
  expect_in(
      with("tensorrt", Mode::static_, [](O& o) { o.activation_symmetry = Symmetry::asymmetric; }),
      "needs activation_symmetry symmetric");
  expect_in(with("openvino", Mode::static_, [&](O& o) { o.activations = type("int8"); }),
            "activations int8 does not fit target openvino");
  expect_in(with("openvino", Mode::static_, [](O& o) { o.weight_symmetry = Symmetry::asymmetric; }),
            "needs weight_symmetry symmetric");
  expect_in(with("cmsis", Mode::weight_only, [](O&) {}), "has no weight_only mode");
  expect_in(with("cmsis", Mode::dynamic, [](O&) {}), "target cmsis has no dynamic mode");
  expect_in(with("narrow", Mode::dynamic, [&](O& o) { o.activations = type("int8"); }),
            "DynamicQuantizeLinear gives uint8");
  expect_in(with("narrow", Mode::static_, [&](O& o) { o.activations = type("float32"); }),
            "give --mode weight_only");
  expect_in(with("narrow", Mode::dynamic, [&](O& o) { o.weights = type("float32"); }),
            "nothing to quantize");
  expect_in(with("ort", Mode::static_, [&](O& o) { o.weights = type("int4"); }),
            "it takes int8,uint8");
}

}  // namespace
}  // namespace narrow
