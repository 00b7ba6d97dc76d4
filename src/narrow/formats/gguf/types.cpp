// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/gguf/types.h"

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr auto kNone = std::nullopt;
using B = BlockType;

constexpr GgufTensorType kTypes[] = {
    {0, "F32", 1, 4, B::f32, DType::float32},
    {1, "F16", 1, 2, B::f16, DType::float16},
    {2, "Q4_0", 32, 18, B::q4_0, DType::undefined},
    {3, "Q4_1", 32, 20, B::q4_1, DType::undefined},
    {6, "Q5_0", 32, 22, B::q5_0, DType::undefined},
    {7, "Q5_1", 32, 24, B::q5_1, DType::undefined},
    {8, "Q8_0", 32, 34, B::q8_0, DType::undefined},
    {9, "Q8_1", 32, 36, kNone, DType::undefined},
    {10, "Q2_K", 256, 84, B::q2_k, DType::undefined},
    {11, "Q3_K", 256, 110, B::q3_k, DType::undefined},
    {12, "Q4_K", 256, 144, B::q4_k, DType::undefined},
    {13, "Q5_K", 256, 176, B::q5_k, DType::undefined},
    {14, "Q6_K", 256, 210, B::q6_k, DType::undefined},
    {15, "Q8_K", 256, 292, kNone, DType::undefined},
    {16, "IQ2_XXS", 256, 66, kNone, DType::undefined},
    {17, "IQ2_XS", 256, 74, kNone, DType::undefined},
    {18, "IQ3_XXS", 256, 98, kNone, DType::undefined},
    {19, "IQ1_S", 256, 50, kNone, DType::undefined},
    {20, "IQ4_NL", 32, 18, B::iq4_nl, DType::undefined},
    {21, "IQ3_S", 256, 110, kNone, DType::undefined},
    {22, "IQ2_S", 256, 82, kNone, DType::undefined},
    {23, "IQ4_XS", 256, 136, B::iq4_xs, DType::undefined},
    {24, "I8", 1, 1, kNone, DType::int8},
    {25, "I16", 1, 2, kNone, DType::int16},
    {26, "I32", 1, 4, kNone, DType::int32},
    {27, "I64", 1, 8, kNone, DType::int64},
    {28, "F64", 1, 8, kNone, DType::float64},
    {29, "IQ1_M", 256, 56, kNone, DType::undefined},
    {30, "BF16", 1, 2, B::bf16, DType::bfloat16},
    {34, "TQ1_0", 256, 54, kNone, DType::undefined},
    {35, "TQ2_0", 256, 66, kNone, DType::undefined},
    {39, "MXFP4", 32, 17, kNone, DType::undefined},
    {40, "NVFP4", 64, 36, kNone, DType::undefined},
    {41, "Q1_0", 128, 18, kNone, DType::undefined},
    {42, "Q2_0", 64, 18, kNone, DType::undefined},
};

}  // namespace

const GgufTensorType* find_gguf_type(uint32_t number) {
  for (const GgufTensorType& t : kTypes) {
    if (t.number == number) return &t;
  }
  return nullptr;
}

const GgufTensorType& gguf_type(BlockType type) {
  for (const GgufTensorType& t : kTypes) {
    if (t.codec == type) return t;
  }
  throw Error(ErrorCode::internal, "a block codec without a GGUF type");
}

std::span<const GgufTensorType> gguf_types() {
  return kTypes;
}

}  // namespace narrow
