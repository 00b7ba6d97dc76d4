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
            bool bias) {
    std::vector<ValueId> in = {value_, weights(name + ".weight", {to, from, kernel, kernel})};
    if (bias) in.push_back(filled(name + ".bias", to, 0));
    const int64_t pad = kernel / 2;
    using Ints = std::vector<int64_t>;
    add("Conv", std::move(in), name,
        {{"kernel_shape", Ints{kernel, kernel}},
         {"strides", Ints{stride, stride}},
         {"pads", Ints{pad, pad, pad, pad}}});
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

/// Two convolutions of 3x3 with pooling, two dense layers: 421,642 parameters.
Graph make_mnist_cnn(uint64_t seed) {
  Builder b(seed, {Dim::symbol("batch"), 1, 28, 28});
  b.conv("conv1", 1, 32, 3, 1, true);
  b.relu("relu1");
  b.max_pool("pool1");
  b.conv("conv2", 32, 64, 3, 1, true);
  b.relu("relu2");
  b.max_pool("pool2");
  b.add("Flatten", {b.value()}, "flat", {{"axis", int64_t{1}}});
  b.dense("fc1", 64 * 7 * 7, 128);
  b.relu("relu3");
  b.dense("fc2", 128, 10);
  return b.finish("mnist_cnn");
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
  b.add("GlobalAveragePool", {b.value()}, "pool");
  b.add("Flatten", {b.value()}, "flat", {{"axis", int64_t{1}}});
  b.dense("fc", width, 10);
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
    {"resnet20", "ResNet-20 for 28x28 gray images", make_resnet20_gray},
    {"resnet20_cifar", "ResNet-20 for 32x32 colour images", make_resnet20_cifar},
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

}  // namespace narrow::train
