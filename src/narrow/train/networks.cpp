// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/networks.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/core/suggest.h"

namespace narrow::train {
namespace {

/// Adds layers behind each other.
class Builder {
 public:
  Builder(uint64_t seed, SymbolicShape input) : rng_(seed) {
    value_ = graph_.add_input("input", DType::float32, std::move(input));
  }

  void conv(const std::string& name, int64_t from, int64_t to, int64_t kernel, int64_t stride,
            bool bias, int64_t groups = 1, bool padded = true) {
    std::vector<ValueId> in = {value_,
                               weights(name + ".weight", {to, from / groups, kernel, kernel})};
    if (bias) in.push_back(filled(name + ".bias", to, 0));
    const int64_t pad = padded ? kernel / 2 : 0;
    using Ints = std::vector<int64_t>;
    Attributes attributes = {{"kernel_shape", Ints{kernel, kernel}},
                             {"strides", Ints{stride, stride}},
                             {"pads", Ints{pad, pad, pad, pad}}};
    if (groups > 1) attributes["group"] = groups;
    add("Conv", std::move(in), name, std::move(attributes));
  }
  /// A convolution without bias, its norm, and Relu, or Clip to 0..6, or nothing.
  enum class Bend { none, relu, relu6 };
  void block(const std::string& name, int64_t from, int64_t to, int64_t kernel, int64_t stride,
             int64_t groups, Bend bend) {
    conv(name, from, to, kernel, stride, false, groups);
    norm(name + ".norm", to);
    if (bend == Bend::relu) relu(name + ".relu");
    if (bend != Bend::relu6) return;
    const ValueId low = graph_.add_initializer(name + ".low", Tensor::scalar(0.0F));
    const ValueId high = graph_.add_initializer(name + ".high", Tensor::scalar(6.0F));
    add("Clip", {value_, low, high}, name + ".relu6");
  }
  /// Of training alone.
  void dropout(const std::string& name, float ratio) {
    Tensor training(DType::boolean, {});
    training.mutable_data<bool>()[0] = true;
    add("Dropout",
        {value_, graph_.add_initializer(name + ".ratio", Tensor::scalar(ratio)),
         graph_.add_initializer(name + ".training", std::move(training))},
        name);
  }
  /// The end of most: the mean of each channel, then scores.
  void classify(int64_t width, int64_t classes) {
    add("GlobalAveragePool", {value_}, "pool");
    add("Flatten", {value_}, "flat", {{"axis", int64_t{1}}});
    dense("fc", width, classes);
  }
  void norm(const std::string& name, int64_t channels) {
    add("BatchNormalization",
        {value_, filled(name + ".weight", channels, 1), filled(name + ".bias", channels, 0),
         filled(name + ".mean", channels, 0), filled(name + ".variance", channels, 1)},
        name);
  }
  void relu(const std::string& name) { add("Relu", {value_}, name); }
  void max_pool(const std::string& name) {
    using Ints = std::vector<int64_t>;
    add("MaxPool", {value_}, name, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  }
  void dense(const std::string& name, int64_t from, int64_t to) {
    add("Gemm", {value_, weights(name + ".weight", {to, from}), filled(name + ".bias", to, 0)},
        name, {{"transB", int64_t{1}}});
  }
  void add(const char* op, std::vector<ValueId> inputs, const std::string& name,
           Attributes attributes = {}) {
    const NodeId node =
        graph_.add_node(op, std::move(inputs), {name}, std::move(attributes), "", name);
    value_ = graph_.node(node).outputs[0];
  }
  ValueId value() const { return value_; }
  void go_on_from(ValueId value) { value_ = value; }
  Graph finish(const char* name) {
    graph_.rename_value(value_, "logits");
    graph_.add_output(value_);
    graph_.name = name;
    return std::move(graph_);
  }

 private:
  ValueId filled(const std::string& name, int64_t count, float value) {
    return graph_.add_initializer(
        name, Tensor::vector(std::vector<float>(static_cast<size_t>(count), value)));
  }
  ValueId weights(const std::string& name, const Dims& dims) {
    Tensor w(DType::float32, dims);
    const auto fan_in = static_cast<double>(num_elements(dims) / dims[0]);
    const double deviation = std::sqrt(2 / fan_in);
    for (float& x : w.mutable_data<float>()) x = static_cast<float>(rng_.normal() * deviation);
    return graph_.add_initializer(name, std::move(w));
  }

  Rng rng_;
  Graph graph_;
  ValueId value_ = kNoId;
};

/// The CNN of PyTorch's MNIST example: 1,199,882 parameters.
Graph make_cnn(uint64_t seed, bool dropout, const char* name) {
  Builder b(seed, {Dim::symbol("batch"), 1, 28, 28});
  b.conv("conv1", 1, 32, 3, 1, true, 1, false);
  b.relu("relu1");
  b.conv("conv2", 32, 64, 3, 1, true, 1, false);
  b.relu("relu2");
  b.max_pool("pool");
  if (dropout) b.dropout("dropout1", 0.25F);
  b.add("Flatten", {b.value()}, "flat", {{"axis", int64_t{1}}});
  b.dense("fc1", 64 * 12 * 12, 128);
  b.relu("relu3");
  if (dropout) b.dropout("dropout2", 0.5F);
  b.dense("fc2", 128, 10);
  return b.finish(name);
}
Graph make_mnist_cnn(uint64_t seed) {
  return make_cnn(seed, false, "mnist_cnn");
}
Graph make_fashion_cnn(uint64_t seed) {
  return make_cnn(seed, true, "fashion_cnn");
}

/// Sandler et al., MobileNetV2 (2018), with the strides of the first stages at 1 as 32x32 images
/// need.
Graph make_mobilenet_v2_cifar(uint64_t seed) {
  using Bend = Builder::Bend;
  struct Stage {
    int64_t expand;
    int64_t width;
    int64_t blocks;
    int64_t stride;
  };
  constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 1},  {6, 32, 3, 2}, {6, 64, 4, 2},
                               {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  Builder b(seed, {Dim::symbol("batch"), 3, 32, 32});
  b.block("stem", 3, 32, 3, 1, 1, Bend::relu6);
  int64_t width = 32;
  int64_t number = 0;
  for (const Stage& stage : kStages) {
    for (int64_t i = 0; i < stage.blocks; ++i) {
      const std::string name = fmt::format("block{}", ++number);
      const ValueId shortcut = b.value();
      const int64_t stride = i == 0 ? stage.stride : 1;
      const int64_t wide = width * stage.expand;
      if (wide != width) b.block(name + ".expand", width, wide, 1, 1, 1, Bend::relu6);
      b.block(name + ".depthwise", wide, wide, 3, stride, wide, Bend::relu6);
      b.block(name + ".project", wide, stage.width, 1, 1, 1, Bend::none);
      if (stride == 1 && width == stage.width) b.add("Add", {b.value(), shortcut}, name + ".add");
      width = stage.width;
    }
  }
  b.block("head", width, 1280, 1, 1, 1, Bend::relu6);
  b.classify(1280, 10);
  return b.finish("mobilenet_v2_cifar");
}

/// Zhang et al., Hello Edge (2017): the small network of depthwise separable convolutions, on 49
/// frames of 10 coefficients, 12 words.
Graph make_ds_cnn(uint64_t seed) {
  using Bend = Builder::Bend;
  constexpr int64_t kWidth = 64;
  Builder b(seed, {Dim::symbol("batch"), 1, 49, 10});
  b.block("stem", 1, kWidth, 5, 2, 1, Bend::relu);
  for (int i = 1; i <= 4; ++i) {
    const std::string name = fmt::format("block{}", i);
    b.block(name + ".depthwise", kWidth, kWidth, 3, 1, kWidth, Bend::relu);
    b.block(name + ".pointwise", kWidth, kWidth, 1, 1, 1, Bend::relu);
  }
  b.classify(kWidth, 12);
  return b.finish("ds_cnn");
}

/// He et al., Deep Residual Learning (2015), section 4.2 with n = 3; shortcuts that change size are
/// 1x1 convolutions.
Graph make_resnet20(uint64_t seed, int64_t channels, int64_t size) {
  Builder b(seed, {Dim::symbol("batch"), channels, size, size});
  b.conv("conv", channels, 16, 3, 1, false);
  b.norm("norm", 16);
  b.relu("relu");
  int64_t width = 16;
  for (int64_t stage = 0; stage < 3; ++stage) {
    for (int64_t block = 0; block < 3; ++block) {
      const std::string name = fmt::format("stage{}.block{}.", stage + 1, block + 1);
      const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      const int64_t out = int64_t{16} << stage;
      ValueId shortcut = b.value();
      b.conv(name + "conv1", width, out, 3, stride, false);
      b.norm(name + "norm1", out);
      b.relu(name + "relu1");
      b.conv(name + "conv2", out, out, 3, 1, false);
      b.norm(name + "norm2", out);
      const ValueId residual = b.value();
      if (stride != 1) {
        b.go_on_from(shortcut);
        b.conv(name + "shortcut", width, out, 1, stride, false);
        b.norm(name + "shortcut_norm", out);
        shortcut = b.value();
      }
      b.add("Add", {residual, shortcut}, name + "add");
      b.relu(name + "relu2");
      width = out;
    }
  }
  b.classify(width, 10);
  return b.finish("resnet20");
}
Graph make_resnet20_gray(uint64_t seed) {
  return make_resnet20(seed, 1, 28);
}
Graph make_resnet20_cifar(uint64_t seed) {
  return make_resnet20(seed, 3, 32);
}

constexpr Network kNetworks[] = {
    {"mnist_cnn", "two convolutions, two dense layers, for 28x28 gray images", make_mnist_cnn},
    {"fashion_cnn", "the same with dropout", make_fashion_cnn},
    {"resnet20", "ResNet-20 for 28x28 gray images", make_resnet20_gray},
    {"resnet20_cifar", "ResNet-20 for 32x32 colour images", make_resnet20_cifar},
    {"mobilenet_v2_cifar", "MobileNetV2 for 32x32 colour images", make_mobilenet_v2_cifar},
    {"ds_cnn", "depthwise separable convolutions for 49x10 spectra of words", make_ds_cnn},
};

}  // namespace

std::span<const Network> networks() {
  return kNetworks;
}

Graph make_network(std::string_view name, uint64_t seed) {
  std::vector<std::string> names;
  for (const Network& network : kNetworks) {
    if (network.name == name) return network.make(seed);
    names.emplace_back(network.name);
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is no built-in network", name),
              did_you_mean(name, names));
}

void turn_off_dropout(Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.is("Dropout") || graph.constant(node.input(2)) == nullptr) continue;
    graph.set_constant(node.input(2), Tensor(DType::boolean, {}));
  }
}

}  // namespace narrow::train
