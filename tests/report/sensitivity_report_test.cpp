// SPDX-License-Identifier: Apache-2.0
#include "narrow/report/sensitivity_report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "narrow/report/svg.h"

namespace narrow {
namespace {

SensitivityReport small_report() {
  SensitivityReport r;
  r.model = "a<b>&\".onnx";
  r.by = "bits";
  r.metric = "top1";
  r.percent = true;
  r.samples = 1000;
  r.noise = 0.8;
  r.scan.reference = 90;
  r.scan.levels = {8, 2};
  r.scan.layers = {{"first", "Conv", 100, {90.5, 80}}, {"second", "Gemm", 2000, {89, 20}}};
  return r;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(SensitivityReportTest, TheMostSensitiveComesFirst) {
  const std::string text = to_text(small_report());
  EXPECT_LT(text.find("second"), text.find("first"));
  EXPECT_NE(text.find("2 bit"), std::string::npos);
  EXPECT_NE(text.find("0.80"), std::string::npos);
  const std::string json = to_json(small_report());
  EXPECT_NE(json.find("\"values\":[89.0,20.0]"), std::string::npos) << json;
}

TEST(SensitivityReportTest, ThePictureIsWhole) {
  const std::string svg = to_svg(small_report());
  EXPECT_EQ(svg.rfind("<svg ", 0), 0u);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  EXPECT_NE(svg.find("a&lt;b&gt;&amp;&quot;.onnx"), std::string::npos);
  EXPECT_EQ(svg.find("a<b"), std::string::npos);
  for (const char* value : {"90.50", "80.00", "89.00", "20.00"}) {
    EXPECT_NE(svg.find(value), std::string::npos) << value;
  }
  EXPECT_EQ(count(svg, "#800c26"), 1u);  // the worst cell
  // Nothing lost, nothing finite: still a picture.
  SensitivityReport r = small_report();
  r.scan.layers = {{"a", "Conv", 1, {90, NAN}}};
  EXPECT_EQ(count(to_svg(r), "inf"), 0u);
}

TEST(SvgTest, TextIsEscaped) {
  EXPECT_EQ(xml_escaped("a\nb<&>"), "a b&lt;&amp;&gt;");
  Svg svg(10, 20);
  svg.text(1, 2, "<x>");
  EXPECT_NE(svg.finish().find("&lt;x&gt;"), std::string::npos);
}

}  // namespace
}  // namespace narrow
