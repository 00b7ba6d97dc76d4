// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/thin_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {

namespace {

Json json_of(const ModelSpeed& m) {
  return {{"parameters", m.parameters},
          {"prompt_tokens_per_second", m.prompt_tokens_per_second},
          {"new_tokens_per_second", m.new_tokens_per_second}};
}

std::string text_of(const ModelSpeed& a, const ModelSpeed& b) {
  const auto gain = [](double before, double after) {
    return fmt::format("{:.0f} -> {:.0f} ({:.2f}x)", before, after, after / before);
  };
  return fmt::format(
      "parameters {} -> {} ({:.3f}); tokens a second in float, one thread: of a prompt {}, new "
      "ones {}\n",
      format_count(a.parameters), format_count(b.parameters),
      static_cast<double>(b.parameters) / static_cast<double>(a.parameters),
      gain(a.prompt_tokens_per_second, b.prompt_tokens_per_second),
      gain(a.new_tokens_per_second, b.new_tokens_per_second));
}

/// Of graphs.
std::string text_of_times(const ThinReport& r) {
  const auto share = static_cast<double>(r.macs_after) / static_cast<double>(r.macs_before);
  return fmt::format(
      "multiply-adds {} -> {} ({:.3f}); one sample in float, one thread: {} -> {} "
      "({:.2f}x)\n",
      format_count(r.macs_before), format_count(r.macs_after), share,
      format_microseconds(r.before_us), format_microseconds(r.after_us), r.before_us / r.after_us);
}

}  // namespace

Json json_of(const ThinReport& r) {
  Json j = {{"how", r.how}};
  if (r.model_before && r.model_after) {
    j["before"] = json_of(*r.model_before);
    j["after"] = json_of(*r.model_after);
  } else {
    j["macs_before"] = r.macs_before;
    j["macs_after"] = r.macs_after;
    j["before_us"] = r.before_us;
    j["after_us"] = r.after_us;
  }
  if (!r.groups.empty()) j["difference"] = r.difference;
  j["layers"] = Json::array();
  for (const ThinnedLayers& g : r.groups) {
    j["layers"].push_back({{"nodes", g.nodes}, {"before", g.before}, {"after", g.after}});
  }
  for (const train::Factored& f : r.factored) {
    j["layers"].push_back({{"nodes", {f.node}},
                           {"outputs", f.outputs},
                           {"inputs", f.inputs},
                           {"rank", f.rank},
                           {"energy", f.energy}});
  }
  return j;
}

std::string to_text(const ThinReport& r) {
  std::string out = fmt::format("\nmade smaller by {}\n", r.how);
  if (!r.groups.empty()) {
    const char* what = r.model_before ? "before" : "filters";
    Table table({{"layers"}, {what, Align::right}, {"kept", Align::right}});
    for (const ThinnedLayers& g : r.groups) {
      table.add_row({fmt::format("{}", fmt::join(g.nodes, ", ")), format_count(g.before),
                     format_count(g.after)});
    }
    out += table.text();
  }
  if (!r.factored.empty()) {
    Table table({{"layer"},
                 {"outputs", Align::right},
                 {"inputs", Align::right},
                 {"rank", Align::right},
                 {"energy %", Align::right}});
    for (const train::Factored& f : r.factored) {
      table.add_row({f.node, format_count(f.outputs), format_count(f.inputs), format_count(f.rank),
                     format_fixed(100 * f.energy, 2)});
    }
    out += table.text();
  }
  out +=
      r.model_before && r.model_after ? text_of(*r.model_before, *r.model_after) : text_of_times(r);
  if (!r.groups.empty()) {
    out += fmt::format("the thinned network differs from the masked one by {:.1e}\n", r.difference);
  }
  return out;
}

}  // namespace narrow
