// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/runner.h"

namespace narrow {
namespace {

/// Made once as one batch of one sample each.
class RandomDataset final : public Dataset {
 public:
  RandomDataset(const Graph& graph, int64_t samples, int64_t batch, uint64_t seed)
      : size_(samples), batch_(batch), seed_(seed) {
    const int64_t made = batch > 0 ? batch : samples;
    inputs_ = random_inputs(graph, made, seed);
    size_ = made;
  }
  int64_t size() const override { return size_; }
  bool labelled() const override { return false; }
  int64_t fixed_batch() const override { return batch_; }
  std::string fingerprint() const override { return fmt::format("random-{}", seed_); }

  Batch get(std::span<const int64_t> indices) const override {
    Batch batch;
    for (const auto& [name, tensor] : inputs_) {
      if (tensor.rank() == 0 || tensor.dims()[0] != size_) {
        batch.inputs[name] = tensor;
        continue;
      }
      Dims dims = tensor.dims();
      dims[0] = static_cast<int64_t>(indices.size());
      Tensor rows(tensor.dtype(), dims);
      const size_t row_bytes = tensor.bytes() / static_cast<size_t>(size_);
      for (size_t i = 0; i < indices.size(); ++i) {
        std::memcpy(rows.mutable_raw() + i * row_bytes,
                    tensor.raw() + static_cast<size_t>(indices[i]) * row_bytes, row_bytes);
      }
      batch.inputs[name] = std::move(rows);
    }
    return batch;
  }

 private:
  int64_t size_;
  int64_t batch_;
  uint64_t seed_;
  std::map<std::string, Tensor> inputs_;
};

std::shared_ptr<const Dataset> open(const DataSpec& spec, const Graph& graph, const char* key) {
  try {
    std::shared_ptr<const Dataset> data = open_dataset(spec, data_hints(graph));
    if (data->size() > 0) return data;
  } catch (Error& e) {
    e.add_context(key);
    throw;
  }
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{}: '{}' holds no samples", key, spec.text()));
}

std::shared_ptr<const Dataset> first_of(const std::shared_ptr<const Dataset>& whole,
                                        std::span<const int64_t> indices) {
  return subset(whole, {indices.begin(), indices.end()});
}

void split(const Recipe& recipe, const std::shared_ptr<const Dataset>& whole, SampleSets& sets) {
  const int64_t size = whole->size();
  int64_t hold_out = 0;
  if (!recipe.eval_data) hold_out = recipe.eval_samples > 0 ? recipe.eval_samples : kHoldOut;
  int64_t calibration = std::min(recipe.calibration_samples, size);
  if (hold_out > size - calibration) {
    // Too few for both: at least a fifth of them is kept apart.
    hold_out = std::min(hold_out, std::max(size - calibration, size / 5));
    calibration = std::min(calibration, size - hold_out);
  }
  const auto indices = sample_indices(size, calibration + hold_out, recipe.seed);
  const std::span<const int64_t> all(indices);
  sets.calibration = first_of(whole, all.first(static_cast<size_t>(calibration)));
  if (recipe.eval_data) return;
  if (hold_out == 0) {
    sets.evaluation = sets.calibration;
    sets.evaluation_name = "the calibration samples";
    sets.notes.push_back("too few samples for a hold-out: measured on the calibration samples");
    return;
  }
  sets.evaluation = first_of(whole, all.last(static_cast<size_t>(hold_out)));
  sets.evaluation_name = fmt::format("hold-out of {}", recipe.data->text());
}

}  // namespace

std::shared_ptr<const Dataset> random_dataset(const Graph& graph, int64_t samples, uint64_t seed) {
  int64_t batch = 0;
  for (const ValueId id : graph.inputs()) {
    const auto& shape = graph.value(id).shape;
    if (shape && !shape->empty() && (*shape)[0].known()) batch = (*shape)[0].value;
  }
  try {
    return std::make_shared<RandomDataset>(graph, samples, batch, seed);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::invalid_argument) return nullptr;
    throw;
  }
}

SampleSets open_samples(const Recipe& recipe, const Graph& graph) {
  SampleSets sets;
  if (recipe.data) {
    const auto whole = open(*recipe.data, graph, "data");
    sets.data_fingerprint = whole->fingerprint();
    sets.data_size = whole->size();
    split(recipe, whole, sets);
  }
  if (recipe.eval_data) {
    auto whole = open(*recipe.eval_data, graph, "eval_data");
    const int64_t wanted = recipe.eval_samples;
    if (wanted > 0 && wanted < whole->size()) {
      whole = first_of(whole, sample_indices(whole->size(), wanted, recipe.seed));
    }
    sets.evaluation = whole;
    sets.evaluation_name = recipe.eval_data->text();
  }
  if (!sets.evaluation) {
    sets.evaluation = random_dataset(graph, kRandomSamples, recipe.seed);
    sets.random_evaluation = true;
    sets.evaluation_name = "random inputs";
    sets.notes.push_back(sets.evaluation
                             ? "no data were given: measured on random inputs, which says little "
                               "about real ones; give --eval-data"
                             : "no data were given and the inputs' shapes are not known: nothing "
                               "was measured; give --eval-data");
  }
  return sets;
}

}  // namespace narrow
