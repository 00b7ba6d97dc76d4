// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "narrow/core/error.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"

namespace narrow::cli {

CLI::Option* add_model(CLI::App& command, const std::string& name, std::string& path,
                       const std::string& help) {
  return command.add_option(name, path, help)->required()->type_name("MODEL");
}

void add_compute(CLI::App& command, std::string& compute) {
  compute = "integer";
  add_choice(command, "--compute", compute, {"integer", "float", "bfloat16", "reference"},
             "integer: quantized layers on integers (default); float: every node in float; "
             "bfloat16: so, with operands of convolutions and products rounded to bfloat16; "
             "reference: the plain specification, slow");
}

CLI::Option* add_data(CLI::App& command, std::string& spec, const std::string& help) {
  return command.add_option("--data", spec, help)->type_name("DATA");
}

std::vector<std::string> given_flags(const CLI::App& command,
                                     std::initializer_list<const char*> names) {
  std::vector<std::string> given;
  for (const char* name : names) {
    if (command.count(name) > 0) given.emplace_back(name);
  }
  return given;
}

void refuse_flags(const char* command, const std::vector<std::string>& given, const char* kind) {
  if (given.empty()) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} {} for {} alone", fmt::join(given, ", "),
                          given.size() == 1 ? "is" : "are", kind),
              fmt::format("narrow {} --help shows which model takes which flags", command));
}

Graph load_model(const std::string& path) {
  return read_onnx(path);
}

SessionOptions session_options(const Context& context, const std::string& compute) {
  SessionOptions options;
  options.threads = context.thread_count();
  options.bfloat16 = compute == "bfloat16";
  options.lower = compute != "float" && !options.bfloat16;
  options.reference = compute == "reference";
  return options;
}

Session make_session(const std::string& path, Graph graph, const SessionOptions& options) {
  try {
    return Session(std::move(graph), options);
  } catch (Error& e) {
    e.add_context(path);
    throw;
  }
}

void check_output_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is a folder", path),
                "name a file in it");
  }
  if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is not a file", path),
                "a device or pipe cannot be replaced; name a file");
  }
  const fs::path parent = fs::path(path).has_parent_path() ? fs::path(path).parent_path() : ".";
  if (::access(parent.c_str(), W_OK | X_OK) == 0) return;
  const int error = errno;
  throw Error(error == ENOENT ? ErrorCode::not_found : ErrorCode::io_error,
              fmt::format("cannot write '{}': {}: {}", path, parent.string(), std::strerror(error)),
              error == ENOENT ? "make the folder first" : "check the permissions");
}

bool is_other_format(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  constexpr std::array<std::string_view, 8> kOthers = {".safetensors", ".json", ".bin",  ".pt",
                                                       ".pth",         ".ts",   ".ggml", ".tflite"};
  return std::ranges::find(kOthers, extension) != kOthers.end();
}

void check_onnx_output(const std::string& path) {
  if (std::filesystem::path(path).extension() == ".gguf" || is_other_format(path)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is no name of an ONNX file, which this model goes into", path),
                "give the file a name that ends in .onnx");
  }
  check_output_path(path);
}

std::unique_ptr<Dataset> open_data(const std::string& spec, const Graph& graph) {
  return open_dataset(parse_data_spec(spec), data_hints(graph));
}

std::vector<Dims> input_dims(const Graph& graph, int64_t batch) {
  std::vector<Dims> all;
  for (const ValueId id : graph.inputs()) {
    const auto& shape = graph.value(id).shape;
    if (!shape) return {};
    Dims dims;
    for (size_t i = 0; i < shape->size(); ++i) {
      const Dim& dim = (*shape)[i];
      if (!dim.known() && i > 0) return {};
      dims.push_back(dim.known() ? dim.value : batch);
    }
    all.push_back(std::move(dims));
  }
  return all;
}

int64_t fixed_batch(const Graph& graph) {
  for (const ValueId id : graph.inputs()) {
    const auto& shape = graph.value(id).shape;
    if (shape && !shape->empty() && (*shape)[0].known()) return (*shape)[0].value;
  }
  return 0;
}

}  // namespace narrow::cli
