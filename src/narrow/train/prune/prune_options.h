// SPDX-License-Identifier: Apache-2.0
// What is pruned, how much of it, and when: the text of --prune as data.
//
//   PruneOptions o = parse_prune("magnitude,sparsity=0.8,scope=layer,end=2");
//   double s = sparsity_at(o, step, steps_per_epoch, epochs);
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace narrow::train {

/// magnitude: the smallest weights go, more and more of them (Zhu & Gupta, To Prune, or Not to
///            Prune, 2017).
/// level: the smallest of each layer go, all at once.
/// sensitivity: those below k deviations of their layer's first weights go (Han et al., Learning
///              both Weights and Connections, 2015).
/// splicing: below `low` times a threshold they go, above `high` times it they come back (Guo et
///           al., Dynamic Network Surgery, 2016).
/// movement: those that training moves towards zero go (Sanh et al., Movement Pruning, 2020).
/// keep: what is zero in the model that came in stays zero.
enum class PruneMethod : uint8_t { none, magnitude, level, sensitivity, splicing, movement, keep };
const char* to_string(PruneMethod method);

/// Weights are compared with all others, or with those of their layer.
enum class PruneScope : uint8_t { global, layer };
const char* to_string(PruneScope scope);

/// Which weights go together. `of` consecutive inputs of one output form a group.
///   element: single weights (of = 1); N:M: of each M the M - N smallest; 1xN: N at once.
struct PrunePattern {
  int64_t keep = 0;
  int64_t of = 1;
  friend bool operator==(const PrunePattern&, const PrunePattern&) = default;
};
/// "element", "2:4", "1x4".
std::string to_string(const PrunePattern& pattern);

struct PruneOptions {
  PruneMethod method = PruneMethod::none;
  double sparsity = 0.5;  // share of zeros at the end: magnitude, level, movement
  double initial = 0;     // share at the start
  std::optional<PruneScope> scope;
  PrunePattern pattern;
  double k = 0.5;                   // deviations: sensitivity, splicing
  double low = 0.9;                 // splicing
  double high = 1.1;                // splicing
  double start = 0;                 // epochs before the first zeros
  std::optional<double> end;        // epochs until all are there; default: half of the run
  int64_t frequency = 0;            // steps between two masks; 0: fifty masks in all
  std::vector<std::string> layers;  // globs on node names; empty: all layers with weights
  std::vector<std::string> except;

  bool active() const { return method != PruneMethod::none; }
};

/// "METHOD[,KEY=VALUE]...": keys as the fields above; `layers` and `except` may stand several
/// times. Throws invalid_argument with the nearest names.
PruneOptions parse_prune(std::string_view text);
/// What parse_prune() reads back; "" for none.
std::string to_text(const PruneOptions& options);
/// Throws invalid_argument for combinations that make no sense in a run of so many epochs.
void check_options(const PruneOptions& options, int64_t epochs);

/// The scope asked for, or the method's own: global for magnitude, layer for the others.
PruneScope scope_of(const PruneOptions& options);

/// The steps at which masks are made: from `first` to `last`, every `frequency`.
struct PruneWindow {
  int64_t first = 0;
  int64_t last = 0;
  int64_t frequency = 1;
  bool due(int64_t step) const;
};
PruneWindow window_of(const PruneOptions& options, int64_t steps_per_epoch, int64_t total_steps);

/// The share of zeros wanted at a step of the window:
///   s = sparsity + (initial - sparsity) * (1 - (step - first) / (last - first))^3
double sparsity_at(const PruneOptions& options, const PruneWindow& window, int64_t step);

/// Adds the sum of |w| times `l1`, and the sum over groups of sqrt(size) * |group| times
/// `group_lasso` (Yuan & Lin, 2006; Wen et al., Learning Structured Sparsity, 2016) to the loss.
enum class LassoGroups : uint8_t { filters, channels };
const char* to_string(LassoGroups groups);
struct RegularizeOptions {
  double l1 = 0;
  double group_lasso = 0;
  LassoGroups groups = LassoGroups::filters;
  std::vector<std::string> layers;  // globs on node names; empty: all

  bool active() const { return l1 > 0 || group_lasso > 0; }
};
/// "l1=1e-5,group_lasso=1e-4,groups=channels,layers=GLOB".
RegularizeOptions parse_regularize(std::string_view text);
std::string to_text(const RegularizeOptions& options);

}  // namespace narrow::train
