// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>

#include "llm.h"
#include "narrow/core/error.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/report/table.h"

namespace narrow::cli {
namespace {

struct TypeTotal {
  int64_t tensors = 0;
  int64_t elements = 0;
  uint64_t bytes = 0;
};

struct Summary {
  GgufMetadata metadata;
  ModelTraits traits;
  uint64_t file_bytes = 0;
  int64_t elements = 0;
  uint64_t bytes = 0;
  std::map<std::string, TypeTotal> types;
  std::vector<WeightInfo> tensors;  // in the file's order
  std::optional<llm::ModelConfig> decoder;
};

constexpr llm::CacheType kCaches[] = {llm::CacheType::f16, llm::CacheType::f32,
                                      llm::CacheType::int8};

/// Of a model that decodes with a cache; files of other architectures are shown too.
std::optional<llm::ModelConfig> decoder_of(const std::string& path) {
  try {
    llm::ModelConfig config = llm::Checkpoint::open(path).config();
    if (config.causal) return config;
  } catch (const Error&) {  // not an architecture that is run
  }
  return std::nullopt;
}

Json cache_json(const llm::ModelConfig& config) {
  Json per_token = Json::object();
  Json full = Json::object();
  for (const llm::CacheType type : kCaches) {
    per_token[llm::to_string(type)] = llm::cache_bytes(config, type, 1);
    full[llm::to_string(type)] = llm::cache_bytes(config, type, config.context);
  }
  return {{"context", config.context},
          {"bytes_per_token", std::move(per_token)},
          {"bytes", std::move(full)}};
}

std::string cache_text(const llm::ModelConfig& config) {
  std::vector<std::string> parts;
  for (const llm::CacheType type : kCaches) {
    parts.push_back(fmt::format("{} {} ({} a token)", llm::to_string(type),
                                format_bytes(llm::cache_bytes(config, type, config.context)),
                                format_bytes(llm::cache_bytes(config, type, 1))));
  }
  return fmt::format("  cache         of {} tokens: {}\n", config.context, fmt::join(parts, ", "));
}

Summary summarize(const std::string& path) {
  const auto source = open_weights(path);
  Summary s;
  s.metadata = source->metadata();
  s.traits = model_traits(s.metadata);
  s.file_bytes = source->file_bytes();
  s.tensors = source->tensors();
  s.decoder = decoder_of(path);
  for (const WeightInfo& t : s.tensors) {
    s.elements += t.elements();
    s.bytes += t.bytes;
    TypeTotal& total = s.types[t.type->name];
    ++total.tensors;
    total.elements += t.elements();
    total.bytes += t.bytes;
  }
  return s;
}

double bits(const Summary& s) {
  return s.elements > 0 ? 8.0 * static_cast<double>(s.bytes) / static_cast<double>(s.elements) : 0;
}

Json json_of(const WeightsView& view, const Summary& s) {
  Json metadata = Json::object();
  for (const auto& [key, value] : s.metadata) metadata[key] = value.describe();
  Json types = Json::array();
  for (const auto& [name, t] : s.types) {
    types.push_back(
        {{"type", name}, {"tensors", t.tensors}, {"elements", t.elements}, {"bytes", t.bytes}});
  }
  Json tensors = Json::array();
  for (const WeightInfo& t : s.tensors) {
    tensors.push_back(
        {{"name", t.name}, {"type", t.type->name}, {"dims", t.dims}, {"bytes", t.bytes}});
  }
  return {{"model", view.model},
          {"architecture", s.traits.architecture},
          {"layers", s.traits.layers},
          {"file_bytes", s.file_bytes},
          {"parameters", s.elements},
          {"parameter_bytes", s.bytes},
          {"bits_per_weight", json_number(bits(s))},
          {"kv_cache", s.decoder ? cache_json(*s.decoder) : Json(nullptr)},
          {"types", std::move(types)},
          {"metadata", std::move(metadata)},
          {"tensors", std::move(tensors)}};
}

std::string tensor_table(const WeightsView& view, const Summary& s) {
  std::vector<const WeightInfo*> shown;
  for (const WeightInfo& t : s.tensors) shown.push_back(&t);
  if (!view.nodes) {
    std::stable_sort(shown.begin(), shown.end(),
                     [](const auto* a, const auto* b) { return a->bytes > b->bytes; });
    shown.resize(std::min(shown.size(), static_cast<size_t>(view.tensors)));
  }
  if (shown.empty()) return {};
  Table table(
      {{view.nodes ? "tensor" : "largest tensors"}, {"type"}, {"shape"}, {"bytes", Align::right}});
  for (const WeightInfo* t : shown) {
    table.add_row(
        {t->name, t->type->name, to_string(t->dims), format_count(static_cast<int64_t>(t->bytes))});
  }
  return "\n" + table.text();
}

std::string text_of(const WeightsView& view, const Summary& s) {
  std::string out = fmt::format(
      "{}\n  architecture  {}\n  layers        {}\n  file          {}\n"
      "  parameters    {} in {} ({:.3f} bits each)\n",
      view.model, s.traits.architecture, s.traits.layers, format_bytes(s.file_bytes),
      format_count(s.elements), format_bytes(s.bytes), bits(s));
  if (s.decoder) out += cache_text(*s.decoder);
  for (const auto& [key, value] : s.metadata) {
    const std::string line = value.describe();
    out +=
        fmt::format("  metadata      {}{}\n", key,
                    line.size() <= 60 ? ": " + line : fmt::format(" ({} characters)", line.size()));
  }
  Table types(
      {{"type"}, {"tensors", Align::right}, {"weights", Align::right}, {"bytes", Align::right}});
  for (const auto& [name, t] : s.types) {
    types.add_row({name, format_count(t.tensors), format_count(t.elements), format_bytes(t.bytes)});
  }
  return out + "\n" + types.text() + tensor_table(view, s);
}

}  // namespace

void inspect_weights(const WeightsView& view, Context& context) {
  const Summary summary = summarize(view.model);
  context.print(json_text(json_of(view, summary)), text_of(view, summary));
}

}  // namespace narrow::cli
