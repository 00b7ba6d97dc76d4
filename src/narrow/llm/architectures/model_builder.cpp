// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/architectures/model_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow::llm {
namespace {

// ONNX's numbers of element types.
constexpr int64_t kFloat = 1;
constexpr int64_t kBool = 9;

bool is_block(BlockType type) {
  return type != BlockType::f32 && type != BlockType::f16 && type != BlockType::bf16;
}

Tensor numbers(std::vector<int64_t> x) {
  return Tensor::vector(x);
}

}  // namespace

ValueId ModelBuilder::add(std::string op, std::vector<ValueId> inputs, const std::string& name,
                          Attributes attributes, std::string domain) {
  const NodeId node = graph_.add_node(std::move(op), std::move(inputs), {name},
                                      std::move(attributes), std::move(domain), name);
  return graph_.node(node).outputs[0];
}

ValueId ModelBuilder::constant(const std::string& name, const Tensor& value) {
  if (const auto known = graph_.find_value(name)) return *known;
  return graph_.add_initializer(name, value);
}

/// The stored matrix as float32, [out, in] or (transposed) [in, out].
ValueId ModelBuilder::matrix(const std::string& weight) {
  const CheckpointTensor& t = checkpoint_.at(weight);
  if (form_ == GraphForm::onnx) return placeholder(weight, t.dims);
  const std::string wide = weight + ".f32";
  if (const auto known = graph_.find_value(wide)) return *known;
  const ValueId stored = constant(weight, checkpoint_.raw(weight));
  if (t.type == BlockType::f32) return stored;
  if (!is_block(t.type)) return add("Cast", {stored}, wide, {{"to", kFloat}});
  return add("DecodeBlocks", {stored}, wide,
             {{"type", std::string(narrow::to_string(t.type))}, {"columns", t.columns()}},
             "narrow");
}

/// All zeros, which all placeholders share: they cost no memory, whatever the model's size.
ValueId ModelBuilder::placeholder(const std::string& name, Dims dims) {
  if (const auto known = graph_.find_value(name)) return *known;
  if (!zeros_) {
    int64_t largest = 0;
    for (const CheckpointTensor& t : checkpoint_.tensors()) {
      largest = std::max(largest, t.rows() * t.columns());
    }
    // Pages that nothing writes to are not there.
    zeros_.reset(std::calloc(static_cast<size_t>(largest), sizeof(float)), std::free);
    if (!zeros_) throw Error(ErrorCode::resource_exhausted, "no memory for the largest tensor");
  }
  const size_t bytes = packed_bytes(DType::float32, num_elements(dims));
  return graph_.add_initializer(
      name, Tensor::view(zeros_, zeros_.get(), bytes, DType::float32, std::move(dims)));
}

/// The matrix as [in, out].
ValueId ModelBuilder::columns(const std::string& weight, const std::string& name) {
  const CheckpointTensor& t = checkpoint_.at(weight);
  const bool table = graph_.find_value(weight).has_value();
  if (form_ == GraphForm::onnx && !(table && tied_table_)) {
    return placeholder(weight + std::string(kColumns), {t.columns(), t.rows()});
  }
  const ValueId w = matrix(weight);
  if (form_ == GraphForm::session && t.difference == Difference::transposed) return w;
  return add("Transpose", {w}, name + ".columns", {{"perm", std::vector<int64_t>{1, 0}}});
}

ValueId ModelBuilder::embedding(const std::string& name, ValueId ids) {
  return add("Gather", {matrix(name + ".weight"), ids}, name, {{"axis", int64_t{0}}});
}

ValueId ModelBuilder::linear(const std::string& name, ValueId x) {
  return linear_as(name, x, name);
}

ValueId ModelBuilder::linear_as(const std::string& weight, ValueId x, const std::string& name) {
  const ValueId w = columns(weight + ".weight", name);
  const std::string bias = weight + ".bias";
  const ValueId y = add("MatMul", {x, w}, name);
  if (!checkpoint_.find(bias)) return y;
  return add("Add", {y, constant(bias, checkpoint_.read(bias, RowOrder::stored))},
             name + ".biased");
}

ValueId ModelBuilder::norm(const std::string& name, ValueId x) {
  const std::string weight = name + ".weight";
  std::vector<ValueId> inputs{x, constant(weight, checkpoint_.read(weight))};
  const auto epsilon = static_cast<float>(config_.norm_eps);
  const Attributes attributes{{"axis", int64_t{-1}}, {"epsilon", epsilon}};
  if (config_.norm == NormKind::rms) return add("RMSNormalization", inputs, name, attributes);
  const std::string bias = name + ".bias";
  if (checkpoint_.find(bias)) inputs.push_back(constant(bias, checkpoint_.read(bias)));
  return add("LayerNormalization", inputs, name, attributes);
}

ValueId ModelBuilder::head_norm(const std::string& name, ValueId x, int64_t heads) {
  const ValueId apart =
      constant(fmt::format("shape.heads.{}", heads), numbers({0, 0, heads, config_.head_dim}));
  const ValueId split = add("Reshape", {x, apart}, name + ".heads");
  const ValueId joined =
      constant(fmt::format("shape.joined.{}", heads), numbers({0, 0, heads * config_.head_dim}));
  return add("Reshape", {norm(name, split), joined}, name + ".joined");
}

ValueId ModelBuilder::activation(ValueId x, const std::string& name) {
  switch (config_.activation) {
    case Activation::silu:
      // Swish is of opset 24, and some programs have it at that one only.
      if (form_ == GraphForm::onnx)
        return add("Mul", {x, add("Sigmoid", {x}, name + ".gate")}, name);
      return add("Swish", {x}, name);
    case Activation::gelu:
      return add("Gelu", {x}, name, {{"approximate", std::string("none")}});
    case Activation::gelu_tanh:
      return add("Gelu", {x}, name, {{"approximate", std::string("tanh")}});
    case Activation::relu:
      return add("Relu", {x}, name);
  }
  return x;
}

ValueId ModelBuilder::feed_forward(const std::string& block, ValueId x) {
  const std::string act = block + "ffn_act";
  if (!config_.gated) {
    return linear(block + "ffn_down", activation(linear(block + "ffn_up", x), act));
  }
  const ValueId gate = activation(linear(block + "ffn_gate", x), act);
  const ValueId both = add("Mul", {gate, linear(block + "ffn_up", x)}, block + "ffn_gated");
  return linear(block + "ffn_down", both);
}

ValueId ModelBuilder::scaled(ValueId x, double factor, const std::string& name) {
  const Tensor value = Tensor::scalar(static_cast<float>(factor));
  return add("Mul", {x, constant(name + ".factor", value)}, name);
}

ValueId ModelBuilder::softcapped(ValueId x, double cap, const std::string& name) {
  const ValueId small = scaled(x, 1 / cap, name + ".small");
  return scaled(add("Tanh", {small}, name + ".tanh"), cap, name);
}

ModelBuilder::Projections ModelBuilder::projections(const std::string& block, ValueId x) {
  const std::string joined = block + "attn_qkv";
  if (!checkpoint_.find(joined + ".weight")) {
    return {linear(block + "attn_q", x), linear(block + "attn_k", x), linear(block + "attn_v", x)};
  }
  const ValueId sizes =
      constant("shape.qkv", numbers({config_.q_size(), config_.kv_size(), config_.kv_size()}));
  const NodeId split = graph_.add_node("Split", {linear(joined, x), sizes},
                                       {block + "attn_q", block + "attn_k", block + "attn_v"},
                                       {{"axis", int64_t{-1}}}, "", block + "attn_split");
  const std::vector<ValueId> out = graph_.node(split).outputs;
  return {out[0], out[1], out[2]};
}

ValueId ModelBuilder::second_dim(ValueId of, const std::string& name) {
  if (const auto known = graph_.find_value(name)) return *known;
  const ValueId shape = add("Shape", {of}, graph_.value(of).name + "_shape");
  return add("Gather", {shape, constant("one", Tensor::scalar<int64_t>(1))}, name);
}

ValueId ModelBuilder::length_of(ValueId ids) {
  return second_dim(ids, "length");
}

ValueId ModelBuilder::position_ids(ValueId ids, ValueId position) {
  const ValueId zero = constant("zero", Tensor::scalar<int64_t>(0));
  const ValueId one = constant("one", Tensor::scalar<int64_t>(1));
  const ValueId range = add("Range", {zero, length_of(ids), one}, "offsets");
  const ValueId column =
      add("Unsqueeze", {position, constant("axis_1", numbers({1}))}, "position_1");
  return add("Add", {column, range}, "position_ids");
}

ValueId ModelBuilder::total_length(ValueId ids, ValueId position) {
  return add("Add", {position, length_of(ids)}, "total_length");
}

/// Radians from one position to the next, of each pair.
std::vector<double> ModelBuilder::rope_frequencies(bool local) const {
  const double theta = local ? config_.rope_theta_local : config_.rope_theta;
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config_.rope_dim / 2; ++i) {
    double f =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(config_.rope_dim));
    // Layers with a theta of their own are not scaled.
    if (!local && config_.rope_scaling == RopeScaling::linear) f /= config_.rope_factor;
    if (!local && !config_.rope_divisors.empty()) {
      f /= static_cast<double>(config_.rope_divisors[static_cast<size_t>(i)]);
    }
    frequencies.push_back(f);
  }
  return frequencies;
}

std::pair<ValueId, ValueId> ModelBuilder::rope_angles(const std::string& name, ValueId positions,
                                                      bool local) {
  const std::string cosine = name + ".cos";
  const std::string sine = name + ".sin";
  if (const auto known = graph_.find_value(cosine)) return {*known, *graph_.find_value(sine)};
  std::vector<float> frequencies;
  for (const double f : rope_frequencies(local)) frequencies.push_back(static_cast<float>(f));
  const ValueId real = known_or("positions.f32", [&] {
    return add("Cast", {positions}, "positions.f32", {{"to", kFloat}});
  });
  const ValueId column = known_or("positions.column", [&] {
    return add("Unsqueeze", {real, constant("axis_2", numbers({2}))}, "positions.column");
  });
  const ValueId angles =
      add("Mul", {column, constant(name + ".frequencies", Tensor::vector(frequencies))},
          name + ".angles");
  const ValueId c = add("Cos", {angles}, cosine);
  return {c, add("Sin", {angles}, sine)};
}

std::pair<ValueId, ValueId> ModelBuilder::rope_tables(const std::string& name, int64_t positions,
                                                      bool local) {
  const std::string cosine = name + ".cos";
  const std::string sine = name + ".sin";
  if (const auto known = graph_.find_value(cosine)) return {*known, *graph_.find_value(sine)};
  const int64_t half = config_.rope_dim / 2;
  Tensor cosines(DType::float32, {positions, half});
  Tensor sines(DType::float32, {positions, half});
  float* c = cosines.mutable_data<float>().data();
  float* s = sines.mutable_data<float>().data();
  const std::vector<double> frequencies = rope_frequencies(local);
  parallel_for(positions, 256, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) * frequencies[static_cast<size_t>(i)];
        c[p * half + i] = static_cast<float>(std::cos(angle));
        s[p * half + i] = static_cast<float>(std::sin(angle));
      }
    }
  });
  return {constant(cosine, cosines), constant(sine, sines)};
}

ValueId ModelBuilder::rotated(ValueId x, int64_t heads, std::pair<ValueId, ValueId> tables,
                              ValueId positions, const std::string& name) {
  Attributes attributes{{"num_heads", heads},
                        {"interleaved", int64_t{config_.rope_interleaved ? 1 : 0}}};
  if (config_.rope_dim != config_.head_dim) {
    attributes["rotary_embedding_dim"] = config_.rope_dim;
  }
  std::vector<ValueId> inputs{x, tables.first, tables.second};
  if (positions != kNoId) inputs.push_back(positions);
  return add("RotaryEmbedding", std::move(inputs), name, attributes);
}

/// 0, 1, .. total - 1.
ValueId ModelBuilder::mask_keys(ValueId attention_mask) {
  return known_or("mask.keys", [&] {
    const ValueId zero = constant("zero", Tensor::scalar<int64_t>(0));
    const ValueId one = constant("one", Tensor::scalar<int64_t>(1));
    return add("Range", {zero, second_dim(attention_mask, "total"), one}, "mask.keys");
  });
}

/// Where these tokens stand among the keys, as a column.
ValueId ModelBuilder::mask_queries(ValueId ids, ValueId attention_mask) {
  return known_or("mask.queries", [&] {
    const ValueId one = constant("one", Tensor::scalar<int64_t>(1));
    const ValueId total = second_dim(attention_mask, "total");
    const ValueId past = add("Sub", {total, length_of(ids)}, "past");
    const ValueId range = add("Range", {past, total, one}, "mask.query_row");
    return add("Unsqueeze", {range, constant("axis_1", numbers({1}))}, "mask.queries");
  });
}

ValueId ModelBuilder::padding_mask(ValueId ids, ValueId attention_mask) {
  return known_or("mask.counted", [&] {
    const ValueId valid = add("Cast", {attention_mask}, "mask.boolean", {{"to", kBool}});
    const ValueId keys =
        add("Unsqueeze", {valid, constant("axes_1_2", numbers({1, 2}))}, "mask.valid");
    const ValueId self =
        add("Equal", {mask_keys(attention_mask), mask_queries(ids, attention_mask)}, "mask.self");
    return add("Or", {keys, self}, "mask.counted");
  });
}

ValueId ModelBuilder::causal_mask(ValueId ids, ValueId attention_mask, int64_t window) {
  const std::string name = window > 0 ? fmt::format("mask.window_{}", window) : "mask.causal";
  if (const auto known = graph_.find_value(name)) return *known;
  const ValueId keys = mask_keys(attention_mask);
  const ValueId queries = mask_queries(ids, attention_mask);
  ValueId seen = add("LessOrEqual", {keys, queries}, name + ".before");
  if (window > 0) {
    const ValueId size = constant(name + ".size", Tensor::scalar<int64_t>(window));
    const ValueId end = add("Sub", {queries, size}, name + ".end");
    seen = add("And", {seen, add("Greater", {keys, end}, name + ".near")}, name + ".seen");
  }
  return add("And", {padding_mask(ids, attention_mask), seen}, name);
}

Attributes ModelBuilder::attention_attributes(int64_t layer) const {
  Attributes attributes{{"scale", static_cast<float>(config_.attention_scale)}};
  if (config_.attention_softcap != 0) {
    attributes["softcap"] = static_cast<float>(config_.attention_softcap);
  }
  // Of form onnx a mask says it.
  if (form_ == GraphForm::onnx) return attributes;
  attributes["is_causal"] = int64_t{config_.causal ? 1 : 0};
  if (const int64_t window = config_.window_of(layer); window > 0) {
    attributes["left_window_size"] = window - 1;
  }
  return attributes;
}

}  // namespace narrow::llm
