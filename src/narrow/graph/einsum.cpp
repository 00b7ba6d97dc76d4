// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/einsum.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>

#include "narrow/core/error.h"

namespace narrow {
namespace {

[[noreturn]] void fail(const Node& node, const std::string& equation, std::string_view why) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): equation '{}' {}", node.name, node.op, equation, why));
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

/// Labels of one term; `ellipsis` is the number of dimensions that "..." stands for.
std::vector<int> labels(const Node& node, const std::string& equation, const std::string& term,
                        size_t ellipsis) {
  std::vector<int> out;
  bool seen = false;
  for (size_t i = 0; i < term.size(); ++i) {
    if (is_letter(term[i])) {
      out.push_back(term[i]);
    } else if (term.compare(i, 3, "...") == 0 && !seen) {
      for (size_t d = ellipsis; d-- > 0;) {
        out.push_back(EinsumEquation::kEllipsis + static_cast<int>(d));
      }
      seen = true;
      i += 2;
    } else {
      fail(node, equation, fmt::format("has an unexpected '{}'", term[i]));
    }
  }
  return out;
}

/// Without "->": the ellipsis, then every letter that stands once, in alphabetical order.
std::string implicit_output(const std::vector<std::string>& terms) {
  std::map<char, int> counts;
  bool ellipsis = false;
  for (const std::string& term : terms) {
    for (const char c : term) {
      if (is_letter(c)) ++counts[c];
      ellipsis = ellipsis || c == '.';
    }
  }
  std::string out = ellipsis ? "..." : "";
  for (const auto& [c, count] : counts) {
    if (count == 1) out += c;
  }
  return out;
}

}  // namespace

EinsumEquation parse_einsum(const Node& node, std::span<const size_t> ranks) {
  const std::string equation = node.string_or("equation", "");
  std::string compact;
  std::copy_if(equation.begin(), equation.end(), std::back_inserter(compact),
               [](char c) { return c != ' '; });
  const size_t arrow = compact.find("->");
  const std::vector<std::string> terms = split(std::string_view(compact).substr(0, arrow), ',');
  if (terms.size() != ranks.size()) {
    fail(node, equation, fmt::format("has {} terms for {} inputs", terms.size(), ranks.size()));
  }
  EinsumEquation result;
  size_t widest = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    const size_t named = labels(node, equation, terms[i], 0).size();
    const bool ellipsis = terms[i].find('.') != std::string::npos;
    if (named > ranks[i] || (!ellipsis && named != ranks[i])) {
      fail(node, equation, fmt::format("does not fit input {} of rank {}", i, ranks[i]));
    }
    result.inputs.push_back(labels(node, equation, terms[i], ranks[i] - named));
    widest = std::max(widest, ranks[i] - named);
  }
  const std::string out =
      arrow == std::string::npos ? implicit_output(terms) : compact.substr(arrow + 2);
  result.output = labels(node, equation, out, widest);
  for (auto it = result.output.begin(); it != result.output.end(); ++it) {
    const bool known = std::any_of(
        result.inputs.begin(), result.inputs.end(),
        [it](const auto& in) { return std::find(in.begin(), in.end(), *it) != in.end(); });
    if (!known || std::find(result.output.begin(), it, *it) != it) {
      fail(node, equation, "has an output label that no input has, or one twice");
    }
  }
  return result;
}

}  // namespace narrow
