#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes shape_inference.txt: single nodes and the output shapes that onnx infers for them.

Needs onnx >= 1.17 and numpy. Run in this folder:  python make_shape_inference.py
Opset 21 unless a case says otherwise, so that every operator stands in its canonical form. Pools in
ceil_mode at 22: onnx's inference of older ones counts windows that start in the padding, which
neither its reference nor onnxruntime computes.
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper, shape_inference

F, I64, I32, B, U8, I8 = T.FLOAT, T.INT64, T.INT32, T.BOOL, T.UINT8, T.INT8
NAMES = {F: "float32", I64: "int64", I32: "int32", B: "boolean", U8: "uint8", I8: "int8",
         T.FLOAT16: "float16", T.DOUBLE: "float64", T.INT4: "int4", T.UINT4: "uint4",
         T.INT16: "int16", T.UINT16: "uint16", T.BFLOAT16: "bfloat16"}
cases = []


def x(*dims, t=F):
    """A graph input; a str is a symbol, None an unknown dimension."""
    return ("input", t, list(dims))


def c(values, t=I64):
    """A constant."""
    return ("const", t, np.array(values).astype(helper.tensor_dtype_to_np_dtype(t)))


ABSENT = None


def case(name, op, inputs, outputs=1, opset=21, domain="", **attributes):
    cases.append((name, op, inputs, outputs, opset, domain, attributes))


# --- elementwise
for op in ["Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid",
           "HardSwish", "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Erf", "Exp", "Log", "Sqrt",
           "Abs", "Neg", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan",
           "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "IsNaN", "IsInf",
           "Identity", "Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "Shrink"]:
    case(op.lower(), op, [x("N", 3, 4, 4)])
case("not", "Not", [x(2, "N", t=B)])
case("clip", "Clip", [x("N", 8), c(0.0, F), c(6.0, F)])
case("prelu", "PRelu", [x("N", 3, 5, 5), c(np.zeros((3, 1, 1)), F)])
for op in ["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "Equal", "Less", "LessOrEqual",
           "Greater", "GreaterOrEqual"]:
    case(op.lower() + "_same", op, [x("N", 3, 4), x("N", 3, 4)])
    case(op.lower() + "_broadcast", op, [x("N", 3, 4), x(3, 1)])
    case(op.lower() + "_both", op, [x(5, 1, 4), x(1, 3, 1)])
    case(op.lower() + "_scalar", op, [x("N", "M"), c(1.0, F)])
    case(op.lower() + "_one_by_symbol", op, [x("N", 1), x(1, "M")])
case("pow", "Pow", [x("N", 3), c(2.0, F)])
case("pow_mixed", "Pow", [x("N", 3), c(2, I64)])
case("mod", "Mod", [x(4, 5, t=I64), x(5, t=I64)])
for op in ["And", "Or", "Xor"]:
    case(op.lower(), op, [x(4, 1, t=B), x(5, t=B)])
case("where", "Where", [x("N", 1, t=B), x(3), x("N", 3)])
case("bitshift", "BitShift", [x(4, t=U8), x(1, t=U8)], direction="LEFT")
case("max_three", "Max", [x(3, 1), x(1, 4), x(2, 1, 1)])

# --- convolutions
W = x(8, 3, 3, 3)
for n, (h, w) in {"even": (8, 10), "odd": (7, 9), "big": (224, 225)}.items():
    for s in [1, 2, 3]:
        for d in [1, 2]:
            case(f"conv_{n}_s{s}_d{d}", "Conv", [x("N", 3, h, w), W], strides=[s, s],
                 dilations=[d, d], pads=[1, 0, 2, 1])
            for pad in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
                case(f"conv_{n}_{pad.lower()}_s{s}_d{d}", "Conv", [x("N", 3, h, w), W],
                     strides=[s, s], dilations=[d, d], auto_pad=pad)
    for s in [1, 2, 3]:
        for k in [2, 3]:
            for ceil in [0, 1]:
                case(f"maxpool_{n}_s{s}_k{k}_c{ceil}", "MaxPool", [x("N", 3, h, w)], 2,
                     kernel_shape=[k, k], strides=[s, s], pads=[1, 0, 0, 1], ceil_mode=ceil,
                     opset=22)
                case(f"averagepool_{n}_s{s}_k{k}_c{ceil}", "AveragePool", [x("N", 3, h, w)],
                     kernel_shape=[k, k], strides=[s, s], pads=[0, 1, 1, 1], ceil_mode=ceil,
                     opset=22)
            case(f"maxpool_{n}_same_s{s}_k{k}", "MaxPool", [x(1, 3, h, w)], kernel_shape=[k, k],
                 strides=[s, s], auto_pad="SAME_UPPER")
            case(f"lppool_{n}_s{s}_k{k}", "LpPool", [x(1, 3, h, w)], kernel_shape=[k, k],
                 strides=[s, s])
        case(f"maxpool_{n}_dilated_s{s}", "MaxPool", [x(1, 3, h, w)], kernel_shape=[3, 2],
             strides=[s, s], dilations=[2, 3])
        case(f"convtranspose_{n}_s{s}", "ConvTranspose", [x("N", 4, h, w), x(4, 5, 3, 3)],
             strides=[s, s], pads=[1, 1, 0, 1])
        case(f"convtranspose_{n}_same_s{s}", "ConvTranspose", [x(1, 4, h, w), x(4, 5, 3, 3)],
             strides=[s, s], auto_pad="SAME_UPPER")
case("conv_1d", "Conv", [x("N", 4, 33), x(6, 4, 5)], strides=[2])
case("conv_3d", "Conv", [x(1, 2, 9, 8, 7), x(4, 2, 3, 2, 1)])
case("conv_group", "Conv", [x("N", 8, 6, 6), x(8, 1, 3, 3), x(8)], group=8, pads=[1, 1, 1, 1])
case("conv_unknown_extent", "Conv", [x("N", 3, "H", 8), W])
case("convtranspose_group", "ConvTranspose", [x(2, 4, 5, 5), x(4, 3, 2, 2)], group=2,
     strides=[2, 2], output_padding=[1, 0])
case("convtranspose_output_shape", "ConvTranspose", [x(2, 4, 5, 5), x(4, 3, 3, 3)],
     strides=[2, 2], output_shape=[10, 11])
case("convtranspose_dilated", "ConvTranspose", [x(2, 4, 5, 5), x(4, 3, 3, 3)], dilations=[2, 2])
case("convinteger", "ConvInteger", [x(1, 3, 8, 8, t=U8), x(4, 3, 3, 3, t=U8)])
for op in ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]:
    case(op.lower(), op, [x("N", 5, "H", 7)])

# --- matrix products
case("matmul", "MatMul", [x("N", 3, 4), x(4, 5)])
case("matmul_batch", "MatMul", [x("N", 1, 3, 4), x(7, 4, 5)])
case("matmul_vector", "MatMul", [x(4), x(4, 5)])
case("matmul_by_vector", "MatMul", [x(2, 3, 4), x(4)])
case("matmul_dot", "MatMul", [x(4), x(4)])
case("matmulinteger", "MatMulInteger", [x(2, 4, t=U8), x(4, 3, t=I8)])
case("gemm", "Gemm", [x("N", 4), x(4, 5), x(5)])
case("gemm_trans", "Gemm", [x(4, "N"), x(5, 4)], transA=1, transB=1)
for eq, shapes in {"ij,jk->ik": [(2, 3), (3, 4)], "bij,bjk->bik": [("B", 2, 3), ("B", 3, 4)],
                   "ij->ji": [(2, 3)], "ii->i": [(3, 3)], "ij,kj": [(2, 3), (4, 3)],
                   "bhqd,bhkd->bhqk": [(2, 4, "Q", 8), (2, 4, "K", 8)],
                   "...ij,...jk->...ik": [(5, 2, 3), (5, 3, 4)]}.items():
    case("einsum_" + eq.replace(" ", ""), "Einsum", [x(*s) for s in shapes], equation=eq)

# --- normalization
case("batchnorm", "BatchNormalization", [x("N", 3, 4, 4), x(3), x(3), x(3), x(3)])
case("instancenorm", "InstanceNormalization", [x("N", 3, 4, 4), x(3), x(3)])
case("groupnorm", "GroupNormalization", [x("N", 6, 4, 4), x(6), x(6)], num_groups=2)
case("layernorm", "LayerNormalization", [x("N", 5, 8), x(8), x(8)], 3, axis=-1)
case("layernorm_axis", "LayerNormalization", [x("N", 5, 8), x(5, 8)], 3, axis=1)
case("rmsnorm", "RMSNormalization", [x("N", 5, 8), x(8)], opset=23)
case("lrn", "LRN", [x("N", 3, 4, 4)], size=3)

# --- reductions
for op in ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
           "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"]:
    case(op.lower(), op, [x("N", 3, 4, 5), c([2, -1])], keepdims=1)
    case(op.lower() + "_drop", op, [x("N", 3, 4, 5), c([1, -1])], keepdims=0)
    case(op.lower() + "_all", op, [x(2, 3, 4)], keepdims=0)
    case(op.lower() + "_all_keep", op, [x(2, 3, 4)], keepdims=1)
    case(op.lower() + "_noop", op, [x(2, 3, 4)], noop_with_empty_axes=1)
for op in ["ArgMax", "ArgMin"]:
    case(op.lower(), op, [x("N", 3, 4)], axis=1, keepdims=0)
    case(op.lower() + "_keep", op, [x("N", 3, 4)], axis=-1)
case("cumsum", "CumSum", [x("N", 3), c(1)])

# --- movement
for name, shape in {"plain": [2, 12], "minus": [2, -1], "copy": [0, -1], "copy_all": [0, 0, 4],
                    "scalar": [1, 24], "rank5": [1, 2, 3, 2, 2]}.items():
    case("reshape_" + name, "Reshape", [x(2, 3, 4), c(shape)])
case("reshape_symbol", "Reshape", [x("N", 3, 4), c([0, -1])])
case("reshape_symbol_split", "Reshape", [x("N", 12), c([-1, 3, 4])])
case("reshape_allowzero", "Reshape", [x(0, 3), c([3, 0])], allowzero=1)
case("reshape_to_scalar", "Reshape", [x(1, 1), c(np.zeros(0))])
for axis in [0, 1, 2, -1, 3]:
    case(f"flatten_{axis}", "Flatten", [x(2, 3, 4)], axis=axis)
case("flatten_symbol", "Flatten", [x("N", 3, 4)])
case("transpose", "Transpose", [x("N", 3, 4)])
case("transpose_perm", "Transpose", [x("N", 3, 4, 5)], perm=[0, 2, 3, 1])
case("squeeze", "Squeeze", [x("N", 1, 4, 1), c([1, -1])])
case("squeeze_all", "Squeeze", [x(2, 1, 4, 1)])
case("unsqueeze", "Unsqueeze", [x("N", 4), c([0, -1])])
case("expand", "Expand", [x(3, 1), c([2, 1, 6])])
case("expand_smaller", "Expand", [x(3, 4), c([1])])
case("tile", "Tile", [x("N", 3), c([1, 4])])
case("depthtospace", "DepthToSpace", [x("N", 8, 2, 3)], blocksize=2)
case("spacetodepth", "SpaceToDepth", [x("N", 2, 4, 6)], blocksize=2)
case("reversesequence", "ReverseSequence", [x(4, "N"), x("N", t=I64)])
case("trilu", "Trilu", [x("N", 4, 4)])
case("dropout", "Dropout", [x("N", 4)], 2)

# --- cutting and joining
case("concat", "Concat", [x("N", 3, 4), x("N", 5, 4)], axis=1)
case("concat_negative", "Concat", [x("N", 3), x("N", "M")], axis=-1)
case("concat_one", "Concat", [x("N", 3)], axis=0)
case("split_equal", "Split", [x("N", 6)], 3, axis=1, num_outputs=3)
case("split_uneven", "Split", [x(7, 2)], 3, axis=0, num_outputs=3)
case("split_parts", "Split", [x("N", 7), c([2, 5])], 2, axis=-1)
for name, (s, e, a, st) in {
        "front": ([0], [2], [1], [1]), "back": ([-3], [2**63 - 1], [1], [1]),
        "step": ([1], [9], [1], [3]), "reverse": ([-1], [-(2**31)], [1], [-1]),
        "reverse_step": ([8], [1], [1], [-2]), "empty": ([5], [3], [1], [1]),
        "clamped": ([-100], [100], [1], [1]), "two": ([1, 2], [3, 8], [0, -1], [1, 2])}.items():
    case("slice_" + name, "Slice", [x(4, 10), c(s), c(e), c(a), c(st)])
case("slice_all_of_symbol", "Slice", [x("N", 10), c([0, 1]), c([2**63 - 1, 4])])
case("slice_symbol", "Slice", [x("N", 10), c([1]), c([3])])
case("pad", "Pad", [x("N", 3, 4), c([0, 1, 2, 0, 1, 0])])
case("pad_axes", "Pad", [x("N", 3, 4), c([1, 2]), ABSENT, c([-1])], mode="reflect")
case("pad_crop", "Pad", [x(5, 6), c([-1, 0, 0, -2])])
case("resize_scales", "Resize", [x(1, 3, 5, 7), ABSENT, c([1, 1, 2, 1.5], F)])
case("resize_scales_down", "Resize", [x("N", 3, 9, 7), ABSENT, c([1, 1, 0.6, 0.3], F)])
case("resize_sizes", "Resize", [x(1, 3, 5, 7), ABSENT, ABSENT, c([1, 3, 8, 8])])
case("resize_axes", "Resize", [x("N", 3, 5, 7), ABSENT, ABSENT, c([8, 9])], axes=[2, 3])
case("resize_not_larger", "Resize", [x(1, 3, 5, 7), ABSENT, ABSENT, c([8, 8])], axes=[2, 3],
     keep_aspect_ratio_policy="not_larger")
case("resize_not_smaller", "Resize", [x(1, 3, 5, 7), ABSENT, ABSENT, c([8, 8])], axes=[2, 3],
     keep_aspect_ratio_policy="not_smaller")

# --- selection
case("gather", "Gather", [x("N", 5, 3), x(2, 4, t=I64)], axis=1)
case("gather_scalar", "Gather", [x("N", 5), c(0)], axis=1)
case("gatherelements", "GatherElements", [x(3, 4), x(2, 4, t=I64)])
case("gathernd", "GatherND", [x(2, 3, 4), x(5, 2, t=I64)])
case("gathernd_batch", "GatherND", [x(2, 3, 4), x(2, 5, 1, t=I64)], batch_dims=1)
case("scatterelements", "ScatterElements", [x(3, 4), x(2, 2, t=I64), x(2, 2)])
case("scatternd", "ScatterND", [x("N", 4), x(2, 1, t=I64), x(2, 4)])
case("onehot", "OneHot", [x("N", 3, t=I64), c(10), c([0.0, 1.0], F)])
case("onehot_axis", "OneHot", [x("N", 3, t=I64), c(10), c([0.0, 1.0], F)], axis=1)
case("nonzero", "NonZero", [x(2, "N", 3)])
case("topk", "TopK", [x("N", 10), c([3])], 2)
case("topk_axis", "TopK", [x(7, 10), c([3])], 2, axis=0)
case("unique", "Unique", [x(4, 5)], 4)
case("unique_axis", "Unique", [x(4, 5)], 1, axis=1)
case("compress", "Compress", [x(4, 5), x(4, t=B)], axis=0)

# --- shapes and types
case("shape", "Shape", [x(2, 3, 4)])
case("shape_part", "Shape", [x("N", 3, 4)], start=1)
case("shape_negative", "Shape", [x("N", 3, 4)], start=-2, end=-1)
case("size", "Size", [x("N", 3)])
case("constantofshape", "ConstantOfShape", [c([2, 3])])
case("constantofshape_int", "ConstantOfShape", [c([4])],
     value=helper.make_tensor("v", I64, [1], [7]))
case("constant_ints", "Constant", [], value_ints=[1, 2, 3])
case("constant_float", "Constant", [], value_float=1.5)
case("range", "Range", [c(2), c(11), c(4)])
case("range_down", "Range", [c(10), c(0), c(-3)])
case("range_float", "Range", [c(0.0, F), c(1.0, F), c(0.3, F)])
case("cast", "Cast", [x("N", 3)], to=I64)
case("cast_half", "Cast", [x("N", 3)], to=T.FLOAT16)
case("castlike", "CastLike", [x("N", 3), x(1, t=I32)])
case("eyelike", "EyeLike", [x(3, 4)], dtype=I64)

# --- quantization
case("quantizelinear", "QuantizeLinear", [x("N", 3, 4), c(0.1, F), c(3, U8)])
case("quantizelinear_default", "QuantizeLinear", [x("N", 3, 4), c(0.1, F)])
case("quantizelinear_axis", "QuantizeLinear", [x(5, 3, 4), c([1, 1, 1], F), c([0, 0, 0], I8)],
     axis=1)
case("quantizelinear_dtype", "QuantizeLinear", [x("N", 3), c(0.1, F)], output_dtype=T.INT4)
case("quantizelinear_no_dtype", "QuantizeLinear", [x("N", 3), c(0.1, F), c(0, I8)], output_dtype=0)
case("quantizelinear_block", "QuantizeLinear", [x(8, 4), c(np.ones((2, 4)), F),
                                                c(np.zeros((2, 4)), T.INT16)], axis=0, block_size=4)
case("dequantizelinear", "DequantizeLinear", [x("N", 3, 4, t=U8), c(0.1, F), c(3, U8)])
case("dequantizelinear_axis", "DequantizeLinear", [x(5, 3, t=I8), c([1] * 5, F)], axis=0)
case("dequantizelinear_int32", "DequantizeLinear", [x(5, t=I32), c(0.5, F)])
case("dynamicquantizelinear", "DynamicQuantizeLinear", [x("N", 3)], 3)
case("qlinearconv", "QLinearConv", [x("N", 3, 8, 8, t=U8), c(1.0, F), c(0, U8), x(4, 3, 3, 3, t=I8),
                                    c(1.0, F), c(0, I8), c(1.0, F), c(0, U8)])
case("qlinearmatmul", "QLinearMatMul", [x("N", 4, t=U8), c(1.0, F), c(0, U8), x(4, 5, t=I8),
                                        c(1.0, F), c(0, I8), c(1.0, F), c(0, U8)])

# --- detection
case("nonmaxsuppression", "NonMaxSuppression", [x(2, 100, 4), x(2, 5, 100), c(10), c(0.5, F)])
case("roialign", "RoiAlign", [x(2, 8, 16, 16), x("R", 4), x("R", t=I64)], output_height=7,
     output_width=6)
case("gridsample", "GridSample", [x("N", 3, 8, 8), x("N", 5, 6, 2)])
case("attention", "Attention", [x("B", 4, 7, 8), x("B", 2, 9, 8), x("B", 2, 9, 8)], opset=23)
case("attention_flat", "Attention", [x("B", 7, 32), x("B", 9, 16), x("B", 9, 16)], opset=23,
     q_num_heads=4, kv_num_heads=2)


def text_of_dims(dims):
    return ",".join("?" if d is None else str(d) for d in dims) or "scalar"


def dims_of(type_proto):
    if not type_proto.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value")
            else None if d.dim_param.startswith("unk__") else (d.dim_param or None)
            for d in type_proto.shape.dim]


def infer(op, inputs, outputs, opset, domain, attributes):
    names, graph_inputs, initializers = [], [], []
    for i, spec in enumerate(inputs):
        if spec is None:
            names.append("")
            continue
        names.append(f"i{i}")
        kind, dtype, payload = spec
        if kind == "input":
            graph_inputs.append(helper.make_tensor_value_info(f"i{i}", dtype, payload))
        else:
            initializers.append(numpy_helper.from_array(payload, f"i{i}"))
    node = helper.make_node(op, names, [f"o{i}" for i in range(outputs)], domain=domain,
                            **attributes)
    graph = helper.make_graph([node], "g", graph_inputs,
                              [helper.make_empty_tensor_value_info(f"o{i}")
                               for i in range(outputs)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return [o.type.tensor_type for o in inferred.graph.output]


def attribute_line(name, value):
    if isinstance(value, onnx.TensorProto):
        array = numpy_helper.to_array(value)
        return (f"attr {name} tensor {NAMES[value.data_type]} {text_of_dims(array.shape)} "
                + " ".join(str(v) for v in array.flatten()))
    if isinstance(value, list):
        return f"attr {name} {'floats' if isinstance(value[0], float) else 'ints'} " + \
            " ".join(str(v) for v in value)
    kind = {int: "int", float: "float", str: "string"}[type(value)]
    return f"attr {name} {kind} {value}"


def main():
    lines = ["# Written by make_shape_inference.py with onnx " + onnx.__version__ + "."]
    for name, op, inputs, outputs, opset, domain, attributes in cases:
        results = infer(op, inputs, outputs, opset, domain, attributes)
        lines.append(f"case {name}")
        lines.append(f"op {op}")
        for spec in inputs:
            if spec is None:
                lines.append("absent")
            elif spec[0] == "input":
                lines.append(f"input {NAMES[spec[1]]} {text_of_dims(spec[2])}")
            else:
                flat = " ".join(str(v) for v in spec[2].flatten().tolist())
                lines.append(f"const {NAMES[spec[1]]} {text_of_dims(spec[2].shape)} {flat}".rstrip())
        for key, value in sorted(attributes.items()):
            lines.append(attribute_line(key, value))
        for result in results:
            dims = dims_of(result)
            lines.append(f"output {NAMES.get(result.elem_type, 'undefined')} "
                         + ("unranked" if dims is None else text_of_dims(dims)))
    open("shape_inference.txt", "w").write("\n".join(lines) + "\n")
    print(len(cases), "cases")


sys.exit(main())
