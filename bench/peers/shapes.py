# SPDX-License-Identifier: Apache-2.0
"""Networks of well-known shapes with random weights, as ONNX files: what matters for their speed.
Usage: shapes.py NAME FILE      names: mobilenet_v2, resnet50, resnet8"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """Batch norms are folded, as for deployment."""

    def __init__(self, name, size, seed=1):
        self.name, self.size = name, size
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], []
        self.at = "image"

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.at = name
        return name

    def conv(self, name, x, channels, filters, kernel, stride=1, groups=1, bend=None):
        fan_in = channels // groups * kernel * kernel
        w = self.random.standard_normal((filters, channels // groups, kernel, kernel)) * np.sqrt(2 / fan_in)
        b = self.random.standard_normal(filters) * 0.1
        inputs = [x, self.constant(name + ".w", w.astype(np.float32)), self.constant(name + ".b", b.astype(np.float32))]
        total = kernel - stride if stride <= kernel else 0  # as TensorFlow pads: the odd pixel at the end
        pad = kernel // 2 if stride == 1 else None
        pads = [pad] * 4 if pad is not None else [total // 2, total // 2, total - total // 2, total - total // 2]
        y = self.node("Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)
        if bend == "relu":
            y = self.node("Relu", [y], name + ".relu")
        elif bend == "relu6":
            low = self.constant(name + ".low", np.float32(0))
            high = self.constant(name + ".high", np.float32(6))
            y = self.node("Clip", [y, low, high], name + ".relu6")
        return y

    def classify(self, channels, classes):
        y = self.node("GlobalAveragePool", [self.at], "pool")
        y = self.node("Flatten", [y], "flat", axis=1)
        w = self.random.standard_normal((classes, channels)) / np.sqrt(channels)
        self.node("Gemm", [y, self.constant("fc.w", w.astype(np.float32)),
                           self.constant("fc.b", np.zeros(classes, np.float32))], "scores", transB=1)

    def save(self, path):
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, self.size, self.size])
        scores = helper.make_tensor_value_info(self.at, TensorProto.FLOAT, ["batch", None])
        graph = helper.make_graph(self.nodes, self.name, [image], [scores], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), str(path))


def mobilenet_v2():
    """Sandler et al., 2018: 1.0, 224."""
    n = Network("mobilenet_v2", 224)
    y = n.conv("stem", "image", 3, 32, 3, 2, bend="relu6")
    width = 32
    for s, (expand, filters, blocks, first) in enumerate(((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                          (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))):
        for b in range(blocks):
            name, x, wide = f"s{s}b{b}", y, width * expand
            stride = first if b == 0 else 1
            if expand > 1:
                y = n.conv(name + ".expand", y, width, wide, 1, bend="relu6")
            y = n.conv(name + ".depth", y, wide, wide, 3, stride, wide, "relu6")
            y = n.conv(name + ".project", y, wide, filters, 1)
            if stride == 1 and width == filters:
                y = n.node("Add", [x, y], name + ".add")
            width = filters
    n.conv("head", y, 320, 1280, 1, bend="relu6")
    n.classify(1280, 1000)
    return n


def resnet50():
    """He et al., 2015, with the strides on the 3x3 convolutions (v1.5)."""
    n = Network("resnet50", 224)
    y = n.conv("stem", "image", 3, 64, 7, 2, bend="relu")
    y = n.node("MaxPool", [y], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    width = 64
    for s, (middle, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for b in range(blocks):
            name, x, out = f"s{s}b{b}", y, middle * 4
            stride = 2 if b == 0 and s > 0 else 1
            y = n.conv(name + ".a", x, width, middle, 1, bend="relu")
            y = n.conv(name + ".b", y, middle, middle, 3, stride, bend="relu")
            y = n.conv(name + ".c", y, middle, out, 1)
            if b == 0:
                x = n.conv(name + ".side", x, width, out, 1, stride)
            y = n.node("Relu", [n.node("Add", [y, x], name + ".add")], name + ".relu")
            width = out
    n.classify(2048, 1000)
    return n


def resnet8():
    """MLPerf Tiny's image classifier: CIFAR-10 in 8 layers."""
    n = Network("resnet8", 32)
    y = n.conv("stem", "image", 3, 16, 3, bend="relu")
    width = 16
    for s, filters in enumerate((16, 32, 64)):
        x, stride = y, 1 if s == 0 else 2
        y = n.conv(f"s{s}.a", x, width, filters, 3, stride, bend="relu")
        y = n.conv(f"s{s}.b", y, filters, filters, 3)
        if s > 0:
            x = n.conv(f"s{s}.side", x, width, filters, 1, stride)
        y = n.node("Relu", [n.node("Add", [y, x], f"s{s}.add")], f"s{s}.relu")
        width = filters
    n.classify(64, 10)
    return n


NETWORKS = {"mobilenet_v2": mobilenet_v2, "resnet50": resnet50, "resnet8": resnet8}


def make(name, path):
    if not pathlib.Path(path).exists():
        NETWORKS[name]().save(path)
    return pathlib.Path(path)


if __name__ == "__main__":
    NETWORKS[sys.argv[1]]().save(sys.argv[2])
