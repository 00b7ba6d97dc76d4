// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/weight_totals.h"

#include <algorithm>
#include <cmath>

namespace narrow {

void WeightTotals::add(WeightReport tensor, double nominal_bits, const WeightErrors& e) {
  const int64_t elements = num_elements(tensor.dims);
  if (e.squares > 0) tensor.relative_rmse = std::sqrt(e.errors / e.squares);
  if (e.rounded) {
    squares_ += e.squares;
    errors_ += e.errors;
  }
  WeightTypeTotal& total = types_[tensor.type];
  total.type = tensor.type;
  ++total.tensors;
  total.elements += elements;
  total.bytes += tensor.bytes;
  bytes_ += tensor.bytes;
  bits_ += nominal_bits * static_cast<double>(elements);
  report.elements += elements;
  report.tensors.push_back(std::move(tensor));
}

WeightsReport WeightTotals::finish() {
  for (auto& [name, total] : types_) report.types.push_back(total);
  std::stable_sort(report.types.begin(), report.types.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  const auto elements = static_cast<double>(std::max<int64_t>(report.elements, 1));
  report.nominal_bits = bits_ / elements;
  report.stored_bits = 8.0 * static_cast<double>(bytes_) / elements;
  if (squares_ > 0) report.relative_rmse = std::sqrt(errors_ / squares_);
  return std::move(report);
}

}  // namespace narrow
