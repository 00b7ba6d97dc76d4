// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/half.h"
#include "narrow/runtime/ops/strided.h"
#include "runtime/ops_cases.h"

namespace narrow::testing {
namespace {

/// Reads little-endian numbers and counted strings off the front of a file.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view take(size_t bytes) {
    if (bytes > rest_.size()) throw Error(ErrorCode::corrupt_data, "the case file ends early");
    const std::string_view piece = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return piece;
  }
  std::string text() { return std::string(take(number<uint32_t>())); }
  template <class T, class Read>
  std::vector<T> list(const Read& read) {
    std::vector<T> values(number<uint32_t>());
    for (T& value : values) value = read();
    return values;
  }

 private:
  std::string_view rest_;
};

Tensor read_tensor(Reader& reader) {
  const std::string type = reader.text();
  if (type.empty()) return {};
  const auto dims = reader.list<int64_t>([&] { return reader.number<int64_t>(); });
  Tensor tensor(dtype_from_string(type).value(), dims);
  const std::string_view bytes = reader.take(reader.number<uint32_t>());
  if (bytes.size() != tensor.bytes()) throw Error(ErrorCode::corrupt_data, "a tensor's size");
  if (!bytes.empty()) std::memcpy(tensor.mutable_raw(), bytes.data(), bytes.size());
  return tensor;
}

Attribute read_attribute(Reader& reader) {
  switch (reader.take(1)[0]) {
    case 'i':
      return reader.number<int64_t>();
    case 'f':
      return reader.number<float>();
    case 's':
      return reader.text();
    case 't':
      return read_tensor(reader);
    case 'I':
      return reader.list<int64_t>([&] { return reader.number<int64_t>(); });
    case 'F':
      return reader.list<float>([&] { return reader.number<float>(); });
    case 'S':
      return reader.list<std::string>([&] { return reader.text(); });
    default:
      throw Error(ErrorCode::corrupt_data, "an attribute's kind");
  }
}

/// Memory for one operand, with guard bytes behind it that must not change.
struct Operand {
  static constexpr size_t kGuard = 64;
  static constexpr std::byte kGuardByte{0x5A};
  std::vector<std::byte> memory;
  TensorView view;
  bool used = false;

  void allocate(DType dtype, const Dims& dims, Layout layout) {
    const size_t bytes = packed_bytes(dtype, num_elements(dims));
    memory.assign(bytes + 2 * kGuard, kGuardByte);
    auto address = reinterpret_cast<uintptr_t>(memory.data());
    view = {dtype, dims, layout, memory.data() + (kGuard - address % kGuard)};
    used = true;
  }
  bool guards_intact() const {
    const std::byte* end = view.data + packed_bytes(view.dtype, num_elements(view.dims));
    const std::byte* last = memory.data() + memory.size();
    return std::all_of(end, last, [](std::byte b) { return b == kGuardByte; });
  }
};

struct Context final : RunContext {
  std::vector<Operand> storage;
  std::vector<TensorView> views;
  TensorView& allocate_output(size_t i, Dims dims) override {
    storage[i].allocate(views[i].dtype, dims, Layout::plain);
    views[i] = storage[i].view;
    return views[i];
  }
};

Layout layout_for(const Tensor& tensor, Layout wanted) {
  return tensor.rank() < 3 ? Layout::plain : wanted;
}

void fill(Operand& operand, const Tensor& tensor, Layout layout) {
  operand.allocate(tensor.dtype(), tensor.dims(), layout);
  if (tensor.bytes() == 0) return;
  const TensorView plain{tensor.dtype(), tensor.dims(), Layout::plain,
                         const_cast<std::byte*>(tensor.raw())};
  ops::copy_view(operand.view, plain);
}

Tensor read_back(const TensorView& view) {
  Tensor tensor(view.dtype, view.dims);
  if (tensor.bytes() == 0) return tensor;
  ops::copy_view({view.dtype, view.dims, Layout::plain, tensor.mutable_raw()}, view);
  return tensor;
}

Layout wanted_layout(const Step& step, bool is_input, size_t i, const RunVariant& variant) {
  if (step.layout_agnostic()) {
    return variant.common == Common::plain ? Layout::plain : Layout::channels_last;
  }
  return is_input ? step.input_layout(i) : step.output_layout(i);
}

bool fits_in_place(const Step& step, const OpCase& c) {
  const int input = step.aliases(0);
  if (input < 0 || static_cast<size_t>(input) >= c.inputs.size()) return false;
  const Tensor& from = c.inputs[static_cast<size_t>(input)];
  return from.defined() && from.bytes() == c.outputs[0].bytes() &&
         bits(from.dtype()) == bits(c.outputs[0].dtype());
}

std::vector<Dims> dims_of(std::span<const TensorView> views) {
  std::vector<Dims> dims;
  for (const TensorView& view : views) dims.push_back(view.dims);
  return dims;
}

double value_at(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::float32:
      return t.data<float>()[static_cast<size_t>(i)];
    case DType::float64:
      return t.data<double>()[static_cast<size_t>(i)];
    case DType::float16:
      return to_float(t.data<Half>()[static_cast<size_t>(i)]);
    default:
      return to_float(t.data<BFloat16>()[static_cast<size_t>(i)]);
  }
}

bool close(double expected, double actual, double absolute, double relative) {
  if (std::isnan(expected) || std::isnan(actual)) return std::isnan(expected) == std::isnan(actual);
  if (std::isinf(expected) || std::isinf(actual)) return expected == actual;
  return std::abs(expected - actual) <= absolute + relative * std::abs(expected);
}

}  // namespace

std::vector<OpCase> read_op_cases(const std::filesystem::path& path) {
  constexpr std::string_view kMagic = "narrow op cases 1\n";
  const auto file = MappedFile::open(path);
  Reader reader(file->text());
  if (reader.take(kMagic.size()) != kMagic) throw Error(ErrorCode::corrupt_data, "no case file");
  std::vector<OpCase> cases(reader.number<uint32_t>());
  for (OpCase& c : cases) {
    c.name = reader.text();
    c.domain = reader.text();
    c.op = reader.text();
    for (auto left = reader.number<uint32_t>(); left > 0; --left) {
      std::string key = reader.text();
      c.attributes.insert_or_assign(std::move(key), read_attribute(reader));
    }
    c.inputs = reader.list<Tensor>([&] { return read_tensor(reader); });
    c.outputs = reader.list<Tensor>([&] { return read_tensor(reader); });
  }
  return cases;
}

Graph graph_of(const OpCase& c, Constants constants) {
  Graph graph;
  std::vector<ValueId> inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Tensor& t = c.inputs[i];
    const std::string name = "x" + std::to_string(i);
    if (!t.defined()) {
      inputs.push_back(kNoId);
    } else if (i > 0 && constants == Constants::all_but_first) {
      inputs.push_back(graph.add_initializer(name, t));
    } else {
      inputs.push_back(graph.add_input(name, t.dtype(), symbolic(t.dims())));
    }
  }
  std::vector<std::string> outputs;
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    outputs.push_back(c.outputs[i].defined() ? "y" + std::to_string(i) : "");
  }
  const NodeId id = graph.add_node(c.op, inputs, outputs, c.attributes, c.domain);
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    if (!c.outputs[i].defined()) continue;
    Value& value = graph.mutable_value(graph.node(id).outputs[i]);
    value.dtype = c.outputs[i].dtype();
    value.shape = symbolic(c.outputs[i].dims());
    graph.add_output(graph.node(id).outputs[i]);
  }
  return graph;
}

const Node& node_of(const Graph& graph) {
  return graph.node(graph.nodes().front());
}

bool applies(const Step& step, const OpCase& c, const RunVariant& variant) {
  if (variant.place == Place::in_place && !fits_in_place(step, c)) return false;
  if (variant.common == Common::plain) return true;
  if (!step.layout_agnostic() || c.outputs[0].rank() < 3) return false;
  const auto rank = c.outputs[0].rank();
  const auto fits = [&](const Tensor& t) {
    return !t.defined() || t.elements() == 1 || (t.rank() == rank && !is_sub_byte(t.dtype()));
  };
  return std::all_of(c.inputs.begin(), c.inputs.end(), fits) &&
         std::all_of(c.outputs.begin(), c.outputs.end(),
                     [&](const Tensor& t) { return !t.defined() || t.rank() == rank; });
}

std::vector<Tensor> run_row(const OpImpl& row, const OpCase& c, const RunVariant& variant) {
  const Graph graph = graph_of(c, variant.constants);
  const auto step = row.create(graph, node_of(graph), {});
  std::vector<Operand> inputs(c.inputs.size());
  std::vector<TensorView> input_views(c.inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!c.inputs[i].defined()) continue;
    fill(inputs[i], c.inputs[i], layout_for(c.inputs[i], wanted_layout(*step, true, i, variant)));
    input_views[i] = inputs[i].view;
  }
  Context context;
  context.storage.resize(c.outputs.size());
  context.views.resize(c.outputs.size());
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    if (!c.outputs[i].defined()) continue;
    if (step->dynamic_outputs()) {
      context.views[i].dtype = c.outputs[i].dtype();
      continue;
    }
    context.storage[i].allocate(c.outputs[i].dtype(), c.outputs[i].dims(),
                                layout_for(c.outputs[i], wanted_layout(*step, false, i, variant)));
    context.views[i] = context.storage[i].view;
  }
  if (variant.place == Place::in_place) {
    context.views[0].data = input_views[static_cast<size_t>(step->aliases(0))].data;
  }
  context.inputs = input_views;
  context.outputs = context.views;
  const size_t scratch_bytes = step->scratch_bytes(dims_of(input_views), dims_of(context.views));
  Operand scratch;
  scratch.allocate(DType::uint8, {static_cast<int64_t>(scratch_bytes)}, Layout::plain);
  context.scratch = {scratch.view.data, scratch_bytes};
  step->run(context);
  EXPECT_TRUE(scratch.guards_intact()) << "wrote behind its scratch memory";
  std::vector<Tensor> results;
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    if (context.storage[i].used) {
      EXPECT_TRUE(context.storage[i].guards_intact()) << "wrote behind output " << i;
    }
    results.push_back(c.outputs[i].defined() ? read_back(context.views[i]) : Tensor());
  }
  return results;
}

std::string difference(const Tensor& expected, const Tensor& actual, const Tolerance& tolerance) {
  if (expected.dtype() != actual.dtype() || expected.dims() != actual.dims()) {
    return "expected " + expected.describe() + ", got " + actual.describe();
  }
  if (!is_float(expected.dtype())) {
    const auto a = expected.to_ints();
    const auto b = actual.to_ints();
    const auto at = std::mismatch(a.begin(), a.end(), b.begin());
    if (at.first == a.end()) return {};
    return "element " + std::to_string(at.first - a.begin()) + ": expected " +
           std::to_string(*at.first) + ", got " + std::to_string(*at.second);
  }
  double largest = 0;
  for (int64_t i = 0; i < expected.elements(); ++i) {
    const double magnitude = std::abs(value_at(expected, i));
    if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
  }
  const double absolute = tolerance.of_largest * std::min(largest, tolerance.largest_cap);
  for (int64_t i = 0; i < expected.elements(); ++i) {
    const double e = value_at(expected, i);
    const double a = value_at(actual, i);
    if (!close(e, a, absolute, tolerance.relative)) {
      return "element " + std::to_string(i) + ": expected " + std::to_string(e) + ", got " +
             std::to_string(a);
    }
  }
  return {};
}

TEST(OpRig, NoticesOneWrongElement) {
  const Tensor expected = Tensor::vector<float>({1.0F, -2.0F, 3.0F});
  EXPECT_EQ(difference(expected, expected, {}), "");
  EXPECT_NE(difference(expected, Tensor::vector<float>({1.0F, -2.0F, 3.0002F}), {}), "");
  EXPECT_NE(difference(expected, Tensor::vector<float>({1.0F, -2.0F, std::nanf("")}), {}), "");
  EXPECT_NE(difference(expected, Tensor::from<float>({1.0F, -2.0F, 3.0F}, {1, 3}), {}), "");
  EXPECT_NE(difference(Tensor::vector<int32_t>({1, 2}), Tensor::vector<int32_t>({1, 3}), {}), "");
}

}  // namespace narrow::testing
