// SPDX-License-Identifier: Apache-2.0
// Adapters as PEFT has them on disk.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/formats/safetensors/safetensors.h"
#include "narrow/pipeline/train_adapters.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kWeights = "adapter_model.safetensors";
constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kPrefix = "base_model.model.";

std::string file_name(const std::string& module, char part) {
  return fmt::format("{}{}.lora_{}.weight", kPrefix, module, part);
}

/// The dims of a and b in the file.
Dims a_dims(const Tensor& a, const Dims& weight) {
  if (weight.size() == 2) return a.dims();
  Dims dims = weight;
  dims[0] = a.dim(0);
  return dims;
}
Dims b_dims(const Tensor& b, const Dims& weight) {
  Dims dims = b.dims();
  dims.resize(weight.size(), 1);
  return dims;
}

const Dims& dims_in(const Graph& graph, const std::string& weight) {
  return graph.constant(*graph.find_value(weight))->dims();
}

}  // namespace

void write_adapters(const fs::path& folder, const AdapterOptions& options,
                    const std::map<std::string, train::Adapter>& adapters,
                    const AdapterNames& names, const Graph& graph, const std::string& base) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw Error(ErrorCode::io_error,
                fmt::format("cannot make the folder '{}': {}", folder.string(), error.message()));
  }
  std::map<std::string, Tensor> tensors;
  std::set<std::string> modules;
  for (const auto& [weight, adapter] : adapters) {
    const std::string& module = names.at(weight);
    const Dims& dims = dims_in(graph, weight);
    tensors[file_name(module, 'A')] = adapter.a.reshaped(a_dims(adapter.a, dims));
    tensors[file_name(module, 'B')] = adapter.b.reshaped(b_dims(adapter.b, dims));
    modules.insert(module);
  }
  write_safetensors(folder / kWeights, tensors, {{"format", "pt"}});
  const json config = {
      {"peft_type", "LORA"},      {"task_type", nullptr},        {"base_model_name_or_path", base},
      {"r", options.rank},        {"lora_alpha", options.alpha}, {"lora_dropout", 0.0},
      {"bias", "none"},           {"fan_in_fan_out", false},     {"inference_mode", true},
      {"target_modules", modules}};
  write_text(folder / kConfig, config.dump(2) + "\n");
}

AdapterOptions read_adapter_config(const fs::path& folder) {
  constexpr size_t kMostBytes = size_t{1} << 20;
  const std::string text = read_text(folder / kConfig, kMostBytes);
  AdapterOptions out;
  try {
    const json j = json::parse(text);
    if (j.value("peft_type", "") != "LORA") {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: no adapters of type LORA", folder.string()));
    }
    out.rank = j.at("r").get<int64_t>();
    out.alpha = j.at("lora_alpha").get<double>();
    const bool special = j.value("use_rslora", false) || j.value("use_dora", false) ||
                         (j.contains("rank_pattern") && !j["rank_pattern"].empty());
    if (special) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: only plain adapters of one rank are read", folder.string()));
    }
  } catch (const json::exception& e) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", folder.string(), e.what()));
  }
  constexpr int64_t kMostRank = 65536;
  if (out.rank < 1 || out.rank > kMostRank || !(out.alpha > 0)) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("{}: rank {}, alpha {}", folder.string(), out.rank, out.alpha));
  }
  return out;
}

void read_adapters(const fs::path& folder, const AdapterNames& names, train::TrainPlan& plan) {
  const SafetensorsFile file = SafetensorsFile::open(folder / kWeights);
  std::set<std::string> used;
  const auto take = [&](const std::string& name, Tensor& to) {
    const SafetensorsEntry* entry = file.find(name);
    if (entry == nullptr || num_elements(entry->dims) != to.elements() ||
        entry->dims.front() != to.dim(0)) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("{}: {} '{}'", folder.string(),
                      entry == nullptr ? "there is no" : "other dims than the model for", name),
          "the adapters are of another model, or of other layers: name them with layers=");
    }
    const std::vector<float> values = file.tensor(name).to_floats();
    to = Tensor::from_floats(values, DType::float32, to.dims());
    used.insert(name);
  };
  for (auto& [weight, adapter] : plan.adapters) {
    take(file_name(names.at(weight), 'A'), adapter.a);
    take(file_name(names.at(weight), 'B'), adapter.b);
  }
  for (const SafetensorsEntry& entry : file.entries()) {
    if (used.contains(entry.name)) continue;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: '{}' has no place in this model", folder.string(), entry.name));
  }
}

}  // namespace narrow
