// SPDX-License-Identifier: Apache-2.0
// Recipes: any text either parses, and then reads back from its canonical form to the same, or is
// refused with invalid_argument.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "narrow/core/error.h"
#include "narrow/pipeline/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace narrow;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Recipe recipe;
  try {
    recipe = parse_recipe(text, "fuzz");
  } catch (const Error& e) {
    if (e.code() != ErrorCode::invalid_argument) std::abort();
    return 0;
  }
  for (const DumpDefaults defaults : {DumpDefaults::omit, DumpDefaults::include}) {
    const std::string dump = dump_recipe(recipe, defaults);
    if (dump_recipe(parse_recipe(dump, "dump"), defaults) != dump) std::abort();
  }
  try {
    validate(recipe);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::invalid_argument) std::abort();
  }
  return 0;
}
