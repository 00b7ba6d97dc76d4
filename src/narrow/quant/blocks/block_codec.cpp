// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/block_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/quant/blocks/decode.h"
#include "narrow/quant/blocks/encode.h"

namespace narrow {
namespace {

#define NARROW_BLOCK_ROW(name, values, bytes) \
  { BlockType::name, #name, values, bytes, blocks::decode_##name, blocks::encode_##name }

/// In the order of the enumerators.
constexpr BlockCodec kCodecs[] = {
    NARROW_BLOCK_ROW(f32, 1, 4),        NARROW_BLOCK_ROW(f16, 1, 2),
    NARROW_BLOCK_ROW(bf16, 1, 2),       NARROW_BLOCK_ROW(q4_0, 32, 18),
    NARROW_BLOCK_ROW(q4_1, 32, 20),     NARROW_BLOCK_ROW(q5_0, 32, 22),
    NARROW_BLOCK_ROW(q5_1, 32, 24),     NARROW_BLOCK_ROW(q8_0, 32, 34),
    NARROW_BLOCK_ROW(q2_k, 256, 84),    NARROW_BLOCK_ROW(q3_k, 256, 110),
    NARROW_BLOCK_ROW(q4_k, 256, 144),   NARROW_BLOCK_ROW(q5_k, 256, 176),
    NARROW_BLOCK_ROW(q6_k, 256, 210),   NARROW_BLOCK_ROW(iq4_nl, 32, 18),
    NARROW_BLOCK_ROW(iq4_xs, 256, 136),
};

#undef NARROW_BLOCK_ROW

constexpr int64_t kParallelValues = int64_t{1} << 14;  // at least this much work for a thread

void require_finite(std::span<const float> row) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  for (size_t i = 0; i < row.size(); ++i) {
    if ((std::bit_cast<uint32_t>(row[i]) & kInfinity) == kInfinity) {
      throw Error(ErrorCode::numeric_failure, fmt::format("value {} is {}", i, row[i]),
                  "blocks hold finite values; look for what made the weight overflow");
    }
  }
}

void require_importance(std::span<const float> importance, size_t columns) {
  if (importance.empty()) return;
  if (importance.size() != columns) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} importances for {} columns", importance.size(), columns));
  }
  for (size_t i = 0; i < importance.size(); ++i) {
    if (!(importance[i] >= 0) || std::bit_cast<uint32_t>(importance[i]) == 0x7f800000u) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the importance of column {} is {}", i, importance[i]),
                  "importances are finite and not negative");
    }
  }
}

void encode_checked(const BlockCodec& c, std::span<const float> row, const EncodeOptions& options,
                    std::byte* out) {
  require_finite(row);
  c.encode(row.data(), options.importance.empty() ? nullptr : options.importance.data(),
           static_cast<int64_t>(row.size()) / c.block_values, options.method, options.emphasis,
           reinterpret_cast<uint8_t*>(out));
}

void require_bytes(const BlockCodec& c, size_t needed, size_t have) {
  if (needed != have) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} needs {} bytes here, not {}", c.name, needed, have));
  }
}

/// Rows of a matrix that holds `values`.
int64_t row_count(size_t values, int64_t columns) {
  if (columns <= 0 || values % static_cast<size_t>(columns) != 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} values do not fill rows of {}", values, columns));
  }
  return static_cast<int64_t>(values / static_cast<size_t>(columns));
}

int64_t rows_per_task(int64_t columns) {
  return std::max<int64_t>(1, kParallelValues / columns);
}

}  // namespace

const BlockCodec& codec(BlockType type) {
  return kCodecs[static_cast<size_t>(type)];
}

std::span<const BlockCodec> block_codecs() {
  return kCodecs;
}

const BlockCodec* find_codec(std::string_view name) {
  for (const BlockCodec& c : kCodecs) {
    if (name == c.name) return &c;
  }
  return nullptr;
}

const char* to_string(BlockType type) {
  return codec(type).name;
}

const char* to_string(EncodeMethod method) {
  return method == EncodeMethod::rtn ? "rtn" : "mse";
}

Emphasis best_emphasis(BlockType type, bool importance) {
  switch (type) {
    case BlockType::q3_k:
    case BlockType::q4_k:
    case BlockType::q5_k:
    case BlockType::q6_k:
      return importance ? Emphasis::both : Emphasis::direction;
    default:
      return Emphasis::direction;
  }
}

const char* to_string(Emphasis emphasis) {
  switch (emphasis) {
    case Emphasis::none:
      return "none";
    case Emphasis::magnitude:
      return "magnitude";
    case Emphasis::both:
      return "both";
    case Emphasis::direction:
      return "direction";
  }
  return "none";
}

size_t row_bytes(BlockType type, int64_t columns) {
  const BlockCodec& c = codec(type);
  if (columns < 0 || columns > (int64_t{1} << 56) || columns % c.block_values != 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} columns are not a multiple of the {} values of a {} block", columns,
                            c.block_values, c.name),
                "choose a type with smaller blocks (32: q8_0, q5_1, q4_0, iq4_nl) or f16");
  }
  return static_cast<size_t>(columns / c.block_values) * static_cast<size_t>(c.block_bytes);
}

void decode(BlockType type, std::span<const std::byte> bytes, std::span<float> out) {
  const BlockCodec& c = codec(type);
  require_bytes(c, row_bytes(type, static_cast<int64_t>(out.size())), bytes.size());
  c.decode(reinterpret_cast<const uint8_t*>(bytes.data()),
           static_cast<int64_t>(out.size()) / c.block_values, out.data());
}

void encode(BlockType type, std::span<const float> row, std::span<std::byte> out,
            const EncodeOptions& options) {
  const BlockCodec& c = codec(type);
  require_bytes(c, row_bytes(type, static_cast<int64_t>(row.size())), out.size());
  require_importance(options.importance, row.size());
  encode_checked(c, row, options, out.data());
}

void encode_rows(BlockType type, std::span<const float> matrix, int64_t columns,
                 std::span<std::byte> out, const EncodeOptions& options) {
  const BlockCodec& c = codec(type);
  if (matrix.empty()) return require_bytes(c, 0, out.size());
  const int64_t rows = row_count(matrix.size(), columns);
  const size_t bytes = row_bytes(type, columns);
  require_bytes(c, bytes * static_cast<size_t>(rows), out.size());
  require_importance(options.importance, static_cast<size_t>(columns));
  parallel_for(rows, rows_per_task(columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto row =
          matrix.subspan(static_cast<size_t>(r * columns), static_cast<size_t>(columns));
      try {
        encode_checked(c, row, options, out.data() + bytes * static_cast<size_t>(r));
      } catch (Error& e) {
        e.add_context(fmt::format("row {}", r));
        throw;
      }
    }
  });
}

void decode_rows(BlockType type, std::span<const std::byte> bytes, int64_t columns,
                 std::span<float> out) {
  const BlockCodec& c = codec(type);
  if (out.empty()) return require_bytes(c, 0, bytes.size());
  const int64_t rows = row_count(out.size(), columns);
  const size_t row = row_bytes(type, columns);
  require_bytes(c, row * static_cast<size_t>(rows), bytes.size());
  const auto* from = reinterpret_cast<const uint8_t*>(bytes.data());
  parallel_for(rows, rows_per_task(columns), [&](int64_t begin, int64_t end) {
    c.decode(from + row * static_cast<size_t>(begin), (end - begin) * (columns / c.block_values),
             out.data() + begin * columns);
  });
}

}  // namespace narrow
