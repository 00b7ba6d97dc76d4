// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "model_summary.h"
#include "narrow/core/error.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/report/table.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow inspect model.onnx\n"
    "  narrow inspect int8.onnx --nodes --tensors 50\n"
    "  narrow inspect int8.onnx --json\n"
    "  narrow inspect model.gguf --nodes\n";

struct InspectFlags {
  std::string model;
  std::string compute;
  int64_t batch = 1;
  int64_t tensors = 10;
  bool nodes = false;
};

double fraction(const Session::MacCount& macs) {
  return macs.total > 0 ? static_cast<double>(macs.integer) / static_cast<double>(macs.total) : 0;
}

// --- JSON -----------------------------------------------------------------------------------

Json json_of(const std::vector<TensorInfo>& tensors, bool with_bytes) {
  Json list = Json::array();
  for (const TensorInfo& t : tensors) {
    Json entry = {{"name", t.name}, {"dtype", t.dtype}, {"shape", t.shape}};
    if (with_bytes) entry["bytes"] = t.bytes;
    list.push_back(std::move(entry));
  }
  return list;
}

Json json_of(const PlanSummary& plan) {
  Json proofs = Json::array();
  for (const LayerProof& p : plan.proofs) {
    proofs.push_back({{"node", p.node},
                      {"op", p.op},
                      {"weights", p.weights},
                      {"accumulator_min", p.min},
                      {"accumulator_max", p.max},
                      {"headroom_bits", json_number(p.headroom_bits)},
                      {"fits_int32", p.fits_int32}});
  }
  Json refused = Json::array();
  for (const LoweringRefusal& r : plan.not_lowered) {
    refused.push_back({{"node", r.node}, {"op", r.op}, {"reason", r.reason}});
  }
  Json j = {{"ops", plan.ops},
            {"layers",
             {{"integer", plan.integer_layers},
              {"dynamic", plan.dynamic_layers},
              {"weight_only", plan.weight_only_layers},
              {"float", plan.float_layers}}},
            {"overflow_proof", std::move(proofs)},
            {"not_lowered", std::move(refused)}};
  if (plan.memory) {
    j["memory"] = {{"arena_bytes", plan.memory->arena_bytes},
                   {"activation_bytes", plan.memory->activation_bytes},
                   {"packed_bytes", plan.memory->packed_bytes},
                   {"constant_bytes", plan.memory->constant_bytes}};
  }
  return j;
}

Json json_of(const ModelSummary& s) {
  Json nodes = Json::array();
  for (const NodeInfo& n : s.nodes) {
    nodes.push_back({{"name", n.name}, {"op", n.op}, {"weights", n.weights}, {"output", n.output}});
  }
  Json unsupported = Json::array();
  for (const UnsupportedNode& n : s.unsupported) {
    unsupported.push_back({{"node", n.node}, {"op", n.op}});
  }
  Json j = {{"model", s.path},
            {"file_bytes", s.file_bytes},
            {"producer", s.producer},
            {"opsets", s.opsets},
            {"metadata", s.metadata},
            {"inputs", json_of(s.inputs, false)},
            {"outputs", json_of(s.outputs, false)},
            {"nodes", std::move(nodes)},
            {"ops", s.ops},
            {"parameters", s.parameters},
            {"parameter_bytes", s.parameter_bytes},
            {"unsupported", std::move(unsupported)}};
  // Null where it cannot be counted: an unsupported operator, or shapes that are not known.
  const bool counted = s.plan && s.plan->macs;
  j["macs"] = counted ? Json(s.plan->macs->total) : Json(nullptr);
  j["integer_macs"] = counted ? Json(s.plan->macs->integer) : Json(nullptr);
  j["integer_mac_fraction"] = counted ? Json(fraction(*s.plan->macs)) : Json(nullptr);
  j["batch"] = s.plan ? Json(s.plan->batch) : Json(nullptr);
  j["plan"] = s.plan ? json_of(*s.plan) : Json(nullptr);
  j["plan_error"] = s.plan_error.empty() ? Json(nullptr) : Json(s.plan_error);
  j["tensors"] = json_of(s.tensors, true);
  return j;
}

// --- text -----------------------------------------------------------------------------------

std::string op_list(const std::map<std::string, int64_t>& ops) {
  Table table({{"operator"}, {"nodes", Align::right}});
  for (const auto& [name, count] : ops) table.add_row({name, format_count(count)});
  return table.text();
}

std::string head(const ModelSummary& s) {
  std::vector<std::string> opsets;
  for (const auto& [domain, version] : s.opsets) {
    opsets.push_back(fmt::format("{} {}", domain.empty() ? "onnx" : domain, version));
  }
  const double bits = s.parameters > 0 ? 8.0 * static_cast<double>(s.parameter_bytes) /
                                             static_cast<double>(s.parameters)
                                       : 0;
  std::string out =
      fmt::format("{}\n  file        {}\n  producer    {}\n  opset       {}\n", s.path,
                  format_bytes(s.file_bytes), s.producer, fmt::join(opsets, ", "));
  out += fmt::format("  nodes       {}\n  parameters  {} in {} ({:.2f} bits each)\n",
                     format_count(static_cast<int64_t>(s.nodes.size())), format_count(s.parameters),
                     format_bytes(s.parameter_bytes), bits);
  for (const TensorInfo& t : s.inputs) {
    out += fmt::format("  input       {}  {}{}\n", t.name, t.dtype, t.shape);
  }
  for (const TensorInfo& t : s.outputs) {
    out += fmt::format("  output      {}  {}{}\n", t.name, t.dtype, t.shape);
  }
  for (const auto& [key, value] : s.metadata) {
    const bool one_line = value.size() <= 60 && value.find('\n') == std::string::npos;
    out += fmt::format("  metadata    {}{}\n", key,
                       one_line ? ": " + value : fmt::format(" ({} characters)", value.size()));
  }
  return out;
}

std::string proof_text(const PlanSummary& plan) {
  Table table({{"layer"},
               {"operator"},
               {"weights"},
               {"least sum", Align::right},
               {"greatest sum", Align::right},
               {"bits left", Align::right}});
  for (const LayerProof& p : plan.proofs) {
    table.add_row({p.node, p.op, p.weights, format_count(p.min), format_count(p.max),
                   p.fits_int32 ? format_fixed(p.headroom_bits, 1) : "OVERFLOWS"});
  }
  return "\nint32 sums at their worst, from the actual weights\n" + table.text();
}

std::string plan_text(const PlanSummary& plan) {
  std::string out = "\nas executed\n" + op_list(plan.ops);
  out += fmt::format(
      "\nconvolutions and products: {} on integers, {} with activations quantized at run time, "
      "{} with only weights quantized, {} in float\n",
      plan.integer_layers, plan.dynamic_layers, plan.weight_only_layers, plan.float_layers);
  if (plan.macs) {
    out += fmt::format("multiply-adds, batch {}: {}, {:.2f} % on integers\n", plan.batch,
                       format_count(plan.macs->total), 100 * fraction(*plan.macs));
  } else {
    out += "multiply-adds: not counted, the shapes of the inputs are not all known\n";
  }
  if (plan.memory) {
    out += fmt::format(
        "activations {} (unshared {}), packed weights {}\n", format_bytes(plan.memory->arena_bytes),
        format_bytes(plan.memory->activation_bytes), format_bytes(plan.memory->packed_bytes));
  }
  if (!plan.proofs.empty()) out += proof_text(plan);
  if (plan.not_lowered.empty()) return out;
  Table refused({{"quantized, but computed in float"}, {"operator"}, {"why"}});
  for (const LoweringRefusal& r : plan.not_lowered) refused.add_row({r.node, r.op, r.reason});
  return out + "\n" + refused.text();
}

/// Those with weights, which quantization is about; or all.
std::string node_text(const ModelSummary& s, bool all) {
  Table table({{all ? "node" : "layer"}, {"operator"}, {"weights"}, {"output"}});
  for (const NodeInfo& n : s.nodes) {
    const bool layer = !n.weights.empty() && !n.op.ends_with("quantizeLinear") &&
                       !n.op.ends_with("QuantizeLinear");
    if (all || layer) table.add_row({n.name, n.op, n.weights, n.output});
  }
  return table.rows() > 0 ? "\n" + table.text() : "";
}

std::string text_of(const ModelSummary& s, const InspectFlags& flags) {
  std::string out = head(s) + "\nas stored\n" + op_list(s.ops) + node_text(s, flags.nodes);
  if (!s.unsupported.empty()) {
    Table table({{"unsupported operator"}, {"node"}});
    for (const UnsupportedNode& n : s.unsupported) table.add_row({n.op, n.node});
    out += "\n" + table.text();
  }
  if (s.plan) out += plan_text(*s.plan);
  if (!s.plan_error.empty()) out += fmt::format("\ncannot be run: {}\n", s.plan_error);
  if (flags.tensors == 0 || s.tensors.empty()) return out;
  Table table({{"largest tensors"}, {"type"}, {"bytes", Align::right}});
  for (const TensorInfo& t : s.tensors) {
    if (static_cast<int64_t>(table.rows()) == flags.tensors) break;
    table.add_row({t.name, t.dtype + t.shape, format_count(static_cast<int64_t>(t.bytes))});
  }
  return out + "\n" + table.text();
}

void run_inspect(const InspectFlags& flags, Context& context) {
  if (is_language_model(flags.model)) {
    return inspect_weights({flags.model, flags.nodes, flags.tensors}, context);
  }
  const ModelSummary summary =
      summarize(flags.model, flags.batch, session_options(context, flags.compute));
  context.print(json_text(json_of(summary)), text_of(summary, flags));
  const std::vector<std::string> overflowing = summary.overflowing();
  if (overflowing.empty()) return;
  throw Error(ErrorCode::numeric_failure,
              fmt::format("int32 sums could overflow in {}", fmt::join(overflowing, ", ")),
              "quantize these layers with fewer bits, or keep them in float");
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("inspect", "Show what is in a model");
  auto flags = std::make_shared<InspectFlags>();
  add_model(*command, "model", flags->model, "The model");
  add_integer(*command, "--batch", flags->batch, 1, 65536,
              "Batch for counts and memory where the model leaves it open (default 1)");
  add_integer(*command, "--tensors", flags->tensors, 0, INT64_MAX,
              "Tensors to list, largest first (default 10; JSON lists all)");
  command->add_flag("--nodes", flags->nodes, "List every node (default: those with weights)");
  add_compute(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_inspect(*flags, context); }; });
}

}  // namespace narrow::cli
