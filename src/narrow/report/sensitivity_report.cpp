// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/sensitivity_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/report/json.h"
#include "narrow/report/svg.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

std::string level_text(const SensitivityReport& r, double level) {
  return r.by == "bits" ? fmt::format("{:.0f} bit", level) : fmt::format("{:g} %", 100 * level);
}

std::string value_text(const SensitivityReport& r, double value) {
  return format_fixed(value, r.percent ? 2 : 5);
}

/// What is lost, in points of the metric; never below 0.
double lost(const SensitivityReport& r, double value) {
  return std::isfinite(value) ? std::max(0.0, r.scan.reference - value) : INFINITY;
}

/// White at no loss, over yellow to dark red where as much is lost as any layer does; the root
/// shows small losses too.
std::string colour_of(double part) {
  struct Stop {
    double at;
    double rgb[3];
  };
  constexpr Stop kStops[] = {{0, {247, 251, 249}},
                             {0.25, {254, 227, 145}},
                             {0.5, {253, 152, 68}},
                             {0.75, {224, 66, 51}},
                             {1, {128, 12, 38}}};
  const double at = std::sqrt(std::clamp(part, 0.0, 1.0));
  size_t i = 0;
  while (i + 2 < std::size(kStops) && at > kStops[i + 1].at) ++i;
  const Stop& a = kStops[i];
  const Stop& b = kStops[i + 1];
  const double t = (at - a.at) / (b.at - a.at);
  int rgb[3];
  for (int k = 0; k < 3; ++k) {
    rgb[k] = static_cast<int>(std::lround(a.rgb[k] + t * (b.rgb[k] - a.rgb[k])));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

/// A name that fits: the end says which layer it is.
std::string shortened(const std::string& name, size_t most) {
  if (name.size() <= most) return name;
  return "..." + name.substr(name.size() - (most - 3));
}

struct Layout {
  double left = 270;  // names and sizes
  double cell = 74;   // a level
  double row = 24;
  double top = 104;
};

void draw_cell(Svg& svg, const SensitivityReport& r, double x, double y, const Layout& at,
               double value, double worst) {
  const double gone = lost(r, value);
  const double part = worst > 0 ? gone / worst : 0;
  svg.rect(x + 1, y + 1, at.cell - 2, at.row - 2, colour_of(part));
  const bool dark = std::sqrt(std::clamp(part, 0.0, 1.0)) > 0.7;
  svg.text(x + at.cell / 2, y + at.row / 2 + 4, value_text(r, value),
           {.size = 11, .anchor = Anchor::middle, .colour = dark ? "#ffffff" : "#1f2933"});
}

}  // namespace

std::string to_json(const SensitivityReport& r) {
  Json j = {{"model", r.model},
            {"by", r.by},
            {"metric", r.metric},
            {"samples", r.samples},
            {"reference", json_number(r.scan.reference)},
            {"interval", r.noise},
            {"levels", r.scan.levels},
            {"layers", Json::array()}};
  for (const size_t i : most_sensitive(r.scan)) {
    const LayerCurve& layer = r.scan.layers[i];
    Json values = Json::array();
    for (const double value : layer.values) values.push_back(json_number(value));
    j["layers"].push_back({{"node", layer.node},
                           {"op", layer.op},
                           {"weights", layer.weights},
                           {"values", std::move(values)}});
  }
  j["wall_seconds"] = r.seconds;
  return json_text(j);
}

std::string to_text(const SensitivityReport& r) {
  std::vector<Column> columns = {{"layer"}, {"op"}, {"weights", Align::right}};
  for (const double level : r.scan.levels) columns.push_back({level_text(r, level), Align::right});
  Table table(columns);
  for (const size_t i : most_sensitive(r.scan)) {
    const LayerCurve& layer = r.scan.layers[i];
    std::vector<std::string> cells = {layer.node, layer.op, format_count(layer.weights)};
    for (const double value : layer.values) cells.push_back(value_text(r, value));
    table.add_row(std::move(cells));
  }
  std::string out =
      fmt::format("{}: {} with one layer's weights changed; as it is {}{}\n\n{}", r.model, r.metric,
                  value_text(r, r.scan.reference), r.percent ? " %" : "", table.text());
  if (r.noise > 0) {
    out += fmt::format("{} samples: differences below {:.2f} are chance\n", format_count(r.samples),
                       r.noise);
  }
  return out;
}

std::string to_svg(const SensitivityReport& r) {
  const Layout at;
  constexpr double kRight = 24;
  constexpr double kFoot = 62;
  constexpr size_t kName = 30;
  const auto order = most_sensitive(r.scan);
  double worst = 0;
  for (const LayerCurve& layer : r.scan.layers) {
    for (const double value : layer.values) {
      const double gone = lost(r, value);
      if (std::isfinite(gone)) worst = std::max(worst, gone);
    }
  }
  const double table = at.cell * static_cast<double>(r.scan.levels.size());
  const double width = std::max(520.0, at.left + table + kRight);
  const double bottom = at.top + at.row * static_cast<double>(order.size());
  Svg svg(width, bottom + kFoot);
  svg.text(20, 30, fmt::format("Sensitivity to {}", r.by), {.size = 18, .bold = true});
  svg.text(20, 50,
           fmt::format("{}: {} when one layer alone is changed; as it is {}{}",
                       shortened(r.model, kName), r.metric, value_text(r, r.scan.reference),
                       r.percent ? " %" : ""),
           {.colour = "#52606d"});
  svg.text(20, at.top - 10, "layer", {.size = 11, .bold = true});
  svg.text(at.left - 12, at.top - 10, "weights", {.size = 11, .bold = true, .anchor = Anchor::end});
  for (size_t k = 0; k < r.scan.levels.size(); ++k) {
    svg.text(at.left + at.cell * (static_cast<double>(k) + 0.5), at.top - 10,
             level_text(r, r.scan.levels[k]), {.size = 11, .bold = true, .anchor = Anchor::middle});
  }
  svg.line(20, at.top - 3, at.left + table, at.top - 3, "#9aa5b1");
  for (size_t i = 0; i < order.size(); ++i) {
    const LayerCurve& layer = r.scan.layers[order[i]];
    const double y = at.top + at.row * static_cast<double>(i);
    svg.text(20, y + at.row / 2 + 4, shortened(layer.node, kName), {.size = 11});
    svg.text(at.left - 12, y + at.row / 2 + 4, format_count(layer.weights),
             {.size = 11, .anchor = Anchor::end, .colour = "#52606d"});
    for (size_t k = 0; k < layer.values.size(); ++k) {
      draw_cell(svg, r, at.left + at.cell * static_cast<double>(k), y, at, layer.values[k], worst);
    }
  }
  // The scale: what the colours mean.
  constexpr int kSteps = 60;
  constexpr double kScale = 240;
  const double y = bottom + 18;
  for (int i = 0; i < kSteps; ++i) {
    const double part = std::pow((i + 0.5) / kSteps, 2);  // even to the eye
    svg.rect(at.left + kScale * i / kSteps, y, kScale / kSteps + 0.5, 12, colour_of(part));
  }
  svg.text(at.left - 12, y + 10, "lost", {.size = 11, .anchor = Anchor::end});
  svg.text(at.left, y + 27, "0", {.size = 11});
  svg.text(at.left + kScale / 2, y + 27, value_text(r, worst / 4),
           {.size = 11, .anchor = Anchor::middle});
  svg.text(at.left + kScale, y + 27, value_text(r, worst), {.size = 11, .anchor = Anchor::end});
  return svg.finish();
}

}  // namespace narrow
