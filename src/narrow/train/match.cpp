// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/match.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"

namespace narrow::train {
namespace {

size_t channel_axis(const Dims& dims) {
  return dims.size() == 3 ? 2 : 1;
}

ValueId find_feature(const Graph& graph, const std::string& name) {
  const auto id = graph.find_value(name);
  if (id && !graph.value(*id).is_constant()) return *id;
  std::vector<std::string> known;
  for (const NodeId at : graph.nodes()) {
    const Node& node = graph.node(at);
    if (node.outputs.empty() || node.outputs[0] == kNoId) continue;
    if (node.name == name) return node.outputs[0];
    known.push_back(node.name.empty() ? graph.value(node.outputs[0]).name : node.name);
  }
  throw Error(ErrorCode::not_found, fmt::format("no layer or value '{}' to match", name),
              did_you_mean(name, known));
}

std::string shape_text(const Dims& dims) {
  return fmt::format("[{}]", fmt::join(dims, ", "));
}

}  // namespace

FeaturePair parse_feature_pair(std::string_view text) {
  const size_t split = text.find('=');
  FeaturePair pair{std::string(text.substr(0, split)), std::string(text.substr(0, split))};
  if (split != std::string_view::npos) pair.teacher = text.substr(split + 1);
  if (pair.student.empty() || pair.teacher.empty()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("match: '{}' lacks a name", text),
                "write STUDENT=TEACHER, or one name for both");
  }
  return pair;
}

std::string to_text(const MatchOptions& options) {
  if (!options.active()) return "";
  std::string text = fmt::format("{}", options.weight);
  for (const FeaturePair& p : options.pairs) text += fmt::format(" {}={}", p.student, p.teacher);
  return text;
}

Feature add_feature(Graph& graph, const std::string& name) {
  const ValueId id = find_feature(graph, name);
  const Value& value = graph.value(id);
  Feature feature{value.name, 0, 0, {}};
  if (!value.shape || value.shape->size() < 2 || value.dtype != DType::float32) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is no float value with channels", name),
                "match the output of a convolution or a dense layer");
  }
  for (const auto& d : *value.shape) feature.dims.push_back(d.known() ? d.value : -1);
  feature.channels = feature.dims[channel_axis(feature.dims)];
  if (feature.channels <= 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("how many channels '{}' has is not known before it runs", name),
                "match a layer with a fixed number of channels");
  }
  const auto outputs = graph.outputs();
  const auto at = std::ranges::find(outputs, id);
  feature.output = static_cast<size_t>(at - outputs.begin());
  if (at == outputs.end()) graph.add_output(id);
  return feature;
}

void check_match(const FeatureMatch& match) {
  const Dims& a = match.student.dims;
  const Dims& b = match.teacher.dims;
  bool fits = a.size() == b.size();
  for (size_t i = 1; fits && i < a.size(); ++i) {
    fits = i == channel_axis(a) || a[i] == b[i] || a[i] < 0 || b[i] < 0;
  }
  if (fits) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("'{}' is {} and the teacher's '{}' {}: they differ in more than channels",
                          match.student.name, shape_text(a), match.teacher.name, shape_text(b)),
              "match layers of one resolution");
}

}  // namespace narrow::train
