// SPDX-License-Identifier: Apache-2.0
// How well a language model predicts a text, alone or beside a reference, for people and programs.
#pragma once

#include <string>

#include "narrow/llm/perplexity.h"
#include "narrow/report/json.h"

namespace narrow {

struct PerplexityReport {
  std::string data;  // "text:FILE"
  llm::PerplexityOptions options;
  llm::PerplexityResult result;
  double seconds = 0;
};

Json json_of(const PerplexityReport& report);
/// Lines of perplexity, and of the reference where there is one.
std::string to_text(const PerplexityReport& report);

}  // namespace narrow
