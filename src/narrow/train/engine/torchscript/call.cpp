// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/torchscript/call.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/torch.h"

namespace narrow::train::script {
namespace {

[[noreturn]] void computed(const std::string& name, size_t i) {
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: argument {} is computed by the model", name, i + 1),
              "export the model to ONNX from Python with fixed sizes");
}

}  // namespace

DType dtype_of(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Long:
    case c10::ScalarType::Int:
    case c10::ScalarType::Short:
      return DType::int64;
    case c10::ScalarType::Bool:
      return DType::boolean;
    default:
      return DType::float32;
  }
}

const Item& Call::item(size_t i) const {
  if (i < in_.size()) return in_[i];
  static const Item absent;
  return absent;
}

bool Call::none(size_t i) const {
  return i >= in_.size() || (in_[i].constant() && in_[i].example.isNone());
}

int64_t Call::integer(size_t i) const {
  if (!item(i).constant()) computed(name_, i);
  const c10::IValue& value = item(i).example;
  if (value.isTensor()) return value.toTensor().item<int64_t>();
  return value.isBool() ? static_cast<int64_t>(value.toBool()) : value.toScalar().toLong();
}

double Call::number(size_t i) const {
  if (!item(i).constant()) computed(name_, i);
  const c10::IValue& value = item(i).example;
  if (value.isTensor()) return value.toTensor().item<double>();
  return value.isBool() ? static_cast<double>(value.toBool()) : value.toScalar().toDouble();
}

bool Call::flag(size_t i) const {
  return !none(i) && integer(i) != 0;
}

std::vector<int64_t> Call::ints(size_t i) const {
  if (!item(i).constant()) computed(name_, i);
  const c10::IValue& value = item(i).example;
  if (value.isInt()) return {value.toInt()};
  if (value.isIntList()) return value.toIntVector();
  std::vector<int64_t> out;
  for (const c10::IValue& part : value.toListRef()) out.push_back(part.toInt());
  return out;
}

std::vector<int64_t> Call::ints(size_t i, size_t count, int64_t fallback) const {
  std::vector<int64_t> values = none(i) ? std::vector<int64_t>{} : ints(i);
  if (values.empty()) values = {fallback};
  if (values.size() == 1) values.resize(count, values[0]);
  if (values.size() != count) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: argument {} has {} numbers, not {}",
                                                     name_, i + 1, values.size(), count));
  }
  return values;
}

int64_t Call::rank(size_t i) const {
  return item(i).example.toTensor().dim();
}

int64_t Call::size_of(size_t i, int64_t axis) const {
  return item(i).example.toTensor().size(axis);
}

int64_t Call::axis(size_t i, int64_t rank) const {
  const int64_t axis = integer(i);
  return axis < 0 ? axis + rank : axis;
}

ValueId Call::tensor(size_t i, const char* role) {
  return none(i) ? kNoId : tensor(item(i), role);
}

ValueId Call::tensor(const Item& item, const char* role) {
  if (item.id != kNoId) return item.id;
  const c10::IValue& value = item.example;
  if (value.isTensor()) {
    const torch::Tensor& x = value.toTensor();
    const DType dtype = dtype_of(x.scalar_type());
    const auto wanted = dtype == DType::int64     ? torch::kInt64
                        : dtype == DType::boolean ? torch::kBool
                                                  : torch::kFloat32;
    return constant(from_torch(x.to(wanted)), role);
  }
  if (value.isInt()) return constant(Tensor::scalar(value.toInt()), "constant");
  if (value.isDouble()) return scalar(value.toDouble());
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: a {} where a tensor is needed", name_, value.tagKind()));
}

ValueId Call::operand(size_t i, size_t like) {
  const Item& x = item(i);
  const auto whole = [](const c10::IValue& value) {
    return value.isInt() ||
           (value.isTensor() && dtype_of(value.toTensor().scalar_type()) == DType::int64);
  };
  const bool becomes_float = whole(x.example) && !whole(item(like).example);
  if (x.constant() && !x.example.isTensor()) {
    if (becomes_float || !x.example.isInt()) return scalar(number(i));
    return constant(Tensor::scalar(x.example.toInt()), "constant");
  }
  constexpr int64_t kFloat = 1;  // ONNX's number of float32
  return becomes_float ? add("Cast", {tensor(x)}, {{"to", kFloat}}) : tensor(x);
}

ValueId Call::int_vector(size_t i) {
  const Item& list = item(i);
  if (list.constant()) return int_constant(ints(i));
  std::vector<ValueId> pieces;
  for (const Item& part : list.parts) {
    if (part.constant()) {
      pieces.push_back(int_constant({part.example.toInt()}));
    } else {
      pieces.push_back(add("Reshape", {part.id, int_constant({1})}));
    }
  }
  return pieces.size() == 1 ? pieces[0] : add("Concat", pieces, {{"axis", int64_t{0}}});
}

ValueId Call::constant(Tensor tensor, const char* role) {
  return graph_.add_initializer(graph_.unique_name(name_ + "." + role), std::move(tensor));
}

ValueId Call::int_constant(const std::vector<int64_t>& values) {
  return constant(Tensor::vector(values), "sizes");
}

ValueId Call::scalar(double value) {
  return constant(Tensor::scalar(static_cast<float>(value)), "constant");
}

ValueId Call::add(const char* op, std::vector<ValueId> inputs, Attributes attributes) {
  return add_many(op, std::move(inputs), 1, std::move(attributes)).front();
}

std::vector<ValueId> Call::add_many(const char* op, std::vector<ValueId> inputs, size_t outputs,
                                    Attributes attributes) {
  while (!inputs.empty() && inputs.back() == kNoId) inputs.pop_back();
  const NodeId node = graph_.add_node(
      op, std::move(inputs), std::vector<std::string>(outputs, name_), std::move(attributes));
  return graph_.node(node).outputs;
}

}  // namespace narrow::train::script
