// SPDX-License-Identifier: Apache-2.0
#include "llm.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/core/memory.h"
#include "narrow/report/table.h"

namespace narrow::cli {

void add_activations(CLI::App& command, std::string& compute) {
  add_choice(command, "--compute", compute, {"integer", "float"},
             "integer: what meets weights in blocks is quantized to 8 bits (default); float: it is "
             "not, slow");
}

void add_cache(CLI::App& command, std::string& cache, const char* help) {
  add_choice(command, "--kv-cache", cache, {"f16", "f32", "int8"}, help);
}

void add_no_repack(CLI::App& command, bool& no_repack) {
  command.add_flag(
      "--no-repack", no_repack,
      "Leave weights in blocks in the mapped file: less memory, loaded at once, slower");
}

Json say_memory(const llm::Checkpoint& checkpoint, const llm::MemoryPlan& plan,
                const Context& context) {
  const llm::MemoryNeed need = llm::memory_need(checkpoint, plan);
  const uint64_t available = available_memory();
  const bool known = available != UINT64_MAX;
  const bool cached = plan.cache != llm::CacheType::none;
  const int64_t tokens = cached ? plan.capacity * plan.sequences : 0;
  if (!context.json) {
    const std::string cache =
        fmt::format(", cache {} ({}, {} tokens)", format_bytes(need.cache_bytes),
                    llm::to_string(plan.cache), tokens);
    write_stderr(fmt::format("memory: weights {} packed and {} in the file{}, work about {}{}",
                             format_bytes(need.packed_bytes), format_bytes(need.mapped_bytes),
                             cached ? cache : "", format_bytes(need.work_bytes),
                             known ? fmt::format("; {} available", format_bytes(available)) : ""));
  }
  return {{"weights_bytes", need.packed_bytes + need.mapped_bytes},
          {"packed_bytes", need.packed_bytes},
          {"mapped_bytes", need.mapped_bytes},
          {"cache_bytes", need.cache_bytes},
          {"cache_tokens", tokens},
          {"work_bytes", need.work_bytes},
          {"available_bytes", known ? Json(available) : Json(nullptr)}};
}

void warn_context(const llm::ModelConfig& config, int64_t context) {
  if (context <= config.context || config.positions == llm::PositionKind::learned) return;
  write_stderr(
      fmt::format("warning: the model was trained for {} tokens, not {}: expect worse text",
                  config.context, context));
}

llm::Activations activations_of(const std::string& compute) {
  if (compute == "float") return llm::Activations::real;
  if (compute == "integer") return llm::Activations::quantized;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("--compute {} is for ONNX models alone", compute),
              "language models take integer and float");
}

llm::CacheType cache_of(const std::string& cache) {
  if (cache.empty()) return llm::CacheType::none;
  if (cache == "int8") return llm::CacheType::int8;
  return cache == "f32" ? llm::CacheType::f32 : llm::CacheType::f16;
}

}  // namespace narrow::cli
