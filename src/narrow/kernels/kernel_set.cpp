// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/kernel_set.h"

#include <fmt/format.h>

#include "narrow/kernels/portable/kernels.h"
#if defined(__x86_64__)
#include "narrow/kernels/x86/amx_int8/kernels.h"
#include "narrow/kernels/x86/avx2/kernels.h"
#include "narrow/kernels/x86/avx512_vnni/kernels.h"
#include "narrow/kernels/x86/avx_vnni/kernels.h"
#endif

namespace narrow::kernels {
namespace {

/// One row: the set's own products from `own`, depthwise ones from `depth`, everything else from
/// `space`.
#define NARROW_KERNELS(name, isa, own, depth, depthwise_row, space)                            \
  {                                                                                            \
    name, isa, own::igemm, own::igemm4, space::row_sums, space::pack, depth::depthwise,        \
        depthwise_row, space::xor_copy, space::quantize, space::interleave, space::dequantize, \
        space::binary, space::lookup, space::max_pool, space::average_pool, space::range,      \
        space::scale_row, space::wgemm, space::half_gemm, space::attend, space::activate,      \
        space::quantize_blocks, own::block_gemm, space::block_rows, space::block_float,        \
        own::kBlockTile                                                                        \
  }

constexpr KernelSet kSets[] = {
#if defined(__x86_64__)
    NARROW_KERNELS("amx_int8", Isa::amx_int8, amx_int8, avx512_vnni, avx512_vnni::depthwise_row,
                   avx512_vnni),
    NARROW_KERNELS("avx512_vnni", Isa::avx512_vnni, avx512_vnni, avx512_vnni,
                   avx512_vnni::depthwise_row, avx512_vnni),
    NARROW_KERNELS("avx_vnni", Isa::avx_vnni, avx_vnni, avx_vnni, avx_vnni::depthwise_row, avx2),
    NARROW_KERNELS("avx2", Isa::avx2, avx2, avx2, avx2::depthwise_row, avx2),
#endif
    NARROW_KERNELS("portable", Isa::scalar, portable, portable, nullptr, portable),
};

#undef NARROW_KERNELS

}  // namespace

std::span<const KernelSet> kernel_sets() {
  return kSets;
}

const KernelSet* find_kernels(Isa isa) {
  for (const KernelSet& set : kSets) {
    if (set.isa == isa) return &set;
  }
  return nullptr;
}

std::string refuse_isa(Isa isa) {
  if (!cpu_supports(isa)) return fmt::format("this CPU lacks {}", to_string(isa));
  if (!isa_enabled(isa)) return fmt::format("capped at {}", to_string(active_isa()));
  return {};
}

const KernelSet& best_kernels() {
  for (const KernelSet& set : kSets) {
    if (isa_enabled(set.isa)) return set;
  }
  return kSets[std::size(kSets) - 1];
}

}  // namespace narrow::kernels
