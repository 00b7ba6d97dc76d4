// SPDX-License-Identifier: Apache-2.0
// Products with weights in blocks: one row (decoding) against the rate at which memory can be read,
// many rows (prompts) in multiply-adds. Arguments: rows, threads. GOPS counts a multiply-add as two
// operations, GB/s the bytes of packed weights. "read" sums memory of the same size.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "narrow/core/parallel.h"
#include "narrow/kernels/block_gemm.h"

namespace narrow::kernels {
namespace {

// A layer of a model of some 8e9 weights. One matrix is as large as a big cache; a ring of them
// makes sure that weights come from memory, as they do in a model.
constexpr int64_t kN = 4096;
constexpr int64_t kK = 4096;
constexpr size_t kRingBytes = size_t{192} << 20;

void report(benchmark::State& state, double macs, double bytes) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  if (macs > 0) state.counters["GOPS"] = benchmark::Counter(2e-9 * macs, rate);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes, rate);
}

std::vector<std::byte> weights(BlockType type) {
  std::vector<std::byte> bytes(static_cast<size_t>(kN) * row_bytes(type, kK));
  // Halves of 0x2c2c are 0.065: every byte is a sensible scale and a code.
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(0x2c);
  return bytes;
}

std::vector<PackedBlocks> ring_of(BlockType type, size_t bytes) {
  const std::vector<std::byte> stored = weights(type);
  std::vector<PackedBlocks> ring{pack_blocks(type, stored, kN, kK)};
  const size_t copies = bytes / ring[0].weights.bytes() + 1;
  while (ring.size() < copies) ring.push_back(pack_blocks(type, stored, kN, kK));
  return ring;
}

void run_product(benchmark::State& state, const KernelSet& set, BlockType type) {
  const int64_t m = state.range(0);
  const ThreadLimit limit(static_cast<int>(state.range(1)));
  const std::vector<PackedBlocks> ring = ring_of(type, m > 16 ? 0 : kRingBytes);
  const size_t bytes = ring[0].weights.bytes();
  std::vector<float> x(static_cast<size_t>(m * kK));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 37 % 255) - 127;
  std::vector<float> y(static_cast<size_t>(m * kN));
  Tensor scratch(DType::uint8, {static_cast<int64_t>(block_gemm_scratch_bytes(set, ring[0], m))});
  size_t next = 0;
  for (auto _ : state) {
    run_block_gemm(set, ring[next], x.data(), m, y.data(),
                   {scratch.mutable_raw(), scratch.bytes()});
    next = next + 1 == ring.size() ? 0 : next + 1;
  }
  report(state, static_cast<double>(m * kN * kK), static_cast<double>(bytes));
}

void read_memory(benchmark::State& state) {
  const ThreadLimit limit(static_cast<int>(state.range(0)));
  // In the same memory as the weights of the products.
  const std::vector<PackedBlocks> ring = ring_of(BlockType::q8_0, kRingBytes);
  const auto bytes = static_cast<int64_t>(ring[0].weights.bytes());
  size_t next = 0;
  for (auto _ : state) {
    const auto* words = reinterpret_cast<const uint64_t*>(ring[next].weights.raw());
    parallel_for(bytes / 8, 1 << 15, [&](int64_t begin, int64_t end) {
      // Eight sums, so that additions never wait.
      uint64_t sums[8] = {};
      for (int64_t i = begin; i < end; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sums[j] += words[i + j];
      }
      for (const uint64_t sum : sums) benchmark::DoNotOptimize(sum);
    });
    next = next + 1 == ring.size() ? 0 : next + 1;
  }
  report(state, 0, static_cast<double>(bytes));
}

void add_all() {
  for (const int64_t threads : {1, 2}) {
    benchmark::RegisterBenchmark("read", read_memory)->Args({threads})->UseRealTime();
  }
  for (const KernelSet& set : kernel_sets()) {
    if (!cpu_supports(set.isa)) continue;
    for (const BlockForm& form : block_forms()) {
      const std::string name = std::string(set.name) + "/" + to_string(form.type);
      const BlockType type = form.type;
      auto* bench = benchmark::RegisterBenchmark(
          name.c_str(), [&set, type](benchmark::State& s) { run_product(s, set, type); });
      for (const int64_t m : {1, 8, 64, 512}) {
        for (const int64_t threads : {1, 2}) bench->Args({m, threads});
      }
      bench->UseRealTime();
    }
  }
}

const bool kAdded = (add_all(), true);

}  // namespace
}  // namespace narrow::kernels
