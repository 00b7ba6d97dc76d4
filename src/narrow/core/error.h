// SPDX-License-Identifier: Apache-2.0
// The one exception type of the library: a code for programs, a message that says what happened and
// where, and a hint that says what to do.
//
//   throw Error(ErrorCode::corrupt_data, "tensor 'w' ends past the file", "download the file
//   again");
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace narrow {

enum class ErrorCode {
  invalid_argument,
  not_found,
  io_error,
  corrupt_data,
  unsupported,
  resource_exhausted,
  numeric_failure,
  quality_below_target,
  cancelled,
  internal,
};

/// The enumerator's own name, as it stands in JSON.
const char* to_string(ErrorCode code);

/// The exit code of the program for an error: 1 quality, 2 usage, 3 input or resources,
/// 4 unsupported, 5 internal, 130 cancelled.
int exit_code(ErrorCode code);

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message, std::string hint = {});

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  /// Where it happened, outermost first: "model.onnx: node 'conv1'".
  const std::string& context() const { return context_; }
  const std::string& hint() const { return hint_; }
  /// "context: message".
  const char* what() const noexcept override { return what_.c_str(); }

  /// Puts an outer place in front of the context, unless it stands there already; for `catch
  /// (Error& e) { e.add_context(..); throw;
  /// }`.
  void add_context(std::string_view outer);

 private:
  ErrorCode code_;
  std::string message_;
  std::string context_;
  std::string hint_;
  std::string what_;
};

}  // namespace narrow
