// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/suggest.h"
#include "narrow/pipeline/recipe_keys.h"
#include "narrow/pipeline/yaml_tree.h"
#include "narrow/ptq/targets.h"

namespace narrow {
namespace {

[[noreturn]] void fail(std::string_view source, const YamlNode& node, std::string_view what,
                       std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: {}", yaml_place(source, node), what),
              std::move(hint));
}

/// Runs `act`, and puts the place in front of what it throws.
template <class F>
void located(std::string_view source, const YamlNode& node, std::string_view key, F&& act) {
  try {
    act();
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}: {}", yaml_place(source, node), key, e.message()),
                e.hint());
  }
}

const std::string& scalar_text(const YamlNode& node, std::string_view source,
                               std::string_view key) {
  if (node.kind != YamlNode::Kind::scalar) fail(source, node, fmt::format("{}: one value", key));
  return node.text;
}

/// The YAML block form of a data specification: kind, path, and the options as keys; a list
/// [a, b] stands for a/b.
std::string data_text(const YamlNode& block, std::string_view source, std::string_view key) {
  DataSpec spec;
  for (const auto& [name, value] : block.entries) {
    std::string text;
    if (value.kind == YamlNode::Kind::sequence) {
      for (const YamlNode& item : value.items) {
        if (!text.empty()) text += '/';
        text += scalar_text(item, source, name.text);
      }
    } else {
      text = scalar_text(value, source, name.text);
    }
    if (name.text == "kind") {
      spec.kind = text;
    } else if (name.text == "path") {
      spec.path = text;
    } else {
      spec.options[name.text] = text;
    }
  }
  if (spec.path.empty()) fail(source, block, fmt::format("{}: a block needs a path", key));
  if (!spec.kind.empty()) return spec.text();
  spec.kind = "x";  // text() writes "x:PATH,..."; without a kind the path speaks for itself
  return spec.text().substr(2);
}

LayerRule parse_layer(const YamlNode& block, std::string_view source) {
  LayerRule rule;
  if (block.kind != YamlNode::Kind::map) fail(source, block, "layers: a list of maps with 'match'");
  for (const YamlEntry& entry : block.entries) {
    const std::string& name = entry.key.text;
    const std::string& text = scalar_text(entry.value, source, name);
    located(source, entry.key, name, [&] { find_layer_field(name).set(rule, text); });
  }
  if (rule.match.empty()) fail(source, block, "layers: 'match' is missing");
  return rule;
}

void set_field(Recipe& recipe, const YamlNode& name, const YamlNode& value,
               std::string_view source) {
  if (name.text == "layers") {
    if (value.kind != YamlNode::Kind::sequence) fail(source, value, "layers: a list");
    for (const YamlNode& item : value.items) {
      recipe.quantize.layers.push_back(parse_layer(item, source));
    }
    return;
  }
  const RecipeField* field = nullptr;
  try {
    field = &find_field(name.text);
  } catch (const Error& e) {
    std::vector<std::string> names{"layers"};
    for (const RecipeKey& key : recipe_keys()) names.emplace_back(key.name);
    fail(source, name, e.message(), did_you_mean(name.text, names));
  }
  if (value.kind == YamlNode::Kind::sequence && field->key.repeatable) {
    for (const YamlNode& item : value.items) {
      const std::string& text = scalar_text(item, source, name.text);
      located(source, item, name.text, [&] { field->set(recipe, text); });
    }
    return;
  }
  const bool is_spec = std::string_view(field->key.values) == "SPEC";
  const std::string text = is_spec && value.kind == YamlNode::Kind::map
                               ? data_text(value, source, name.text)
                               : scalar_text(value, source, name.text);
  located(source, value, name.text, [&] { field->set(recipe, text); });
}

std::string list_text(const std::vector<std::string>& values) {
  std::string out = "[";
  for (const std::string& value : values) {
    if (out.size() > 1) out += ", ";
    out += yaml_scalar(value, YamlContext::list);
  }
  return out + "]";
}

std::string layers_text(const std::vector<LayerRule>& layers) {
  std::string out;
  for (const LayerRule& rule : layers) {
    const char* lead = "  - ";
    for (const LayerField& field : layer_fields()) {
      const auto values = field.get(rule);
      if (values.empty()) continue;
      out +=
          fmt::format("{}{}: {}\n", lead, field.name, yaml_scalar(values[0], YamlContext::block));
      lead = "    ";
    }
  }
  return out;
}

}  // namespace

void set_recipe_key(Recipe& recipe, std::string_view key, std::string_view text) {
  const RecipeField& field = find_field(key);
  try {
    if (!field.key.repeatable) {
      field.set(recipe, std::string(text));
      return;
    }
    while (true) {
      const size_t comma = std::min(text.find(','), text.size());
      field.set(recipe, std::string(text.substr(0, comma)));
      if (comma == text.size()) return;
      text.remove_prefix(comma + 1);
    }
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", key, e.message()), e.hint());
  }
}

Recipe parse_recipe(std::string_view yaml, std::string_view source) {
  const YamlNode root = parse_yaml(yaml, source);
  Recipe recipe;
  if (root.kind == YamlNode::Kind::null) return recipe;
  if (root.kind != YamlNode::Kind::map) {
    fail(source, root, "a recipe is a map of keys to values", "write lines like 'weights: int8'");
  }
  for (const auto& [name, value] : root.entries) set_field(recipe, name, value, source);
  return recipe;
}

Recipe load_recipe(const std::filesystem::path& path) {
  return parse_recipe(read_text(path, kMaxYamlBytes), path.string());
}

std::string dump_recipe(const Recipe& recipe, DumpDefaults defaults) {
  static const Recipe kDefault;
  std::string out;
  for (const RecipeField& field : recipe_fields()) {
    const auto values = field.get(recipe);
    if (values.empty()) continue;
    if (defaults == DumpDefaults::omit && values == field.get(kDefault)) continue;
    out += fmt::format(
        "{}: {}\n", field.key.name,
        field.key.repeatable ? list_text(values) : yaml_scalar(values[0], YamlContext::block));
  }
  if (!recipe.quantize.layers.empty()) out += "layers:\n" + layers_text(recipe.quantize.layers);
  return out;
}

void validate(const Recipe& recipe) {
  const QuantizeOptions resolved = resolve(recipe.quantize);
  const auto refuse = [](std::string message, std::string hint) {
    throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
  };
  const TargetProfile& target = find_target(resolved.target);
  if (recipe.opset > target.max_opset) {
    refuse(fmt::format("opset {} is above what target {} reads", recipe.opset, target.name),
           fmt::format("give at most {}, or leave it out", target.max_opset));
  }
  if (recipe.format == OutputFormat::qoperator && resolved.mode != Mode::static_) {
    refuse(fmt::format("format qoperator is not possible in mode {}", to_string(resolved.mode)),
           "give --mode static or --format qdq");
  }
  if (recipe.format == OutputFormat::qoperator && !target.qoperator) {
    refuse(fmt::format("target {} does not read format qoperator", target.name),
           "give --format qdq");
  }
  if (recipe.format == OutputFormat::qoperator && resolved.weights->floating) {
    refuse("format qoperator needs integer weights", "give --format qdq");
  }
  if (recipe.integer_only && (resolved.mode != Mode::static_ || resolved.weights->floating)) {
    refuse("integer_only needs mode static with integer weights", {});
  }
  const bool gated = recipe.max_drop || recipe.min_cosine;
  if (gated && !recipe.data && !recipe.eval_data) {
    refuse("max_drop and min_cosine need data to measure on", "give --eval-data SPEC");
  }
}

}  // namespace narrow
