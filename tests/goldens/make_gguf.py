#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small files written by the `gguf` package (PyPI, 0.19.0). Usage: make_gguf.py FOLDER

  small.gguf           every kind of value, tensors of several types
  imatrix.gguf         an importance matrix in its GGUF form
  make_gguf.py --check FILE   reads a file with the package and prints what is in it
"""
import sys

import gguf
import numpy as np


def small(path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint8("t.u8", 200)
    w.add_int8("t.i8", -100)
    w.add_uint16("t.u16", 60000)
    w.add_int16("t.i16", -30000)
    w.add_uint32("t.u32", 4000000000)
    w.add_int32("t.i32", -2000000000)
    w.add_float32("t.f32", 0.5)
    w.add_bool("t.bool", True)
    w.add_string("t.string", "Grüße\n")
    w.add_uint64("t.u64", 1 << 60)
    w.add_int64("t.i64", -(1 << 60))
    w.add_float64("t.f64", 0.1)
    w.add_array("t.strings", ["a", "", "ccc"])
    w.add_array("t.ints", [1, -2, 3])
    w.add_array("t.floats", [0.25, -1.5])
    w.add_array("t.bools", [True, False])
    w.add_array("t.nested", [[1, 2], [3]])
    rows = np.linspace(-1, 1, 96, dtype=np.float32).reshape(3, 32)
    w.add_tensor("f32", rows)
    w.add_tensor("f16", rows[:, :5].astype(np.float16))
    w.add_tensor("i32", np.array([1, -2], np.int32))
    w.add_tensor("cube", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    kind = gguf.GGMLQuantizationType.Q8_0
    w.add_tensor("q8", gguf.quantize(rows, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def imatrix(path):
    w = gguf.GGUFWriter(path, "none")
    w.kv_data[0].clear()
    w.add_string("general.type", "imatrix")
    w.add_array("imatrix.datasets", ["a.txt", "b.txt"])
    w.add_uint32("imatrix.chunk_count", 7)
    w.add_uint32("imatrix.chunk_size", 512)
    w.add_tensor("blk.0.ffn_down.weight.in_sum2", np.array([[4, 8, 12, 0]], np.float32))
    w.add_tensor("blk.0.ffn_down.weight.counts", np.array([[4]], np.float32))
    w.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", np.array([[1, 2], [0, 0], [9, 3]], np.float32))
    w.add_tensor("blk.0.ffn_up_exps.weight.counts", np.array([[1], [0], [3]], np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check(path):
    r = gguf.GGUFReader(path)
    for field in r.fields.values():
        print(field.name, [t.name for t in field.types], str(field.contents())[:60])
    for t in r.tensors:
        plain = t.tensor_type.name.startswith(("I", "F64")) and not t.tensor_type.name.startswith("IQ")
        values = t.data if plain else gguf.dequantize(t.data, t.tensor_type)
        print(t.name, t.tensor_type.name, list(t.shape), float(np.sum(values, dtype=np.float64)))


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(sys.argv[2])
    else:
        small(sys.argv[1] + "/small.gguf")
        imatrix(sys.argv[1] + "/imatrix.gguf")
