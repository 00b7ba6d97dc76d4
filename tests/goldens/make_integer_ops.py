# SPDX-License-Identifier: Apache-2.0
"""Goldens of the integer operators: accumulators by ONNX Runtime's ConvInteger and MatMulInteger,
requantization by numpy in the words of graph/lowered_ops.h. Writes integer_ops.txt beside itself.

Run: python make_integer_ops.py     (numpy, onnx, onnxruntime)
"""
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(20)
out = []


def emit(name, array):
    array = np.asarray(array)
    kind = {"uint8": "uint8", "int8": "int8", "int32": "int32", "float32": "float32"}[str(array.dtype)]
    values = (float(v).hex() if kind == "float32" else str(int(v)) for v in array.reshape(-1))
    out.append(f"{name} {kind} {array.ndim} {' '.join(map(str, array.shape))}")
    out.append(" ".join(values))


def codes(dtype, shape):
    info = np.iinfo(dtype)
    v = rng.integers(info.min, info.max + 1, shape)
    v[rng.random(shape) < 0.1] = info.min
    v[rng.random(shape) < 0.1] = info.max
    return v.astype(dtype)


def run(op, inputs, **attributes):
    names = [f"i{k}" for k in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], **attributes)
    types = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, t, list(x.shape)) for n, t, x in zip(names, types, inputs)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs)))[0]


def requantize(acc, m, zero, dtype, lo=None, hi=None):
    info = np.iinfo(dtype)
    lo = info.min if lo is None else lo
    hi = info.max if hi is None else hi
    t = acc.astype(np.float32) * m
    t = np.maximum(np.minimum(t, np.float32(hi - zero)), np.float32(lo - zero))
    return (np.rint(t).astype(np.int32) + zero).astype(dtype)


def multiplier(*scales):
    x, w, y = (np.asarray(s, np.float32).astype(np.float64) for s in scales)
    return (x * w / y).astype(np.float32)


def conv(tag, x_type, w_type, x_shape, w_shape, zx, zw, **attributes):
    x, w = codes(x_type, x_shape), codes(w_type, w_shape)
    acc = run("ConvInteger", [x, w, np.array(zx, x_type), np.array(zw, w_type)], **attributes)
    bias = rng.integers(-20000, 20000, w_shape[0]).astype(np.int32)
    acc = acc + bias.reshape(1, -1, 1, 1)
    sx, sy = np.float32(0.043), np.float32(0.31)
    sw = rng.uniform(0.001, 0.02, w_shape[0]).astype(np.float32)
    zy = 3
    y = requantize(acc, multiplier(sx, sw, sy).reshape(1, -1, 1, 1), zy, x_type)
    emit(tag + ".x", x)
    emit(tag + ".w", w)
    emit(tag + ".bias", bias)
    emit(tag + ".w_scale", sw)
    emit(tag + ".y", y)


conv("conv_u8", np.uint8, np.int8, (2, 3, 7, 8), (5, 3, 3, 3), 121, 0, pads=[1, 1, 1, 1])
conv("conv_s8", np.int8, np.int8, (1, 8, 6, 6), (18, 8, 1, 1), -7, 0, strides=[2, 2])
conv("conv_uw", np.uint8, np.uint8, (1, 5, 6, 7), (17, 5, 3, 2), 130, 99, pads=[0, 1, 2, 1],
     dilations=[2, 1])
conv("conv_dw", np.uint8, np.int8, (1, 20, 9, 8), (20, 1, 3, 3), 4, 0, pads=[1, 1, 1, 1], group=20)

for tag, a_type, b_type, za, zb in [("gemm_u8", np.uint8, np.int8, 9, 0),
                                    ("gemm_uu", np.uint8, np.uint8, 200, 17)]:
    a, b = codes(a_type, (5, 33)), codes(b_type, (33, 19))
    acc = run("MatMulInteger", [a, b, np.array(za, a_type), np.array(zb, b_type)])
    y = requantize(acc, multiplier(0.05, 0.011, 0.4), 60, np.uint8, 60, 250)
    for name, value in [("a", a), ("b", b), ("y", y)]:
        emit(f"{tag}.{name}", value)

a, b = codes(np.uint8, (3, 40)), codes(np.int8, (3, 40))
ra = np.float32(np.float64(np.float32(0.031)) / np.float64(np.float32(0.04)))
rb = np.float32(np.float64(np.float32(0.017)) / np.float64(np.float32(0.04)))
fa, fb = (a.astype(np.int32) - 5).astype(np.float32), (b.astype(np.int32) + 9).astype(np.float32)
emit("add.a", a)
emit("add.b", b)
emit("add.y", requantize((fa * ra + fb * rb), np.float32(1), 12, np.uint8))
m = np.float32(np.float64(np.float32(0.031)) * np.float64(np.float32(0.017)) /
               np.float64(np.float32(0.04)))
emit("mul.y", requantize((a.astype(np.int32) - 5) * (b.astype(np.int32) + 9), m, 12, np.uint8))

x = codes(np.int8, (1, 21, 6, 6))
acc = (x.astype(np.int32) + 7).sum(axis=(2, 3), keepdims=True)
m = np.float32(np.float64(np.float32(0.3)) / (np.float64(np.float32(0.02)) * 36))
emit("mean.x", x)
emit("mean.y", requantize(acc, m, -5, np.int8))

path = pathlib.Path(__file__).with_name("integer_ops.txt")
path.write_text("\n".join(out) + "\n")
print(path, path.stat().st_size, "bytes")
