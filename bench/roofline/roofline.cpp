// SPDX-License-Identifier: Apache-2.0
// What this machine can do at best: multiply-adds of every instruction set it has and reading of
// caches and memory, for one thread up to all.
//
//   roofline
//   roofline --threads 2 --seconds 0.5 --json peaks.json
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/peaks.h"
#include "narrow/report/table.h"

namespace narrow {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  int threads = available_threads();  // the most
  double seconds = 0.2;               // of each measurement
  std::string json;                   // "-": stdout, instead of the tables
};

/// A level of memory by what one thread reads again and again, or all threads together.
struct Level {
  const char* name;
  size_t bytes;
  bool of_each_thread;
};

// Three quarters of the smallest caches that are usual now (32 KiB and 512 KiB), so that what else
// a thread touches has a place.
constexpr Level kLevels[] = {
    {"L1", size_t{24} << 10, true},
    {"L2", size_t{384} << 10, true},
    {"memory", kernels::kMemoryBytes, false},
};

std::vector<Column> columns(const std::vector<std::string>& first, int threads) {
  std::vector<Column> all;
  for (const std::string& title : first) all.push_back({title, Align::left});
  for (int t = 1; t <= threads; ++t) {
    all.push_back({fmt::format("{} thread{}", t, t == 1 ? "" : "s"), Align::right});
  }
  return all;
}

std::string measure_multiplying(const Flags& flags, Json& json) {
  Table table(columns({"GOPS", "numbers", "instructions"}, flags.threads));
  json = Json::array();
  for (const kernels::PeakLoop& loop : kernels::peak_loops()) {
    const char* numbers = kernels::to_string(loop.numbers);
    std::vector<std::string> row = {loop.isa_name, numbers, loop.instructions};
    Json gops = Json::array();
    for (int t = 1; t <= flags.threads && kernels::can_run(loop); ++t) {
      gops.push_back(kernels::measure_multiply(loop, {t, flags.seconds}));
      row.push_back(format_fixed(gops.back().get<double>(), 1));
    }
    if (gops.empty()) row.push_back("not on this CPU");
    table.add_row(row);
    json.push_back({{"isa", loop.isa_name},
                    {"numbers", numbers},
                    {"instructions", loop.instructions},
                    {"gops", gops}});
  }
  return table.text();
}

std::string measure_reading(const Flags& flags, Json& json) {
  Table table(columns({"GB/s read", "bytes"}, flags.threads));
  json = Json::array();
  for (const Level& level : kLevels) {
    std::vector<std::string> row = {
        level.name, format_bytes(level.bytes) + (level.of_each_thread ? " a thread" : "")};
    Json rates = Json::array();
    for (int t = 1; t <= flags.threads; ++t) {
      const size_t bytes = level.bytes * static_cast<size_t>(level.of_each_thread ? t : 1);
      rates.push_back(kernels::measure_read(bytes, {t, flags.seconds}));
      row.push_back(format_fixed(rates.back().get<double>(), 1));
    }
    table.add_row(row);
    json.push_back({{"level", level.name},
                    {"bytes", level.bytes},
                    {"of_each_thread", level.of_each_thread},
                    {"gb_per_s", rates}});
  }
  return table.text();
}

void write_json(const Json& json, const std::string& path) {
  const std::string text = json.dump(1) + "\n";
  if (path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return;
  }
  std::ofstream file(path, std::ios::binary);
  if (!(file << text).flush()) {
    throw Error(ErrorCode::io_error, fmt::format("'{}' cannot be written", path));
  }
}

void run(const Flags& flags) {
  Json json = {{"cpu", cpu_description()}, {"threads", flags.threads}};
  const std::string multiplying = measure_multiplying(flags, json["multiply"]);
  const std::string reading = measure_reading(flags, json["read"]);
  if (!flags.json.empty()) write_json(json, flags.json);
  if (flags.json == "-") return;
  fmt::print(
      "{}\nGOPS: 10^9 operations a second, a multiply-add is two; the best of many rounds\n\n",
      cpu_description());
  fmt::print("{}\n{}", multiplying, reading);
}

int run_program(int argc, char** argv) {
  Flags flags;
  CLI::App app("Measures what this machine can do at best");
  app.add_option("--threads", flags.threads, "Measure for 1 thread up to so many (default: all)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--seconds", flags.seconds, "Of each measurement (default 0.2)")
      ->check(CLI::Range(0.0, 60.0));
  app.add_option("--json", flags.json, "Write JSON there; '-': to stdout instead of the tables");
  CLI11_PARSE(app, argc, argv);
  try {
    run(flags);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace narrow

int main(int argc, char** argv) {
  return narrow::run_program(argc, argv);
}
