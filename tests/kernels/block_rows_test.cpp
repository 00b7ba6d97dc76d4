// SPDX-License-Identifier: Apache-2.0
// Weights in blocks read where they lie: the same bits as packed ones, nothing read or written
// outside.
#include <gtest/gtest.h>

#include <bit>

#include "kernels/block_inputs.h"
#include "kernels/guard_buffer.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/block_rows.h"
#include "narrow/kernels/ref/block_gemm.h"

namespace narrow::kernels {
namespace {

using testing::activations;
using testing::Fill;
using testing::GuardBuffer;
using testing::runnable_kernels;
using testing::weights;

/// Of w [n][k], all of whose memory is guarded.
void expect_specified(BlockType type, int64_t m, int64_t n, int64_t k, Fill fill) {
  const auto bytes = weights(type, n, k, fill, static_cast<uint64_t>(m + 7 * n));
  const auto values = activations(m * k, fill, static_cast<uint64_t>(n + 3 * k));
  std::vector<float> expected(static_cast<size_t>(m * n));
  ref::block_gemm(type, bytes, values, m, n, k, expected);
  GuardBuffer<std::byte> w(bytes.size());
  std::copy(bytes.begin(), bytes.end(), w.begin());
  GuardBuffer<float> x(values.size());
  std::copy(values.begin(), values.end(), x.begin());
  const std::span<const std::byte> stored(w.data(), w.size());
  const PackedBlocks layout = layout_blocks(type, stored, n, k);
  for (const KernelSet* set : runnable_kernels()) {
    GuardBuffer<float> y(static_cast<size_t>(m * n));
    const size_t size = stored_gemm_scratch_bytes(*set, layout, m);
    GuardBuffer<std::byte> scratch((size + 63) / 64 * 64);
    run_stored_gemm(*set, layout, stored, x.data(), m, y.data(), {scratch.data(), scratch.size()});
    for (size_t i = 0; i < expected.size(); ++i) {
      const float got = y.data()[i];
      if (std::isnan(got) && std::isnan(expected[i])) continue;  // which NaN is left open
      ASSERT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(expected[i]))
          << set->name << " " << to_string(type) << " " << m << "x" << n << "x" << k << ", " << i;
    }
  }
}

TEST(BlockRows, IsTheSpecification) {
  for (const BlockForm& form : block_forms()) {
    for (const int64_t m : {1, 2, 4, 5, 13}) {
      expect_specified(form.type, m, 19, 3 * form.values, Fill::noise);
    }
    for (const int64_t n : {1, 15, 16, 33, 200}) {
      expect_specified(form.type, 1, n, 2 * form.values, Fill::noise);
      expect_specified(form.type, 5, n, 2 * form.values, Fill::noise);
    }
    for (const int64_t blocks : {1, 17}) {
      expect_specified(form.type, 3, 18, blocks * form.values, Fill::noise);
    }
  }
}

TEST(BlockRows, ExtremeCodes) {
  for (const BlockForm& form : block_forms()) {
    for (const Fill fill : {Fill::highest, Fill::lowest, Fill::alternating, Fill::ends}) {
      expect_specified(form.type, 1, 17, 2 * form.values, fill);
      expect_specified(form.type, 4, 17, 2 * form.values, fill);
    }
  }
}

TEST(BlockRows, ManyRowsGoThroughChunksOfPanels) {
  // More panels than a chunk has, and a last one that is ragged.
  expect_specified(BlockType::q4_0, 7, 16 * 64 + 5, 64, Fill::noise);
  expect_specified(BlockType::q6_k, 7, 16 * 64 + 5, 256, Fill::noise);
}

TEST(BlockRows, ThreadsDoNotChangeABit) {
  const int64_t n = 300;
  const int64_t k = 512;
  for (const int64_t m : {1, 9}) {
    const auto bytes = weights(BlockType::q4_k, n, k, Fill::noise, 1);
    const auto x = activations(m * k, Fill::noise, 2);
    const PackedBlocks layout = layout_blocks(BlockType::q4_k, bytes, n, k);
    const auto run = [&](int threads) {
      const ThreadLimit limit(threads);
      std::vector<float> y(static_cast<size_t>(m * n));
      const KernelSet& set = best_kernels();
      const auto size = static_cast<int64_t>(stored_gemm_scratch_bytes(set, layout, m));
      const Tensor scratch(DType::uint8, {size});
      run_stored_gemm(set, layout, bytes, x.data(), m, y.data(),
                      {const_cast<std::byte*>(scratch.raw()), scratch.bytes()});
      return y;
    };
    EXPECT_EQ(run(1), run(4));
  }
}

}  // namespace
}  // namespace narrow::kernels
