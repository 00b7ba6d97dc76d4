// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/ptq/lift.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/quant/overflow.h"
#include "narrow/quant/quantize.h"
#include "narrow/quant/requantize.h"

namespace narrow {
namespace {

std::vector<int32_t> zero_points_of(const QuantParams& params) {
  std::vector<int32_t> out;
  if (!params.zero_point.defined()) return out;
  for (const int64_t z : params.zero_point.to_ints()) out.push_back(static_cast<int32_t>(z));
  return out;
}

class Returner {
 public:
  Returner(const LiftedModel& lifted, const LiftedState& state)
      : lifted_(lifted), state_(state), file_(lifted.file) {}

  Graph run() {
    for (const auto& [name, a] : lifted_.activations) put_activation(name, a);
    for (const auto& [name, w] : lifted_.weights) {
      try {
        weights_[name] = {quantize(value_of(name), params_of(name)), params_of(name)};
      } catch (Error& e) {
        e.add_context(fmt::format("weights '{}'", name));
        throw;
      }
    }
    for (const auto& [name, bias] : lifted_.biases) put_bias(name, bias);
    for (const auto& [name, w] : lifted_.weights) put_weight(name, w);
    for (const auto& [name, value] : state_.parameters) {
      if (lifted_.weights.contains(name) || lifted_.biases.contains(name)) continue;
      const auto id = file_.find_value(name);
      if (!id) throw Error(ErrorCode::internal, fmt::format("no parameter '{}'", name));
      file_.set_constant(*id, value);
    }
    return std::move(file_);
  }

 private:
  const Tensor& start_of(const std::string& name) const {
    return *lifted_.graph.constant(*lifted_.graph.find_value(name));
  }
  const Tensor& value_of(const std::string& name) const {
    const auto found = state_.parameters.find(name);
    return found != state_.parameters.end() ? found->second : start_of(name);
  }
  const QuantParams& params_of(const std::string& weight) const {
    const auto found = state_.weights.find(weight);
    return found != state_.weights.end() ? found->second : lifted_.weights.at(weight).params;
  }
  const QuantParams& activation_of(const std::string& name) const {
    const auto found = state_.activations.find(name);
    return found != state_.activations.end() ? found->second : lifted_.activations.at(name).params;
  }

  /// The tensor in the type and shape of what it replaces.
  void put_codes(ValueId id, const Tensor& codes) {
    const Tensor& old = *lifted_.file.constant(id);
    file_.set_constant(id, Tensor::from_ints(codes.to_ints(), old.dtype(), old.dims()));
  }
  void put_scale(ValueId id, const Tensor& scale) {
    file_.set_constant(id, scale.reshaped(lifted_.file.constant(id)->dims()));
  }

  void put_activation(const std::string& name, const LiftedActivation& a) {
    const QuantParams& params = activation_of(name);
    const bool zeros = params.zero_point.defined();
    if (identical(params.scale, a.params.scale) &&
        (!zeros || identical(params.zero_point, a.params.zero_point))) {
      return;
    }
    put_scale(a.scale, params.scale);
    if (zeros) put_codes(a.zero_point, params.zero_point);
    if (a.clip_min == kNoId) return;
    const float scale = params.scale.item<float>();
    const int64_t zero = zeros ? params.zero_point.to_ints()[0] : 0;
    const auto bound = [&](int32_t code) {
      return Tensor::vector<float>({scale * static_cast<float>(code - zero)});
    };
    put_scale(a.clip_min, bound(params.scheme.qmin()));
    put_scale(a.clip_max, bound(params.scheme.qmax()));
  }

  bool same_scale(const std::string& weight) const {
    return identical(weights_.at(weight).params.scale, lifted_.weights.at(weight).params.scale);
  }

  void put_bias(const std::string& name, const LiftedBias& bias) {
    const Tensor& value = value_of(name);
    const bool same_value = identical(value, start_of(name));
    if (bias.weights.empty()) {
      if (!same_value) put_codes(bias.codes, codes_on(value, *lifted_.file.constant(bias.scale)));
      return;
    }
    const LiftedWeight& w = lifted_.weights.at(bias.weights);
    const Tensor& input = activation_of(w.input).scale;
    const bool same_input = identical(input, lifted_.activations.at(w.input).params.scale);
    if (same_value && same_input && same_scale(bias.weights)) return;
    try {
      const BiasResult rounded =
          round_bias(value, input.item<float>(), value_of(bias.weights), weights_.at(bias.weights));
      put_codes(bias.codes, rounded.bias.codes);
      put_scale(bias.scale, rounded.bias.params.scale);
    } catch (Error& e) {
      e.add_context(fmt::format("bias '{}'", name));
      throw;
    }
  }

  /// A bias of no layer: on the scale that it has.
  static Tensor codes_on(const Tensor& value, const Tensor& scale) {
    const std::vector<float> x = value.to_floats();
    const std::vector<float> s = scale.to_floats();
    std::vector<int64_t> codes;
    for (size_t i = 0; i < x.size(); ++i) {
      const auto code = quantize_bias(x[i], 1, s[i % s.size()]);
      if (!code) {
        throw Error(ErrorCode::numeric_failure,
                    fmt::format("bias element {} ({}) does not fit int32", i, x[i]));
      }
      codes.push_back(*code);
    }
    return Tensor::from_ints(codes, DType::int32, value.dims());
  }

  void put_weight(const std::string& name, const LiftedWeight& w) {
    const QuantizedTensor& now = weights_.at(name);
    if (same_scale(name) && identical(value_of(name), start_of(name))) return;
    put_scale(w.scale, now.params.scale);
    put_codes(w.codes, now.codes);
    prove(w, now);
  }

  void prove(const LiftedWeight& w, const QuantizedTensor& weights) const {
    constexpr int kByte = 8;
    if (w.input.empty() || weights.params.scheme.granularity == Granularity::per_group) return;
    const QuantParams& grid = activation_of(w.input);
    if (grid.scheme.bits > kByte) return;  // runs in float
    const std::vector<int32_t> zeros = zero_points_of(grid);
    const CodeRange codes{grid.scheme.qmin(), grid.scheme.qmax(), zeros.empty() ? 0 : zeros[0]};
    const OverflowProof proof = prove_accumulators(weights.codes, zero_points_of(weights.params),
                                                   codes, {}, w.channel_axis);
    // Biases have the other half.
    constexpr int64_t kHalf = int64_t{1} << 30;
    if (proof.min >= -kHalf && proof.max <= kHalf) return;
    throw Error(ErrorCode::numeric_failure,
                fmt::format("node '{}': its accumulators reach {} to {}: int32 could overflow",
                            w.node, proof.min, proof.max),
                "train fewer bits in this layer");
  }

  const LiftedModel& lifted_;
  const LiftedState& state_;
  Graph file_;
  std::map<std::string, QuantizedTensor> weights_;
};

}  // namespace

Graph put_back(const LiftedModel& lifted, const LiftedState& state) {
  return Returner(lifted, state).run();
}

}  // namespace narrow
