// SPDX-License-Identifier: Apache-2.0
// One declarative description of a quantization. The YAML file, the command-line flags and the
// model's metadata spell it alike; docs/recipe.md lists every key.
//
//   Recipe r = parse_recipe("weights: int4\ngroup_size: 32\nmode: weight_only\n", "r.yaml");
//   set_recipe_key(r, "max_drop", "0.5");   // what the flag --max-drop 0.5 does
//   std::string yaml = dump_recipe(r);      // canonical: the same recipe gives the same text
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/calibrate/observer.h"
#include "narrow/data/dataset.h"
#include "narrow/ptq/options.h"

namespace narrow {

enum class OutputFormat : uint8_t { qdq, qoperator };
const char* to_string(OutputFormat format);

struct Recipe {
  QuantizeOptions
      quantize;  // mode, weights, activations, granularity, target, include, layers, ...
  ObserverOptions observer;  // keys observer, percentile
  std::optional<DataSpec> data;
  std::optional<DataSpec> eval_data;
  int64_t calibration_samples = 500;
  int64_t eval_samples = 0;  // 0: all of eval_data; of a hold-out at most 500
  uint64_t seed = 1;
  std::optional<double> max_drop;    // points of the metric
  std::optional<double> min_cosine;  // of the outputs
  BiasCorrection bias_correction = BiasCorrection::automatic;
  bool equalize = false;  // mode static: balance channels between layers, see ptq/equalize
  OutputFormat format = OutputFormat::qdq;
  int opset = 0;              // 0: the lowest that expresses the result
  bool integer_only = false;  // refuse if any node would stay float
};

/// One key: its name is also the flag's (--group-size for group_size).
struct RecipeKey {
  const char* name;
  const char* values;  // "static|dynamic|weight_only", "INT", "FLOAT", "SPEC", "GLOB,..", "BOOL"
  const char* help;    // one line
  bool repeatable;     // a list: given again it appends
};
/// Every scalar and list key, in canonical order. (`layers` has no flag; see docs/recipe.md.)
std::span<const RecipeKey> recipe_keys();

/// Sets one key from text, as a flag does: lists are comma separated and append, booleans are
/// true|false. Throws invalid_argument naming the key, the text and what is accepted; an unknown
/// key with the nearest known names.
void set_recipe_key(Recipe& recipe, std::string_view key, std::string_view text);

/// `source` names the text in messages. Throws invalid_argument with line and column for unknown or
/// repeated keys, wrong types and values, anchors and documents past the limits.
Recipe parse_recipe(std::string_view yaml, std::string_view source = "recipe");
Recipe load_recipe(const std::filesystem::path& path);

/// Canonical YAML: fixed key order, defaults left out unless `with_defaults`.
enum class DumpDefaults : uint8_t { omit, include };
std::string dump_recipe(const Recipe& recipe, DumpDefaults defaults = DumpDefaults::omit);

/// Checks the whole: the target takes the types, the mode has the data it needs, limits in range.
/// Throws invalid_argument.
void validate(const Recipe& recipe);

}  // namespace narrow
