// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/torchscript/import.h"

#include <fmt/format.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/script.h>
#include <torch/version.h>

#include <filesystem>
#include <map>
#include <set>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/torchscript/call.h"

namespace narrow::train {
namespace {

using script::Call;
using script::Conversion;
using script::Item;
namespace jit = torch::jit;

constexpr int64_t kExampleSize = 2;     // of a dimension with a name; 1 would broadcast
constexpr int64_t kMostTurns = 10'000;  // of a loop that is written out

/// What libtorch says, less its list of functions.
std::string reason(const std::exception& e) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&e);
  const std::string what =
      torch_error != nullptr ? torch_error->what_without_backtrace() : e.what();
  const size_t first = what.find_first_not_of("\n ");
  if (first == std::string::npos) return "no reason given";
  return what.substr(first, what.find('\n', first) - first);
}

/// Answers that a tensor's rank and type give, whatever its sizes.
bool is_known(const jit::Node& node) {
  static const std::set<std::string> names = {
      "aten::dim",     "aten::len",    "prim::dtype",
      "prim::device",  "prim::layout", "aten::is_floating_point",
      "prim::is_cuda", "aten::__is__", "aten::__isnot__"};
  return names.count(node.kind().toQualString()) > 0;
}

class Importer {
 public:
  explicit Importer(const std::vector<SymbolicShape>& inputs) : shapes_(inputs) {}
  ScriptImport run(const std::string& path);

 private:
  Item& at(const jit::Value* value) { return items_.at(value); }
  void add_inputs(const jit::Graph& graph);
  void add_outputs(const jit::Value* value);
  void add_output(const Item& item, const std::string& name);
  void block(const jit::Block& block);
  void node(const jit::Node& node);
  bool structure(const jit::Node& node);
  void branch(const jit::Node& node);
  void loop(const jit::Node& node);
  void size_list(const jit::Node& node);
  void convert(const jit::Node& node);
  [[noreturn]] void refuse_unknown() const;
  std::vector<c10::IValue> execute(const jit::Node& node);
  std::vector<Item> inputs_of(const jit::Node& node);
  std::string name_of(const jit::Node& node) const;
  ScriptImport with_example(jit::Module& module);

  const std::vector<SymbolicShape>& shapes_;
  std::vector<std::vector<int64_t>> example_sizes_;
  Graph graph_;
  std::map<const jit::Value*, Item> items_;
  std::map<std::string, const Conversion*> table_;
  std::set<std::string> unknown_;
};

Item constant_item(c10::IValue value) {
  return {std::move(value), kNoId, {}};
}

std::vector<c10::IValue> elements(const c10::IValue& value) {
  if (value.isTuple()) return value.toTupleRef().elements().vec();
  if (value.isList()) return value.toListRef().vec();
  return {value};
}

std::string Importer::name_of(const jit::Node& node) const {
  std::string kind = node.kind().toUnqualString();
  if (kind.starts_with("_")) kind.erase(0, 1);
  return graph_.unique_name(kind);
}

std::vector<Item> Importer::inputs_of(const jit::Node& node) {
  std::vector<Item> items;
  for (const jit::Value* input : node.inputs()) items.push_back(at(input));
  return items;
}

/// What the function gives for the examples.
std::vector<c10::IValue> Importer::execute(const jit::Node& node) {
  const torch::NoGradGuard guard;
  jit::Stack stack;
  for (const jit::Value* input : node.inputs()) stack.push_back(at(input).example);
  try {
    node.getOperation()(stack);
  } catch (const std::exception& e) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: {}", node.kind().toQualString(), reason(e)),
                "check the input shapes that were given");
  }
  return stack;
}

/// Lists and tuples are taken apart and put together without nodes.
bool Importer::structure(const jit::Node& node) {
  const auto kind = node.kind();
  if (kind == c10::prim::ListConstruct || kind == c10::prim::TupleConstruct) {
    std::vector<Item> parts = inputs_of(node);
    Item item;
    if (kind == c10::prim::TupleConstruct) {
      std::vector<c10::IValue> values;
      for (const Item& part : parts) values.push_back(part.example);
      item.example = c10::ivalue::Tuple::create(std::move(values));
    } else {
      c10::impl::GenericList list(
          node.output()->type()->expectRef<c10::ListType>().getElementType());
      for (const Item& part : parts) list.push_back(part.example);
      item.example = std::move(list);
    }
    const bool plain =
        std::all_of(parts.begin(), parts.end(), [](const Item& part) { return part.constant(); });
    if (!plain) item.parts = std::move(parts);
    items_[node.output()] = std::move(item);
    return true;
  }
  if (kind == c10::prim::ListUnpack || kind == c10::prim::TupleUnpack) {
    const Item whole = at(node.input());
    const auto count = static_cast<int64_t>(node.outputs().size());
    const std::vector<c10::IValue> values = elements(whole.example);
    if (static_cast<int64_t>(values.size()) != count) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("a list of {} where the model takes {}", values.size(), count),
                  "check the input shapes that were given");
    }
    for (size_t i = 0; i < values.size(); ++i) {
      items_[node.outputs()[i]] =
          whole.parts.empty() ? constant_item(values[i]) : whole.parts.at(i);
    }
    return true;
  }
  if (kind == c10::prim::TupleIndex || kind == c10::aten::__getitem__) {
    const Item whole = at(node.input(0));
    if (whole.parts.empty() || !at(node.input(1)).constant()) return false;
    const auto count = static_cast<int64_t>(whole.parts.size());
    int64_t index = at(node.input(1)).example.toInt();
    index += index < 0 ? count : 0;
    items_[node.output()] = whole.parts.at(static_cast<size_t>(index));
    return true;
  }
  return false;
}

void Importer::branch(const jit::Node& node) {
  const Item& condition = at(node.input());
  if (!condition.constant()) {
    throw Error(ErrorCode::unsupported, "the model decides by its data (if)",
                "export it to ONNX from Python, or trace it with torch.jit.trace");
  }
  const jit::Block* taken = node.blocks().at(condition.example.toBool() ? 0 : 1);
  block(*taken);
  for (size_t i = 0; i < node.outputs().size(); ++i) {
    items_[node.outputs()[i]] = at(taken->outputs()[i]);
  }
}

/// Inputs: most turns, whether to begin, carried values; the block's: turn, carried values.
void Importer::loop(const jit::Node& node) {
  const Item most = at(node.input(0));
  Item go = at(node.input(1));
  std::vector<Item> carried;
  for (size_t i = 2; i < node.inputs().size(); ++i) carried.push_back(at(node.input(i)));
  const jit::Block& body = *node.blocks().at(0);
  for (int64_t turn = 0;; ++turn) {
    if (!most.constant() || !go.constant()) {
      throw Error(ErrorCode::unsupported, "the model repeats as often as its data say (loop)",
                  "export it to ONNX from Python, or trace it with torch.jit.trace");
    }
    if (turn >= most.example.toInt() || !go.example.toBool()) break;
    if (turn >= kMostTurns) throw Error(ErrorCode::unsupported, "a loop of too many turns");
    items_[body.inputs()[0]] = constant_item(turn);
    for (size_t i = 0; i < carried.size(); ++i) items_[body.inputs()[i + 1]] = carried[i];
    block(body);
    go = at(body.outputs()[0]);
    for (size_t i = 0; i < carried.size(); ++i) carried[i] = at(body.outputs()[i + 1]);
  }
  for (size_t i = 0; i < carried.size(); ++i) items_[node.outputs()[i]] = carried[i];
}

/// aten::size of a tensor alone: a list of its sizes.
void Importer::size_list(const jit::Node& node) {
  Call call(graph_, inputs_of(node), name_of(node));
  const ValueId shape = call.add("Shape", {call.tensor(0)});
  Item list{execute(node).at(0), kNoId, {}};
  const std::vector<int64_t> sizes = list.example.toIntVector();
  for (size_t i = 0; i < sizes.size(); ++i) {
    const ValueId index = call.constant(Tensor::scalar(static_cast<int64_t>(i)), "axis");
    list.parts.push_back(
        {sizes[i], call.add("Gather", {shape, index}, {{"axis", int64_t{0}}}), {}});
  }
  items_[node.output()] = std::move(list);
}

void Importer::refuse_unknown() const {
  throw Error(ErrorCode::unsupported,
              fmt::format("no counterpart for {}", fmt::join(unknown_, ", ")),
              "export the model to ONNX from Python");
}

void Importer::convert(const jit::Node& node) {
  const std::string kind = node.kind().toQualString();
  const auto row = table_.find(kind);
  if (row == table_.end()) unknown_.insert(kind);
  std::vector<Item> inputs = inputs_of(node);
  std::vector<c10::IValue> examples;
  try {
    examples = execute(node);
  } catch (const Error&) {
    if (!unknown_.empty()) refuse_unknown();  // its stand-in may be to blame
    throw;
  }
  if (row == table_.end()) {
    for (size_t i = 0; i < node.outputs().size(); ++i) {
      // So that the rest is looked at too.
      items_[node.outputs()[i]] = {examples.at(i), graph_.add_value(graph_.unique_name(kind)), {}};
    }
    return;
  }
  Call call(graph_, std::move(inputs), name_of(node));
  std::vector<ValueId> ids;
  try {
    ids = row->second->convert(call);
  } catch (Error& e) {
    e.add_context(kind);
    throw;
  }
  // One output that is a list (split, chunk): its parts.
  const bool list = node.outputs().size() == 1 && examples.at(0).isTensorList();
  if (list) {
    Item item{examples[0], kNoId, {}};
    for (size_t i = 0; i < ids.size(); ++i) {
      item.parts.push_back({examples[0].toTensorVector().at(i), ids[i], {}});
    }
    items_[node.output()] = std::move(item);
    return;
  }
  for (size_t i = 0; i < node.outputs().size(); ++i) {
    items_[node.outputs()[i]] = {examples.at(i), ids.at(i), {}};
  }
}

void Importer::node(const jit::Node& node) {
  const auto kind = node.kind();
  if (kind == c10::prim::Constant) {
    items_[node.output()] = constant_item(*jit::toIValue(node.output()));
    return;
  }
  if (kind == c10::prim::RaiseException) {
    throw Error(ErrorCode::invalid_argument, "the model refuses such inputs",
                "check the input shapes that were given");
  }
  if (kind == c10::prim::If) return branch(node);
  if (kind == c10::prim::Loop) return loop(node);
  if (structure(node)) return;
  const std::vector<Item> inputs = inputs_of(node);
  const bool plain =
      std::all_of(inputs.begin(), inputs.end(), [](const Item& item) { return item.constant(); });
  if (plain || is_known(node)) {
    const std::vector<c10::IValue> values = execute(node);
    for (size_t i = 0; i < node.outputs().size(); ++i) {
      items_[node.outputs()[i]] = constant_item(values.at(i));
    }
    return;
  }
  if (kind == c10::aten::size && inputs.size() == 1) return size_list(node);
  // A conversion of type or place keeps what is a float.
  const std::string name = kind.toQualString();
  if (name == "aten::to" || name == "aten::type_as" || name == "aten::_to_copy") {
    const c10::IValue value = execute(node).at(0);
    const DType from = script::dtype_of(inputs[0].example.toTensor().scalar_type());
    const DType to = script::dtype_of(value.toTensor().scalar_type());
    Call call(graph_, inputs, name_of(node));
    const ValueId x = call.tensor(0);
    const auto type = static_cast<int64_t>(to == DType::float32 ? 1 : to == DType::int64 ? 7 : 9);
    items_[node.output()] = {value, from == to ? x : call.add("Cast", {x}, {{"to", type}}), {}};
    return;
  }
  convert(node);
}

void Importer::block(const jit::Block& block) {
  for (const jit::Node* each : block.nodes()) node(*each);
}

void Importer::add_inputs(const jit::Graph& graph) {
  const auto inputs = graph.inputs();
  const size_t count = inputs.size() - 1;  // the first is the module
  if (count != shapes_.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the model has {} input{}, shapes were given for {}", count,
                            count == 1 ? "" : "s", shapes_.size()),
                "give --input-shape once for each input, in order, as in Nx3x32x32");
  }
  for (size_t i = 0; i < count; ++i) {
    std::vector<int64_t> sizes;
    for (const Dim& dim : shapes_[i]) sizes.push_back(dim.known() ? dim.value : kExampleSize);
    std::string name = inputs[i + 1]->debugName();
    if (const size_t dot = name.find('.'); dot != std::string::npos) name.resize(dot);
    const ValueId id = graph_.add_input(graph_.unique_name(name), DType::float32, shapes_[i]);
    items_[inputs[i + 1]] = {torch::randn(sizes), id, {}};
    example_sizes_.push_back(std::move(sizes));
  }
}

void Importer::add_output(const Item& item, const std::string& name) {
  Call call(graph_, {item}, name);
  // An output is a value of its own, even where the model hands something through.
  const ValueId id = call.tensor(0);
  graph_.add_output(graph_.value(id).is_output || graph_.producer(id) == nullptr
                        ? call.add("Identity", {id})
                        : id);
}

void Importer::add_outputs(const jit::Value* value) {
  const Item& item = at(value);
  if (item.parts.empty()) return add_output(item, "output");
  for (const Item& part : item.parts) {
    if (!part.parts.empty() || !part.example.isTensor()) {
      throw Error(ErrorCode::unsupported, "the model returns nested lists or what is no tensor");
    }
    add_output(part, "output");
  }
}

ScriptImport Importer::with_example(jit::Module& module) {
  const torch::NoGradGuard guard;
  ScriptImport out;
  torch::manual_seed(1);
  std::vector<c10::IValue> arguments;
  for (const auto& sizes : example_sizes_) {
    const torch::Tensor x = torch::randn(sizes);
    out.inputs.push_back(from_torch(x));
    arguments.emplace_back(x);
  }
  for (const c10::IValue& part : elements(module.forward(arguments)))
    out.outputs.push_back(from_torch(part.toTensor()));
  out.graph = std::move(graph_);
  return out;
}

ScriptImport Importer::run(const std::string& path) {
  for (const auto table :
       {script::layer_conversions(), script::math_conversions(), script::shape_conversions()}) {
    for (const Conversion& row : table) table_[row.function] = &row;
  }
  jit::Module module;
  try {
    module = jit::load(path, torch::kCPU);
    module.eval();
    module = jit::freeze(module, c10::nullopt, false);
  } catch (const std::exception& e) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("{} is no TorchScript file that libtorch {} reads: {}", path,
                            TORCH_VERSION, reason(e)),
                "write one with torch.jit.trace(model, example).save(FILE)");
  }
  const std::shared_ptr<jit::Graph> graph = module.get_method("forward").graph()->copy();
  jit::Inline(*graph);
  jit::RemoveTensorMutation(graph);
  items_[graph->inputs().at(0)] = constant_item(module._ivalue());
  add_inputs(*graph);
  block(*graph->block());
  if (!unknown_.empty()) refuse_unknown();
  add_outputs(graph->outputs().at(0));
  graph_.producer_name = "torchscript";
  graph_.remove_dead();
  graph_.sort();
  return with_example(module);
}

}  // namespace

ScriptImport import_torchscript(const std::string& path, const std::vector<SymbolicShape>& inputs) {
  if (!std::filesystem::is_regular_file(path)) {
    throw Error(ErrorCode::not_found, fmt::format("{} is no file", path));
  }
  return Importer(inputs).run(path);
}

}  // namespace narrow::train
