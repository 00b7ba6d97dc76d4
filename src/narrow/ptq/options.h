// SPDX-License-Identifier: Apache-2.0
// What to quantize and to which number types: the part of a recipe that the algorithms of ptq/ look
// at. Spellings equal the recipe's and the flags': "weight_only", "int4", "per_group".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/quant/scheme.h"

namespace narrow {

/// static: activation ranges from calibration. dynamic: activations quantized at run time.
/// weight_only: weights stored in few bits, activations float.
enum class Mode : uint8_t { static_, dynamic, weight_only };
const char* to_string(Mode mode);
std::optional<Mode> mode_from_string(std::string_view name);

std::optional<Symmetry> symmetry_from_string(std::string_view name);
std::optional<Granularity> granularity_from_string(std::string_view name);
std::optional<ScaleType> scale_type_from_string(std::string_view name);

/// "int8", "uint4", "int3", "uint16", "float32", "float16".
struct NumberType {
  bool floating = false;
  bool is_signed = true;
  int bits = 8;

  std::string text() const;
  friend bool operator==(const NumberType&, const NumberType&) = default;
};
/// Integers of 2..8 and 16 bits, float32, float16; nullopt for anything else.
std::optional<NumberType> number_type_from_string(std::string_view name);

/// `*` stands for any characters (also none, also '/'), `?` for one; everything else is itself.
bool glob_match(std::string_view pattern, std::string_view text);

/// Overrides for the layers whose node name matches; later rules win over earlier ones.
struct LayerRule {
  std::string match;  // glob on node names
  std::optional<NumberType> weights;
  std::optional<NumberType> activations;  // of the layer's inputs
  std::optional<Granularity> granularity;
  std::optional<int64_t> group_size;
  std::optional<Symmetry> weight_symmetry;
};

/// automatic: fast where data are given, else none.
enum class BiasCorrection : uint8_t { automatic, none, fast, empirical };
const char* to_string(BiasCorrection kind);
std::optional<BiasCorrection> bias_correction_from_string(std::string_view name);

/// Fields without a value take the target's choice.
struct QuantizeOptions {
  Mode mode = Mode::static_;
  std::optional<NumberType> weights;      // int8
  std::optional<NumberType> activations;  // uint8; int8 where the target wants signed codes
  std::optional<Symmetry> weight_symmetry;
  std::optional<Symmetry> activation_symmetry;
  std::optional<Granularity> granularity;  // of weights: per_axis; per_group if group_size is given
  int64_t group_size = 0;
  ScaleType scale_type = ScaleType::float32;
  std::string target = "narrow";
  bool integer_throughout = false;      // also what the target leaves float, as far as possible
  std::vector<std::string> include;     // globs on node names; empty: everything
  std::vector<std::string> exclude;     // not quantized ...
  std::vector<std::string> keep_float;  // ... same, what a refused run suggests
  std::vector<LayerRule> layers;
};

}  // namespace narrow
