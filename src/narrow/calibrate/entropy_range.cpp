// SPDX-License-Identifier: Apache-2.0
// The KL search as TensorRT made it known: P is the clipped histogram with its outliers in the last
// bin, Q the histogram without them, merged into as many levels as the grid has and spread back
// over the bins that P fills. Exact zeros take no part (a spike there dominates every P), levels
// share the bins evenly (no remainder), and Q is smoothed (no infinite divergence).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "narrow/calibrate/clip.h"
#include "narrow/quant/portable_math.h"

namespace narrow {
namespace {

constexpr double kSmoothing = 1e-4;  // share of Q that is spread evenly over all bins
constexpr size_t kStride = 4;        // bins between candidates before refining

class Divergence {
 public:
  Divergence(const std::vector<uint64_t>& counts, size_t levels) : levels_(levels) {
    sums_.push_back({});
    for (const uint64_t n : counts) {
      Prefix next = sums_.back();
      const auto c = static_cast<double>(n);
      next.count += c;
      next.filled += n > 0 ? 1 : 0;
      next.entropy += n > 0 ? c * portable_log(c) : 0;
      sums_.push_back(next);
    }
  }

  size_t bins() const { return sums_.size() - 1; }

  /// KL(P | Q) when the bins [first, last) are kept.
  double operator()(size_t first, size_t last) const {
    const double total = sums_.back().count;
    const double kept = sums_[last].count - sums_[first].count;
    if (kept == 0) return std::numeric_limits<double>::infinity();
    const double below = sums_[first].count;
    const double above = total - sums_[last].count;
    const size_t groups = std::min(levels_, last - first);
    double entropy = sums_[last].entropy - sums_[first].entropy;
    entropy += grown(first, below) + grown(last - 1, above);
    double cross = 0;
    for (size_t g = 0; g < groups; ++g) {
      const size_t begin = first + (last - first) * g / groups;
      const size_t end = first + (last - first) * (g + 1) / groups;
      const double inside = sums_[end].count - sums_[begin].count;
      double mass = inside;
      double filled = sums_[end].filled - sums_[begin].filled;
      if (g == 0 && below > 0) {
        mass += below;
        filled += empty(first) ? 1 : 0;
      }
      if (g + 1 == groups && above > 0) {
        mass += above;
        filled += empty(last - 1) ? 1 : 0;
      }
      if (mass == 0) continue;
      const double q = (1 - kSmoothing) * inside / (filled * kept) +
                       kSmoothing / static_cast<double>(last - first);
      cross += mass * portable_log(q);
    }
    return (entropy - cross) / total - portable_log(total);
  }

 private:
  struct Prefix {
    double count = 0;
    double filled = 0;   // bins that are not empty
    double entropy = 0;  // sum of c log c
  };

  double count_of(size_t bin) const { return sums_[bin + 1].count - sums_[bin].count; }
  bool empty(size_t bin) const { return count_of(bin) == 0; }

  /// How c log c of a bin grows with `more` values.
  double grown(size_t bin, double more) const {
    if (more == 0) return 0;
    const double c = count_of(bin);
    return (c + more) * portable_log(c + more) - (c > 0 ? c * portable_log(c) : 0);
  }

  size_t levels_;
  std::vector<Prefix> sums_;
};

/// The end of the kept bins in [lowest, highest] with the least divergence, the largest first:
/// every kStride-th, then those around the best. Strictly better only.
template <class DivergenceAt>
size_t best_end(size_t lowest, size_t highest, const DivergenceAt& at) {
  size_t best = highest;
  double least = at(highest);
  const auto consider = [&](size_t end) {
    const double d = at(end);
    if (d < least) {
      least = d;
      best = end;
    }
  };
  for (size_t end = highest; end >= lowest + kStride; end -= kStride) consider(end - kStride);
  const size_t around = best;
  const size_t top = std::min(highest, around + kStride - 1);
  const size_t bottom = around >= lowest + kStride ? around - kStride + 1 : lowest;
  for (size_t end = top + 1; end-- > bottom;) consider(end);
  return best;
}

size_t used(const std::vector<uint64_t>& bins) {
  size_t n = bins.size();
  while (n > 0 && bins[n - 1] == 0) --n;
  return n;
}

Range search_symmetric(const Statistic& s, size_t levels) {
  std::vector<uint64_t> sizes(Statistic::kBins);
  for (size_t i = 0; i < s.negative.size(); ++i) sizes[i] += s.negative[i];
  for (size_t i = 0; i < s.positive.size(); ++i) sizes[i] += s.positive[i];
  sizes.resize(used(sizes));
  if (sizes.size() <= levels) return observed_range(s);
  const Divergence divergence(sizes, levels);
  const size_t end =
      best_end(levels, sizes.size(), [&](size_t last) { return divergence(0, last); });
  return symmetric_range(s, std::ldexp(static_cast<double>(end), s.exponent - 11));
}

/// Both ends in turn, each with the other one held.
Range search_both(const Statistic& s, size_t levels) {
  const size_t below = used(s.negative);
  const size_t above = used(s.positive);
  if (below + above <= levels) return observed_range(s);
  std::vector<uint64_t> line;
  for (size_t i = below; i-- > 0;) line.push_back(s.negative[i]);
  line.insert(line.end(), s.positive.begin(),
              s.positive.begin() + static_cast<std::ptrdiff_t>(above));
  const Divergence divergence(line, levels);
  size_t low = below;  // bins kept on each side of zero
  size_t high = above;
  constexpr int kRounds = 2;
  for (int round = 0; round < kRounds; ++round) {
    // At least as many bins as levels in all, and one on a side that has values.
    const auto floor_for = [&](size_t other) { return levels > other ? levels - other : 1; };
    if (above > 0) {
      high = best_end(std::min(floor_for(low), high), above,
                      [&](size_t n) { return divergence(below - low, below + n); });
    }
    if (below > 0) {
      low = best_end(std::min(floor_for(high), low), below,
                     [&](size_t n) { return divergence(below - n, below + high); });
    }
  }
  const Range all = observed_range(s);
  const auto edge = [&](size_t bins) {
    return static_cast<float>(std::ldexp(static_cast<double>(bins), s.exponent - 11));
  };
  return {std::max(all.rmin, -edge(low)), std::min(all.rmax, edge(high))};
}

}  // namespace

Range entropy_range(const Statistic& s, const Scheme& scheme) {
  const int32_t zero_point = scheme.is_signed ? 0 : int32_t{1} << (scheme.bits - 1);
  if (scheme.symmetry == Symmetry::symmetric) {
    return search_symmetric(s, static_cast<size_t>(scheme.qmax() - zero_point + 1));
  }
  return search_both(s, static_cast<size_t>(scheme.qmax() - scheme.qmin() + 1));
}

}  // namespace narrow
