// SPDX-License-Identifier: Apache-2.0
// What the commands do with language models.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "context.h"
#include "narrow/llm/architectures/build.h"
#include "narrow/llm/memory.h"

namespace narrow::cli {

/// --compute and --kv-cache of what runs a language model, and what their words mean.
void add_activations(CLI::App& command, std::string& compute);
void add_cache(CLI::App& command, std::string& cache,
               const char* help = "How keys and values of language models are kept (default f16)");
void add_no_repack(CLI::App& command, bool& no_repack);

/// What will be held in memory, before it is: one line on stderr where people read, and the field
/// `memory` for those who asked for JSON.
Json say_memory(const llm::Checkpoint& checkpoint, const llm::MemoryPlan& plan,
                const Context& context);
/// On stderr, where positions go beyond those that the model was trained for. (Learned ones cannot:
/// an error of the library.)
void warn_context(const llm::ModelConfig& config, int64_t context);

/// Throws invalid_argument for a word that only ONNX models take.
llm::Activations activations_of(const std::string& compute);
/// An empty word is none.
llm::CacheType cache_of(const std::string& cache);

/// The flags of `quantize` that language models alone have, and what else it hands over. `convert`
/// has some of them too.
struct LlmFlags {
  const char* command = "quantize";
  std::string model;
  std::string output;
  std::string format;
  std::string statistics;
  std::vector<std::string> keep_float;
  std::string method;
  std::vector<std::string> tensor_types;
  std::string max_memory;
  bool resume = false;
  bool requantize = false;
  int opset = 0;        // of an ONNX file; 0: the lowest
  std::string text;     // text:FILE; what the output is measured on
  int64_t chunks = 0;   // 0: not given
  int64_t context = 0;  // 0: not given
  double max_kl = -1;   // -1: not given
  std::optional<double> max_drop;
};

/// Whether a language model written under this name is an ONNX file.
bool is_onnx_name(const std::string& output);
void add_llm_flags(CLI::App& command, LlmFlags& flags);
/// Those of add_llm_flags() that were given, as typed.
std::vector<std::string> given_llm_flags(const LlmFlags& flags);
/// Of files that are larger than memory.
void add_memory_flags(CLI::App& command, LlmFlags& flags, const char* group);
/// Without quantizing.
void convert_language_model(const LlmFlags& flags, Context& context);
void quantize_language_model(const LlmFlags& flags, Context& context);

/// `bench`: the flags that count for language models.
struct LlmBenchFlags {
  std::string model;
  std::string compute;
  std::string cache = "f16";
  bool no_repack = false;
  int64_t prompt_tokens = 256;
  int64_t new_tokens = 64;
  int64_t rounds = 3;
  int64_t seed = 1;
};
void bench_language_model(const LlmBenchFlags& flags, Context& context);

/// `inspect`: architecture, sizes, types, tensors, metadata.
struct WeightsView {
  std::string model;
  bool nodes = false;    // every tensor
  int64_t tensors = 10;  // else the largest
};
void inspect_weights(const WeightsView& view, Context& context);

}  // namespace narrow::cli
