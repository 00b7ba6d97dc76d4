// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/peaks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/kernel_set.h"
#include "narrow/kernels/weight_memory.h"

namespace narrow::kernels {
namespace {

#if defined(__x86_64__)
constexpr PeakLoop kLoops[] = {
    {"amx_int8", Isa::amx_int8, PeakNumbers::int8, "tdpbssd", amx_int8::kInt8Macs,
     amx_int8::multiply_int8},
    {"avx512_vnni", Isa::avx512_vnni, PeakNumbers::int8, "vpdpbusd zmm", avx512_vnni::kInt8Macs,
     avx512_vnni::multiply_int8},
    {"avx_vnni", Isa::avx_vnni, PeakNumbers::int8, "vpdpbusd ymm", avx_vnni::kInt8Macs,
     avx_vnni::multiply_int8},
    {"avx2", Isa::avx2, PeakNumbers::int8, "vpmaddubsw + vpmaddwd ymm", avx2::kInt8Macs,
     avx2::multiply_int8},
    {"avx512_vnni", Isa::avx512_vnni, PeakNumbers::float32, "vfmadd231ps zmm",
     avx512_vnni::kFloat32Macs, avx512_vnni::multiply_float32},
    {"avx2", Isa::avx2, PeakNumbers::float32, "vfmadd231ps ymm", avx2::kFloat32Macs,
     avx2::multiply_float32},
    {"avx512_bf16", Isa::avx512_vnni, PeakNumbers::bfloat16, "vdpbf16ps zmm",
     avx512_bf16::kBfloat16Macs, avx512_bf16::multiply_bfloat16},
};
#endif

/// For any CPU; as fast as its loads of 8 bytes are.
void read_words(const uint8_t* memory, size_t bytes) {
  const uint8_t* const end = memory + bytes;
  for (; memory < end; memory += 8) {
    uint64_t word = 0;
    std::memcpy(&word, memory, 8);
    __asm__ volatile("" ::"r"(word));
  }
}

ReadLoopFn read_loop() {
#if defined(__x86_64__)
  if (isa_enabled(Isa::avx512_vnni)) return avx512_vnni::read_memory;
  if (isa_enabled(Isa::avx2)) return avx2::read_memory;
#endif
  return read_words;
}

/// Of one piece of a round: long enough for the clock, short enough that some are not interrupted.
constexpr double kPieceSeconds = 0.25e-3;
/// Pieces of a thread in a round: where one thread has to wait for its core, others take its rest.
constexpr int64_t kPieces = 8;
constexpr int kRounds = 5;  // at least

/// The time of the fastest round.
double best_round(double seconds, const std::function<void()>& round) {
  double best = std::numeric_limits<double>::infinity();
  const auto begin = Clock::now();
  for (int i = 0; i < kRounds || seconds_since(begin) < seconds; ++i) {
    const auto start = Clock::now();
    round();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

/// How many turns take a piece, doubled until they do, which warms up too. The fastest of three
/// counts: a thread that had to wait for its core says nothing.
int64_t turns_of_a_piece(const std::function<void(int64_t)>& run) {
  for (int64_t turns = 1;; turns *= 2) {
    double fastest = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 3 && fastest >= kPieceSeconds; ++i) {
      const auto start = Clock::now();
      run(turns);
      fastest = std::min(fastest, seconds_since(start));
    }
    if (fastest >= kPieceSeconds) return turns;
  }
}

/// Turns per second of all threads together; run(thread, turns) does some of them.
double turn_rate(int threads, double seconds, const std::function<void(int64_t, int64_t)>& run) {
  const int64_t turns = turns_of_a_piece([&](int64_t n) { run(0, n); });
  const double best = best_round(seconds, [&] {
    parallel_blocks(kPieces * threads, [&](int64_t i) { run(i % threads, turns); });
  });
  return static_cast<double>(kPieces * threads * turns) / best;
}

size_t round_up(size_t bytes, size_t step) {
  return (bytes + step - 1) / step * step;
}

}  // namespace

const char* to_string(PeakNumbers numbers) {
  constexpr const char* kNames[] = {"int8", "float32", "bfloat16"};
  return kNames[static_cast<size_t>(numbers)];
}

std::span<const PeakLoop> peak_loops() {
#if defined(__x86_64__)
  return kLoops;
#else
  return {};
#endif
}

bool can_run(const PeakLoop& loop) {
  if (loop.numbers == PeakNumbers::bfloat16 && !cpu_multiplies_bfloat16()) return false;
  return cpu_supports(loop.isa);
}

double measure_multiply(const PeakLoop& loop, const PeakOptions& options) {
  if (!can_run(loop)) {
    throw Error(ErrorCode::unsupported, fmt::format("this CPU lacks {}", loop.isa_name));
  }
  const ThreadLimit limit(options.threads);
  const double rate = turn_rate(current_threads(), options.seconds,
                                [&](int64_t, int64_t turns) { loop.run(turns); });
  return 2e-9 * static_cast<double>(loop.macs) * rate;
}

double measure_read(size_t bytes, const PeakOptions& options) {
  const ThreadLimit limit(options.threads);
  const int threads = current_threads();
  const size_t slice =
      round_up(std::max<size_t>(bytes / static_cast<size_t>(threads), 1), kReadStep);
  const size_t total = slice * static_cast<size_t>(threads);
  const std::shared_ptr<uint8_t> memory = weight_memory(total);
  std::memset(memory.get(), 1, total);  // without pages of its own it would be one page of zeros
  const ReadLoopFn read = read_loop();
  // A piece reads one slice again and again, from the caches of whoever took it. What no cache
  // holds is read once a round, in blocks for whoever is free.
  if (total >= kMemoryBytes / 2) {
    constexpr int64_t kBlock = int64_t{1} << 20;
    const double seconds = best_round(options.seconds, [&] {
      parallel_for(static_cast<int64_t>(total), kBlock, [&](int64_t begin, int64_t end) {
        read(memory.get() + begin, static_cast<size_t>(end - begin));
      });
    });
    return 1e-9 * static_cast<double>(total) / seconds;
  }
  const double rate = turn_rate(threads, options.seconds, [&](int64_t thread, int64_t turns) {
    const uint8_t* own = memory.get() + static_cast<size_t>(thread) * slice;
    for (int64_t t = 0; t < turns; ++t) read(own, slice);
  });
  return 1e-9 * static_cast<double>(slice) * rate;
}

MachinePeaks measure_peaks(size_t read_bytes, const PeakOptions& options) {
  MachinePeaks peaks;
  const PeakOptions each{options.threads, options.seconds / 3};
  const Isa isa = best_kernels().isa;
  for (const PeakLoop& loop : peak_loops()) {
    const bool is_integer = loop.numbers == PeakNumbers::int8;
    double& peak = is_integer ? peaks.integer_gops : peaks.float_gops;
    if (loop.numbers == PeakNumbers::bfloat16 || loop.isa > isa || peak > 0) continue;
    if (is_integer) peaks.isa = loop.isa_name;
    peak = measure_multiply(loop, each);
  }
  const ThreadLimit limit(options.threads);
  peaks.threads = current_threads();
  peaks.read_bytes = read_bytes;
  peaks.read_gb_per_s = measure_read(read_bytes, each);
  return peaks;
}

}  // namespace narrow::kernels
