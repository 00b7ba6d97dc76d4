// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/fused.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <span>

#include "narrow/core/error.h"

namespace narrow::onnx {
namespace {

[[noreturn]] void unsupported(const ProtoNode& n, const std::string& what) {
  throw Error(ErrorCode::unsupported, fmt::format("{}: {}", n.describe(), what),
              "save the model without onnxruntime's optimisations");
}

/// What can be fused, and the attributes that its parameters are; Clip's are inputs.
struct Activation {
  std::string_view op;
  std::array<const char*, 2> parameters;
};
constexpr std::array kActivations = {
    Activation{"Relu", {}},
    Activation{"Tanh", {}},
    Activation{"Sigmoid", {}},
    Activation{"HardSwish", {}},
    Activation{"Clip", {"min", "max"}},
    Activation{"LeakyRelu", {"alpha", nullptr}},
    Activation{"HardSigmoid", {"alpha", "beta"}},
};

ProtoNode activation_node(const ProtoNode& n, const std::string& op, std::span<const float> params,
                          GraphBuilder& b) {
  const auto row = std::find_if(kActivations.begin(), kActivations.end(),
                                [&](const Activation& a) { return a.op == op; });
  if (row == kActivations.end()) unsupported(n, fmt::format("its activation is '{}'", op));
  ProtoNode out;
  out.op = op;
  out.inputs.resize(1);
  for (size_t i = 0; i < params.size() && i < row->parameters.size(); ++i) {
    const char* const name = row->parameters[i];
    if (name == nullptr) continue;
    if (op == "Clip") {
      out.inputs.push_back(b.constant(result_name(n) + "_" + name, Tensor::scalar(params[i])));
    } else {
      out.set(name, params[i]);
    }
  }
  return out;
}

/// Queues the nodes one behind the other; the last one writes what `n` wrote.
void chain_behind(ProtoNode& n, std::vector<ProtoNode> chain, GraphBuilder& b) {
  const std::string y = result_name(n);
  for (size_t i = 0; i < chain.size(); ++i) {
    const std::string between = b.fresh_name(y + "_before_" + chain[i].op);
    (i == 0 ? n.outputs : chain[i - 1].outputs) = {between};
    chain[i].inputs[0] = between;
  }
  if (!chain.empty()) chain.back().outputs = {y};
  for (ProtoNode& next : chain) b.emit_after(std::move(next));
}

}  // namespace

/// Conv (+ sum) + activation.
void fused_conv(ProtoNode& n, GraphBuilder& b) {
  const std::string activation = n.get_or<std::string>("activation", "");
  const auto params = n.get_or<std::vector<float>>("activation_params", {});
  n.erase("activation");
  n.erase("activation_params");
  std::vector<ProtoNode> chain;
  if (n.has_input(3)) {
    chain.emplace_back();
    chain.back().op = "Add";
    chain.back().inputs = {"", n.inputs[3]};
    n.set_input(3, "");
  }
  if (!activation.empty()) chain.push_back(activation_node(n, activation, params, b));
  chain_behind(n, std::move(chain), b);
  to_onnx(n, "Conv");
}

void fused_gemm(ProtoNode& n, GraphBuilder& b) {
  const std::string activation = n.get_or<std::string>("activation", "");
  std::vector<float> params;
  for (const char* key : {"activation_alpha", "activation_beta"}) {
    if (const auto value = n.get<float>(key)) params.push_back(*value);
  }
  for (const char* key :
       {"activation", "activation_alpha", "activation_beta", "activation_gamma"}) {
    n.erase(key);
  }
  if (!activation.empty()) chain_behind(n, {activation_node(n, activation, params, b)}, b);
  to_onnx(n, "Gemm");
}

/// alpha * transposed(A) * transposed(B).
void fused_mat_mul(ProtoNode& n, GraphBuilder& b) {
  for (const char* key : {"transBatchA", "transBatchB"}) {
    if (n.get_or<int64_t>(key, 0) != 0) unsupported(n, fmt::format("'{}' is 1", key));
    n.erase(key);
  }
  const auto transposed = [&](const char* key, size_t input) {
    const bool yes = n.get_or<int64_t>(key, 0) != 0;
    n.erase(key);
    if (!yes) return;
    const SymbolicShape* shape = b.shape_of(n.input(input));
    if (shape == nullptr)
      unsupported(n, fmt::format("the rank of '{}' is not known", n.input(input)));
    if (shape->size() < 2) return;  // a vector stays as it is
    std::vector<int64_t> perm(shape->size());
    std::iota(perm.begin(), perm.end(), 0);
    std::swap(perm[perm.size() - 2], perm[perm.size() - 1]);
    n.inputs[input] = b.emit_value(n.inputs[input] + "_transposed", "Transpose", {n.inputs[input]},
                                   {{"perm", perm}});
  };
  transposed("transA", 0);
  transposed("transB", 1);
  const float alpha = n.get_or<float>("alpha", 1.0f);
  n.erase("alpha");
  if (alpha != 1.0f) {
    const DType dtype = b.dtype_of(n.input(0));
    ProtoNode scale;
    scale.op = "Mul";
    scale.inputs = {"",
                    b.constant(result_name(n) + "_alpha",
                               Tensor::from_floats(std::span(&alpha, 1),
                                                   is_float(dtype) ? dtype : DType::float32, {}))};
    chain_behind(n, {std::move(scale)}, b);
  }
  to_onnx(n, "MatMul");
}

void gelu(ProtoNode& n, GraphBuilder&) {
  to_onnx(n, "Gelu");
}

/// x * sigmoid(alpha x).
void quick_gelu(ProtoNode& n, GraphBuilder& b) {
  const float alpha = n.get_or<float>("alpha", 1.702f);  // the schema's default
  n.erase("alpha");
  const std::string y = result_name(n);
  const std::string x = n.input(0);
  const DType dtype = b.dtype_of(x);
  const std::string factor = b.constant(
      y + "_alpha",
      Tensor::from_floats(std::span(&alpha, 1), is_float(dtype) ? dtype : DType::float32, {}));
  const std::string scaled = b.emit_value(y + "_scaled", "Mul", {x, factor});
  n.inputs = {x, b.emit_value(y + "_gate", "Sigmoid", {scaled})};
  to_onnx(n, "Mul");
}

}  // namespace narrow::onnx
