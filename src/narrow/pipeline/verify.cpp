// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/runner.h"
#include "narrow/quant/error_measures.h"

namespace narrow {
namespace {

// Of float outputs: what they may add to the peak memory of a small job.
constexpr size_t kKeptBytes = size_t{1} << 25;

// A file that holds another graph shows it in any sample; the rest is for rare values.
constexpr int64_t kReadBackSamples = 256;

struct Partial {
  ErrorMeasures error;
  int64_t float_hits = 0;
  int64_t quantized_hits = 0;
  int64_t same_class = 0;
};

size_t bytes_of(const std::vector<Tensor>& tensors) {
  size_t bytes = 0;
  for (const Tensor& t : tensors) bytes += t.bytes();
  return bytes;
}

int64_t count_same(const Tensor& a, const Tensor& b, int64_t first) {
  const auto x = argmax_per_sample(a, first);
  const auto y = argmax_per_sample(b, first);
  int64_t same = 0;
  for (size_t i = 0; i < x.size() && i < y.size(); ++i) same += x[i] == y[i] ? 1 : 0;
  return same;
}

double percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::vector<Tensor> run_again(const Session& session, const RunBatch& run) {
  std::vector<Tensor> inputs;
  for (const std::string& name : session.input_names()) inputs.push_back(run.inputs.at(name));
  std::vector<Tensor> outputs = session.run(inputs);
  for (Tensor& y : outputs) y = cut_batch(y, run.batch, run.samples);
  return outputs;
}

bool is_class_scores(const std::vector<Tensor>& outputs) {
  return !outputs.empty() && is_float(outputs[0].dtype()) && is_classification(outputs[0].dims());
}

}  // namespace

Verifier::Verifier(const Graph& float_graph, const SampleSets& samples, int threads,
                   Progress progress)
    : data_(samples.evaluation),
      float_session_(float_graph),
      threads_(threads),
      batch_(choose_batch(float_session_, *data_)),
      progress_(std::move(progress)) {
  baseline_.data = samples.evaluation_name;
  baseline_.samples = data_->size();
  const auto batches = static_cast<size_t>((data_->size() + batch_ - 1) / batch_);
  std::vector<std::vector<Tensor>> outputs(batches);
  std::vector<int64_t> hits(batches, 0);
  std::vector<char> classified(batches, 0);
  run_batches(float_session_, *data_, {batch_, threads_, progress_, "float"}, {},
              [&](RunBatch& run) {
                const auto i = static_cast<size_t>(run.index);
                classified[i] = is_class_scores(run.outputs) ? 1 : 0;
                if (classified[i] != 0 && !run.labels.empty()) {
                  hits[i] = count_hits(run.outputs[0], run.labels, 1, run.first);
                }
                if (bytes_of(run.outputs) * batches <= kKeptBytes) {
                  outputs[i] = std::move(run.outputs);
                }
              });
  const bool kept =
      std::all_of(outputs.begin(), outputs.end(), [](const auto& list) { return !list.empty(); });
  if (kept) outputs_ = std::move(outputs);
  const bool scores =
      std::all_of(classified.begin(), classified.end(), [](char c) { return c != 0; });
  baseline_.labelled = data_->labelled() && scores;
  if (baseline_.labelled) {
    int64_t all = 0;
    for (const int64_t h : hits) all += h;
    baseline_.metric = Metric::top1;
    baseline_.float_value = percent(all, baseline_.samples);
  } else {
    baseline_.metric = scores ? Metric::agreement : Metric::cosine;
    baseline_.float_value = scores ? 100 : 1;
  }
  baseline_.quantized_value = baseline_.float_value;
}

Verification Verifier::measure(const Session& quantized, std::vector<std::string>* hashes) const {
  const auto batches = static_cast<size_t>((data_->size() + batch_ - 1) / batch_);
  std::vector<Partial> partials(batches);
  std::vector<std::string> found(batches);
  const bool scores = baseline_.metric != Metric::cosine;
  run_batches(quantized, *data_, {batch_, threads_, progress_, "evaluate"}, {}, [&](RunBatch& run) {
    const auto i = static_cast<size_t>(run.index);
    Partial& partial = partials[i];
    found[i] = hash_tensors(run.outputs);
    const std::vector<Tensor> reference =
        outputs_.empty() ? run_again(float_session_, run) : outputs_[i];
    for (size_t k = 0; k < reference.size() && k < run.outputs.size(); ++k) {
      if (reference[k].elements() != run.outputs[k].elements()) {
        throw Error(ErrorCode::internal,
                    fmt::format("output {} is {} in float and {} quantized", k,
                                reference[k].describe(), run.outputs[k].describe()));
      }
      partial.error.add(reference[k].to_floats(), run.outputs[k].to_floats());
    }
    if (!scores) return;
    partial.same_class = count_same(reference[0], run.outputs[0], run.first);
    if (baseline_.labelled) {
      partial.quantized_hits = count_hits(run.outputs[0], run.labels, 1, run.first);
    }
  });
  Partial all;
  for (const Partial& partial : partials) {
    all.error.merge(partial.error);
    all.quantized_hits += partial.quantized_hits;
    all.same_class += partial.same_class;
  }
  Verification v = baseline_;
  v.cosine = all.error.cosine();
  v.sqnr_db = all.error.sqnr_db();
  v.max_abs = all.error.max_abs();
  if (scores) v.agreement = percent(all.same_class, v.samples);
  v.quantized_value = v.metric == Metric::top1        ? percent(all.quantized_hits, v.samples)
                      : v.metric == Metric::agreement ? *v.agreement
                                                      : v.cosine;
  if (hashes != nullptr) *hashes = std::move(found);
  return v;
}

int64_t Verifier::count_different(const Session& other,
                                  const std::vector<std::string>& hashes) const {
  const int64_t batches = (kReadBackSamples + batch_ - 1) / batch_;
  std::vector<int64_t> first(static_cast<size_t>(std::min(batches * batch_, data_->size())));
  std::iota(first.begin(), first.end(), 0);
  std::vector<char> different(hashes.size(), 0);
  run_batches(other, *subset(data_, std::move(first)), {batch_, threads_, progress_, "verify"}, {},
              [&](RunBatch& run) {
                const auto i = static_cast<size_t>(run.index);
                different[i] = hash_tensors(run.outputs) != hashes.at(i) ? 1 : 0;
              });
  return std::count(different.begin(), different.end(), 1);
}

void check_gate(const Recipe& recipe, const Verification& baseline) {
  if (!recipe.max_drop || is_percent(baseline.metric)) return;
  throw Error(ErrorCode::invalid_argument,
              "max_drop counts points of accuracy, and the model's first output is no list of "
              "class scores",
              "give --min-cosine instead");
}

std::string gate_failure(const Recipe& recipe, const Verification& v) {
  // Percentages are no binary fractions: what is allowed exactly must not fail by their rounding.
  constexpr double kRounding = 1e-9;
  if (recipe.max_drop && v.drop() > *recipe.max_drop + kRounding) {
    return fmt::format("{} fell by {:.2f} points ({:.2f} to {:.2f}), {:.2f} are allowed",
                       to_string(v.metric), v.drop(), v.float_value, v.quantized_value,
                       *recipe.max_drop);
  }
  if (recipe.min_cosine && !(v.cosine >= *recipe.min_cosine)) {
    return fmt::format("the outputs' cosine is {:.6f}, at least {:.6f} is wanted", v.cosine,
                       *recipe.min_cosine);
  }
  return {};
}

}  // namespace narrow
