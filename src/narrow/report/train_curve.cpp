// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/train_curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "narrow/report/json.h"
#include "narrow/report/svg.h"

namespace narrow {
namespace {

struct Point {
  double x;
  double y;
};

struct Panel {
  double top;
  double height;
  const char* title;
  const char* colour;
};

constexpr double kWidth = 640;
constexpr double kLeft = 70;
constexpr double kRight = 24;
constexpr const char* kFaint = "#d9e2ec";
constexpr const char* kGrey = "#616e7c";

/// 1, 2 or 5 times a power of ten, so that `span` has about five of it.
double step_of(double span) {
  const double rough = span / 5;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power) return factor * power;
  }
  return 10 * power;
}

void draw(Svg& svg, const Panel& panel, const std::vector<Point>& points, double last_x) {
  double low = points[0].y;
  double high = points[0].y;
  for (const Point& p : points) {
    low = std::min(low, p.y);
    high = std::max(high, p.y);
  }
  if (high - low < 1e-9) {
    low -= 0.5;
    high += 0.5;
  }
  const double step = step_of(high - low);
  low = std::floor(low / step) * step;
  high = std::ceil(high / step) * step;
  const auto x_of = [&](double x) {
    const double share = last_x > 1 ? (x - 1) / (last_x - 1) : 0.5;
    return kLeft + share * (kWidth - kLeft - kRight);
  };
  const auto y_of = [&](double y) {
    return panel.top + panel.height * (1 - (y - low) / (high - low));
  };
  svg.text(kLeft, panel.top - 10, panel.title, {.bold = true});
  for (double y = low; y < high + step / 2; y += step) {
    svg.line(kLeft, y_of(y), kWidth - kRight, y_of(y), kFaint);
    svg.text(kLeft - 8, y_of(y) + 4, fmt::format("{:.4g}", y),
             {.size = 11, .anchor = Anchor::end, .colour = kGrey});
  }
  const double each = std::max(1.0, step_of(std::max(1.0, last_x - 1)));
  for (double x = 1; x < last_x + 0.5; x += each) {
    svg.text(x_of(x), panel.top + panel.height + 18, fmt::format("{:.0f}", x),
             {.size = 11, .anchor = Anchor::middle, .colour = kGrey});
  }
  for (size_t i = 0; i < points.size(); ++i) {
    const double x = x_of(points[i].x);
    const double y = y_of(points[i].y);
    svg.rect(x - 2.5, y - 2.5, 5, 5, panel.colour);
    if (i > 0) svg.line(x_of(points[i - 1].x), y_of(points[i - 1].y), x, y, panel.colour, 2);
  }
}

}  // namespace

Json json_of(const train::EpochRecord& e) {
  Json record = {{"epoch", e.epoch}, {"loss", e.loss}, {"lr", e.lr}};
  if (e.metric) record["metric"] = *e.metric;
  record["seconds"] = e.seconds;
  record["samples_per_second"] = e.samples_per_second;
  return record;
}

std::string epochs_as_csv(std::span<const train::EpochRecord> epochs) {
  std::string lines = "epoch,loss,lr,metric,seconds,samples_per_second\n";
  for (const train::EpochRecord& r : epochs) {
    lines += fmt::format("{},{:.6f},{:.6g},{},{:.2f},{:.1f}\n", r.epoch, r.loss, r.lr,
                         r.metric ? fmt::format("{:.4f}", *r.metric) : "", r.seconds,
                         r.samples_per_second);
  }
  return lines;
}

std::string epochs_as_json(std::span<const train::EpochRecord> epochs) {
  Json out;
  out["epochs"] = Json::array();
  for (const train::EpochRecord& e : epochs) out["epochs"].push_back(json_of(e));
  return json_text(out) + "\n";
}

std::string epochs_as_svg(const std::string& title, std::span<const train::EpochRecord> epochs) {
  std::vector<Point> losses;
  std::vector<Point> metrics;
  double last = 1;
  for (const train::EpochRecord& e : epochs) {
    const auto x = static_cast<double>(e.epoch);
    last = std::max(last, x);
    if (std::isfinite(e.loss)) losses.push_back({x, e.loss});
    if (e.metric && std::isfinite(*e.metric)) metrics.push_back({x, *e.metric});
  }
  const double height = metrics.empty() ? 310 : 560;
  Svg svg(kWidth, height);
  svg.text(kLeft, 26, title, {.size = 15, .bold = true});
  if (!losses.empty()) draw(svg, {66, 180, "loss", "#d64545"}, losses, last);
  if (!metrics.empty())
    draw(svg, {316, 180, "metric of the exported file", "#2680c2"}, metrics, last);
  svg.text(kWidth - kRight, height - 14, "epoch",
           {.size = 11, .anchor = Anchor::end, .colour = kGrey});
  return svg.finish();
}

}  // namespace narrow
