// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_qat.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/ptq/targets.h"

namespace narrow {
namespace {

int bits_from(std::string_view text, std::string_view whole) {
  if (text.size() == 1 && text[0] >= '2' && text[0] <= '8') return text[0] - '0';
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' names no bits to train on", whole),
              "write the bits of weights and activations, 2 to 8 each, as in w4a4");
}

/// Names of the nodes that multiply with constants, in order.
std::vector<std::string> layers_of(const Graph& graph) {
  std::vector<std::string> names;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const bool layer = node.is("Conv") || node.is("Gemm") || node.is("MatMul");
    if (layer && graph.constant(node.input(1)) != nullptr) names.push_back(node.name);
  }
  return names;
}

}  // namespace

QatBits parse_qat(std::string_view text) {
  const size_t a = text.find('a');
  if (text.empty() || text[0] != 'w' || a == std::string_view::npos) return {bits_from("", text)};
  return {bits_from(text.substr(1, a - 1), text), bits_from(text.substr(a + 1), text)};
}

QuantizeOptions qat_quantization(const Graph& graph, const TrainJob& job) {
  const QatBits bits = parse_qat(job.qat);
  QuantizeOptions options;
  options.weights = NumberType{false, true, bits.weights};
  options.activations = NumberType{false, false, bits.activations};
  options.granularity = job.granularity;
  if (job.first_last > 0) {
    const std::vector<std::string> layers = layers_of(graph);
    for (const size_t i : {size_t{0}, layers.size() - 1}) {
      if (layers.empty()) break;
      LayerRule rule;
      rule.match = layers[i];
      rule.weights = NumberType{false, true, job.first_last};
      rule.activations = NumberType{false, false, job.first_last};
      options.layers.push_back(rule);
    }
  }
  return resolve(options);
}

void keep_ends_at_8_bits(const Graph& graph, Assignment& assignment) {
  for (auto& [name, activation] : assignment.activations) {
    const Value& value = graph.value(*graph.find_value(name));
    if (value.is_input || value.is_output) activation.scheme.bits = 8;
  }
}

std::string qat_fingerprint(const TrainJob& job) {
  const train::QatOptions& o = job.options.qat;
  return fmt::format("{} {} {} {} {} {} {} {} {} {}", to_string(o.method), to_string(o.ranges),
                     o.freeze_step, o.range_momentum, o.clip_decay, o.oscillation,
                     o.oscillation_start, job.first_last,
                     job.granularity ? to_string(*job.granularity) : "", job.qat);
}

}  // namespace narrow
