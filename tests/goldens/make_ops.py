#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden cases for single operators, in the format that tests/runtime/ops_cases.h reads.

    make_ops.py OUTPUT_DIRECTORY      (tests/corpus/ops; needs numpy, ml_dtypes, onnx, onnxruntime)

onnx_node.cases: ONNX's own backend node tests of the operators that narrow knows.
ort.cases: more attribute combinations, answers from onnxruntime.
"""

import struct
import sys
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

warnings.filterwarnings("ignore")

OPSET = 21  # of the cases that onnxruntime answers, unless a case says otherwise
SKIPPED = {
    "test_unique_bfloat16_sorted_without_axis",  # no row for 16-bit floats
    # Answers written down with four digits: no use at the accuracy that is asked here.
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_gridsample_bicubic",
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
    # The corners of a fractional extent (4 * 0.6 = 2.4) aligned; onnxruntime aligns those of 2.
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
MAX_CASE_BYTES = 12000  # larger node tests add weight, not coverage

OPS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift
BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Compress Concat
ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd CumSum DepthToSpace
DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten
Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod
Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul
QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RoiAlign RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink Sigmoid
Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan
Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor
""".split()

DTYPES = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float64): "float64",
    np.dtype(np.float16): "float16",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
    np.dtype(np.int8): "int8",
    np.dtype(np.uint8): "uint8",
    np.dtype(np.int16): "int16",
    np.dtype(np.uint16): "uint16",
    np.dtype(np.int32): "int32",
    np.dtype(np.uint32): "uint32",
    np.dtype(np.int64): "int64",
    np.dtype(np.uint64): "uint64",
    np.dtype(np.bool_): "boolean",
    np.dtype(ml_dtypes.int4): "int4",
    np.dtype(ml_dtypes.uint4): "uint4",
    np.dtype(ml_dtypes.int2): "int2",
    np.dtype(ml_dtypes.uint2): "uint2",
}
PACKED_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
ONNX_CODES = {getattr(TensorProto, n.upper() if n != "boolean" else "BOOL", None) for n in
              [v.replace("float32", "float").replace("float64", "double") for v in DTYPES.values()]}


class Unsupported(Exception):
    """The case has a type that narrow does not store."""


def u32(n):
    return struct.pack("<I", n)


def text(s):
    raw = s.encode()
    return u32(len(raw)) + raw


def raw_bytes(array):
    name = DTYPES[array.dtype]
    if name not in PACKED_BITS:
        return np.ascontiguousarray(array).tobytes()
    bits = PACKED_BITS[name]
    codes = array.astype(np.int32).reshape(-1) & ((1 << bits) - 1)
    per_byte = 8 // bits
    codes = np.concatenate([codes, np.zeros(-len(codes) % per_byte, np.int32)])
    shifts = np.arange(per_byte) * bits
    return (codes.reshape(-1, per_byte) << shifts).sum(1).astype(np.uint8).tobytes()


def tensor(array):
    if array is None:
        return text("")
    array = np.asarray(array)
    if array.dtype not in DTYPES:
        raise Unsupported(str(array.dtype))
    dims = struct.pack(f"<{array.ndim}q", *array.shape)
    data = raw_bytes(array)
    return text(DTYPES[array.dtype]) + u32(array.ndim) + dims + u32(len(data)) + data


def attribute(a):
    head = text(a.name)
    if a.type == AttributeProto.INT:
        return head + b"i" + struct.pack("<q", a.i)
    if a.type == AttributeProto.FLOAT:
        return head + b"f" + struct.pack("<f", a.f)
    if a.type == AttributeProto.STRING:
        return head + b"s" + text(a.s.decode())
    if a.type == AttributeProto.INTS:
        return head + b"I" + u32(len(a.ints)) + struct.pack(f"<{len(a.ints)}q", *a.ints)
    if a.type == AttributeProto.FLOATS:
        return head + b"F" + u32(len(a.floats)) + struct.pack(f"<{len(a.floats)}f", *a.floats)
    if a.type == AttributeProto.STRINGS:
        return head + b"S" + u32(len(a.strings)) + b"".join(text(s.decode()) for s in a.strings)
    if a.type == AttributeProto.TENSOR:
        return head + b"t" + tensor(numpy_helper.to_array(a.t))
    raise Unsupported("attribute type")


def case_bytes(name, node, inputs, outputs):
    for a in node.attribute:
        if a.name in ("to", "dtype", "output_dtype") and a.i not in ONNX_CODES and a.i != 0:
            raise Unsupported("element type")
    attributes = [attribute(a) for a in node.attribute]
    parts = [text(name), text(node.domain), text(node.op_type), u32(len(attributes)), *attributes]
    parts += [u32(len(inputs)), *map(tensor, inputs), u32(len(outputs)), *map(tensor, outputs)]
    return b"".join(parts)


def positional(names, values):
    """Values in the order of a node's operands; None where one is absent."""
    it = iter(values)
    return [next(it) if n else None for n in names]


def node_cases():
    from onnx.backend.test.case.node import collect_testcases

    for test in collect_testcases(None):
        graph = test.model.graph
        if len(graph.node) != 1 or graph.node[0].op_type not in OPS or graph.node[0].domain:
            continue
        node = graph.node[0]
        if test.name in SKIPPED or any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            continue
        ints = {a.name: a.i for a in node.attribute}
        if ints.get("training_mode") or "training" in test.name or "train" in test.name:
            continue
        inputs, outputs = test.data_sets[0]
        try:
            inputs = positional(node.input, [onnx_array(v) for v in inputs])
            outputs = positional(node.output, [onnx_array(v) for v in outputs])
            data = case_bytes(test.name, node, inputs, outputs)
        except (Unsupported, StopIteration):
            continue
        if len(data) <= (MAX_CASE_BYTES if node.op_type != "Attention" else MAX_CASE_BYTES // 2):
            yield data


def onnx_array(value):
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, dict)) or value is None:
        raise Unsupported("sequence")
    return np.asarray(value)


# --- cases answered by onnxruntime ------------------------------------------------------------------


class Maker:
    """Collects cases; random numbers with a fixed seed, so that the file is the same every time."""

    def __init__(self):
        self.rng = np.random.default_rng(20240607)
        self.cases = []

    def normal(self, *dims):
        return self.rng.standard_normal(dims).astype(np.float32)

    def ints(self, low, high, dims, dtype):
        return self.rng.integers(low, high, dims).astype(dtype)

    def add(self, name, op, inputs, opset=OPSET, num_outputs=1, domain="", narrow=None, **attributes):
        """narrow: (domain, op, attributes) under which narrow runs what the graph computes."""
        inputs = [None if v is None else np.asarray(v) for v in inputs]
        names = [f"x{i}" if v is not None else "" for i, v in enumerate(inputs)]
        outputs = [f"y{i}" for i in range(num_outputs)]
        node = helper.make_node(op, names, outputs, domain=domain, **attributes)
        self.run(name, [node], names, inputs, outputs, node, opset)

    def run(self, name, nodes, names, inputs, outputs, described, opset=OPSET):
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in zip(names, inputs)
            if v is not None
        ]
        graph = helper.make_graph(nodes, name, infos, [onnx.ValueInfoProto(name=o) for o in outputs])
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset < 25 else 12)
        feed = {n: v for n, v in zip(names, inputs) if v is not None}
        try:
            results = self.onnxruntime(model, feed)
        except Exception as error:  # no kernel for this type or form: the specification's evaluator
            print(f"{name}: answered by onnx's evaluator ({str(error).splitlines()[0][-90:]})")
            results = ReferenceEvaluator(model).run(None, feed)
        self.cases.append(case_bytes(name, described, inputs, results))

    @staticmethod
    def onnxruntime(model, feed):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, feed)


def conv_cases(m):
    def conv(name, x, w, bias=True, **attributes):
        inputs = [m.normal(*x), m.normal(*w)] + ([m.normal(w[0])] if bias else [])
        m.add("conv_" + name, "Conv", inputs, **attributes)

    conv("1x1", (2, 5, 4, 6), (7, 5, 1, 1))
    conv("3x3", (1, 3, 9, 8), (6, 3, 3, 3), pads=[1, 1, 1, 1])
    conv("no_bias", (1, 3, 9, 8), (6, 3, 3, 3), bias=False)
    conv("strided", (2, 4, 11, 10), (5, 4, 3, 3), strides=[2, 2], pads=[1, 0, 1, 2])
    conv("dilated", (1, 4, 11, 12), (5, 4, 3, 2), dilations=[2, 3], pads=[2, 1, 0, 1])
    conv("groups", (2, 6, 7, 7), (9, 2, 3, 3), group=3, pads=[1, 1, 1, 1])
    conv("depthwise", (1, 16, 6, 7), (16, 1, 3, 3), group=16, pads=[1, 1, 1, 1])
    conv("depthwise_strided", (1, 12, 9, 9), (12, 1, 5, 5), group=12, pads=[2, 2, 2, 2], strides=[2, 2])
    conv("depthwise_multiplier", (1, 4, 6, 6), (8, 1, 3, 3), group=4)
    conv("same_upper", (1, 3, 8, 7), (4, 3, 3, 4), auto_pad="SAME_UPPER", strides=[2, 2])
    conv("same_lower", (1, 3, 8, 7), (4, 3, 4, 2), auto_pad="SAME_LOWER", strides=[2, 3])
    conv("valid", (1, 3, 8, 7), (4, 3, 3, 3), auto_pad="VALID")
    conv("one_channel", (3, 1, 12, 12), (8, 1, 3, 3))
    conv("wide", (1, 20, 5, 5), (33, 20, 3, 3), pads=[1, 1, 1, 1])
    conv("1d", (2, 6, 17), (5, 6, 3), pads=[2, 1], strides=[2])
    conv("1d_depthwise", (2, 6, 17), (6, 1, 5), group=6, dilations=[2])
    conv("3d", (1, 3, 5, 6, 7), (4, 3, 2, 3, 2), pads=[1, 0, 1, 0, 1, 1], strides=[1, 2, 1])
    conv("kernel_is_image", (2, 3, 4, 5), (6, 3, 4, 5))
    conv("pads_beyond_kernel", (1, 2, 3, 3), (3, 2, 2, 2), pads=[3, 2, 2, 3])


def fused_cases(m):
    """narrow.FusedConv and FusedGemm against the graph they stand for."""
    activations = {
        "relu": ([("Relu", {})], {"activation": "Relu"}),
        "leaky": ([("LeakyRelu", {"alpha": 0.2})], {"activation": "LeakyRelu", "activation_alpha": 0.2}),
        "elu": ([("Elu", {"alpha": 0.7})], {"activation": "Elu", "activation_alpha": 0.7}),
        "sigmoid": ([("Sigmoid", {})], {"activation": "Sigmoid"}),
        "tanh": ([("Tanh", {})], {"activation": "Tanh"}),
        "hard_sigmoid": ([("HardSigmoid", {"alpha": 0.3, "beta": 0.4})],
                         {"activation": "HardSigmoid", "activation_alpha": 0.3, "activation_beta": 0.4}),
        "hard_swish": ([("HardSwish", {})], {"activation": "HardSwish"}),
        "clip": ([("Clip", {})], {"activation": "Clip", "min": -0.5, "max": 1.5}),
        "clip_below": ([("Clip", {})], {"activation": "Clip", "min": -0.25}),
        "none": ([], {}),
    }

    def build(base, base_attributes, inputs, residual, chain, fused):
        nodes = [helper.make_node(base, [f"x{i}" for i in range(3)], ["t0"], **base_attributes)]
        names = ["x0", "x1", "x2"]
        if residual is not None:
            nodes.append(helper.make_node("Add", ["t0", "x3"], ["t1"]))
            names.append("x3")
            inputs = inputs + [residual]
        for op, attributes in chain:
            operands = [nodes[-1].output[0]]
            for bound in ("min", "max") if op == "Clip" else ():
                if bound in fused:
                    value = numpy_helper.from_array(np.float32(fused[bound]))
                    nodes.insert(0, helper.make_node("Constant", [], [bound], value=value))
                    operands.append(bound)
                else:
                    operands.append("")
            nodes.append(helper.make_node(op, operands, [f"t{len(nodes)}_"], **attributes))
        described = helper.make_node(
            "Fused" + base, names, ["y"], domain="narrow", **base_attributes, **fused)
        kind = fused.get("activation", "none").lower() + ("_sum" if residual is not None else "")
        m.run(f"fused_{base.lower()}_{kind}_{len(m.cases)}", nodes, names, inputs,
              [nodes[-1].output[0]], described)

    for chain, fused in activations.values():
        for with_residual in (False, True):
            x, w, b = m.normal(2, 5, 6, 7), m.normal(10, 5, 3, 3) * 0.3, m.normal(10)
            residual = m.normal(2, 10, 3, 4) if with_residual else None
            build("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 2]}, [x, w, b], residual, chain, fused)
            a, b, c = m.normal(4, 9), m.normal(9, 12) * 0.4, m.normal(12)
            residual = m.normal(4, 12) if with_residual else None
            build("Gemm", {}, [a, b, c], residual, chain, fused)


def conv_transpose_cases(m):
    def transpose(name, x, w, bias=None, **attributes):
        group = attributes.get("group", 1)
        inputs = [m.normal(*x), m.normal(*w)]
        if bias is not False:
            inputs.append(m.normal(w[1] * group))
        m.add("conv_transpose_" + name, "ConvTranspose", inputs, **attributes)

    transpose("plain", (1, 4, 5, 6), (4, 3, 3, 3))
    transpose("strided", (2, 4, 5, 6), (4, 3, 2, 2), strides=[2, 2])
    transpose("pads", (1, 4, 5, 6), (4, 3, 3, 4), strides=[2, 3], pads=[1, 0, 1, 2])
    transpose("output_padding", (1, 4, 5, 6), (4, 3, 3, 3), strides=[2, 2], output_padding=[1, 1],
              pads=[1, 1, 1, 1])
    transpose("dilated", (1, 4, 5, 6), (4, 3, 3, 3), dilations=[2, 1], bias=False)
    transpose("groups", (2, 6, 5, 4), (6, 2, 3, 3), group=3, strides=[2, 1])
    transpose("depthwise", (1, 8, 5, 4), (8, 1, 4, 4), group=8, strides=[2, 2], pads=[1, 1, 1, 1])
    transpose("1d", (1, 4, 9), (4, 3, 5), strides=[3])
    transpose("3d", (1, 2, 3, 4, 3), (2, 3, 2, 2, 3), strides=[2, 1, 1])
    transpose("output_shape", (1, 3, 4, 4), (3, 2, 3, 3), strides=[3, 2], output_shape=[13, 9])
    transpose("same_upper", (1, 3, 4, 4), (3, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")


def product_cases(m):
    for ta in (0, 1):
        for tb in (0, 1):
            a = m.normal(*((7, 5) if ta else (5, 7)))
            b = m.normal(*((9, 7) if tb else (7, 9)))
            m.add(f"gemm_{ta}{tb}", "Gemm", [a, b, m.normal(9)], transA=ta, transB=tb)
            m.add(f"gemm_scaled_{ta}{tb}", "Gemm", [a, b, m.normal(5, 1)], transA=ta, transB=tb,
                  alpha=0.5, beta=2.0)
    m.add("gemm_no_c", "Gemm", [m.normal(3, 4), m.normal(4, 2)], alpha=1.5)
    m.add("gemm_scalar_c", "Gemm", [m.normal(3, 4), m.normal(4, 2), m.normal()], beta=-1.0)
    m.add("gemm_row_c", "Gemm", [m.normal(3, 40), m.normal(40, 20), m.normal(1, 20)], alpha=0.25)
    m.add("gemm_full_c", "Gemm", [m.normal(3, 4), m.normal(4, 2), m.normal(3, 2)])
    m.add("gemm_vector", "Gemm", [m.normal(1, 300), m.normal(300, 17), m.normal(17)])
    shapes = {
        "2d": ((5, 7), (7, 6)), "batch": ((2, 5, 7), (2, 7, 6)), "shared": ((2, 3, 5, 7), (7, 6)),
        "broadcast": ((2, 1, 5, 7), (3, 7, 6)), "vector_left": ((7,), (2, 7, 6)),
        "vector_right": ((2, 5, 7), (7,)), "vectors": ((7,), (7,)), "one": ((1, 1), (1, 1)),
        "deep": ((2, 300), (300, 9)), "wide": ((65, 20), (20, 70)), "b_batch": ((5, 7), (3, 7, 6)),
    }
    for name, (a, b) in shapes.items():
        m.add("matmul_" + name, "MatMul", [m.normal(*a), m.normal(*b)])
    m.add("matmul_int64", "MatMul", [m.ints(-9, 9, (3, 4), np.int64), m.ints(-9, 9, (4, 2), np.int64)])
    m.add("matmul_int32", "MatMul", [m.ints(-9, 9, (3, 4), np.int32), m.ints(-9, 9, (4, 2), np.int32)])
    m.add("matmul_double", "MatMul", [m.normal(3, 4).astype(np.float64), m.normal(4, 2).astype(np.float64)])
    for equation, shapes in {
        "ij,jk->ik": ((3, 4), (4, 5)), "bij,bjk->bik": ((2, 3, 4), (2, 4, 5)), "ij->ji": ((3, 4),),
        "bhqd,bhkd->bhqk": ((2, 2, 3, 4), (2, 2, 5, 4)), "ii->i": ((4, 4),), "ij->": ((3, 4),),
        "...ij,...jk->...ik": ((2, 3, 4), (2, 4, 5)), "i,j->ij": ((3,), (4,)),
        "abc,cd,de->abe": ((2, 3, 4), (4, 5), (5, 2)), "ij,jk": ((3, 4), (4, 5)),
    }.items():
        m.add(f"einsum_{len(m.cases)}", "Einsum", [m.normal(*s) for s in shapes], equation=equation)


def pool_cases(m):
    images = {"2d": ((2, 3, 7, 6), [3, 2]), "1d": ((2, 3, 13), [4]), "3d": ((1, 2, 4, 5, 4), [2, 3, 2])}
    for rank, (dims, kernel) in images.items():
        n = len(kernel)
        variants = {
            "plain": {}, "strided": {"strides": [2] * n}, "ceil": {"strides": [2] * n, "ceil_mode": 1},
            "pads": {"pads": [1] * (2 * n), "strides": [2] * n},
            "pads_ceil": {"pads": [1] * (2 * n), "strides": [2] * n, "ceil_mode": 1},
            "same_upper": {"auto_pad": "SAME_UPPER", "strides": [2] * n},
            "same_lower": {"auto_pad": "SAME_LOWER"},
            "dilated": {"dilations": [2] * n},
        }
        for name, attributes in variants.items():
            x = m.normal(*dims)
            attributes = {"kernel_shape": kernel, **attributes}
            m.add(f"max_pool_{rank}_{name}", "MaxPool", [x], **attributes)
            if rank == "2d":
                m.add(f"max_pool_indices_{name}", "MaxPool", [x], num_outputs=2, **attributes)
            if name == "same_upper" and rank == "3d":
                continue
            for include in (0, 1):
                if name == "dilated" and include:
                    continue
                m.add(f"average_pool_{rank}_{name}_{include}", "AveragePool", [x],
                      count_include_pad=include, **attributes)
            if name not in ("ceil", "pads_ceil", "dilated") and rank == "2d":
                for p in (1, 2, 3):
                    m.add(f"lp_pool_{name}_{p}", "LpPool", [x], p=p, **attributes)
        for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
            m.add(f"{op}_{rank}", op, [m.normal(*dims)])
    for dtype in (np.int8, np.uint8):
        x = m.ints(0 if dtype == np.uint8 else -128, 127, (1, 3, 6, 7), dtype)
        m.add(f"max_pool_{np.dtype(dtype).name}", "MaxPool", [x], kernel_shape=[2, 3], strides=[2, 2],
              pads=[1, 1, 1, 1])


def normalization_cases(m):
    for dims in ((2, 4, 5, 3), (2, 6, 7), (3, 8)):
        c = dims[1]
        positive = np.abs(m.normal(c)) + 0.1
        m.add(f"batch_norm_{len(dims)}", "BatchNormalization",
              [m.normal(*dims), m.normal(c), m.normal(c), m.normal(c), positive], epsilon=1e-3)
    m.add("instance_norm", "InstanceNormalization", [m.normal(2, 4, 5, 3), m.normal(4), m.normal(4)],
          epsilon=1e-4)
    m.add("instance_norm_1d", "InstanceNormalization", [m.normal(2, 4, 9), m.normal(4), m.normal(4)])
    m.add("group_norm", "GroupNormalization", [m.normal(2, 6, 5, 3), m.normal(6), m.normal(6)],
          num_groups=3, epsilon=1e-3)
    for axis in (-1, 1, -2):
        dims = (2, 3, 4, 5)
        tail = dims[axis:]
        m.add(f"layer_norm_{axis}", "LayerNormalization", [m.normal(*dims), m.normal(*tail), m.normal(*tail)],
              axis=axis, num_outputs=3, epsilon=1e-3)
    m.add("layer_norm_no_bias", "LayerNormalization", [m.normal(3, 33), m.normal(33)])
    m.add("rms_norm", "RMSNormalization", [m.normal(2, 3, 16), m.normal(16)], opset=23, epsilon=1e-4)
    for size in (1, 3, 4, 5):
        if size % 2:
            m.add(f"lrn_{size}", "LRN", [m.normal(2, 7, 3, 4)], size=size, alpha=0.02, beta=0.6, bias=1.3)
    for p in (1, 2):
        for axis in (-1, 1):
            m.add(f"lp_normalization_{p}_{axis}", "LpNormalization", [m.normal(2, 4, 5)], p=p, axis=axis)
    m.add("mvn", "MeanVarianceNormalization", [m.normal(2, 3, 4, 5)])
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (0, 1, -1):
            m.add(f"{op}_{axis}", op, [m.normal(3, 5, 7) * 3], axis=axis)
        m.add(f"{op}_lanes", op, [m.normal(1, 3, 10, 7)], axis=1)
    m.add("softmax_large", "Softmax", [np.array([[1000, 1000.5, -1000], [-200, -201, -300]], np.float32)])


def elementwise_cases(m):
    x = np.concatenate([m.normal(40) * 3, [0, -0.0, 1, -1, 30, -30, 88, -88, 120, -120, 1e-5, 0.29, 0.31,
                                           0.49, 0.51, -0.3, 6, -6, 3, -3]]).astype(np.float32)
    unary = """Abs Ceil Floor Round Neg Sign Relu Sigmoid Tanh Softsign Erf HardSwish Mish Sin Cos Tan Atan
        Asinh Exp Identity Softplus Reciprocal IsNaN IsInf""".split()
    for op in unary:
        m.add("unary_" + op, op, [x], opset=22)
    for op, attributes in {
        "LeakyRelu": {"alpha": 0.3}, "Elu": {"alpha": 1.5}, "Selu": {}, "Celu": {"alpha": 0.6},
        "ThresholdedRelu": {"alpha": 0.4}, "HardSigmoid": {"alpha": 0.3, "beta": 0.6},
        "Shrink": {"bias": 0.2, "lambd": 0.9}, "Gelu": {}, "Gelu ": {"approximate": "tanh"},
    }.items():
        m.add("unary_attr_" + op.strip() + str(len(attributes)), op.strip(), [x], opset=22, **attributes)
    positive = np.abs(x) + 1e-3
    for op in ("Sqrt", "Log"):
        m.add("unary_" + op, op, [positive])
    m.add("acosh", "Acosh", [positive + 1])
    inside = np.tanh(x).astype(np.float32) * np.float32(0.999)
    for op in ("Asin", "Acos", "Atanh"):
        m.add("unary_" + op, op, [inside])
    for op in ("Sinh", "Cosh"):
        m.add("unary_" + op, op, [np.clip(x, -20, 20)])
    special = np.array([np.nan, np.inf, -np.inf, 0, 1], np.float32)
    for op in ("Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "Sign", "IsNaN", "IsInf", "Erf", "HardSwish"):
        if op in ("HardSwish",):
            continue
        m.add("special_" + op, op, [special])
    for neg, pos in ((0, 1), (1, 0)):
        m.add(f"isinf_{neg}{pos}", "IsInf", [special], detect_negative=neg, detect_positive=pos)
    for lo, hi in ((-1.0, 1.5), (None, 1.5), (-1.0, None), (None, None), (2.0, -2.0)):
        bound = lambda v: None if v is None else np.float32(v).reshape(())
        m.add(f"clip_{lo}_{hi}", "Clip", [x, bound(lo), bound(hi)])
    m.add("clip_int8", "Clip", [m.ints(-128, 127, (20,), np.int8), np.int8(-5).reshape(()), np.int8(9).reshape(())])
    shapes = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((4,), (2, 3, 4)), ((2, 3, 1), (1, 3, 4)),
              ((2, 3, 4, 5), (1, 3, 1, 1)), ((2, 3, 4, 5), ()), ((), (3,)), ((2, 1, 4, 1), (3, 1, 5)),
              ((2, 3, 4, 5), (2, 3, 1, 1))]
    for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Less", "Equal"):
        for i, (a, b) in enumerate(shapes):
            if op == "PRelu" and i in (2, 3, 6, 7):
                continue
            left, right = m.normal(*a), m.normal(*b)
            if op == "Pow":
                left = np.abs(left) + np.float32(0.1)
            m.add(f"{op}_{i}", op, [left, right])
    for dtype in (np.int32, np.int64, np.uint8, np.int8):
        low = 0 if dtype == np.uint8 else -50
        for op in ("Add", "Sub", "Mul", "Div", "Mod"):
            if dtype in (np.uint8, np.int8) and op == "Mod":
                continue
            b = m.ints(1, 9, (4,), dtype)
            m.add(f"{op}_{np.dtype(dtype).name}", op, [m.ints(low, 50, (3, 4), dtype), b])
    for kind in ((np.float32, np.int64), (np.int64, np.int64), (np.int32, np.int32), (np.int32, np.float32)):
        base, exponent = kind
        m.add(f"pow_{np.dtype(base).name}_{np.dtype(exponent).name}", "Pow",
              [m.ints(1, 6, (3, 4), base), m.ints(0, 4, (4,), exponent)])
    m.add("pow_square", "Pow", [m.normal(3, 4), np.float32(2).reshape(())])
    for op in ("Sum", "Mean", "Max", "Min"):
        m.add(f"{op}_three", op, [m.normal(2, 1, 4), m.normal(3, 1), m.normal(2, 3, 4)])
        m.add(f"{op}_one", op, [m.normal(2, 3)])
    for dtype in (np.float32, np.int64, np.uint8, np.bool_):
        value = lambda *d: m.ints(0, 2 if dtype == np.bool_ else 9, d, dtype)
        try:
            m.add(f"where_{np.dtype(dtype).name}", "Where",
                  [m.ints(0, 2, (2, 1, 4), np.bool_), value(3, 1), value(2, 3, 4)])
        except Exception:
            continue  # onnxruntime has no kernel for this type


def reduction_cases(m):
    x = m.normal(2, 3, 4, 5) + np.float32(0.1)
    ops = """ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceSumSquare""".split()
    for op in ops:
        data = np.abs(x) if op == "ReduceLogSum" else x
        for axes in ([2, 3], [1], [-1], [0, 2], None, [0, 1, 2, 3]):
            for keep in (0, 1):
                if keep and axes in ([1], [0, 2]):
                    continue
                inputs = [data] + ([] if axes is None else [np.array(axes, np.int64)])
                m.add(f"{op}_{axes}_{keep}", op, inputs, keepdims=keep)
        m.add(f"{op}_noop", op, [data, np.array([], np.int64)], noop_with_empty_axes=1)
        if op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"):
            m.add(f"{op}_int64", op, [m.ints(-4, 5, (3, 4), np.int64), np.array([1], np.int64)])
    for op in ("ArgMax", "ArgMin"):
        for axis in (0, 1, -1):
            for last in (0, 1):
                data = m.ints(0, 4, (3, 4, 5), np.float32)
                m.add(f"{op}_{axis}_{last}", op, [data], axis=axis, select_last_index=last, keepdims=axis % 2)
        m.add(f"{op}_int8", op, [m.ints(-9, 9, (3, 7), np.int8)], axis=1)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            for axis in (0, -1):
                m.add(f"cumsum_{exclusive}{reverse}{axis}", "CumSum", [m.normal(3, 4), np.array(axis, np.int64)],
                      exclusive=exclusive, reverse=reverse)
    m.add("cumprod", "CumProd", [m.normal(3, 4), np.array(1, np.int64)], opset=26)
    m.add("cumsum_int64", "CumSum", [m.ints(-5, 5, (3, 4), np.int64), np.array(1, np.int64)])


def movement_cases(m):
    x = m.normal(2, 3, 4, 5)
    for perm in ([0, 2, 3, 1], [0, 3, 1, 2], [3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 3, 2], [2, 3, 0, 1]):
        m.add(f"transpose_{perm}", "Transpose", [x], perm=perm)
    m.add("transpose_default", "Transpose", [m.normal(2, 3, 4)])
    for dtype in (np.uint8, np.int64, np.bool_, np.float16):
        m.add(f"transpose_{np.dtype(dtype).name}", "Transpose", [m.ints(0, 2, (2, 3, 4), dtype)], perm=[2, 0, 1])
    for axis in (0, 1, 2, 3, -1):
        parts = []
        for extent in (1, 3, 2):
            dims = [2, 3, 4, 5]
            dims[axis] = extent
            parts.append(m.normal(*dims))
        m.add(f"concat_{axis}", "Concat", parts, axis=axis)
    m.add("concat_uint8", "Concat", [m.ints(0, 255, (2, 3, 2, 2), np.uint8), m.ints(0, 255, (2, 5, 2, 2), np.uint8)],
          axis=1)
    m.add("concat_int64", "Concat", [m.ints(0, 9, (2,), np.int64), m.ints(0, 9, (1,), np.int64)], axis=0)
    i64 = lambda *v: np.array(v, np.int64)
    for axis, sizes in ((1, (2, 1, 4)), (-1, (3, 0, 2)), (0, (1, 1))):
        dims = [2, 7, 5]
        split(m, f"split_{axis}", [m.normal(*dims), i64(*sizes)], len(sizes), axis=axis)
    split(m, "split_even", [m.normal(2, 7, 5)], 3, axis=1, num_outputs=3)
    slices = [((0, 1), (2, 4), (0, 2), (1, 1)), ((-3,), (1000,), (2,), (2,)), ((4,), (-1000,), (3,), (-2,)),
              ((1,), (1,), (1,), (1,)), ((-1000, 0), (1000, -1), (1, 3), (1, 3)), ((2,), (0,), (1,), (-1,))]
    for i, (starts, ends, axes, steps) in enumerate(slices):
        m.add(f"slice_{i}", "Slice", [x, i64(*starts), i64(*ends), i64(*axes), i64(*steps)])
    m.add("slice_defaults", "Slice", [x, i64(0, 1), i64(1, 3)])
    m.add("slice_int32", "Slice", [m.ints(0, 99, (5, 6), np.uint8), np.array([1], np.int32), np.array([5], np.int32),
                                   np.array([-1], np.int32), np.array([2], np.int32)])
    for shape in ((2, 3, 4, 5), (6, 2, 3, 4, 5), (1, 1), (5,)):
        m.add(f"expand_{shape}", "Expand", [m.normal(3, 4, 1) if len(shape) > 3 else m.normal(1, 5), i64(*shape)])
    m.add("constant", "Constant", [], value=numpy_helper.from_array(m.normal(2, 3)))
    m.add("tile", "Tile", [m.normal(2, 3, 2), i64(2, 1, 3)])
    m.add("tile_uint8", "Tile", [m.ints(0, 9, (2, 3), np.uint8), i64(3, 2)])
    for shape in ((6, 20), (0, -1), (2, -1, 5), (-1,), (2, 3, 2, 2, 5)):
        m.add(f"reshape_{shape}", "Reshape", [x, i64(*shape)])
    for axis in (0, 1, 2, 4, -1):
        m.add(f"flatten_{axis}", "Flatten", [x], axis=axis)
    m.add("squeeze_axes", "Squeeze", [m.normal(1, 3, 1, 2), i64(-2)])
    m.add("squeeze_all", "Squeeze", [m.normal(1, 3, 1, 2)])
    m.add("unsqueeze", "Unsqueeze", [m.normal(3, 2), i64(-1, 0)])
    for mode in ("DCR", "CRD"):
        m.add(f"depth_to_space_{mode}", "DepthToSpace", [m.normal(2, 12, 3, 4)], blocksize=2, mode=mode)
    m.add("depth_to_space_3", "DepthToSpace", [m.normal(1, 18, 2, 3)], blocksize=3)
    m.add("space_to_depth", "SpaceToDepth", [m.normal(2, 3, 4, 6)], blocksize=2)
    pads = {"all": (1, 0, 2, 1, 0, 2, 1, 2), "last": (0, 0, 0, 2, 0, 0, 0, 3), "inner": (0, 0, 1, 1, 0, 0, 1, 1),
            "crop": (0, -1, 1, -2, 0, -1, -1, 2)}
    for mode in ("constant", "reflect", "edge", "wrap"):
        for name, p in pads.items():
            if name == "crop" and mode != "constant" or name == "all" and mode == "reflect":
                continue
            extra = [np.float32(1.25).reshape(())] if mode == "constant" and name != "last" else []
            m.add(f"pad_{mode}_{name}", "Pad", [x, i64(*p)] + extra, mode=mode)
    m.add("pad_axes", "Pad", [x, i64(1, 2, 0, 1), np.float32(0.5).reshape(()), i64(-1, 1)])
    m.add("pad_uint8", "Pad", [m.ints(0, 255, (2, 3), np.uint8), i64(1, 1, 0, 2), np.uint8(7).reshape(())])
    m.add("pad_int64", "Pad", [m.ints(0, 255, (4,), np.int64), i64(1, 2)], mode="reflect")


def split(m, name, inputs, count, **attributes):
    names = [f"x{i}" for i in range(len(inputs))]
    outputs = [f"y{i}" for i in range(count)]
    node = helper.make_node("Split", names, outputs, **attributes)
    m.run(name, [node], names, inputs, outputs, node)


def gather_cases(m):
    i64 = lambda *v: np.array(v, np.int64)
    x = m.normal(3, 4, 5)
    for axis in (0, 1, -1):
        m.add(f"gather_{axis}", "Gather", [x, i64(2, 0, -1)], axis=axis)
    m.add("gather_scalar", "Gather", [x, np.array(1, np.int64)], axis=1)
    m.add("gather_matrix", "Gather", [m.ints(0, 99, (6, 2), np.uint8), m.ints(-6, 6, (2, 3), np.int32)])
    m.add("gather_shape", "Gather", [m.ints(0, 99, (4,), np.int64), np.array(-1, np.int64)])
    m.add("gather_elements", "GatherElements", [x, m.ints(-4, 4, (3, 2, 5), np.int64)], axis=1)
    m.add("gather_elements_last", "GatherElements", [m.ints(0, 9, (3, 4), np.int8), m.ints(0, 4, (2, 3), np.int32)],
          axis=-1)
    m.add("gather_nd", "GatherND", [x, m.ints(0, 3, (2, 2), np.int64)])
    m.add("gather_nd_batch", "GatherND", [x, m.ints(0, 4, (3, 2, 1), np.int64)], batch_dims=1)
    m.add("gather_nd_full", "GatherND", [m.ints(0, 255, (3, 4), np.uint8), i64([1, -1], [2, 0], [-3, 3])])
    for reduction in ("none", "add", "mul", "max", "min"):
        m.add(f"scatter_elements_{reduction}", "ScatterElements",
              [x, np.stack([np.stack([m.rng.permutation(4)[:2] for _ in range(5)], 1) for _ in range(3)]).astype(np.int64),
               m.normal(3, 2, 5)], axis=1, reduction=reduction)
        m.add(f"scatter_nd_{reduction}", "ScatterND", [x, i64([0, 1], [2, 3], [-1, 0]), m.normal(3, 5)],
              reduction=reduction)
    m.add("scatter_elements_twice", "ScatterElements", [m.normal(1, 5), i64([1, 1, 3]), m.normal(1, 3)], axis=1,
          reduction="add")
    m.add("scatter_nd_int64", "ScatterND", [m.ints(0, 9, (5,), np.int64), i64([1], [4]), i64(70, 80)])
    for axis in (-1, 0, 1):
        m.add(f"one_hot_{axis}", "OneHot", [m.ints(-5, 5, (2, 3), np.int64), np.array(5, np.int64),
                                            np.array([0.5, 2], np.float32)], axis=axis)
    m.add("non_zero", "NonZero", [m.ints(0, 2, (3, 4, 2), np.float32)])
    m.add("non_zero_bool", "NonZero", [m.ints(0, 2, (9,), np.bool_)])
    m.add("non_zero_none", "NonZero", [np.zeros((2, 3), np.int64)])
    for largest in (0, 1):
        for axis in (0, 1, -1):
            m.add(f"topk_{largest}_{axis}", "TopK", [m.ints(0, 6, (3, 4, 5), np.float32), i64(3)], num_outputs=2,
                  largest=largest, axis=axis)
    m.add("topk_int64", "TopK", [m.ints(0, 50, (4, 9), np.int64), i64(9)], num_outputs=2)
    for attributes in ({}, {"axis": 1}, {"axis": -1}):
        shape = 4 if attributes.get("axis") == 1 else 5
        length = 3 * 4 * 5 if not attributes else shape
        m.add(f"compress_{len(m.cases)}", "Compress", [x, m.ints(0, 2, (length,), np.bool_)], **attributes)
    data = m.ints(0, 4, (12,), np.float32)
    for s in (0, 1):
        m.add(f"unique_{s}", "Unique", [data], num_outputs=4, sorted=s)
    m.add("unique_axis", "Unique", [m.ints(0, 2, (6, 2), np.int64)], num_outputs=4, axis=0)
    for upper in (0, 1):
        for k in (None, -1, 2):
            m.add(f"trilu_{upper}_{k}", "Trilu", [m.normal(2, 4, 5)] + ([] if k is None else [np.array(k, np.int64)]),
                  upper=upper)
    for batch_axis in (0, 1):
        m.add(f"reverse_sequence_{batch_axis}", "ReverseSequence", [m.normal(4, 4, 2), i64(1, 2, 3, 4)],
              batch_axis=batch_axis, time_axis=1 - batch_axis)


def resize_cases(m):
    x = m.normal(1, 2, 4, 5)
    coordinates = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")
    none = np.array([], np.float32)
    for coordinate in coordinates:
        for scales in ((1, 1, 2, 2), (1, 1, 0.6, 1.7), (1, 1, 0.5, 0.5)):
            s = np.array(scales, np.float32)
            base = dict(coordinate_transformation_mode=coordinate)
            for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                m.add(f"resize_nearest_{coordinate}_{nearest}_{scales[2]}", "Resize", [x, None, s], mode="nearest",
                      nearest_mode=nearest, **base)
            m.add(f"resize_linear_{coordinate}_{scales[2]}", "Resize", [x, None, s], mode="linear", **base)
            m.add(f"resize_cubic_{coordinate}_{scales[2]}", "Resize", [x, None, s], mode="cubic",
                  cubic_coeff_a=-0.6, **base)
        sizes = np.array([1, 2, 7, 3], np.int64)
        m.add(f"resize_sizes_{coordinate}", "Resize", [x, None, None, sizes], mode="linear", **base)
    roi = np.array([0, 0, 0.2, 0.1, 1, 1, 0.9, 0.8], np.float32)
    for mode in ("nearest", "linear", "cubic"):
        m.add(f"resize_crop_{mode}", "Resize", [x, roi, None, np.array([1, 2, 5, 6], np.int64)], mode=mode,
              coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.5)
    m.add("resize_outside", "Resize", [x, None, np.array([1, 1, 1.5, 2.5], np.float32)], mode="cubic", exclude_outside=1)
    for mode in ("linear", "cubic"):
        m.add(f"resize_antialias_{mode}", "Resize", [x, None, np.array([1, 1, 0.5, 0.4], np.float32)], mode=mode,
              antialias=1)
    for policy in ("not_larger", "not_smaller"):
        m.add(f"resize_{policy}", "Resize", [x, None, None, np.array([9, 8], np.int64)], mode="linear", axes=[2, 3],
              keep_aspect_ratio_policy=policy)
    m.add("resize_uint8", "Resize", [m.ints(0, 255, (1, 1, 3, 4), np.uint8), None, np.array([1, 1, 2, 2], np.float32)],
          mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    m.add("resize_1d", "Resize", [m.normal(1, 2, 6), None, np.array([1, 1, 1.5], np.float32)], mode="linear")
    m.add("resize_3d", "Resize", [m.normal(1, 2, 3, 2, 3), None, np.array([1, 1, 2, 1.5, 2], np.float32)], mode="linear")
    m.add("resize_whole_image", "Resize", [m.normal(1, 3, 5, 4), None, np.array([1, 1, 2, 2], np.float32)],
          mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def detection_cases(m):
    def boxes(batch, count, center):
        corner = m.rng.uniform(0, 6, (batch, count, 2))
        size = m.rng.uniform(1, 5, (batch, count, 2))
        pair = [corner + size / 2, size] if center else [corner, corner + size]
        return np.concatenate(pair, 2).astype(np.float32)

    def scalar(v, dtype):
        return np.array([v], dtype)

    for center in (0, 1):
        for limit, iou, score in ((3, 0.3, None), (10, 0.5, 0.3), (0, 0.5, 0.1)):
            inputs = [boxes(2, 9, center), m.rng.random((2, 3, 9)).astype(np.float32), scalar(limit, np.int64),
                      scalar(iou, np.float32)]
            if score is not None:
                inputs.append(scalar(score, np.float32))
            m.add(f"nms_{center}_{limit}", "NonMaxSuppression", inputs, center_point_box=center)
    flipped = boxes(1, 6, 0)[:, :, [2, 3, 0, 1]]
    m.add("nms_flipped", "NonMaxSuppression", [flipped, m.rng.random((1, 1, 6)).astype(np.float32),
                                               scalar(4, np.int64), scalar(0.4, np.float32)])
    rois = np.concatenate([m.rng.uniform(0, 4, (5, 2)), m.rng.uniform(4, 9, (5, 2))], 1).astype(np.float32)
    for mode in ("avg",):  # onnxruntime says itself that its maxima are wrong
        for transform in ("half_pixel", "output_half_pixel"):
            for ratio in (0, 2):
                m.add(f"roi_align_{mode}_{transform}_{ratio}", "RoiAlign",
                      [m.normal(2, 3, 8, 9), rois, np.array([0, 1, 1, 0, 1], np.int64)], mode=mode, output_height=2,
                      output_width=3, sampling_ratio=ratio, spatial_scale=0.75,
                      coordinate_transformation_mode=transform)
    for mode in ("linear", "nearest", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (0, 1):
                grid = (m.rng.random((2, 3, 4, 2)) * 2.6 - 1.3).astype(np.float32)
                m.add(f"grid_sample_{mode}_{padding}_{align}", "GridSample", [m.normal(2, 3, 5, 6), grid], mode=mode,
                      padding_mode=padding, align_corners=align)
    grid = (m.rng.random((1, 2, 3, 2, 3)) * 2.4 - 1.2).astype(np.float32)
    m.add("grid_sample_3d", "GridSample", [m.normal(1, 2, 3, 4, 3), grid], mode="linear")


def quantize_cases(m):
    x = m.normal(2, 3, 4, 5) * 40
    x[0, 0, 0] = [np.inf, -np.inf, 0.5, 1.5, 2.5]
    scalar = lambda v, t: np.array(v, t)
    for dtype, zero in ((np.int8, -3), (np.uint8, 131), (np.int16, 40), (np.uint16, 30000)):
        name = np.dtype(dtype).name
        m.add(f"quantize_{name}", "QuantizeLinear", [x, scalar(0.5, np.float32), scalar(zero, dtype)])
        scales = (np.abs(m.normal(3)) + 0.1).astype(np.float32)
        zeros = m.ints(0, 100, (3,), dtype)
        m.add(f"quantize_axis_{name}", "QuantizeLinear", [x, scales, zeros], axis=1)
        codes = m.ints(0, 100, (2, 3, 4), dtype)
        m.add(f"dequantize_{name}", "DequantizeLinear", [codes, scalar(0.25, np.float32), scalar(zero, dtype)])
        m.add(f"dequantize_axis_{name}", "DequantizeLinear", [codes, scales, zeros], axis=-2)
    m.add("quantize_default", "QuantizeLinear", [x, scalar(2.0, np.float32)])
    m.add("dequantize_int32", "DequantizeLinear", [m.ints(-99999, 99999, (7,), np.int32), scalar(0.125, np.float32)])
    m.add("quantize_last_axis", "QuantizeLinear", [m.normal(4, 6), (np.abs(m.normal(6)) + 0.1).astype(np.float32),
                                                   np.zeros(6, np.int8)], axis=-1)
    for dtype in (ml_dtypes.int4, ml_dtypes.uint4):
        name = np.dtype(dtype).name
        scales = (np.abs(m.normal(2, 3)) + 0.1).astype(np.float32)
        zeros = m.ints(0, 7, (2, 3), np.int32).astype(dtype)
        codes = m.ints(0, 7, (2, 11), np.int32).astype(dtype)
        quantize_with_packed(m, name, codes, scales, zeros)
    m.add("dynamic_quantize", "DynamicQuantizeLinear", [m.normal(3, 7)], num_outputs=3)
    m.add("dynamic_quantize_positive", "DynamicQuantizeLinear", [np.abs(m.normal(9)) + 2], num_outputs=3)
    m.add("dynamic_quantize_negative", "DynamicQuantizeLinear", [-np.abs(m.normal(9)) - 2], num_outputs=3)


def quantize_with_packed(m, name, codes, scales, zeros):
    """onnxruntime takes no packed inputs from Python: the answer comes from the definition."""
    block = 4
    unit = np.repeat(np.arange(scales.shape[1]), block)[: codes.shape[1]]
    difference = codes.astype(np.int32) - zeros.astype(np.int32)[:, unit]
    real = (difference.astype(np.float32) * scales[:, unit]).astype(np.float32)
    node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], axis=1, block_size=block)
    m.cases.append(case_bytes(f"dequantize_block_{name}", node, [codes, scales, zeros], [real]))
    low, high = (-8, 7) if name == "int4" else (0, 15)
    x = m.normal(2, 11) * 3
    q = np.clip(np.rint(x / scales[:, unit]) + zeros.astype(np.int32)[:, unit], low, high)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=1, block_size=block)
    m.cases.append(case_bytes(f"quantize_block_{name}", node, [x, scales, zeros],
                              [q.astype(np.int32).astype(zeros.dtype)]))


def integer_cases(m):
    scalar = lambda v, t: np.array(v, t)
    for xt, wt in ((np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)):
        x = m.ints(0 if xt == np.uint8 else -128, 127, (2, 4, 6, 5), xt)
        w = m.ints(0 if wt == np.uint8 else -128, 127, (6, 2, 3, 3), wt)
        name = f"{np.dtype(xt).name}_{np.dtype(wt).name}"
        attributes = dict(group=2, pads=[1, 0, 1, 1], strides=[2, 1])
        per_axis = wt == np.int8
        scales = (np.abs(m.normal(6)) * 0.01 + 0.001).astype(np.float32) if per_axis else scalar(0.01, np.float32)
        zeros = np.zeros(6, wt) if per_axis else scalar(100, wt)
        bias = m.ints(-2000, 2000, (6,), np.int32)
        m.add(f"qlinear_conv_{name}", "QLinearConv",
              [x, scalar(0.05, np.float32), scalar(9, xt), w, scales, zeros, scalar(0.4, np.float32), scalar(12, xt), bias],
              **attributes)
        a, b = m.ints(0, 127, (2, 3, 8), xt), m.ints(0, 127, (8, 5), wt)
        m.add(f"qlinear_matmul_{name}", "QLinearMatMul",
              [a, scalar(0.02, np.float32), scalar(11, xt), b, scalar(0.03, np.float32), scalar(7, wt),
               scalar(0.2, np.float32), scalar(5, xt)])
        m.add(f"matmul_integer_{name}", "MatMulInteger", [a, b, scalar(11, xt), scalar(7, wt)])
        m.add(f"matmul_integer_plain_{name}", "MatMulInteger", [a, b])
        if wt == np.uint8:
            m.add(f"conv_integer_{name}", "ConvInteger", [x, w, scalar(9, xt), scalar(100, wt)], **attributes)
    m.add("matmul_integer_rows", "MatMulInteger",
          [m.ints(0, 255, (4, 8), np.uint8), m.ints(-128, 127, (8, 5), np.int8), scalar(3, np.uint8),
           m.ints(-9, 9, (5,), np.int8)])


def language_cases(m):
    def attention(name, q, k, v, *rest, opset=24, num_outputs=1, half=False, **attributes):
        """rest: mask, past_key, past_value, nonpad_kv_seqlen. half: key and value are float16."""
        if not half:
            m.add("attention_" + name, "Attention", [q, k, v, *rest], opset=opset, num_outputs=num_outputs,
                  **attributes)
            return
        inputs = [np.asarray(x) if x is not None else None for x in
                  (q, k.astype(np.float16), v.astype(np.float16), *rest)]
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
        nodes = [helper.make_node("Cast", [f"x{i}"], [f"c{i}"], to=TensorProto.FLOAT) for i in (1, 2)]
        nodes.append(helper.make_node("Attention", ["x0", "c1", "c2", *names[3:]], ["y"], **attributes))
        described = helper.make_node("Attention", names, ["y"], domain="narrow", **attributes)
        m.run("attention_" + name, nodes, names, inputs, ["y"], described, opset)

    for kind, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        for dims, n, trans_b, bias in (((1, 20), 9, 1, False), ((2, 3, 33), 5, 0, False), ((7, 16), 6, 1, True)):
            k = dims[-1]
            w = (m.normal(n, k) if trans_b else m.normal(k, n)).astype(dtype)
            inputs = [m.normal(*dims), w] + ([m.normal(n)] if bias else [])
            wide = w.astype(np.float32).T if trans_b else w.astype(np.float32)
            y = inputs[0].astype(np.float64) @ wide.astype(np.float64) + (inputs[2] if bias else 0)
            node = helper.make_node("HalfGemm", ["a", "b", "c"][: len(inputs)], ["y"], domain="narrow", transB=trans_b)
            name = f"half_gemm_{kind}_{len(dims)}_{trans_b}" + ("_bias" if bias else "")
            m.cases.append(case_bytes(name, node, inputs, [y.astype(np.float32)]))

    lengths = lambda *n: np.array(n, np.int64)
    # Widths on both sides of a vector, lengths on both sides of a tile of keys.
    for half in (False, True):
        kind = "_half" if half else ""
        for width, value_width in ((8, 8), (20, 12), (64, 64)):
            keys = 19 if width < 64 else 7
            attention(f"decode_{width}{kind}", m.normal(2, 6, 1, width), m.normal(2, 2, keys, width),
                      m.normal(2, 2, keys, value_width), None, None, None, lengths(5, keys), is_causal=1, half=half)
        attention("long" + kind, m.normal(1, 2, 1, 4), m.normal(1, 1, 700, 4), m.normal(1, 1, 700, 4), None, None,
                  None, lengths(650), is_causal=1, scale=0.9, half=half)
        attention("prefill" + kind, m.normal(1, 4, 21, 8), m.normal(1, 2, 70, 8), m.normal(1, 2, 70, 8), None, None,
                  None, lengths(66), is_causal=1, softcap=3.0, half=half)
    attention("flat", m.normal(2, 9, 24), m.normal(2, 13, 12), m.normal(2, 13, 18), q_num_heads=4, kv_num_heads=2)
    attention("flat_causal", m.normal(2, 9, 24), m.normal(2, 9, 24), m.normal(2, 9, 24), q_num_heads=3,
              kv_num_heads=3, is_causal=1)
    attention("past", m.normal(2, 4, 3, 8), m.normal(2, 2, 3, 8), m.normal(2, 2, 3, 6), None, m.normal(2, 2, 5, 8),
              m.normal(2, 2, 5, 6), is_causal=1, num_outputs=3)
    attention("past_flat", m.normal(2, 3, 32), m.normal(2, 3, 16), m.normal(2, 3, 12), None, m.normal(2, 2, 5, 8),
              m.normal(2, 2, 5, 6), is_causal=1, num_outputs=3, q_num_heads=4, kv_num_heads=2)
    for mask in ((5, 9), (1, 9), (2, 1, 1, 9), (3, 1, 9), (2, 3, 5, 6), (5, 1)):
        name = "_".join(map(str, mask))
        q, k, v = m.normal(2, 3, 5, 8), m.normal(2, 3, 9, 8), m.normal(2, 3, 9, 8)
        attention("mask_" + name, q, k, v, m.normal(*mask))
        attention("bool_" + name, q, k, v, m.normal(*mask) > -0.3, softcap=2.0)
    attention("masked_rows", m.normal(1, 2, 4, 8), m.normal(1, 2, 6, 8), m.normal(1, 2, 6, 8),
              np.array([[1, 1, 0, 0, 1, 0], [0] * 6, [0, 0, 0, 0, 0, 1], [0] * 6], bool))
    attention("fewer_keys_than_queries", m.normal(1, 2, 6, 8), m.normal(1, 2, 8, 8), m.normal(1, 2, 8, 8), None, None,
              None, lengths(3), is_causal=1)
    for mode in range(4):
        attention(f"scores_{mode}", m.normal(1, 4, 3, 8), m.normal(1, 2, 5, 8), m.normal(1, 2, 5, 8),
                  m.normal(3, 5), num_outputs=4, qk_matmul_output_mode=mode, opset=25)
    for left, right in ((3, -1), (0, 0), (4, 2), (-1, 1), (100, 0), (17, -1)):
        name = f"window_{left}_{right}".replace("-1", "all")
        attention(name, m.normal(1, 2, 37, 3), m.normal(1, 1, 83, 3), m.normal(1, 1, 83, 3), None, None, None,
                  lengths(70), left_window_size=left, right_window_size=right, opset=25)
        attention(name + "_causal", m.normal(1, 1, 70, 3), m.normal(1, 1, 70, 3), m.normal(1, 1, 70, 3),
                  left_window_size=left, right_window_size=right, is_causal=1, opset=25)

    for interleaved in (0, 1):
        for part in (0, 6):
            half = (part or 10) // 2
            name = f"rotary_{interleaved}_{part}"
            cache = lambda *d: (m.normal(*d, half), m.normal(*d, half))
            attributes = dict(interleaved=interleaved, opset=23)
            if part:
                attributes["rotary_embedding_dim"] = part
            ids = m.ints(0, 20, (2, 5), np.int64)
            m.add(name, "RotaryEmbedding", [m.normal(2, 3, 5, 10), *cache(20), ids], num_heads=3, **attributes)
            m.add(name + "_flat", "RotaryEmbedding", [m.normal(2, 5, 30), *cache(20), ids], num_heads=3, **attributes)
            m.add(name + "_rows", "RotaryEmbedding", [m.normal(2, 3, 5, 10), *cache(2, 5)], num_heads=3, **attributes)

    for mode, at in (("linear", (4, 0)), ("circular", (5, 16))):
        indices = np.array(at, np.int64)
        for name, dtype in (("f32", np.float32), ("f16", np.float16), ("int8", np.int8)):
            cache, update = (m.normal(2, 3, 7, 4) * 9).astype(dtype), (m.normal(2, 3, 3, 4) * 9).astype(dtype)
            m.add(f"tensor_scatter_{mode}_{name}", "TensorScatter", [cache, update, indices], opset=24, mode=mode)
        m.add(f"tensor_scatter_{mode}_last", "TensorScatter", [m.normal(2, 3, 7), m.normal(2, 3, 2), indices],
              opset=24, mode=mode, axis=-1)
        m.add(f"tensor_scatter_{mode}_first", "TensorScatter", [m.normal(2, 7, 3, 2), m.normal(2, 1, 3, 2), indices],
              opset=24, mode=mode, axis=1)
    m.add("tensor_scatter_prefill", "TensorScatter", [m.normal(2, 3, 7, 4), m.normal(2, 3, 7, 4)], opset=24)
    m.add("rms_norm_wide", "RMSNormalization", [m.normal(5, 133), m.normal(133)], opset=23, epsilon=1e-6)
    m.add("rms_norm_axes", "RMSNormalization", [m.normal(2, 3, 4, 5), m.normal(4, 5)], opset=23, axis=-2)


def write(path, cases):
    data = b"narrow op cases 1\n" + u32(len(cases)) + b"".join(cases)
    path.write_bytes(data)
    print(f"{path}: {len(cases)} cases, {len(data)} bytes")


def main():
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "onnx_node.cases", list(node_cases()))
    m = Maker()
    for family in (conv_cases, fused_cases, conv_transpose_cases, product_cases, pool_cases, normalization_cases,
                   elementwise_cases, reduction_cases, movement_cases, gather_cases, resize_cases, detection_cases,
                   quantize_cases, integer_cases, language_cases):
        family(m)
    write(directory / "ort.cases", m.cases)


if __name__ == "__main__":
    main()
