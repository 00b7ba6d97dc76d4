// SPDX-License-Identifier: Apache-2.0
// count_nodes MODEL.onnx: how many layers mode dynamic quantizes, and how many nodes stay float.
#include <cstdio>

#include "narrow/core/error.h"
#include "narrow/pipeline/quantize.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    narrow::QuantizeJob job;
    job.model = argv[1];
    job.recipe.quantize.mode = narrow::Mode::dynamic;
    const narrow::QuantizeReport report = narrow::run_quantize(job);
    std::printf("%zu layers quantized, %zu nodes stay float\n", report.layers.size(),
                report.kept_float.size());
  } catch (const narrow::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return narrow::exit_code(error.code());
  }
  return 0;
}
