// SPDX-License-Identifier: Apache-2.0
// Every operator with a training rule: the same results as in the runtime, and gradients as numeric
// differences of the loss have them.
#include <cmath>
#include <set>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/session.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

using Ints = std::vector<int64_t>;

/// Numbers of both signs, none near 0 and none near another: no difference crosses a kink.
Tensor apart(const Dims& dims, uint64_t seed, float shift = 0) {
  Tensor x(DType::float32, dims);
  std::vector<int64_t> order(static_cast<size_t>(x.elements()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  Rng rng(seed);
  rng.shuffle<int64_t>(order);
  const float half = static_cast<float>(order.size()) / 2;
  const float step = order.size() < 24 ? 0.17F : 4.0F / static_cast<float>(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    x.mutable_data<float>()[i] = (static_cast<float>(order[i]) - half + 0.45F) * step + shift;
  }
  return x;
}
/// From 0.4 on.
Tensor positive(const Dims& dims, uint64_t seed) {
  Tensor x = apart(dims, seed);
  for (float& v : x.mutable_data<float>()) v = 0.4F + std::fabs(v);
  return x;
}
Tensor ints(const Ints& values) {
  return Tensor::vector(values);
}

struct Case {
  const char* op;
  std::vector<Tensor> inputs;  // the first is trained, others too where they are float32
  Attributes attributes = {};
  size_t outputs = 1;
  size_t judged = 0;  // the output that gradients are measured at
  bool differentiable = true;
  std::vector<size_t> still = {};  // inputs without a gradient
};

std::vector<Case> elementwise() {
  const Tensor x = apart({2, 5}, 1);
  const Tensor other = apart({5}, 2, 0.031F);
  std::vector<Case> cases = {
      {"Add", {x, other}},
      {"Sub", {x, other}},
      {"Mul", {x, other}},
      {"Div", {x, positive({5}, 3)}},
      {"Pow", {positive({2, 5}, 4), Tensor::scalar(1.7F)}, {}, 1, 0, true, {1}},
      {"Sum", {x, other, apart({2, 1}, 5)}},
      {"Max", {x, other}},
      {"Min", {x, other}},
      {"Log", {positive({2, 5}, 6)}},
      {"Sqrt", {positive({2, 5}, 7)}},
      {"Reciprocal", {positive({2, 5}, 8)}},
      {"Swish", {x}, {{"alpha", 1.3F}}},
      {"Gelu", {x}},
      {"Gelu", {x}, {{"approximate", std::string("tanh")}}},
      {"LeakyRelu", {x}, {{"alpha", 0.2F}}},
      {"PRelu", {x, Tensor::vector(std::vector<float>{0.1F, 0.2F, 0.3F, 0.4F, 0.5F})}},
      {"Elu", {x}, {{"alpha", 0.7F}}},
      {"HardSigmoid", {x}, {{"alpha", 0.3F}, {"beta", 0.4F}}},
      {"Clip", {x, Tensor::scalar(-0.3F), Tensor::scalar(0.4F)}, {}, 1, 0, true, {1, 2}},
      {"Softmax", {x}, {{"axis", int64_t{1}}}},
      {"LogSoftmax", {x}, {{"axis", int64_t{0}}}},
  };
  for (const char* op : {"Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Erf", "Softplus",
                         "HardSwish", "Identity"}) {
    cases.push_back({op, {x}});
  }
  for (const char* op : {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}) {
    cases.push_back({op, {apart({2, 3, 4}, 9), ints({1})}, {{"keepdims", int64_t{0}}}});
  }
  return cases;
}

std::vector<Case> layers() {
  const Tensor image = apart({1, 2, 5, 5}, 11);
  return {
      {"Conv",
       {image, apart({4, 1, 3, 3}, 12), apart({4}, 13)},
       {{"group", int64_t{2}}, {"pads", Ints{1, 0, 1, 1}}, {"strides", Ints{2, 1}}}},
      {"Gemm",
       {apart({3, 2}, 14), apart({4, 3}, 15), apart({4}, 16)},
       {{"transA", int64_t{1}}, {"transB", int64_t{1}}, {"alpha", 0.5F}}},
      {"MatMul", {apart({2, 2, 3}, 17), apart({3, 4}, 18)}},
      {"BatchNormalization",
       {apart({1, 2, 5, 5}, 19), positive({2}, 20), apart({2}, 21), apart({2}, 22),
        positive({2}, 23)},
       {},
       1,
       0,
       true,
       {3, 4}},
      {"LayerNormalization", {apart({2, 6}, 24), positive({6}, 25), apart({6}, 26)}},
      {"RMSNormalization", {apart({2, 6}, 27), positive({6}, 28)}},
      {"MaxPool", {image}, {{"kernel_shape", Ints{2, 2}}, {"pads", Ints{0, 0, 1, 1}}}},
      {"MaxPool",
       {apart({2, 2, 6, 40}, 41)},
       {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}},
      {"MaxPool",
       {apart({1, 2, 7, 9}, 42)},
       {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}},
      {"MaxPool",
       {apart({1, 2, 8, 9}, 43)},
       {{"kernel_shape", Ints{2, 3}},
        {"strides", Ints{3, 3}},
        {"dilations", Ints{2, 2}},
        {"pads", Ints{0, 2, 1, 0}},
        {"ceil_mode", int64_t{1}}}},
      {"MaxPool", {apart({1, 1, 17, 18}, 44)}, {{"kernel_shape", Ints{16, 16}}}},
      {"MaxPool", {apart({1, 2, 9}, 45)}, {{"kernel_shape", Ints{3}}, {"pads", Ints{1, 1}}}},
      {"MaxPool", {apart({1, 1, 3, 4, 4}, 46)}, {{"kernel_shape", Ints{2, 2, 2}}}},
      {"AveragePool",
       {image},
       {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 2}}}},
      {"GlobalAveragePool", {image}},
      {"GlobalMaxPool", {image}},
      {"Dropout", {apart({2, 6}, 29)}},
      {"Attention",
       {apart({1, 3, 8}, 30), apart({1, 3, 4}, 31), apart({1, 3, 4}, 32)},
       {{"q_num_heads", int64_t{2}}, {"kv_num_heads", int64_t{1}}, {"is_causal", int64_t{1}}}},
      {"RotaryEmbedding",
       {apart({1, 2, 3, 4}, 33), apart({1, 3, 2}, 34), apart({1, 3, 2}, 35)},
       {},
       1,
       0,
       true,
       {1, 2}},
  };
}

std::vector<Case> movements() {
  const Tensor x = apart({2, 3, 4}, 41);
  const Tensor image = apart({1, 4, 3, 2}, 42);
  return {
      {"Reshape", {x, ints({4, -1})}},
      {"Flatten", {x}, {{"axis", int64_t{2}}}},
      {"Transpose", {x}, {{"perm", Ints{2, 0, 1}}}},
      {"Concat", {x, apart({2, 1, 4}, 43)}, {{"axis", int64_t{1}}}},
      {"Split", {x, ints({1, 3})}, {{"axis", int64_t{2}}}, 2, 1},
      {"Squeeze", {apart({2, 1, 3}, 44), ints({1})}},
      {"Unsqueeze", {x, ints({0, 2})}},
      {"Slice", {x, ints({1}), ints({4}), ints({2}), ints({2})}},
      {"Gather", {x, ints({2, 0, 2})}, {{"axis", int64_t{1}}}},
      {"Shape", {x}, {}, 1, 0, false},
      {"Expand", {apart({3, 1}, 45), ints({2, 3, 4})}},
      {"Cast", {x}, {{"to", int64_t{1}}}},
      {"Pad", {x, ints({0, 1, 0, 0, 0, 2})}},
      {"Resize",
       {image, Tensor(), Tensor::vector(std::vector<float>{1, 1, 2, 2})},
       {{"mode", std::string("nearest")},
        {"coordinate_transformation_mode", std::string("asymmetric")},
        {"nearest_mode", std::string("floor")}},
       1,
       0,
       true,
       {2}},
      {"DepthToSpace", {image}, {{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}}},
  };
}

/// The operator behind `p + in`, p being a parameter and in 0.
TrainPlan plan_of(const Case& c) {
  TrainPlan plan;
  Graph& g = plan.graph;
  const ValueId in = g.add_input("in", DType::float32, SymbolicShape{1});
  std::vector<ValueId> inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Tensor& x = c.inputs[i];
    if (!x.defined()) {
      inputs.push_back(kNoId);
      continue;
    }
    const std::string name = "p" + std::to_string(i);
    ValueId value = g.add_initializer(name, x);
    const bool still = std::find(c.still.begin(), c.still.end(), i) != c.still.end();
    if (x.dtype() == DType::float32 && !still) plan.parameters.push_back(name);
    if (i == 0) value = g.node(g.add_node("Add", {value, in}, {"x"})).outputs[0];
    inputs.push_back(value);
  }
  std::vector<std::string> names;
  for (size_t i = 0; i < c.outputs; ++i) names.push_back("y" + std::to_string(i));
  const NodeId node = g.add_node(c.op, inputs, names, c.attributes);
  for (const ValueId id : g.node(node).outputs) g.add_output(id);
  infer_shapes(g);
  plan.output = names[c.judged];
  return plan;
}

class Nothing final : public Dataset {
 public:
  int64_t size() const override { return 1; }
  bool labelled() const override { return false; }
  Batch get(std::span<const int64_t>) const override {
    Batch batch;
    batch.inputs["in"] = Tensor(DType::float32, {1});
    return batch;
  }
  std::string fingerprint() const override { return "nothing"; }
};

std::vector<Case> all_cases() {
  std::vector<Case> cases = elementwise();
  for (const auto& more : {layers(), movements()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  return cases;
}

TEST_F(PluginTest, EveryOperatorComputesWhatTheRuntimeComputes) {
  // Range and ConstantOfShape have no input that is float.
  std::set<std::string> tried = {"Range", "ConstantOfShape"};
  for (const Case& c : all_cases()) {
    tried.insert(c.op);
    const TrainPlan plan = plan_of(c);
    const Tensor zero(DType::float32, {1});
    const std::vector<Tensor> wanted = Session(plan.graph).run({zero});
    const std::vector<Tensor> got = plugin()->run(plan, {{"in", zero}});
    ASSERT_EQ(wanted.size(), got.size()) << c.op;
    for (size_t k = 0; k < got.size(); ++k) {
      ASSERT_EQ(wanted[k].dims(), got[k].dims()) << c.op;
      const std::vector<float> a = wanted[k].to_floats();
      const std::vector<float> b = got[k].to_floats();
      for (size_t i = 0; i < a.size(); ++i) {
        EXPECT_NEAR(b[i], a[i], 1e-5F * (1 + std::fabs(a[i]))) << c.op << " " << i;
      }
    }
  }
  std::set<std::string> all;
  for (const std::string& op : plugin()->operators()) all.insert(op);
  EXPECT_EQ(tried, all);
}

TEST_F(PluginTest, OperatorsOnShapesComputeWhatTheRuntimeComputes) {
  TrainPlan plan;
  Graph& g = plan.graph;
  const ValueId n = g.add_input("n", DType::int64, SymbolicShape{});
  const ValueId zero = g.add_initializer("zero", Tensor::scalar<int64_t>(0));
  const ValueId two = g.add_initializer("two", Tensor::scalar<int64_t>(2));
  g.add_output(g.node(g.add_node("Range", {zero, n, two}, {"r"})).outputs[0]);
  const ValueId dims = g.add_input("dims", DType::int64, SymbolicShape{2});
  g.add_output(g.node(g.add_node("ConstantOfShape", {dims}, {"c"},
                                 {{"value", Tensor::vector(std::vector<float>{2.5F})}}))
                   .outputs[0]);
  infer_shapes(g);
  const std::map<std::string, Tensor> in = {{"n", Tensor::scalar<int64_t>(7)},
                                            {"dims", ints({2, 3})}};
  const std::vector<Tensor> got = plugin()->run(plan, in);
  EXPECT_EQ(got[0].to_ints(), (Ints{0, 2, 4, 6}));
  EXPECT_EQ(got[1].dims(), (Dims{2, 3}));
  EXPECT_EQ(got[1].to_floats(), std::vector<float>(6, 2.5F));
  const std::vector<Tensor> wanted = Session(g).run({in.at("n"), in.at("dims")});
  EXPECT_TRUE(identical(got[0], wanted[0]));
  EXPECT_TRUE(identical(got[1], wanted[1]));
}

/// One step of sgd without momentum moves a parameter by -lr times its gradient.
TEST_F(PluginTest, EveryOperatorHasTheGradientOfItsResults) {
  const Nothing data;
  for (const Case& c : all_cases()) {
    if (!c.differentiable) continue;
    const TrainPlan plan = plan_of(c);
    const Tensor y = plugin()->run(plan, {{"in", Tensor(DType::float32, {1})}}).at(c.judged);
    const Tensor target = noise(y.dims(), 77);
    TrainHooks hooks;
    hooks.teacher = [&](const std::map<std::string, Tensor>&) {
      return std::vector<Tensor>(c.outputs, target);
    };
    TrainOptions o;
    o.epochs = 1;
    o.batch = 1;
    o.optimizer = OptimizerKind::sgd;
    o.momentum = 0;
    o.loss = LossKind::mse;
    o.threads = 1;
    const auto result = [&](const TrainPlan& p, double lr) {
      o.lr = lr;
      return plugin()->train(p, data, o, hooks, {});
    };
    const TrainResult step = result(plan, 1);
    for (const std::string& name : plan.parameters) {
      const ValueId id = *plan.graph.find_value(name);
      const Tensor before = *plan.graph.constant(id);
      const Tensor& after = step.state.parameters.at(name);
      const auto loss_with = [&](size_t i, float delta) {
        TrainPlan changed = plan;
        Tensor x = before.clone();
        x.mutable_data<float>()[i] += delta;
        changed.graph.set_constant(id, x);
        return result(changed, 0).epochs[0].loss;
      };
      const auto last = static_cast<size_t>(before.elements() - 1);
      for (const size_t i : {size_t{0}, last / 3, last / 2, last}) {
        const double gradient = before.data<float>()[i] - after.data<float>()[i];
        const double numeric = (loss_with(i, 1e-2F) - loss_with(i, -1e-2F)) / 2e-2;
        EXPECT_NEAR(gradient, numeric, 1e-3 + 0.01 * std::fabs(numeric))
            << c.op << " " << name << " " << i;
      }
    }
  }
}

/// What libtorch says in whatever form names the node.
TEST_F(PluginTest, ShapesThatDoNotFitNameTheNode) {
  TrainPlan plan;
  Graph& g = plan.graph;
  const ValueId in = g.add_input("in", DType::float32, SymbolicShape{Dim::symbol("n"), 4});
  const ValueId dims = g.add_initializer("dims", ints({2, 4}));
  g.add_output(g.node(g.add_node("Reshape", {in, dims}, {"y"}, {}, "", "fold")).outputs[0]);
  infer_shapes(g);
  EXPECT_NO_THROW(plugin()->run(plan, {{"in", noise({2, 4}, 1)}}));
  try {
    plugin()->run(plan, {{"in", noise({3, 4}, 1)}});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("fold"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace narrow::train
