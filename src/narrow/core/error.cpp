// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/error.h"

#include <utility>

namespace narrow {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::io_error:
      return "io_error";
    case ErrorCode::corrupt_data:
      return "corrupt_data";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::resource_exhausted:
      return "resource_exhausted";
    case ErrorCode::numeric_failure:
      return "numeric_failure";
    case ErrorCode::quality_below_target:
      return "quality_below_target";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::internal:
      return "internal";
  }
  return "internal";
}

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::quality_below_target:
      return 1;
    case ErrorCode::invalid_argument:
      return 2;
    case ErrorCode::not_found:
    case ErrorCode::io_error:
    case ErrorCode::corrupt_data:
    case ErrorCode::resource_exhausted:
    case ErrorCode::numeric_failure:
      return 3;
    case ErrorCode::unsupported:
      return 4;
    case ErrorCode::cancelled:
      return 130;
    case ErrorCode::internal:
      return 5;
  }
  return 5;
}

Error::Error(ErrorCode code, std::string message, std::string hint)
    : code_(code), message_(std::move(message)), hint_(std::move(hint)), what_(message_) {}

void Error::add_context(std::string_view outer) {
  // Who calls whom may name the same file again.
  const std::string_view inner = context_;
  const bool whole =
      inner.size() == outer.size() || inner.substr(0, outer.size() + 2).ends_with(": ");
  if (inner.starts_with(outer) && whole) return;
  context_ = context_.empty() ? std::string(outer) : std::string(outer) + ": " + context_;
  what_ = context_ + ": " + message_;
}

}  // namespace narrow
