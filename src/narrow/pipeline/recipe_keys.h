// SPDX-License-Identifier: Apache-2.0
// The keys of a recipe as one table: how each is read from text and written back. Internal to
// pipeline/; recipe_keys() shows the public half.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "narrow/pipeline/recipe.h"

namespace narrow {

struct RecipeField {
  RecipeKey key;
  /// Sets (or, for lists, appends) one value; throws invalid_argument without a place.
  void (*set)(Recipe&, const std::string& text);
  /// The value(s) as set() takes them; empty: has none.
  std::vector<std::string> (*get)(const Recipe&);
};

std::span<const RecipeField> recipe_fields();
/// Throws invalid_argument with the nearest names.
const RecipeField& find_field(std::string_view key);

/// Keys of one entry of `layers`.
struct LayerField {
  const char* name;
  const char* values;
  void (*set)(LayerRule&, const std::string& text);
  std::vector<std::string> (*get)(const LayerRule&);
};
std::span<const LayerField> layer_fields();
const LayerField& find_layer_field(std::string_view key);

}  // namespace narrow
