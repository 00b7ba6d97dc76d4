// SPDX-License-Identifier: Apache-2.0
// Text tables for a terminal: aligned columns, no colours, no box drawing; and numbers as people
// read them.
//
//   Table t({{"layer"}, {"SQNR dB", Align::right}});
//   t.add_row({"conv1", "38.2"});
//   t.text();
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/memory.h"  // format_bytes

namespace narrow {

enum class Align : uint8_t { left, right };

struct Column {
  std::string title;
  Align align = Align::left;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// Missing cells are empty, surplus ones are dropped.
  void add_row(std::vector<std::string> cells);
  size_t rows() const { return rows_.size(); }
  /// Header, a rule and one line per row, each ending in a newline; widths count UTF-8 characters.
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// Characters (code points) of a UTF-8 text.
size_t display_width(std::string_view text);
/// "12.3 us", "4.56 ms", "1.23 s".
std::string format_microseconds(double microseconds);
/// "1,234,567".
std::string format_count(int64_t count);
/// Fixed decimals; "inf", "nan" where they are.
std::string format_fixed(double value, int decimals);

}  // namespace narrow
