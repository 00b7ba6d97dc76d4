// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/config.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "narrow/core/error.h"
#include "narrow/llm/architecture.h"

namespace narrow::llm {
namespace {

[[noreturn]] void contradiction(const std::string& message) {
  throw Error(ErrorCode::corrupt_data, "config: " + message);
}

void check_size(const char* name, int64_t value, int64_t most) {
  if (value < 1 || value > most) {
    contradiction(fmt::format("{} is {}, not in 1..{}", name, value, most));
  }
}

void check_number(const char* name, double value, bool zero_allowed) {
  if (!std::isfinite(value) || value < 0 || (value == 0 && !zero_allowed)) {
    contradiction(fmt::format("{} is {}", name, value));
  }
}

void check_rope(const ModelConfig& c) {
  if (c.positions != PositionKind::rope) return;
  if (c.rope_dim < 2 || c.rope_dim % 2 != 0 || c.rope_dim > c.head_dim) {
    contradiction(
        fmt::format("rope turns {} elements of a head_dim of {}", c.rope_dim, c.head_dim));
  }
  check_number("rope_theta", c.rope_theta, false);
  check_number("the rope_theta of local layers", c.rope_theta_local, true);
  check_number("the factor of rope scaling", c.rope_factor, false);
  if (!c.rope_divisors.empty() && static_cast<int64_t>(c.rope_divisors.size()) != c.rope_dim / 2) {
    contradiction(fmt::format("{} divisors of frequencies for rope_dim / 2 = {}",
                              c.rope_divisors.size(), c.rope_dim / 2));
  }
  for (const float divisor : c.rope_divisors)
    check_number("a divisor of a frequency", divisor, false);
}

}  // namespace

const char* to_string(Pooling pooling) {
  static constexpr const char* kNames[] = {"none", "mean", "cls", "last"};
  return kNames[static_cast<size_t>(pooling)];
}

void check_config(const ModelConfig& c) {
  constexpr int64_t kMostElements = int64_t{1} << 24;
  check_size("vocab_size", c.vocab_size, kMostElements);
  check_size("hidden_size", c.hidden_size, kMostElements);
  check_size("layers", c.layers, 10000);
  check_size("heads", c.heads, 65536);
  check_size("kv_heads", c.kv_heads, 65536);
  check_size("head_dim", c.head_dim, 65536);
  check_size("intermediate_size", c.intermediate_size, kMostElements);
  check_size("context", c.context, int64_t{1} << 31);
  if (c.token_types != 0) check_size("token_types", c.token_types, kMostElements);
  if (c.heads % c.kv_heads != 0) {
    contradiction(fmt::format("{} heads cannot share {} kv_heads", c.heads, c.kv_heads));
  }
  check_rope(c);
  check_number("norm_eps", c.norm_eps, true);
  check_number("attention_scale", c.attention_scale, false);
  check_number("attention_softcap", c.attention_softcap, true);
  check_number("logit_softcap", c.logit_softcap, true);
  check_number("embedding_scale", c.embedding_scale, false);
  if (c.window < 0) contradiction(fmt::format("window is {}", c.window));
  if (!c.local_layers.empty() && static_cast<int64_t>(c.local_layers.size()) != c.layers) {
    contradiction(
        fmt::format("{} kinds of attention for {} layers", c.local_layers.size(), c.layers));
  }
  const auto check_id = [&c](const char* name, int64_t id) {
    if (id < -1 || id >= c.vocab_size) {
      contradiction(fmt::format("{} is {}, vocab_size {}", name, id, c.vocab_size));
    }
  };
  check_id("bos_token_id", c.bos);
  check_id("pad_token_id", c.pad);
  for (const int32_t id : c.eos) check_id("eos_token_id", id);
}

std::vector<float> llama3_rope_divisors(const ModelConfig& c) {
  // Meta's Llama 3.1 (llama_models, apply_scaling): long waves are slowed by the factor, short ones
  // kept, between them the reciprocals are mixed linearly in the number of waves per context.
  const double context = static_cast<double>(c.rope_original_context);
  std::vector<float> divisors;
  for (int64_t i = 0; i < c.rope_dim / 2; ++i) {
    const double frequency =
        std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.rope_dim));
    const double waves = context * frequency / (2 * std::numbers::pi);
    double divisor = 1;
    if (waves < c.rope_low_freq_factor) {
      divisor = c.rope_factor;
    } else if (waves <= c.rope_high_freq_factor) {
      const double smooth =
          (waves - c.rope_low_freq_factor) / (c.rope_high_freq_factor - c.rope_low_freq_factor);
      divisor = 1 / ((1 - smooth) / c.rope_factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

}  // namespace narrow::llm
