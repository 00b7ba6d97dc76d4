// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/block_gemm.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/block_scratch.h"
#include "narrow/kernels/weight_memory.h"

namespace narrow::kernels {
namespace {

constexpr int64_t kRun = BlockScratch::kRun;
constexpr int64_t kSteps = 8;    // of 4 k in a run
constexpr int64_t kPlane = 64;   // bytes
constexpr int64_t kHalves = 32;  // bytes of one float16 for each row of a panel

BlockKernel kernel_of(BlockType type) {
  switch (type) {
    case BlockType::q4_0:
      return BlockKernel::q4_0;
    case BlockType::q4_1:
      return BlockKernel::q4_1;
    case BlockType::q5_0:
      return BlockKernel::q5_0;
    case BlockType::q5_1:
      return BlockKernel::q5_1;
    case BlockType::iq4_nl:
      return BlockKernel::iq4_nl;
    case BlockType::q2_k:
      return BlockKernel::q2_k;
    case BlockType::q3_k:
      return BlockKernel::q3_k;
    case BlockType::q4_k:
      return BlockKernel::q4_k;
    case BlockType::q5_k:
      return BlockKernel::q5_k;
    case BlockType::q6_k:
      return BlockKernel::q6_k;
    case BlockType::iq4_xs:
      return BlockKernel::iq4_xs;
    default:
      return BlockKernel::q8_0;
  }
}

/// Bytes of one block's scales for the 16 rows of a panel.
int64_t block_scale_bytes(const BlockForm& form) {
  const int64_t floats = (form.offset ? 2 : 1) * kHalves;
  if (form.values == kRun) return floats;
  const bool nibbles = form.type == BlockType::q2_k;
  const int64_t per_group = (form.offset && !nibbles ? 2 : 1) * kPanel;
  return floats + form.values / form.group * per_group;
}

/// What a panel is made of.
struct Record {
  explicit Record(const BlockForm& form)
      : blocks(form.values == kRun && !form.offset ? 2 : 1),
        block_scales(block_scale_bytes(form)),
        scales(BlockScratch::aligned(blocks * block_scales)),
        run(form.bits * kPlane),
        block_codes(form.values / kRun * run),
        bytes(scales + blocks * block_codes) {}
  int64_t blocks;
  int64_t block_scales;
  int64_t scales;
  int64_t run;
  int64_t block_codes;
  int64_t bytes;
};

/// Where row j of a panel has its numbers.
struct PanelRow {
  const BlockForm& form;
  int64_t j;

  void put_half(uint8_t* at, uint16_t bits) const {
    at[2 * j] = static_cast<uint8_t>(bits & 0xff);
    at[2 * j + 1] = static_cast<uint8_t>(bits >> 8);
  }

  void put_scales(const BlockParts& parts, uint8_t* to) const {
    put_half(to, parts.d);
    to += kHalves;
    if (form.offset) {
      put_half(to, parts.m);
      to += kHalves;
    }
    if (form.values == kRun) return;
    for (int g = 0; g < form.values / form.group; ++g) {
      const auto s = static_cast<uint8_t>(parts.scales[g]);
      if (form.type == BlockType::q2_k) {
        to[j] = static_cast<uint8_t>(s | parts.offsets[g] << 4);
      } else {
        to[j] = s;
        if (form.offset) {
          to += kPanel;
          to[j] = parts.offsets[g];
        }
      }
      to += kPanel;
    }
  }

  /// Ors four codes of one step, moved left by `shift` bits, into a plane.
  void put_quad(uint8_t* plane, uint32_t quad, int shift) const {
    uint32_t there;
    std::memcpy(&there, plane + 4 * j, sizeof(there));
    there |= quad << shift;
    std::memcpy(plane + 4 * j, &there, sizeof(there));
  }

  /// 32 codes.
  void put_run(const uint8_t* codes, uint8_t* to) const {
    for (int step = 0; step < kSteps; ++step) {
      uint32_t quad;
      std::memcpy(&quad, codes + 4 * step, sizeof(quad));
      uint8_t* plane = to;
      int done = 0;  // bits
      if (form.bits == 8) {
        put_quad(plane + step * kPlane, quad, 0);
        continue;
      }
      if (form.bits >= 4) {
        put_quad(plane + step % 4 * kPlane, quad & 0x0f0f0f0fU, step < 4 ? 0 : 4);
        plane += 4 * kPlane;
        done = 4;
      }
      if (form.bits - done >= 2) {
        put_quad(plane + step / 4 * kPlane, (quad >> done) & 0x03030303U, 2 * (step % 4));
        plane += 2 * kPlane;
        done += 2;
      }
      if (form.bits > done) put_quad(plane, (quad >> done) & 0x01010101U, step);
    }
  }
};

PackedBlocks layout_of(BlockType type, int64_t n, int64_t k) {
  PackedBlocks out;
  out.kernel = kernel_of(type);
  out.form = *find_form(type);
  out.n = n;
  out.k = k;
  const Record record(out.form);
  const int64_t blocks = k / out.form.values;
  out.panel_bytes = (blocks + record.blocks - 1) / record.blocks * record.bytes;
  return out;
}

}  // namespace

std::string refuse_blocks(BlockType type) {
  return find_form(type) == nullptr ? std::string(to_string(type)) + " is not stored in blocks"
                                    : "";
}

PackedBlocks layout_blocks(BlockType type, std::span<const std::byte> w, int64_t n, int64_t k) {
  if (std::string why = refuse_blocks(type); !why.empty()) {
    throw Error(ErrorCode::invalid_argument, why);
  }
  const auto stored = static_cast<int64_t>(row_bytes(type, k));
  if (n < 0 || (stored > 0 && static_cast<int64_t>(w.size()) / stored != n) ||
      static_cast<int64_t>(w.size()) != n * stored) {
    throw Error(ErrorCode::invalid_argument, "the bytes of the weights are not " +
                                                 std::to_string(n) + " rows of " +
                                                 std::to_string(k) + " values");
  }
  return layout_of(type, n, k);
}

size_t packed_block_bytes(BlockType type, int64_t n, int64_t k) {
  const PackedBlocks layout = layout_of(type, n, k);
  return static_cast<size_t>(panels_of(layout) * layout.panel_bytes);
}

void pack_panels(const PackedBlocks& layout, std::span<const std::byte> w, int64_t begin,
                 int64_t end, uint8_t* panels) {
  const BlockForm& form = layout.form;
  const int64_t blocks = layout.k / form.values;
  const int64_t block_bytes = codec(form.type).block_bytes;
  const Record record(form);
  std::memset(panels, 0, static_cast<size_t>((end - begin) * layout.panel_bytes));
  BlockParts parts;
  for (int64_t row = begin * kPanel; row < std::min(layout.n, end * kPanel); ++row) {
    const auto* from = reinterpret_cast<const uint8_t*>(w.data()) + row * blocks * block_bytes;
    uint8_t* panel = panels + (row / kPanel - begin) * layout.panel_bytes;
    const PanelRow put{form, row % kPanel};
    for (int64_t b = 0; b < blocks; ++b) {
      take_apart(form.type, from + b * block_bytes, parts);
      uint8_t* to = panel + b / record.blocks * record.bytes;
      put.put_scales(parts, to + b % record.blocks * record.block_scales);
      to += record.scales + b % record.blocks * record.block_codes;
      for (int64_t run = 0; run < form.values / kRun; ++run) {
        put.put_run(parts.codes + run * kRun, to + run * record.run);
      }
    }
  }
}

PackedBlocks pack_blocks(BlockType type, std::span<const std::byte> w, int64_t n, int64_t k) {
  PackedBlocks out = layout_blocks(type, w, n, k);
  const int64_t panels = panels_of(out);
  const std::shared_ptr<uint8_t> memory =
      weight_memory(static_cast<size_t>(panels * out.panel_bytes));
  uint8_t* bytes = memory.get();
  out.weights = Tensor::view(memory, bytes, static_cast<size_t>(panels * out.panel_bytes),
                             DType::uint8, {panels * out.panel_bytes});
  const size_t stored = row_bytes(type, k);
  parallel_for(panels, 4, [&](int64_t begin, int64_t end) {
    pack_panels(out, w, begin, end, bytes + begin * out.panel_bytes);
    // Or file and packed copy would be in memory both.
    const int64_t rows = std::min(n, end * kPanel) - begin * kPanel;
    MappedFile::release(w.subspan(static_cast<size_t>(begin * kPanel) * stored,
                                  static_cast<size_t>(rows) * stored));
  });
  MappedFile::release(w);  // pages between blocks
  return out;
}

namespace {

int64_t tile_of(const KernelSet& kernels, int64_t m) {
  return m == 1 ? 1 : kernels.block_tile;
}

int64_t padded_rows(int64_t m, int64_t tile) {
  return (m + tile - 1) / tile * tile;
}

}  // namespace

size_t block_gemm_scratch_bytes(const KernelSet& kernels, const PackedBlocks& w, int64_t m) {
  return static_cast<size_t>(BlockScratch(w, padded_rows(m, tile_of(kernels, m))).bytes);
}

BlockRows quantize_rows(const KernelSet& kernels, const PackedBlocks& w, const float* x, int64_t m,
                        std::span<std::byte> scratch) {
  const int64_t tile = tile_of(kernels, m);
  const BlockScratch parts(w, padded_rows(m, tile));
  if (scratch.size() < static_cast<size_t>(parts.bytes)) {
    throw Error(ErrorCode::internal, "scratch memory of a product is too small");
  }
  BlockRows rows = parts.at(scratch.data());
  rows.tile = tile;
  rows.padded = padded_rows(m, tile);

  // Some 10 us of quantization a block.
  constexpr int64_t kBlockValues = 32768;
  parallel_for(m, std::max<int64_t>(1, kBlockValues / w.k), [&](int64_t begin, int64_t end) {
    QuantizeBlocksArgs args;
    args.x = x;
    args.begin = begin;
    args.end = end;
    args.k = w.k;
    args.group = w.form.group;
    args.zero = w.form.table ? 128 : w.form.zero;
    args.rows = rows;
    kernels.quantize_blocks(args);
  });
  return rows;
}

void multiply_panels(const KernelSet& kernels, const PackedBlocks& w, const uint8_t* panels,
                     int64_t first, int64_t count, const BlockRows& rows, int64_t m, float* y) {
  // One row: weights worth some 10 us of memory traffic a block. More rows: up to 8 panels, which
  // share the stretch of activations in the second-level cache, but fewer where that would leave
  // less than 16 blocks to hand out.
  constexpr int64_t kBlockBytes = int64_t{1} << 18;
  constexpr int64_t kBlockMacs = 4'000'000;
  const int64_t by_bytes = kBlockBytes / w.panel_bytes;
  const int64_t by_macs =
      std::max(kBlockMacs / (m * w.k * kPanel), std::clamp<int64_t>(count / 16, 2, 8));
  // Even: kernels take panels in pairs.
  const int64_t width = std::max<int64_t>(2, (m == 1 ? by_bytes : by_macs) / 2 * 2);
  parallel_for(count, width, [&](int64_t begin, int64_t end) {
    BlockGemmArgs args;
    args.kernel = w.kernel;
    args.weights = panels + begin * w.panel_bytes;
    args.panel_bytes = w.panel_bytes;
    args.k = w.k;
    args.n = std::min(w.n, (first + end) * kPanel) - (first + begin) * kPanel;
    args.m = m;
    args.rows = rows;
    args.dst = y + (first + begin) * kPanel;
    args.ldc = w.n;
    kernels.block_gemm(args);
  });
}

void run_block_gemm(const KernelSet& kernels, const PackedBlocks& w, const float* x, int64_t m,
                    float* y, std::span<std::byte> scratch) {
  if (m == 0 || w.n == 0) return;
  if (w.k == 0) {
    std::fill(y, y + m * w.n, 0.0F);
    return;
  }
  const BlockRows rows = quantize_rows(kernels, w, x, m, scratch);
  const int64_t panels = panels_of(w);
  multiply_panels(kernels, w, reinterpret_cast<const uint8_t*>(w.weights.raw()), 0, panels, rows, m,
                  y);
}

void run_block_float(const KernelSet& kernels, const PackedBlocks& w, const float* x, int64_t m,
                     float* y) {
  if (m == 0 || w.n == 0) return;
  if (w.k == 0) {
    std::fill(y, y + m * w.n, 0.0F);
    return;
  }
  constexpr int64_t kBlockMacs = 2'000'000;  // some 50 us
  const int64_t panels = panels_of(w);
  const int64_t width = std::max<int64_t>(1, kBlockMacs / (m * w.k * kPanel));
  parallel_for(panels, width, [&](int64_t begin, int64_t end) {
    BlockFloatArgs args;
    args.kernel = w.kernel;
    args.weights = reinterpret_cast<const uint8_t*>(w.weights.raw()) + begin * w.panel_bytes;
    args.panel_bytes = w.panel_bytes;
    args.k = w.k;
    args.n = std::min(w.n, end * kPanel) - begin * kPanel;
    args.m = m;
    args.x = x;
    args.ldx = w.k;
    args.dst = y + begin * kPanel;
    args.ldc = w.n;
    kernels.block_float(args);
  });
}

}  // namespace narrow::kernels
