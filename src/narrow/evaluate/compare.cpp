// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "narrow/core/error.h"
#include "narrow/evaluate/evaluate.h"
#include "narrow/evaluate/runner.h"
#include "narrow/graph/qdq.h"
#include "narrow/quant/error_measures.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

/// One value that both graphs have, and the names it is observed by.
struct Pair {
  std::string value;
  std::string in_a;
  std::string in_b;
  std::string node;
  std::string op;
};

bool is_float_activation(const Value& value) {
  return value.alive && !value.is_constant() && value.dtype == DType::float32;
}

std::vector<Pair> matching_values(const Graph& a, const Graph& b, const CompareOptions& options) {
  std::vector<Pair> pairs;
  const auto consider = [&](ValueId id, const Node* producer) {
    const Value& value = a.value(id);
    if (!is_float_activation(value) || !b.find_value(value.name)) return;
    if (producer != nullptr && producer->is("DequantizeLinear") && !value.is_output) return;
    const auto quantized_a = dequantized_name(a, value.name);
    const auto quantized_b = dequantized_name(b, value.name);
    const bool wanted =
        options.layers == CompareOptions::Layers::all ||
        (options.layers == CompareOptions::Layers::quantized && (quantized_a || quantized_b)) ||
        std::count(options.also.begin(), options.also.end(), value.name) > 0;
    if (!wanted) return;
    if (!quantized_b && !is_float_activation(b.value(*b.find_value(value.name)))) return;
    pairs.push_back({value.name, quantized_a.value_or(value.name), quantized_b.value_or(value.name),
                     producer != nullptr ? producer->name : "",
                     producer != nullptr ? producer->op : ""});
  };
  for (const ValueId id : a.inputs()) consider(id, nullptr);
  for (const NodeId node : a.nodes()) {
    for (const ValueId id : a.node(node).outputs) {
      if (id != kNoId) consider(id, &a.node(node));
    }
  }
  return pairs;
}

Session observed_session(const Graph& graph, const std::vector<Pair>& pairs,
                         std::string Pair::*name) {
  SessionOptions options;
  for (const Pair& pair : pairs) options.observed.push_back(pair.*name);
  return Session(graph, options);
}

struct Partial {
  std::vector<ErrorMeasures> layers;
  std::vector<ErrorMeasures> outputs;
  int64_t same_class = 0;
  int64_t samples = 0;
  bool classified = false;
  bool identical = true;
};

/// Bit for bit, shapes included.
void add_outputs(const std::vector<Tensor>& a, const std::vector<Tensor>& b, int64_t first,
                 Partial& partial) {
  partial.outputs.resize(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].elements() != b[i].elements()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("output {} is {} in one model and {} in the other", i,
                              a[i].describe(), b[i].describe()));
    }
    partial.outputs[i].add(a[i].to_floats(), b[i].to_floats());
    partial.identical = partial.identical && identical(a[i], b[i]);
  }
  if (!a.empty() && is_classification(a[0].dims()) && is_classification(b[0].dims())) {
    const auto best_a = argmax_per_sample(a[0], first);
    const auto best_b = argmax_per_sample(b[0], first);
    for (size_t i = 0; i < best_a.size() && i < best_b.size(); ++i) {
      partial.same_class += best_a[i] == best_b[i] ? 1 : 0;
    }
    partial.classified = true;
  }
}

void add_layer(const Pair& pair, const Tensor& a, const Tensor& b, const RunBatch& run,
               ErrorMeasures& measures) {
  if (a.elements() != b.elements()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("value '{}' is {} in one model and {} in the other", pair.value,
                            a.describe(), b.describe()));
  }
  measures.add(cut_batch(a, run.batch, run.samples).to_floats(),
               cut_batch(b, run.batch, run.samples).to_floats());
}

ValueDifference difference(const ErrorMeasures& m) {
  ValueDifference d;
  d.elements = m.count();
  d.sqnr_db = m.sqnr_db();
  d.cosine = m.cosine();
  d.mse = m.mse();
  d.max_abs = m.max_abs();
  return d;
}

Comparison summarise(const std::vector<Partial>& partials, const std::vector<Pair>& pairs,
                     const Graph& a) {
  Partial all;
  all.layers.resize(pairs.size());
  all.outputs.resize(a.outputs().size());
  for (const Partial& partial : partials) {
    for (size_t i = 0; i < pairs.size(); ++i) all.layers[i].merge(partial.layers[i]);
    for (size_t i = 0; i < all.outputs.size(); ++i) all.outputs[i].merge(partial.outputs[i]);
    all.same_class += partial.same_class;
    all.samples += partial.samples;
    all.classified = all.classified || partial.classified;
    all.identical = all.identical && partial.identical;
  }
  Comparison c;
  c.samples = all.samples;
  c.identical = all.identical;
  if (all.classified) {
    c.agreement = 100.0 * static_cast<double>(all.same_class) / static_cast<double>(all.samples);
  }
  ErrorMeasures together;
  for (size_t i = 0; i < all.outputs.size(); ++i) {
    const ValueId id = a.outputs()[i];
    ValueDifference d = difference(all.outputs[i]);
    d.value = a.value(id).name;
    if (const Node* producer = a.producer(id)) {
      d.node = producer->name;
      d.op = producer->op;
    }
    c.outputs.push_back(std::move(d));
    together.merge(all.outputs[i]);
  }
  c.cosine = together.cosine();
  c.sqnr_db = together.sqnr_db();
  c.max_abs = together.max_abs();
  for (size_t i = 0; i < pairs.size(); ++i) {
    ValueDifference d = difference(all.layers[i]);
    d.value = pairs[i].value;
    d.node = pairs[i].node;
    d.op = pairs[i].op;
    c.layers.push_back(std::move(d));
  }
  return c;
}

void require_same_interface(const Session& a, const Session& b) {
  auto inputs_a = a.input_names();
  auto inputs_b = b.input_names();
  std::sort(inputs_a.begin(), inputs_a.end());
  std::sort(inputs_b.begin(), inputs_b.end());
  if (inputs_a != inputs_b) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the models' inputs differ: '{}' and '{}'", fmt::join(inputs_a, "', '"),
                            fmt::join(inputs_b, "', '")));
  }
  if (a.output_names().size() != b.output_names().size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the models have {} and {} outputs", a.output_names().size(),
                            b.output_names().size()));
  }
}

}  // namespace

std::optional<std::string> dequantized_name(const Graph& graph, const std::string& value) {
  const auto id = graph.find_value(value);
  if (!id) return std::nullopt;
  if (dequantized_from(graph, *id)) return value;
  // A grid that QuantizeLinear's types cannot express has a Clip in front.
  for (const Use& use : graph.value(*id).uses) {
    const Node* node = &graph.node(use.node);
    if (node->is("Clip")) {
      const NodeId next = graph.single_user(node->outputs[0]);
      if (next == kNoId) continue;
      node = &graph.node(next);
    }
    if (!node->is("QuantizeLinear")) continue;
    for (const Use& code_use : graph.value(node->outputs[0]).uses) {
      const Node& dequantize = graph.node(code_use.node);
      if (dequantize.is("DequantizeLinear") && code_use.index == 0) {
        return graph.value(dequantize.outputs[0]).name;
      }
    }
  }
  return std::nullopt;
}

Comparison compare(const Graph& a, const Graph& b, const Dataset& data,
                   const CompareOptions& options) {
  const std::vector<Pair> pairs = matching_values(a, b, options);
  const Session session_a = observed_session(a, pairs, &Pair::in_a);
  const Session session_b = observed_session(b, pairs, &Pair::in_b);
  require_same_interface(session_a, session_b);
  // Several values of A may be one in B, when B reads a shared grid.
  std::multimap<std::string, size_t> index_a;
  std::multimap<std::string, size_t> index_b;
  for (size_t i = 0; i < pairs.size(); ++i) {
    index_a.emplace(pairs[i].in_a, i);
    index_b.emplace(pairs[i].in_b, i);
  }

  RunnerOptions runner{options.batch, options.threads, options.progress, "compare"};
  if (runner.batch <= 0 && data.size() > 0) {
    runner.batch = choose_batch(session_a, data, Activations::kept);
  }
  const int64_t batches =
      runner.batch > 0 ? (data.size() + runner.batch - 1) / runner.batch : int64_t{0};
  std::vector<Partial> partials(static_cast<size_t>(batches));
  std::vector<std::vector<Tensor>> kept(static_cast<size_t>(batches));
  run_batches(
      session_a, data, runner,
      [&](int64_t index) {
        auto& values = kept[static_cast<size_t>(index)];
        values.resize(pairs.size());
        RunOptions run;
        run.observe = [&](const std::string& name, const Tensor& value) {
          const auto [first, last] = index_a.equal_range(name);
          for (auto it = first; it != last; ++it) values[it->second] = value.clone();
        };
        return run;
      },
      [&](RunBatch& run) {
        Partial& partial = partials[static_cast<size_t>(run.index)];
        auto& values = kept[static_cast<size_t>(run.index)];
        partial.layers.resize(pairs.size());
        partial.samples = run.samples;
        RunOptions observe;
        observe.observe = [&](const std::string& name, const Tensor& value) {
          const auto [first, last] = index_b.equal_range(name);
          for (auto it = first; it != last; ++it) {
            const size_t i = it->second;
            if (values[i].defined()) {
              add_layer(pairs[i], values[i], value, run, partial.layers[i]);
              values[i] = Tensor();
            }
          }
        };
        std::vector<Tensor> inputs;
        for (const std::string& name : session_b.input_names()) {
          inputs.push_back(run.inputs.at(name));
        }
        std::vector<Tensor> outputs = session_b.run(inputs, observe);
        for (Tensor& y : outputs) y = cut_batch(y, run.batch, run.samples);
        add_outputs(run.outputs, outputs, run.first, partial);
        values.clear();
      });
  return summarise(partials, pairs, a);
}

}  // namespace narrow
