// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/prune_report.h"

#include <fmt/format.h>

#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

double percent(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double zeros_percent(const std::vector<train::LayerZeros>& layers) {
  int64_t weights = 0;
  int64_t zeros = 0;
  for (const train::LayerZeros& layer : layers) {
    weights += layer.weights;
    zeros += layer.zeros;
  }
  return percent(zeros, weights);
}

std::string speed_remark(const PruneReport& r) {
  constexpr double kNoise = 1.1;  // what two runs of one file may differ by
  const double gain = r.before_us / r.after_us;
  if (gain > kNoise) return fmt::format("{:.2f}x faster than before", gain);
  return "no faster than before: these kernels multiply zeros like other numbers. Zeros save "
         "bytes in a compressed file; filters and channels that are removed save time";
}

Json json_of(const PruneReport& r) {
  Json j = {{"prune", r.prune},
            {"zeros_percent", zeros_percent(r.layers)},
            {"float_bytes", r.float_bytes},
            {"float_deflated_bytes", r.float_deflated},
            {"bytes", r.bytes},
            {"deflated_bytes", r.deflated},
            {"float_us", r.float_us},
            {"before_us", r.before_us},
            {"after_us", r.after_us}};
  j["layers"] = Json::array();
  for (const train::LayerZeros& layer : r.layers) {
    j["layers"].push_back({{"node", layer.node},
                           {"op", layer.op},
                           {"weights", layer.weights},
                           {"zeros", layer.zeros}});
  }
  return j;
}

std::string to_text(const PruneReport& r) {
  if (r.empty()) return "";
  Table table({{"layer"}, {"op"}, {"weights", Align::right}, {"zeros %", Align::right}});
  for (const train::LayerZeros& layer : r.layers) {
    table.add_row({layer.node, layer.op, format_count(layer.weights),
                   format_fixed(percent(layer.zeros, layer.weights), 2)});
  }
  std::string out = "\n" + table.text();
  const auto share = [&](uint64_t bytes, uint64_t whole) {
    return whole == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(whole);
  };
  out += fmt::format("zeros in all {:.2f} % ({})\n", zeros_percent(r.layers), r.prune);
  out += fmt::format(
      "file         {} ({:.3f} of float), compressed {} ({:.3f} of the float file, "
      "{:.3f} of that compressed)\n",
      format_bytes(r.bytes), share(r.bytes, r.float_bytes), format_bytes(r.deflated),
      share(r.deflated, r.float_bytes), share(r.deflated, r.float_deflated));
  out += fmt::format("{:<12} {} (before {}, float {}), one thread\n", r.sample,
                     format_microseconds(r.after_us), format_microseconds(r.before_us),
                     format_microseconds(r.float_us));
  return out + speed_remark(r) + "\n";
}

}  // namespace narrow
