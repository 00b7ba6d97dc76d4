// SPDX-License-Identifier: Apache-2.0
// Configurations of language models: config.json, or the metadata of a GGUF file. What is accepted
// can be written as both and read again.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "narrow/core/error.h"
#include "narrow/llm/architecture.h"
#include "narrow/llm/config.h"

namespace {

narrow::llm::ModelConfig read(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (!text.starts_with("GGUF")) return narrow::llm::config_from_hf(text);
  const std::shared_ptr<std::byte[]> owner(new std::byte[size]);
  std::memcpy(owner.get(), data, size);
  return narrow::llm::config_from_gguf(narrow::GgufFile::parse(owner, {owner.get(), size}, "fuzz"));
}

void write(const narrow::llm::ModelConfig& config) {
  narrow::llm::check_config(config);
  narrow::GgufMetadata metadata;
  narrow::llm::append_gguf_config(config, metadata);
  const narrow::llm::Architecture& row = *narrow::llm::find_architecture(config.architecture);
  for (const narrow::llm::TensorRow& t : row.tensors) {
    if (narrow::llm::needs(config, t)) (void)narrow::llm::dims_of(config, t);
  }
  const std::string json = narrow::llm::hf_config_json(config, "float32");
  if (narrow::llm::config_from_hf(json).q_size() != config.q_size()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    write(read(data, size));
  } catch (const narrow::Error&) {
  }
  return 0;
}
