// SPDX-License-Identifier: Apache-2.0
// How grids learn: the methods of quantization-aware training, as rows of a table. All of them
// round to a linear grid when they are done, so that what was trained is what is exported.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace narrow::train {

/// lsq: Esser et al., Learned Step Size Quantization, 2020. lsq_plus: Bhalgat et al., LSQ+, 2020.
/// pact: Choi et al., Parameterized Clipping Activation, 2018. dorefa: Zhou et al., DoReFa-Net,
/// 2016. wrpn: Mishra et al., Wide Reduced-Precision Networks, 2018.
enum class QatMethod : uint8_t { lsq, lsq_plus, pact, dorefa, wrpn };
const char* to_string(QatMethod method);
std::optional<QatMethod> qat_method_from_string(std::string_view name);

/// How ranges of activations and scales of weights change while training.
///   learned: as the method learns them.
///   fixed: activations as calibrated; scales of weights follow the weights' extremes.
///   moving_average: activations follow their extremes until `freeze_step`, then stay; scales of
///                   weights follow the weights' extremes.
enum class RangeKind : uint8_t { learned, fixed, moving_average };
const char* to_string(RangeKind kind);
std::optional<RangeKind> range_from_string(std::string_view name);

struct QatOptions {
  QatMethod method = QatMethod::lsq;
  RangeKind ranges = RangeKind::learned;
  int64_t freeze_step = 0;         // of moving_average; 0: after a quarter of the steps
  double range_momentum = 0.99;    // of moving_average
  double clip_decay = 1e-4;        // pact: the penalty is this times the squares of the clips
  double oscillation = 0;          // weights that flip more often than this are frozen; 0: off
  double oscillation_start = 0.1;  // the threshold falls from here to `oscillation` by half a wave
};

/// What one grid does.
struct GridRule {
  bool learn_scale = false;
  bool learn_zero = false;
  bool follow = false;   // scales from the extremes, after each step
  bool observe = false;  // ranges by moving average
  bool inside = true;    // the scale's gradient has a part from inside the grid
  bool paced = true;     // and is divided by sqrt(values * qmax)
  bool tanh = false;     // weights go through tanh first
};
GridRule weight_rule(const QatOptions& options);
GridRule activation_rule(const QatOptions& options);

/// Throws invalid_argument naming the option that makes no sense.
void check_options(const QatOptions& options);

}  // namespace narrow::train
