// SPDX-License-Identifier: Apache-2.0
// Cast and CastLike between all stored types. Blocks go through double or int64, which hold every
// value of every type but the largest uint64.
#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/core/half.h"
#include "narrow/runtime/ops/packed.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

constexpr int64_t kBlock = 256;  // elements converted at a time: both buffers stay in the L1 cache

/// Values of one block; floating sources fill `real`, the others `integer`.
struct Block {
  double real[kBlock];
  int64_t integer[kBlock];
};

void load_reals(const TensorView& x, int64_t at, int64_t n, double* to) {
  switch (x.dtype) {
    case DType::float32:
      for (int64_t i = 0; i < n; ++i) to[i] = static_cast<double>(x.as<float>()[at + i]);
      return;
    case DType::float64:
      std::copy_n(x.as<double>() + at, n, to);
      return;
    case DType::float16:
      for (int64_t i = 0; i < n; ++i) to[i] = static_cast<double>(to_float(x.as<Half>()[at + i]));
      return;
    default:
      for (int64_t i = 0; i < n; ++i) {
        to[i] = static_cast<double>(to_float(x.as<BFloat16>()[at + i]));
      }
  }
}

void load_integers(const TensorView& x, int64_t at, int64_t n, int64_t* to) {
  if (is_sub_byte(x.dtype)) {
    for (int64_t i = 0; i < n; ++i) to[i] = load_packed(x.data, x.dtype, at + i);
    return;
  }
  if (x.dtype == DType::boolean) {
    for (int64_t i = 0; i < n; ++i) to[i] = x.as<uint8_t>()[at + i] != 0 ? 1 : 0;
    return;
  }
  visit(Integers{}, x.dtype, [&]<class T>(std::type_identity<T>) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<int64_t>(x.as<T>()[at + i]);
  });
}

/// Toward zero; NaN gives 0. Where ONNX defines nothing, what int64 cannot hold is clamped, and
/// narrower types keep the low bits.
int64_t truncate(double x) {
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  if (x != x) return 0;
  if (x >= kLimit) return std::numeric_limits<int64_t>::max();
  return x < -kLimit ? std::numeric_limits<int64_t>::min() : static_cast<int64_t>(x);
}

void store_reals(const double* from, const TensorView& y, int64_t at, int64_t n) {
  switch (y.dtype) {
    case DType::float32:
      for (int64_t i = 0; i < n; ++i) y.as<float>()[at + i] = static_cast<float>(from[i]);
      return;
    case DType::float64:
      std::copy_n(from, n, y.as<double>() + at);
      return;
    case DType::float16:
      for (int64_t i = 0; i < n; ++i) y.as<Half>()[at + i] = to_half(static_cast<float>(from[i]));
      return;
    default:
      for (int64_t i = 0; i < n; ++i) {
        y.as<BFloat16>()[at + i] = to_bfloat16(static_cast<float>(from[i]));
      }
  }
}

void store_integers(const int64_t* from, const TensorView& y, int64_t at, int64_t n) {
  if (is_sub_byte(y.dtype)) {
    for (int64_t i = 0; i < n; ++i) {
      store_packed(y.data, y.dtype, at + i, static_cast<int32_t>(from[i]));
    }
    return;
  }
  visit(Integers{}, y.dtype, [&]<class T>(std::type_identity<T>) {
    for (int64_t i = 0; i < n; ++i) y.as<T>()[at + i] = static_cast<T>(from[i]);
  });
}

void convert_block(const TensorView& x, const TensorView& y, int64_t at, int64_t n, Block& block) {
  const bool from_real = is_float(x.dtype);
  if (from_real) {
    load_reals(x, at, n, block.real);
  } else {
    load_integers(x, at, n, block.integer);
  }
  if (y.dtype == DType::boolean) {
    for (int64_t i = 0; i < n; ++i) {
      y.as<bool>()[at + i] = from_real ? block.real[i] != 0 : block.integer[i] != 0;
    }
    return;
  }
  if (is_float(y.dtype)) {
    const bool large = x.dtype == DType::uint64;
    for (int64_t i = 0; i < n && !from_real; ++i) {
      block.real[i] = large ? static_cast<double>(static_cast<uint64_t>(block.integer[i]))
                            : static_cast<double>(block.integer[i]);
    }
    return store_reals(block.real, y, at, n);
  }
  for (int64_t i = 0; i < n && from_real; ++i) block.integer[i] = truncate(block.real[i]);
  store_integers(block.integer, y, at, n);
}

class CastStep final : public Step {
 public:
  CastStep(const Graph&, const Node&) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& y = context.outputs[0];
    if (x.dtype == y.dtype) return copy_view(y, x);
    // Blocks of whole bytes on both sides, so that packed neighbours stay with one thread.
    parallel_for(x.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
      Block block;
      for (int64_t at = begin; at < end; at += kBlock) {
        convert_block(x, y, at, std::min(kBlock, end - at), block);
      }
    });
  }
};

Refusal accept_cast(const Graph& graph, const Node& node, const StepOptions&) {
  const DType from = input_dtype(graph, node, 0);
  const DType to = graph.value(node.outputs[0]).dtype;
  if (from == DType::undefined || from == DType::string) return refuse_dtype(graph, node, 0);
  if (to == DType::undefined || to == DType::string) {
    return std::string("the result is ") + to_string(to);
  }
  return {};
}

const OpImpl kRows[] = {
    {"", "Cast", "reference", accept_cast, make<CastStep>},
    {"", "CastLike", "reference", accept_cast, make<CastStep>},
};

}  // namespace

std::span<const OpImpl> cast_rows() {
  return kRows;
}

}  // namespace narrow::ops
