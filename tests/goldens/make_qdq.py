#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/goldens/qdq.onnx: a small network that onnxruntime quantized (QDQ, int8 weights for
each channel, uint8 activations), with a residual, a Concat, pools and values that are read twice.

Needs numpy, onnx and onnxruntime.
"""
import pathlib
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType,
                                      quantize_static)

HERE = pathlib.Path(__file__).resolve().parent
RNG = np.random.default_rng(11)


def build():
    init, nodes = [], []

    def weight(name, *dims):
        init.append(numpy_helper.from_array((RNG.normal(size=dims) * 0.3).astype(np.float32), name))
        return name

    def conv(name, x, cin, cout, k):
        w, b = weight(name + ".weight", cout, cin, k, k), weight(name + ".bias", cout)
        nodes.append(helper.make_node("Conv", [x, w, b], [name + "_y"], name, kernel_shape=[k, k],
                                      pads=[k // 2] * 4))
        nodes.append(helper.make_node("Relu", [name + "_y"], [name + "_r"], name + "_relu"))
        return name + "_r"

    a = conv("stem", "x", 3, 8, 3)
    b = conv("one", a, 8, 4, 1)
    c = conv("three", a, 8, 4, 3)
    nodes.append(helper.make_node("Concat", [b, c], ["cat"], "cat", axis=1))
    nodes.append(helper.make_node("Add", ["cat", a], ["sum"], "residual"))
    nodes.append(helper.make_node("MaxPool", ["sum"], ["pool"], "pool", kernel_shape=[2, 2],
                                  strides=[2, 2]))
    nodes.append(helper.make_node("Sigmoid", ["pool"], ["gate"], "gate"))
    nodes.append(helper.make_node("Mul", ["pool", "gate"], ["gated"], "gated"))
    nodes.append(helper.make_node("GlobalAveragePool", ["gated"], ["mean"], "mean"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flat"))
    weight("fc.weight", 5, 8), weight("fc.bias", 5)
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], "fc", transB=1))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])], init)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = [{"x": RNG.normal(size=(8, 3, 8, 8)).astype(np.float32)} for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "float.onnx"
        onnx.save(build(), path)
        quantize_static(str(path), str(HERE / "qdq.onnx"), Reader(), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8)


main()
