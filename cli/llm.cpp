// SPDX-License-Identifier: Apache-2.0
#include "llm.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow::cli {

void add_activations(CLI::App& command, std::string& compute) {
  add_choice(command, "--compute", compute, {"integer", "float"},
             "integer: what meets weights in blocks is quantized to 8 bits (default); float: it is "
             "not, slow");
}

void add_cache(CLI::App& command, std::string& cache) {
  add_choice(command, "--cache", cache, {"f16", "f32"},
             "How keys and values of language models are kept (default f16)");
}

llm::Activations activations_of(const std::string& compute) {
  if (compute == "float") return llm::Activations::real;
  if (compute == "integer") return llm::Activations::quantized;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("--compute {} is for ONNX models alone", compute),
              "language models take integer and float");
}

llm::CacheType cache_of(const std::string& cache) {
  return cache == "f32" ? llm::CacheType::f32 : llm::CacheType::f16;
}

}  // namespace narrow::cli
