// SPDX-License-Identifier: Apache-2.0
// Models and data as the commands take them.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "context.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"
#include "narrow/runtime/session.h"

namespace narrow::cli {

/// The positional MODEL.
CLI::Option* add_model(CLI::App& command, const std::string& name, std::string& path,
                       const std::string& help);
/// --compute: integer kernels, float as written, or the plain reference implementations.
void add_compute(CLI::App& command, std::string& compute);
/// --data, checked when the command line is read; `spec` gets the text.
CLI::Option* add_data(CLI::App& command, std::string& spec, const std::string& help);

/// Which of these flags the user gave.
std::vector<std::string> given_flags(const CLI::App& command,
                                     std::initializer_list<const char*> names);
/// Refuses flags (as typed) of the other kind of model than the one that is given.
void refuse_flags(const char* command, const std::vector<std::string>& given, const char* kind);

/// Errors get the path as context.
Graph load_model(const std::string& path);
SessionOptions session_options(const Context& context, const std::string& compute);
/// The graph's session; errors name the model.
Session make_session(const std::string& path, Graph graph, const SessionOptions& options);

/// Refuses, before long work is done for nothing, a file in a folder that cannot take it.
void check_output_path(const std::string& path);
/// The same for an ONNX file, which must not go by the name of another format.
void check_onnx_output(const std::string& path);
/// Whether the name is one of a file format other than ONNX and GGUF.
bool is_other_format(const std::string& path);

/// The data set for this model's inputs.
std::unique_ptr<Dataset> open_data(const std::string& spec, const Graph& graph);

/// Shapes of the inputs with the batch filled in: concrete, or empty if a dimension other than the
/// first is not known.
std::vector<Dims> input_dims(const Graph& graph, int64_t batch);
/// The first dimension that the model fixes, or 0.
int64_t fixed_batch(const Graph& graph);

}  // namespace narrow::cli
