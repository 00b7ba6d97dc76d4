// SPDX-License-Identifier: Apache-2.0
// The loops that peaks.h times: nothing but the instruction in question, on registers (multiply) or
// on memory (read). Each is compiled with its instruction set's flags; the caller asks the CPU
// first. Written as volatile assembly, as a compiler would merge equal products and drop their
// sums.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels {

/// `turns` turns of independent multiply-adds: enough of them to hide their latency.
using MultiplyLoopFn = void (*)(int64_t turns);
/// Loads every byte; `bytes` is a multiple of kReadStep.
using ReadLoopFn = void (*)(const uint8_t* memory, size_t bytes);

inline constexpr size_t kReadStep = 512;

namespace avx2 {
inline constexpr int64_t kInt8Macs = 10 * 32;  // of a turn: chains x products each
inline constexpr int64_t kFloat32Macs = 12 * 8;
void multiply_int8(int64_t turns);
void multiply_float32(int64_t turns);
void read_memory(const uint8_t* memory, size_t bytes);
}  // namespace avx2

namespace avx_vnni {
inline constexpr int64_t kInt8Macs = 12 * 32;
void multiply_int8(int64_t turns);
}  // namespace avx_vnni

namespace avx512_vnni {
inline constexpr int64_t kInt8Macs = 16 * 64;
inline constexpr int64_t kFloat32Macs = 16 * 16;
void multiply_int8(int64_t turns);
void multiply_float32(int64_t turns);
void read_memory(const uint8_t* memory, size_t bytes);
}  // namespace avx512_vnni

namespace avx512_bf16 {
inline constexpr int64_t kBfloat16Macs = 16 * 32;
void multiply_bfloat16(int64_t turns);
}  // namespace avx512_bf16

namespace amx_int8 {
inline constexpr int64_t kInt8Macs = 4 * 16 * 16 * 64;
/// The thread that calls it must have been granted tiles, as cpu_supports() asks for.
void multiply_int8(int64_t turns);
}  // namespace amx_int8

}  // namespace narrow::kernels
