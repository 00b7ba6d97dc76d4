// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numbers>

#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/method.h"

namespace narrow::train {
namespace {

constexpr float kMomentum = 0.02F;  // of the frequency and of the mean code

/// Of one weight tensor, by element.
struct Track {
  std::vector<float> code;       // after the last step
  std::vector<float> direction;  // of its last change
  std::vector<float> frequency;  // of changes that undo the one before
  std::vector<float> mean;       // of the codes
  std::vector<float> frozen;     // 1: stays
};

class Oscillation : public Method {
 public:
  Oscillation(Executor& executor, const QatOptions& options)
      : executor_(executor), options_(options) {
    for (auto& [name, grid] : executor.weight_grids()) {
      const torch::Tensor& w = executor.parameters().at(name);
      Track& track = tracks_[name];
      for (const auto part : kParts) (track.*part.values).resize(static_cast<size_t>(w.numel()));
      const float* x = w.data_ptr<float>();
      grid.for_runs(w, [&](int64_t first, const GridRun& run) {
        for (int64_t i = first; i < first + run.count; ++i) {
          const auto at = static_cast<size_t>(i);
          track.code[at] = track.mean[at] = code_of(x[i], run);
        }
      });
    }
  }

  void after_step(const StepInfo& info) override {
    const double done = static_cast<double>(info.step + 1) / static_cast<double>(info.total);
    const double wave = 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
    const auto threshold = static_cast<float>(
        options_.oscillation + (options_.oscillation_start - options_.oscillation) * wave);
    for (auto& [name, grid] : executor_.weight_grids()) {
      Track& track = tracks_.at(name);
      float* x = executor_.parameters().at(name).data_ptr<float>();
      grid.for_runs(executor_.parameters().at(name), [&](int64_t first, const GridRun& run) {
        for (int64_t i = first; i < first + run.count; ++i) {
          follow(track, static_cast<size_t>(i), x[i], run, threshold);
        }
      });
    }
  }

  void save(std::map<std::string, Tensor>& to) const override {
    for (const auto& [name, track] : tracks_) {
      for (const auto part : kParts) {
        to[std::string(part.name) + name] = Tensor::vector(track.*part.values);
      }
    }
  }

  void load(const std::map<std::string, Tensor>& from) override {
    for (auto& [name, track] : tracks_) {
      for (const auto part : kParts) {
        std::vector<float>& values = track.*part.values;
        const torch::Tensor x =
            state_of(from, part.name + name, static_cast<int64_t>(values.size()));
        std::copy_n(x.data_ptr<float>(), values.size(), values.begin());
      }
    }
  }

 private:
  struct Part {
    const char* name;
    std::vector<float> Track::*values;
  };
  static constexpr Part kParts[] = {{"oscillation.code.", &Track::code},
                                    {"oscillation.direction.", &Track::direction},
                                    {"oscillation.frequency.", &Track::frequency},
                                    {"oscillation.mean.", &Track::mean},
                                    {"oscillation.frozen.", &Track::frozen}};

  static float code_of(float x, const GridRun& run) {
    return std::nearbyint(std::clamp(x / run.scale, run.low, run.high));
  }

  static void follow(Track& track, size_t i, float& x, const GridRun& run, float threshold) {
    if (track.frozen[i] != 0) {
      x = run.scale * track.code[i];
      return;
    }
    const float code = code_of(x, run);
    const float change = code - track.code[i];
    const float direction = change > 0 ? 1.0F : -1.0F;
    const bool undone = change != 0 && direction == -track.direction[i];
    if (change != 0) track.direction[i] = direction;
    track.code[i] = code;
    track.frequency[i] += kMomentum * ((undone ? 1.0F : 0.0F) - track.frequency[i]);
    track.mean[i] += kMomentum * (code - track.mean[i]);
    if (track.frequency[i] <= threshold) return;
    track.frozen[i] = 1;
    track.code[i] = std::nearbyint(track.mean[i]);
    x = run.scale * track.code[i];
  }

  Executor& executor_;
  QatOptions options_;
  std::map<std::string, Track> tracks_;  // by weight
};

}  // namespace

std::unique_ptr<Method> make_oscillation_freezing(Executor& executor, const QatOptions& options) {
  return std::make_unique<Oscillation>(executor, options);
}

}  // namespace narrow::train
