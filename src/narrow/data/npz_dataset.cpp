// SPDX-License-Identifier: Apache-2.0
// Samples from the arrays of an .npz file: one array for each input of the model, by its name (or
// `x` for a model with one input), and labels in `y`. The first dimension counts the samples.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/data/image_dataset.h"
#include "narrow/data/npz.h"

namespace narrow {
namespace {

struct Column {
  std::string input;
  Tensor values;
  bool shared = false;  // fed whole with every batch
};

Dims without_ones(std::span<const int64_t> dims) {
  Dims out;
  for (const int64_t d : dims) {
    if (d != 1) out.push_back(d);
  }
  return out;
}

/// Whether dims fit what the model wants, -1 fitting everything.
bool fits(std::span<const int64_t> dims, std::span<const int64_t> wanted) {
  if (dims.size() != wanted.size()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (wanted[i] >= 0 && wanted[i] != dims[i]) return false;
  }
  return true;
}

/// The dimensions of one sample as the model wants them. Dimensions of size 1 may be missing or
/// extra: the order of the elements is the same. Empty optional: it does not fit.
std::optional<Dims> sample_dims(const Tensor& array, const Dims& model) {
  const Dims have(array.dims().begin() + 1, array.dims().end());
  if (model.empty()) return have;
  const Dims want(model.begin() + 1, model.end());
  if (fits(have, want)) return have;
  const bool all_known = std::all_of(want.begin(), want.end(), [](int64_t d) { return d >= 0; });
  if (all_known && without_ones(have) == without_ones(want)) return want;
  return std::nullopt;
}

Tensor convert(const Tensor& array, DType wanted, const std::string& what) {
  if (wanted == DType::undefined || array.dtype() == wanted) return array;
  const auto refuse = [&] {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} is {}; the model takes {}", what, to_string(array.dtype()),
                            to_string(wanted)),
                fmt::format("store it as array.astype('{}')", to_string(wanted)));
  };
  if (is_float(wanted)) {
    if (array.dtype() == DType::boolean) refuse();
    if (wanted == DType::float64) {
      Tensor out(wanted, array.dims());
      const std::vector<float> values = array.to_floats();
      std::copy(values.begin(), values.end(), out.mutable_data<double>().begin());
      return out;
    }
    return Tensor::from_floats(array.to_floats(), wanted, array.dims());
  }
  if (!is_integer(array.dtype()) || !is_integer(wanted)) refuse();
  try {
    return Tensor::from_ints(array.to_ints(), wanted, array.dims());
  } catch (Error& e) {
    e.add_context(what);
    throw;
  }
}

std::vector<int64_t> read_labels(const Tensor& y, const std::string& what) {
  const bool column = y.rank() == 1 || (y.rank() == 2 && y.dim(1) == 1);
  if (!column) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} has the shape {}; labels are one number for each sample", what,
                            to_string(y.dims())),
                "for one-hot labels store y.argmax(1)");
  }
  if (!is_float(y.dtype())) return y.to_ints();
  std::vector<int64_t> labels;
  for (const float v : y.to_floats()) {
    // 2^24: above it a float32 no longer tells neighbouring whole numbers apart.
    if (!(std::abs(v) <= 16777216.0f) || v != std::nearbyint(v)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} holds {}, no class number", what, v));
    }
    labels.push_back(static_cast<int64_t>(v));
  }
  return labels;
}

class NpzDataset final : public Dataset {
 public:
  NpzDataset(const std::string& path, const DataHints& hints) : path_(path) {
    std::map<std::string, Tensor> arrays = read_npz(path);
    std::vector<DataHints::Input> inputs = hints.inputs;
    if (inputs.empty()) inputs.push_back({"x", DType::undefined, {}});
    std::vector<std::pair<DataHints::Input, Tensor>> found;
    for (const auto& input : inputs) {
      found.emplace_back(input, take(arrays, input.name, inputs.size() == 1));
    }
    choose_samples(found);
    for (auto& [input, array] : found) add_column(input, array);
    if (const auto y = arrays.find("y"); y != arrays.end()) set_labels(y->second);
    if (hints.inputs.size() >= 1 && !hints.inputs[0].dims.empty()) {
      fixed_batch_ = std::max<int64_t>(hints.inputs[0].dims[0], 0);
    }
  }

  int64_t size() const override { return samples_; }
  bool labelled() const override { return labelled_; }
  int64_t fixed_batch() const override { return fixed_batch_; }

  Batch get(std::span<const int64_t> indices) const override {
    check_indices(indices, samples_);
    Batch batch;
    if (indices.empty()) return batch;
    for (const Column& column : columns_) {
      Tensor values = column.shared ? column.values : rows(column, indices);
      if (!column.shared) require_finite(values, column.input, indices);
      batch.inputs.emplace(column.input, std::move(values));
    }
    for (const int64_t i : indices) {
      if (labelled_) batch.labels.push_back(labels_[static_cast<size_t>(i)]);
    }
    return batch;
  }

  std::string fingerprint() const override {
    Hash64 hash;
    hash.add_text("npz");
    for (const Column& column : columns_) {
      hash.add_text(column.input);
      hash.add_text(column.values.describe());
      hash.add(column.values.raw(), column.values.bytes());
    }
    for (const int64_t label : labels_) hash.add_number(label);
    return hash.hex();
  }

 private:
  std::string place(const std::string& array) const {
    return fmt::format("{}: array '{}'", path_, array);
  }

  Tensor take(std::map<std::string, Tensor>& arrays, const std::string& name, bool only) const {
    auto it = arrays.find(name);
    if (it == arrays.end() && only) it = arrays.find("x");
    if (it != arrays.end()) return it->second;
    std::vector<std::string> names;
    for (const auto& [key, value] : arrays) names.push_back(key);
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: no array for input '{}'; it has: {}", path_, name, fmt::join(names, ", ")),
        only && name != "x" ? fmt::format("name the array '{}' or 'x'", name)
                            : "name one array after each input of the model");
  }

  /// The first array whose samples fit its input says how many samples there are.
  void choose_samples(const std::vector<std::pair<DataHints::Input, Tensor>>& found) {
    for (const auto& [input, array] : found) {
      if (array.elements() == 0) {
        throw Error(ErrorCode::invalid_argument, place(input.name) + " is empty");
      }
      if (array.rank() == 0 || !sample_dims(array, input.dims)) continue;
      samples_ = array.dim(0);
      return;
    }
    const auto& [input, array] = found[0];
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} has the shape {}, input '{}' takes {}", place(input.name),
                            to_string(array.dims()), input.name, to_string(input.dims)),
                "the first dimension counts the samples; the others must be the model's");
  }

  void add_column(const DataHints::Input& input, const Tensor& array) {
    const Tensor values = convert(array, input.dtype, place(input.name));
    if (array.rank() > 0 && array.dim(0) == samples_) {
      if (const auto dims = sample_dims(array, input.dims)) {
        Dims all = *dims;
        all.insert(all.begin(), samples_);
        columns_.push_back({input.name, values.reshaped(all), false});
        return;
      }
    }
    if (!fits(array.dims(), input.dims)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} has the shape {}, input '{}' takes {}; there are {} samples",
                              place(input.name), to_string(array.dims()), input.name,
                              to_string(input.dims), samples_));
    }
    columns_.push_back({input.name, values, true});
  }

  void set_labels(const Tensor& y) {
    if (y.rank() == 0 || y.dim(0) != samples_) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} has the shape {} for {} samples", place("y"), to_string(y.dims()),
                              samples_));
    }
    labels_ = read_labels(y, place("y"));
    labelled_ = true;
  }

  /// A NaN that goes into a network may come out as any number: the sample is named instead.
  void require_finite(const Tensor& values, const std::string& input,
                      std::span<const int64_t> indices) const {
    if (!is_float(values.dtype())) return;
    const std::vector<float> all = values.to_floats();
    const auto bad =
        std::find_if(all.begin(), all.end(), [](float v) { return !std::isfinite(v); });
    if (bad == all.end()) return;
    const size_t row = all.size() / indices.size();
    const size_t at = static_cast<size_t>(bad - all.begin()) / row;
    throw Error(ErrorCode::numeric_failure,
                fmt::format("{}, sample {} holds {}", place(input), indices[at], *bad),
                "repair it, or leave the sample out");
  }

  static Tensor rows(const Column& column, std::span<const int64_t> indices) {
    Dims dims = column.values.dims();
    dims[0] = static_cast<int64_t>(indices.size());
    Tensor out(column.values.dtype(), dims);
    const size_t row = out.bytes() / indices.size();
    for (size_t i = 0; i < indices.size() && row > 0; ++i) {
      std::memcpy(out.mutable_raw() + i * row,
                  column.values.raw() + static_cast<size_t>(indices[i]) * row, row);
    }
    return out;
  }

  std::string path_;
  std::vector<Column> columns_;
  std::vector<int64_t> labels_;
  bool labelled_ = false;
  int64_t samples_ = 0;
  int64_t fixed_batch_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> open_npz_dataset(const DataSpec& spec, const DataHints& hints) {
  return std::make_unique<NpzDataset>(spec.path, hints);
}

}  // namespace narrow
