// SPDX-License-Identifier: Apache-2.0
// One function per command: it adds the sub-command to the program and, when that is chosen, puts
// the work into context.run. To add one: a file, a row in main.cpp, a test, a line in docs/cli.md.
#pragma once

#include "context.h"

namespace narrow::cli {

void add_inspect(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);
void add_quantize(CLI::App& app, Context& context);
void add_compare(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_kernels(CLI::App& app, Context& context);
void add_perplexity(CLI::App& app, Context& context);
void add_generate(CLI::App& app, Context& context);
void add_calibrate(CLI::App& app, Context& context);
void add_embed(CLI::App& app, Context& context);
void add_tokenize(CLI::App& app, Context& context);
void add_convert(CLI::App& app, Context& context);
void add_train(CLI::App& app, Context& context);
void add_sensitivity(CLI::App& app, Context& context);

}  // namespace narrow::cli
