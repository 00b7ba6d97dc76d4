// SPDX-License-Identifier: Apache-2.0
// What the program that will run the quantized file accepts, one row each. To add one: a row in
// targets.cpp, a line in docs/recipe.md.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "narrow/ptq/options.h"

namespace narrow {

enum class BiasForm : uint8_t { int32, float32 };

struct TargetProfile {
  const char* name;
  const char* summary;
  const char* default_activations;  // number types, as the recipe spells them
  const char* activations;          // all that are accepted, comma separated
  const char* weights;              // for static and dynamic
  const char* weight_only_weights;
  bool symmetric_activations;  // zero_point must be 0 (the middle for unsigned codes)
  bool symmetric_weights;
  bool per_axis;             // scales per output channel are understood
  bool dynamic_zero_points;  // ... and zero_points per channel by the operators of mode dynamic
  bool short_groups;         // the last group of a channel may have fewer weights
  bool qoperator;            // reads QLinearConv and its kin
  BiasForm bias;
  /// Quantize the outputs of layers also where only float operators or the caller read them.
  bool quantize_outputs;
  /// Everything that can be integer is, also before the first layer.
  bool integer_throughout;
  /// Concat copies codes: its inputs and its output share one grid.
  bool equal_concat;
  int max_opset;
  const char* operators;  // quantized operators it has, comma separated; "" means all of ours
};

std::span<const TargetProfile> all_targets();
/// Throws invalid_argument listing the known ones.
const TargetProfile& find_target(std::string_view name);
/// Whether the target runs this operator on codes.
bool runs_quantized(const TargetProfile& target, std::string_view op);

/// Fills every open field from the target's row and checks the combination. Throws invalid_argument
/// naming the field, its value and what the target takes.
QuantizeOptions resolve(const QuantizeOptions& options);
/// The same check of the types alone, after the rules of one layer were put into `layer`.
void check_layer_types(const QuantizeOptions& layer);

}  // namespace narrow
