// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/thin_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {

Json json_of(const ThinReport& r) {
  Json j = {{"how", r.how},
            {"macs_before", r.macs_before},
            {"macs_after", r.macs_after},
            {"before_us", r.before_us},
            {"after_us", r.after_us}};
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
    Table table({{"layers"}, {"filters", Align::right}, {"kept", Align::right}});
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
  const auto share = static_cast<double>(r.macs_after) / static_cast<double>(r.macs_before);
  out += fmt::format(
      "multiply-adds {} -> {} ({:.3f}); one sample in float, one thread: {} -> {} "
      "({:.2f}x)\n",
      format_count(r.macs_before), format_count(r.macs_after), share,
      format_microseconds(r.before_us), format_microseconds(r.after_us), r.before_us / r.after_us);
  if (!r.groups.empty()) {
    out += fmt::format("the thinned network differs from the masked one by {:.1e}\n", r.difference);
  }
  return out;
}

}  // namespace narrow
