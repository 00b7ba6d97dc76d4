// SPDX-License-Identifier: Apache-2.0
// Pictures as SVG text: a few shapes, escaped. Internal to report/.
//
//   Svg svg(640, 480);
//   svg.text(20, 30, "title", {.size = 16, .bold = true});
//   std::string picture = svg.finish();
#pragma once

#include <string>
#include <string_view>

namespace narrow {

enum class Anchor : unsigned char { start, middle, end };

struct TextStyle {
  double size = 12;
  bool bold = false;
  Anchor anchor = Anchor::start;
  std::string colour = "#1f2933";
};

class Svg {
 public:
  Svg(double width, double height);
  void rect(double x, double y, double width, double height, std::string_view fill);
  void line(double x1, double y1, double x2, double y2, std::string_view colour, double width = 1);
  void text(double x, double y, std::string_view what, const TextStyle& style = {});
  std::string finish() const;

 private:
  std::string body_;
};

/// "&lt;" for '<' and so on; control characters become spaces.
std::string xml_escaped(std::string_view text);

}  // namespace narrow
