// SPDX-License-Identifier: Apache-2.0
// Random graphs through the whole plan (layouts, views, in-place work, arena) against an
// interpreter that knows none of these.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/runtime/program.h"
#include "runtime/toy_ops.h"

namespace narrow {
namespace {

Tensor random_tensor(const Dims& dims, Rng& rng) {
  Tensor t(DType::float32, dims);
  for (float& v : t.mutable_data<float>()) v = static_cast<float>(rng.below(17)) - 8;
  return t;
}

class Builder {
 public:
  explicit Builder(uint64_t seed) : rng_(seed) {}

  Graph build() {
    const int inputs = 1 + pick(2);
    for (int i = 0; i < inputs; ++i) {
      add(graph_.add_input("in" + std::to_string(i), DType::float32, symbolic(image_dims())));
    }
    const int nodes = 1 + pick(25);
    for (int i = 0; i < nodes; ++i) add_node();
    const int outputs = 1 + pick(3);
    for (int i = 0; i < outputs; ++i) {
      const ValueId id = any();
      if (!graph_.value(id).is_output) graph_.add_output(id);
    }
    return graph_;
  }

  std::vector<Tensor> make_inputs() {
    std::vector<Tensor> inputs;
    for (const ValueId id : graph_.inputs()) {
      inputs.push_back(random_tensor(*concrete(*graph_.value(id).shape), rng_));
    }
    return inputs;
  }

  std::vector<std::string> some_names() {
    std::vector<std::string> names;
    for (const ValueId id : graph_.live_values()) {
      if (pick(4) == 0) names.push_back(graph_.value(id).name);
    }
    return names;
  }

 private:
  int pick(int bound) { return static_cast<int>(rng_.below(static_cast<uint64_t>(bound))); }
  ValueId any() { return values_[static_cast<size_t>(pick(static_cast<int>(values_.size())))]; }
  Dims dims(ValueId id) { return *concrete(*graph_.value(id).shape); }
  Dims image_dims() {
    static const std::vector<Dims> kChoices = {{2, 3, 4, 5},  {2, 1, 4, 5}, {2, 20, 1, 1},
                                               {1, 17, 5, 3}, {2, 3, 20},   {2, 60},
                                               {0, 3, 4, 4}};
    return kChoices[static_cast<size_t>(pick(static_cast<int>(kChoices.size())))];
  }
  void add(ValueId id) { values_.push_back(id); }
  void add_result(const char* op, std::vector<ValueId> inputs, const Dims& out) {
    const std::string name = "v" + std::to_string(values_.size());
    const NodeId node = graph_.add_node(op, std::move(inputs), {name});
    const ValueId id = graph_.node(node).outputs[0];
    graph_.mutable_value(id).dtype = DType::float32;
    graph_.mutable_value(id).shape = symbolic(out);
    add(id);
  }
  ValueId constant(const Dims& wanted) {
    return graph_.add_initializer(graph_.unique_name("c"), random_tensor(wanted, rng_));
  }

  void add_node() {
    const ValueId x = any();
    const Dims d = dims(x);
    switch (pick(8)) {
      case 0:
        return add_result("Relu", {x}, d);
      case 1:
        if (d.size() >= 3) return add_result("Softplus", {x}, d);
        return add_result("Identity", {x}, d);
      case 2:
        return add_result("Identity", {x}, d);
      case 3:
        return add_result("Flatten", {x}, {d[0], num_elements(d, 1, d.size())});
      case 4:
        return add_reshape(x, d);
      case 5:
        return add_binary(x, d);
      case 6:
        return add_result("Mul", {x, constant({})}, d);
      default: {
        Dims broadcast(d.size(), 1);
        broadcast[1] = d[1];
        if (pick(2) == 0) broadcast.erase(broadcast.begin());
        return add_result("Add", {x, constant(broadcast)}, d);
      }
    }
  }

  void add_reshape(ValueId x, const Dims& d) {
    Dims target = d;
    std::reverse(target.begin() + 1, target.end());
    Tensor shape(DType::int64, {static_cast<int64_t>(target.size())});
    std::copy(target.begin(), target.end(), shape.mutable_data<int64_t>().begin());
    if (d[0] == 0) return add_result("Identity", {x}, d);  // 0 would mean "as in the input"
    add_result("Reshape", {x, graph_.add_initializer(graph_.unique_name("s"), shape)}, target);
  }

  void add_binary(ValueId x, const Dims& d) {
    std::vector<ValueId> same;
    for (const ValueId id : values_) {
      if (dims(id) == d) same.push_back(id);
    }
    const ValueId other = same[static_cast<size_t>(pick(static_cast<int>(same.size())))];
    if (pick(4) == 0) {
      Dims out = d;
      out[0] *= 2;
      return add_result("Concat", {x, other}, out);
    }
    add_result(pick(2) == 0 ? "Add" : "Mul", {x, other}, d);
  }

  Rng rng_;
  Graph graph_;
  std::vector<ValueId> values_;
};

/// Every value of the graph, by name, one element after the other.
std::map<std::string, Tensor> interpret(const Graph& graph, const std::vector<Tensor>& inputs) {
  std::map<ValueId, Tensor> values;
  for (size_t i = 0; i < inputs.size(); ++i) values[graph.inputs()[i]] = inputs[i];
  for (const ValueId id : graph.live_values()) {
    if (graph.value(id).is_constant()) values[id] = graph.value(id).constant;
  }
  for (const NodeId node_id : graph.nodes()) {
    const Node& node = graph.node(node_id);
    const Tensor& x = values.at(node.inputs[0]);
    Tensor y(DType::float32, *concrete(*graph.value(node.outputs[0]).shape));
    auto out = y.mutable_data<float>();
    if (node.op == "Concat") {
      const Tensor& other = values.at(node.inputs[1]);
      std::copy(x.data<float>().begin(), x.data<float>().end(), out.begin());
      std::copy(other.data<float>().begin(), other.data<float>().end(), out.begin() + x.elements());
    }
    for (size_t i = 0; i < out.size() && node.op != "Concat"; ++i) {
      const float v = x.data<float>()[i];
      if (node.op == "Relu") {
        out[i] = std::max(v, 0.0f);
      } else if (node.op == "Softplus") {
        const int64_t pixels = num_elements(x.dims(), 2, x.rank());
        out[i] = 2 * v + static_cast<float>(static_cast<int64_t>(i) / pixels % x.dims()[1]);
      } else if (node.op == "Add" || node.op == "Mul") {
        const Tensor& other = values.at(node.inputs[1]);
        size_t j = i;
        if (other.elements() == 1) j = 0;
        if (other.dims() != x.dims() && other.elements() > 1) {
          j = i / static_cast<size_t>(num_elements(x.dims(), 2, x.rank())) %
              static_cast<size_t>(x.dims()[1]);
        }
        const float w = other.elements() == 0 ? 0 : other.data<float>()[j];
        out[i] = node.op == "Add" ? v + w : v * w;
      } else {
        out[i] = v;
      }
    }
    values[node.outputs[0]] = y;
  }
  std::map<std::string, Tensor> named;
  for (const auto& [id, tensor] : values) named[graph.value(id).name] = tensor;
  return named;
}

void expect_results(const Graph& graph, const std::map<std::string, Tensor>& expected,
                    const std::vector<Tensor>& results) {
  ASSERT_EQ(results.size(), graph.outputs().size());
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string& name = graph.value(graph.outputs()[i]).name;
    EXPECT_TRUE(identical(results[i], expected.at(name))) << name;
  }
}

class RandomGraph : public testing::TestWithParam<bool> {};

TEST_P(RandomGraph, EqualsTheInterpreter) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Builder builder(seed);
    const Graph graph = builder.build();
    PlanOptions options = toy::options();
    options.reuse_memory = GetParam();
    options.observed = builder.some_names();
    const Program program(graph, options);
    const std::vector<Tensor> inputs = builder.make_inputs();
    const auto expected = interpret(graph, inputs);
    std::vector<Dims> dims;
    for (const Tensor& input : inputs) dims.push_back(input.dims());

    Workspace workspace(program.plan(), program.shape_plan(dims));
    workspace.poison();
    std::map<std::string, Tensor> seen;
    RunOptions run;
    run.observe = [&](const std::string& name, const Tensor& value) {
      EXPECT_TRUE(seen.emplace(name, value).second) << name << " handed over twice";
    };
    expect_results(graph, expected, workspace.run(inputs, run, {}));
    EXPECT_EQ(seen.size(), options.observed.size());
    for (const auto& [name, value] : seen) {
      EXPECT_TRUE(identical(value, expected.at(name))) << "observed " << name;
    }
    // Again, over what the first run left behind.
    expect_results(graph, expected, workspace.run(inputs, {}, {}));
  }
}

INSTANTIATE_TEST_SUITE_P(Memory, RandomGraph, testing::Values(true, false),
                         [](const auto& p) { return p.param ? "reused" : "separate"; });

TEST(RandomGraphs, ReuseSavesMemory) {
  size_t arena = 0;
  size_t sum = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Builder builder(seed);
    const Program program(builder.build(), toy::options());
    std::vector<Dims> dims;
    for (const Tensor& input : builder.make_inputs()) dims.push_back(input.dims());
    program.shape_plan(dims);
    arena += program.memory().arena_bytes;
    sum += program.memory().activation_bytes;
  }
  EXPECT_LT(arena, sum);
}

TEST(RandomGraphs, ConcurrentRunsAgree) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    Builder builder(seed);
    const Graph graph = builder.build();
    const Program program(graph, toy::options());
    std::vector<std::vector<Tensor>> inputs;
    for (int t = 0; t < 4; ++t) inputs.push_back(builder.make_inputs());
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        const auto expected = interpret(graph, inputs[t]);
        for (int i = 0; i < 20; ++i) expect_results(graph, expected, program.run(inputs[t], {}));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace narrow
