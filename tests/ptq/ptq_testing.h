// SPDX-License-Identifier: Apache-2.0
// Small float networks by name, and what quantizing one takes: data, ranges, a run.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/graph/op_table.h"
#include "narrow/ptq/plan.h"
#include "narrow/quant/error_measures.h"
#include "narrow/runtime/session.h"

namespace narrow::testing {

inline Tensor random_tensor(const Dims& dims, uint64_t seed, float scale = 1, float shift = 0) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(num_elements(dims)));
  for (float& v : values) v = static_cast<float>(rng.normal()) * scale + shift;
  return Tensor::from(values, dims);
}

struct ConvForm {
  int64_t kernel = 3;
  int64_t groups = 1;
  bool bias = true;
  int64_t pad = 0;
};

/// A node has the name it is given, its result that name with "_y", its weights and bias with "_w"
/// and "_b".
class SmallNet {
 public:
  Graph g;

  ValueId input(const Dims& dims, const std::string& name = "x") {
    SymbolicShape shape = symbolic(dims);
    shape[0] = Dim::symbol("N");
    return g.add_input(name, DType::float32, shape);
  }
  ValueId constant(const std::string& name, Tensor value) {
    return g.add_initializer(name, std::move(value));
  }
  ValueId op(const std::string& type, const std::string& name, std::vector<ValueId> inputs,
             Attributes attributes = {}) {
    return g
        .node(g.add_node(type, std::move(inputs), {name + "_y"}, std::move(attributes), "", name))
        .outputs[0];
  }
  ValueId conv(const std::string& name, ValueId x, int64_t in, int64_t out, ConvForm form = {}) {
    const Dims dims{out, in / form.groups, form.kernel, form.kernel};
    std::vector<ValueId> inputs{x, constant(name + "_w", random_tensor(dims, ++seed_, 0.3f))};
    if (form.bias) inputs.push_back(constant(name + "_b", random_tensor({out}, ++seed_, 0.2f)));
    return op("Conv", name, std::move(inputs),
              {{"group", form.groups},
               {"kernel_shape", std::vector<int64_t>{form.kernel, form.kernel}},
               {"pads", std::vector<int64_t>(4, form.pad)}});
  }
  ValueId gemm(const std::string& name, ValueId x, int64_t in, int64_t out, bool bias = true,
               bool transposed = true) {
    const Dims dims = transposed ? Dims{out, in} : Dims{in, out};
    std::vector<ValueId> inputs{x, constant(name + "_w", random_tensor(dims, ++seed_, 0.3f))};
    if (bias) inputs.push_back(constant(name + "_b", random_tensor({out}, ++seed_, 0.2f)));
    return op("Gemm", name, std::move(inputs), {{"transB", int64_t{transposed ? 1 : 0}}});
  }
  void output(ValueId value) { g.add_output(value); }
  Graph& infer() {
    infer_shapes(g);
    return g;
  }

 private:
  uint64_t seed_ = 100;
};

/// x -> conv1 -> Relu -> MaxPool -> conv2 -> Relu -> Flatten -> fc. Input [N, 3, 8, 8], 5 classes.
inline SmallNet classifier() {
  SmallNet n;
  const ValueId x = n.input({1, 3, 8, 8});
  const ValueId a = n.op("Relu", "relu1", {n.conv("conv1", x, 3, 8, {.pad = 1})});
  const ValueId p =
      n.op("MaxPool", "pool", {a},
           {{"kernel_shape", std::vector<int64_t>{2, 2}}, {"strides", std::vector<int64_t>{2, 2}}});
  const ValueId b = n.op("Relu", "relu2", {n.conv("conv2", p, 8, 8)});
  n.output(n.gemm("fc", n.op("Flatten", "flat", {b}), 32, 5));
  n.infer();
  return n;
}

inline QuantizeOptions options_for(const std::string& target, Mode mode = Mode::static_) {
  QuantizeOptions o;
  o.target = target;
  o.mode = mode;
  return o;
}

inline const Tensor& constant_of(const Graph& g, const std::string& name) {
  const auto id = g.find_value(name);
  const Tensor* tensor = id ? g.constant(*id) : nullptr;
  if (tensor == nullptr) throw Error(ErrorCode::internal, "no constant " + name);
  return *tensor;
}

inline std::vector<Tensor> run(const Graph& g, const Tensor& x) {
  return Session(g).run({x});
}

inline double sqnr_db(const Tensor& reference, const Tensor& approximation) {
  return measure_error(reference, approximation).sqnr_db();
}

/// Values of a float graph while it runs.
inline std::map<std::string, Tensor> values_of(const Graph& g, const Tensor& x,
                                               const std::vector<std::string>& names) {
  std::map<std::string, Tensor> values;
  SessionOptions options;
  for (const std::string& name : names) {
    if (g.value(*g.find_value(name)).is_input) {
      values[name] = x;
    } else {
      options.observed.push_back(name);
    }
  }
  RunOptions observe;
  observe.observe = [&](const std::string& name, const Tensor& t) { values[name] = t.clone(); };
  Session(g, options).run({x}, observe);
  return values;
}

inline Statistics observe(const Graph& g, const Assignment& a, const Tensor& x) {
  Statistics statistics;
  for (const auto& [name, value] : values_of(g, x, a.observed())) {
    Statistic& s = statistics.values[name];
    s.observe(value.data<float>());
    s.end_sample();
  }
  return statistics;
}

/// Of [N, C, ...], or of [N, C] with the channels last: the same.
inline ChannelMoments moments_of(const Tensor& value) {
  const int64_t samples = value.dim(0);
  const int64_t channels = value.dim(1);
  const int64_t inner = value.elements() / (samples * channels);
  ChannelMoments m;
  const auto x = value.data<float>();
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0;
    double squares = 0;
    float low = 0;
    float high = 0;
    for (int64_t n = 0; n < samples; ++n) {
      for (int64_t i = 0; i < inner; ++i) {
        const float v = x[static_cast<size_t>((n * channels + c) * inner + i)];
        sum += static_cast<double>(v);
        squares += static_cast<double>(v) * static_cast<double>(v);
        low = std::min(low, v);
        high = std::max(high, v);
      }
    }
    const auto count = static_cast<double>(samples * inner);
    m.mean.push_back(sum / count);
    m.mean_square.push_back(squares / count);
    m.low.push_back(low);
    m.high.push_back(high);
  }
  return m;
}

/// The whole way from a float graph to its quantized form.
inline Graph quantized(Graph g, const QuantizeOptions& options, const Tensor& x,
                       PlanOptions plan = {}) {
  const Graph original = g;
  Assignment a = assign(g, resolve(options));
  plan.bias_form = find_target(options.target).bias;
  const auto ranges = activation_ranges(a, observe(original, a, x), {});
  apply_plan(g, a, make_plan(g, a, ranges, plan));
  infer_shapes(g);
  return g;
}

inline size_t count(const Graph& g, std::string_view op) {
  size_t n = 0;
  for (const NodeId id : g.nodes()) n += g.node(id).op == op ? 1 : 0;
  return n;
}

/// What `act` throws as "message | hint"; "accepted" if nothing.
template <class F>
std::string refusal(F&& act, ErrorCode code = ErrorCode::invalid_argument) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return std::string(e.what()) + " | " + e.hint();
  }
  return "accepted";
}

inline void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

}  // namespace narrow::testing
