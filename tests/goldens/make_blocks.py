#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Blocks of random bytes and what the `gguf` package (PyPI, 0.19.0) decodes them to.

Usage: make_blocks.py > blocks.txt
A line for each block: type name, bytes in hexadecimal, float32 bits in hexadecimal. Random scales are any
binary16 but NaN and infinity; zero, subnormal, negative and largest scales come first.
"""
import gguf
import numpy as np

HALVES = {  # offsets of the binary16 numbers in a block
    "F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00]


def blocks_of(rng, name, size, count):
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for i, row in enumerate(data):
        for at in HALVES.get(name, []):
            half = np.uint16(SPECIAL[(i + at) % len(SPECIAL)])
            if i >= len(SPECIAL):
                half = np.uint16(rng.integers(0, 0x7C00) | rng.integers(0, 2) << 15)
            row[at:at + 2] = np.frombuffer(half.tobytes(), np.uint8)
    if name == "F32":
        data[:, 3] &= 0xBF  # no NaN: exponents stay below the largest
    if name == "BF16":
        data[:, 1] &= 0xBF
    return data


def main():
    rng = np.random.default_rng(20)
    for name in ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
                 "Q6_K", "IQ4_NL", "IQ4_XS"]:
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        for block in blocks_of(rng, name, size, 11):
            out = np.asarray(gguf.dequantize(block[None], kind), np.float32).reshape(-1)
            assert out.size == values
            print(name.lower(), block.tobytes().hex(), " ".join(f"{b:x}" for b in out.view(np.uint32)))


if __name__ == "__main__":
    main()
