// SPDX-License-Identifier: Apache-2.0
// Integer matrix products and convolutions at the shapes of small and large CNNs, for every
// instruction set of this machine. GOPS counts a multiply-add as two operations.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "narrow/core/parallel.h"
#include "narrow/core/tensor.h"
#include "narrow/kernels/conv.h"
#include "narrow/kernels/gemm.h"

namespace narrow::kernels {
namespace {

void report(benchmark::State& state, int64_t macs, int64_t bytes) {
  state.counters["GOPS"] = benchmark::Counter(2e-9 * static_cast<double>(macs),
                                              benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(bytes),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

std::vector<int8_t> weights(int64_t count, int64_t bits = 8) {
  std::vector<int8_t> w(static_cast<size_t>(count));
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = static_cast<int8_t>(bits == 4 ? static_cast<int64_t>(i * 37 % 15) - 7 : i * 37 % 255);
  }
  return w;
}

struct Gemm {
  const char* name;
  int64_t m, n, k;
  int64_t bits = 8;
};

void run_gemm_bench(benchmark::State& state, const KernelSet& set, const Gemm& g) {
  const ThreadLimit limit(1);
  const auto codes = weights(g.n * g.k, g.bits);
  const MatrixShape shape{g.n, 1, g.k};
  const PackedMatrix w =
      g.bits == 4 ? pack_nibbles(codes, shape, {}).value() : pack_matrix(codes, shape, {});
  const std::vector<float> multiplier{1e-5f};
  const Columns columns = make_columns(w, 128, {}, multiplier);
  const Tensor a(DType::uint8, {g.m, g.k});
  Tensor y(DType::uint8, {g.m, g.n});
  Tensor scratch(DType::uint8, {static_cast<int64_t>(gemm_scratch_bytes(g.m, g.k))});
  GemmProblem p;
  p.m = g.m;
  p.a = reinterpret_cast<const uint8_t*>(a.raw());
  p.w = w.view();
  p.epilogue = {columns.corr.data(), columns.multiplier.data(), nullptr, nullptr, 0, 255, 0, 0,
                Out::codes};
  p.dst = y.mutable_raw();
  for (auto _ : state) run_gemm(set, p, {scratch.mutable_raw(), scratch.bytes()});
  report(state, g.m * g.n * g.k, g.n * g.k * g.bits / 8);
}

struct Conv {
  const char* name;
  int64_t batch, channels, filters, size, kernel, stride, pad, groups;
};

void run_conv_bench(benchmark::State& state, const KernelSet& set, const Conv& c) {
  const ThreadLimit limit(1);
  ConvProblem p;
  p.batch = c.batch;
  p.channels = c.channels;
  p.filters = c.filters;
  p.groups = c.groups;
  p.in = {1, c.size, c.size};
  p.kernel = {1, c.kernel, c.kernel};
  p.stride = {1, c.stride, c.stride};
  p.pad_begin = p.pad_end = {0, c.pad, c.pad};
  const int64_t out = (c.size + 2 * c.pad - c.kernel) / c.stride + 1;
  p.out = {1, out, out};
  const auto codes = weights(p.filters * p.group_channels() * p.window());
  const std::vector<float> multiplier{1e-4f};
  const Tensor x(DType::uint8, {p.in_values()});
  Tensor y(DType::uint8, {p.out_values()});
  Tensor scratch(DType::uint8, {static_cast<int64_t>(conv_scratch_bytes(p))});
  const std::span<std::byte> space{scratch.mutable_raw(), scratch.bytes()};
  const ConvInput input{reinterpret_cast<const uint8_t*>(x.raw()), 0, 128};
  const ConvOutput output{y.mutable_raw(), Out::codes, 0, 255, 0};
  if (refuse_depthwise(p, {}).empty()) {
    const PackedMatrix w = pack_depthwise_conv(p, codes);
    const Columns columns = make_depthwise_columns(w, 128, {}, multiplier);
    for (auto _ : state) run_depthwise(set, p, w, columns, input, output, space);
  } else {
    PackedConv w = pack_conv(p, codes, {});
    for (const PackedMatrix& m : w.groups)
      w.columns.push_back(make_columns(m, 128, {}, multiplier));
    for (auto _ : state) run_conv(set, p, w, input, output, space);
  }
  report(state, p.macs(), p.in_values() + p.out_values());
}

constexpr Gemm kGemms[] = {
    {"mnist_fc1", 1, 128, 9216}, {"mnist_fc1", 32, 128, 9216}, {"mnist_fc2", 1, 10, 128},
    {"square", 256, 256, 256},   {"square", 512, 512, 512},    {"square", 1024, 1024, 1024},
    {"vgg_fc", 1, 4096, 4096},   {"head", 1, 1000, 2048},      {"tokens", 128, 768, 768},
    {"narrow", 1024, 16, 144},   {"narrow", 1024, 32, 288},    {"narrow", 1024, 48, 288},
    {"fc", 1, 64, 256},          {"fc", 1, 64, 256, 4},        {"fc", 1, 128, 512},
    {"fc", 1, 128, 512, 4},      {"fc", 1, 256, 1024},         {"fc", 1, 256, 1024, 4},
    {"fc", 1, 1000, 2048, 4},    {"fc", 1, 128, 9216, 4},      {"fc", 1, 4096, 4096, 4},
    {"fc", 4, 1000, 2048},       {"fc", 4, 1000, 2048, 4},     {"fc", 8, 1000, 2048},
    {"fc", 8, 1000, 2048, 4},    {"fc", 32, 1000, 2048},       {"fc", 32, 1000, 2048, 4},
};

constexpr Conv kConvs[] = {
    {"mnist_conv1", 1, 1, 32, 28, 3, 1, 0, 1},    {"mnist_conv2", 1, 32, 64, 26, 3, 1, 0, 1},
    {"mnist_conv1", 32, 1, 32, 28, 3, 1, 0, 1},   {"mnist_conv2", 32, 32, 64, 26, 3, 1, 0, 1},
    {"resnet20_stem", 1, 3, 16, 32, 3, 1, 1, 1},  {"resnet20_16", 1, 16, 16, 32, 3, 1, 1, 1},
    {"resnet20_32", 1, 32, 32, 16, 3, 1, 1, 1},   {"resnet20_64", 1, 64, 64, 8, 3, 1, 1, 1},
    {"resnet20_16", 32, 16, 16, 32, 3, 1, 1, 1},  {"resnet20_64", 32, 64, 64, 8, 3, 1, 1, 1},
    {"resnet50_stem", 1, 3, 64, 224, 7, 2, 3, 1}, {"resnet50_3x3", 1, 64, 64, 56, 3, 1, 1, 1},
    {"resnet50_1x1", 1, 256, 64, 56, 1, 1, 0, 1}, {"resnet50_deep", 1, 512, 512, 7, 3, 1, 1, 1},
    {"depthwise", 1, 96, 96, 56, 3, 1, 1, 96},    {"depthwise", 1, 576, 576, 14, 3, 1, 1, 576},
    {"grouped", 1, 128, 128, 28, 3, 1, 1, 32},
};

void add_all() {
  for (const KernelSet& set : kernel_sets()) {
    if (!cpu_supports(set.isa)) continue;
    const std::string isa = set.name;
    for (const Gemm& g : kGemms) {
      benchmark::RegisterBenchmark(
          ("gemm/" + isa + "/" + g.name + "/" + std::to_string(g.m) + "x" + std::to_string(g.n) +
           "x" + std::to_string(g.k) + (g.bits == 4 ? "/4bit" : ""))
              .c_str(),
          [&set, &g](benchmark::State& s) { run_gemm_bench(s, set, g); });
    }
    for (const Conv& c : kConvs) {
      benchmark::RegisterBenchmark(
          ("conv/" + isa + "/" + c.name + "/batch" + std::to_string(c.batch)).c_str(),
          [&set, &c](benchmark::State& s) { run_conv_bench(s, set, c); });
    }
  }
}

const bool kAdded = (add_all(), true);

}  // namespace
}  // namespace narrow::kernels
