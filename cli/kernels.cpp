// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>
#include <memory>

#include "commands.h"
#include "model.h"
#include "narrow/core/cpu.h"
#include "narrow/report/table.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow kernels int8.onnx\n"
    "  NARROW_ISA=avx2 narrow kernels int8.onnx\n";

struct KernelsFlags {
  std::string model;
  std::string compute;
};

Json json_of(const std::vector<KernelChoice>& choices, const LoweringReport& lowering) {
  Json nodes = Json::array();
  for (const KernelChoice& c : choices) {
    Json refused = Json::array();
    for (const auto& [name, reason] : c.refused) {
      refused.push_back({{"name", name}, {"reason", reason}});
    }
    nodes.push_back({{"node", c.node}, {"op", c.op}, {"chosen", c.chosen}, {"refused", refused}});
  }
  Json not_lowered = Json::array();
  for (const LoweringRefusal& r : lowering.refused) {
    not_lowered.push_back({{"node", r.node}, {"op", r.op}, {"reason", r.reason}});
  }
  return {{"cpu", cpu_description()},
          {"isa", to_string(active_isa())},
          {"nodes", std::move(nodes)},
          {"not_lowered", std::move(not_lowered)}};
}

std::string text_of(const std::vector<KernelChoice>& choices, const LoweringReport& lowering) {
  Table table({{"node"}, {"operator"}, {"implementation"}});
  std::map<std::string, int64_t> counts;
  for (const KernelChoice& c : choices) {
    table.add_row({c.node, c.op, c.chosen});
    for (const auto& [name, reason] : c.refused) {
      table.add_row({"", "", fmt::format("  not {}: {}", name, reason)});
    }
    ++counts[c.chosen];
  }
  std::string out = fmt::format("{}\n\n{}\n", cpu_description(), table.text());
  for (const auto& [name, count] : counts) out += fmt::format("{:6}  {}\n", count, name);
  if (lowering.refused.empty()) return out;
  Table refused({{"quantized, but computed in float"}, {"operator"}, {"why"}});
  for (const LoweringRefusal& r : lowering.refused) refused.add_row({r.node, r.op, r.reason});
  return out + "\n" + refused.text();
}

void run_kernels(const KernelsFlags& flags, Context& context) {
  const Session session =
      make_session(flags.model, load_model(flags.model), session_options(context, flags.compute));
  const std::vector<KernelChoice> choices = session.kernel_choices();
  context.print(json_text(json_of(choices, session.lowering())),
                text_of(choices, session.lowering()));
}

}  // namespace

void add_kernels(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "kernels", "Say which implementation each node got, and why no better one");
  auto flags = std::make_shared<KernelsFlags>();
  add_model(*command, "model", flags->model, "The model");
  add_compute(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_kernels(*flags, context); }; });
}

}  // namespace narrow::cli
