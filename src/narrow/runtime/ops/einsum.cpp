// SPDX-License-Identifier: Apache-2.0
// Einsum by its definition: every operand is a strided view of one index space, whose summed axes
// are added up for each result.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

constexpr size_t kMaxOperands = 4;  // products of more are written as several nodes

/// "bij,bjk->bik": the labels of each operand and of the result, ellipses still in them.
struct Equation {
  std::vector<std::string> operands;
  std::string result;
};

[[noreturn]] void fail(const std::string& equation, const std::string& why) {
  throw Error(ErrorCode::invalid_argument, fmt::format("equation \"{}\": {}", equation, why));
}

Equation parse(const std::string& text) {
  std::string compact;
  std::copy_if(text.begin(), text.end(), std::back_inserter(compact),
               [](char c) { return c != ' '; });
  Equation e;
  const size_t arrow = compact.find("->");
  const std::string left = compact.substr(0, arrow);
  for (size_t begin = 0; begin <= left.size();) {
    const size_t end = std::min(left.find(',', begin), left.size());
    e.operands.push_back(left.substr(begin, end - begin));
    begin = end + 1;
  }
  if (arrow != std::string::npos) {
    e.result = compact.substr(arrow + 2);
    return e;
  }
  // Without a result: the ellipsis, then labels that occur once, in alphabetical order.
  std::map<char, int> counts;
  for (const char c : left) {
    if (c != ',' && c != '.') ++counts[c];
  }
  if (left.find("...") != std::string::npos) e.result = "...";
  for (const auto& [label, count] : counts) {
    if (count == 1) e.result += label;
  }
  return e;
}

/// The axes of an operand as labels; an ellipsis becomes labels 1, 2, ... counted from its end, so
/// that shorter ones broadcast.
std::string expand(const std::string& text, const std::string& labels, size_t rank) {
  const size_t dots = labels.find("...");
  if (dots == std::string::npos) {
    if (labels.size() != rank) fail(text, fmt::format("{} labels, rank {}", labels, rank));
    return labels;
  }
  if (labels.size() - 3 > rank) fail(text, fmt::format("{} labels, rank {}", labels, rank));
  std::string out = labels.substr(0, dots);
  for (size_t i = rank - (labels.size() - 3); i > 0; --i) out += static_cast<char>(i);
  return out + labels.substr(dots + 3);
}

class EinsumStep final : public Step {
 public:
  using List = Types<float, double, int32_t, int64_t>;
  EinsumStep(const Graph&, const Node& node)
      : text_(node.string_or("equation", "")), equation_(parse(text_)) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    int64_t space = num_elements(outputs[0]);
    for (const auto& [label, extent] : extents(inputs)) {
      const bool dotted = static_cast<size_t>(label) <= kMaxRank;
      if (!dotted && equation_.result.find(label) == std::string::npos) space *= extent;
    }
    return inputs.size() > 1 ? space : 0;
  }
  void run(RunContext& context) const override {
    std::vector<Dims> dims;
    for (const TensorView& view : context.inputs) dims.push_back(view.dims);
    const std::map<char, int64_t> extent = extents(dims);
    size_t ellipsis = 0;
    for (const auto& [label, n] : extent) {
      if (static_cast<size_t>(label) <= kMaxRank) ellipsis = static_cast<size_t>(label);
    }
    const bool dotted = equation_.result.find("...") != std::string::npos;
    const size_t rank = equation_.result.size() - (dotted ? 3 : 0) + (dotted ? ellipsis : 0);
    const std::string kept = expand(text_, equation_.result, rank);
    std::string summed;
    for (const auto& [label, n] : extent) {
      if (kept.find(label) == std::string::npos) summed += label;
    }
    visit(List{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { contract<T>(context, extent, kept, summed); });
  }

 private:
  std::map<char, int64_t> extents(std::span<const Dims> inputs) const {
    if (inputs.size() != equation_.operands.size() || inputs.size() > kMaxOperands) {
      fail(text_, fmt::format("{} operands", inputs.size()));
    }
    std::map<char, int64_t> extent;
    for (size_t k = 0; k < inputs.size(); ++k) {
      const std::string labels = expand(text_, equation_.operands[k], inputs[k].size());
      for (size_t i = 0; i < labels.size(); ++i) {
        const auto at = extent.emplace(labels[i], inputs[k][i]).first;
        if (at->second == 1) at->second = inputs[k][i];
        if (inputs[k][i] != at->second && inputs[k][i] != 1) {
          fail(text_, fmt::format("extents {} and {} meet", at->second, inputs[k][i]));
        }
      }
    }
    return extent;
  }

  /// Strides of an operand along the given labels; repeated labels (a diagonal) add up.
  Dims strides_along(const std::string& labels, size_t operand, const TensorView& view) const {
    const std::string own = expand(text_, equation_.operands[operand], view.dims.size());
    const Dims strides = row_major_strides(view.dims);
    Dims along(labels.size(), 0);
    for (size_t i = 0; i < own.size(); ++i) {
      const size_t at = labels.find(own[i]);
      if (at != std::string::npos && view.dims[i] != 1) along[at] += strides[i];
    }
    return along;
  }

  template <class T>
  void contract(RunContext& context, const std::map<char, int64_t>& extent, const std::string& kept,
                const std::string& summed) const {
    const size_t operands = context.inputs.size();
    Dims outer;
    Dims inner;
    for (const char label : kept) outer.push_back(extent.at(label));
    for (const char label : summed) inner.push_back(extent.at(label));
    check_rank(outer.size());
    check_rank(inner.size());
    std::array<Dims, kMaxOperands> out_strides;
    std::array<Dims, kMaxOperands> sum_strides;
    for (size_t k = 0; k < operands; ++k) {
      out_strides[k] = strides_along(kept, k, context.inputs[k]);
      sum_strides[k] = strides_along(summed, k, context.inputs[k]);
    }
    const TensorView& y = planned_output(context, 0, outer);
    const int64_t terms = num_elements(inner);
    parallel_for(y.elements(), std::max<int64_t>(1, kBlockElements / std::max<int64_t>(terms, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     std::array<const T*, kMaxOperands> at{};
                     for (size_t k = 0; k < operands; ++k) {
                       at[k] = context.inputs[k].as<T>() + offset_of(i, outer, out_strides[k]);
                     }
                     y.as<T>()[i] = sum_of(at, operands, inner, sum_strides, terms);
                   }
                 });
  }

  static int64_t offset_of(int64_t flat, const Dims& dims, const Dims& strides) {
    int64_t offset = 0;
    for (size_t i = dims.size(); i-- > 0;) {
      offset += flat % dims[i] * strides[i];
      flat /= dims[i];
    }
    return offset;
  }

  template <class T>
  static T sum_of(const std::array<const T*, kMaxOperands>& at, size_t operands, const Dims& dims,
                  const std::array<Dims, kMaxOperands>& strides, int64_t terms) {
    using Sum = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
    Sum sum = 0;
    for (int64_t i = 0; i < terms; ++i) {
      Sum product = 1;
      for (size_t k = 0; k < operands; ++k) {
        product *= static_cast<Sum>(at[k][offset_of(i, dims, strides[k])]);
      }
      sum += product;
    }
    return static_cast<T>(sum);
  }

  std::string text_;
  Equation equation_;
};

Refusal accept_einsum(const Graph& graph, const Node& node, const StepOptions& options) {
  if (node.inputs.size() > kMaxOperands) return fmt::format("{} operands", node.inputs.size());
  return accept<EinsumStep::List>(graph, node, options);
}

const OpImpl kRows[] = {
    {"", "Einsum", "reference:float16", accept_half<>, make_half<EinsumStep>},
    {"", "Einsum", "reference", accept_einsum, make<EinsumStep>},
};

}  // namespace

std::span<const OpImpl> einsum_rows() {
  return kRows;
}

}  // namespace narrow::ops
