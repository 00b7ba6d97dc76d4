// SPDX-License-Identifier: Apache-2.0
// What this machine can do at best, measured: multiply-adds from registers for each instruction
// set, and reading of memory. Times of kernels are judged by these. Rates are in 10^9 a second, the
// best of several short rounds: others may be using the machine too.
//
//   for (const PeakLoop& loop : peak_loops()) {
//     if (can_run(loop)) measure_multiply(loop, {.threads = 2});
//   }
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "narrow/core/cpu.h"
#include "narrow/kernels/peak_loops.h"

namespace narrow::kernels {

enum class PeakNumbers : uint8_t { int8, float32, bfloat16 };
const char* to_string(PeakNumbers numbers);

/// One instruction set's multiply-add of one kind of numbers.
struct PeakLoop {
  const char* isa_name;  // "avx512_bf16" is none of Isa
  Isa isa;               // that it needs
  PeakNumbers numbers;
  const char* instructions;
  int64_t macs;  // of a turn
  MultiplyLoopFn run;
};

/// All loops this program was built with, best first for each kind of numbers.
std::span<const PeakLoop> peak_loops();
/// Whether this CPU (and, for tiles, the operating system) lets it run.
bool can_run(const PeakLoop& loop);

struct PeakOptions {
  int threads = 1;        // 0: all CPUs of the affinity mask
  double seconds = 0.05;  // of rounds, at least
};

/// Operations per second, a multiply-add being two, of all threads together: GOPS. Throws
/// unsupported for a loop that cannot run.
double measure_multiply(const PeakLoop& loop, const PeakOptions& options);

/// Past the caches of one server's core.
inline constexpr size_t kMemoryBytes = size_t{256} << 20;
/// GB read per second by all threads together, which share the bytes evenly and read them again and
/// again: few bytes measure a cache, kMemoryBytes the memory. Throws resource_exhausted.
double measure_read(size_t bytes, const PeakOptions& options);

/// What kernels that run now are up against.
struct MachinePeaks {
  int threads = 1;
  std::string isa;           // of the loops; empty: none for this machine
  double integer_gops = 0;   // 0: not known
  double float_gops = 0;     // of float32
  double read_gb_per_s = 0;  // of read_bytes
  size_t read_bytes = 0;
};

/// For the instruction set that kernels use now (best_kernels()), in about options.seconds.
MachinePeaks measure_peaks(size_t read_bytes, const PeakOptions& options);

}  // namespace narrow::kernels
