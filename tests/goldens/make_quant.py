# SPDX-License-Identifier: Apache-2.0
"""Writes quant.txt: grids, codes and dequantized values computed by numpy and by onnxruntime.

    python tests/goldens/make_quant.py      # needs numpy, onnx, onnxruntime

Every line is "key value value ...". Floats are the hexadecimal bits of a float32. A case starts
with "case"; the tests read the keys they need.
"""
import itertools
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

OUT = pathlib.Path(__file__).with_name("quant.txt")
F = np.float32


def bits(values):
    return " ".join(f"{v:x}" for v in np.asarray(values, F).ravel().view(np.uint32))


def ints(values):
    return " ".join(str(int(v)) for v in np.asarray(values).ravel())


def limits(nbits, signed, narrow):
    if not signed:
        return 0, 2**nbits - 1
    return -(2 ** (nbits - 1)) + int(narrow), 2 ** (nbits - 1) - 1


def stored(scale, kind):
    """The scale as its storage type keeps it."""
    scale = np.asarray(scale, F)
    if kind == "float16":
        return np.maximum(scale.astype(np.float16), np.float16(6e-8)).astype(F)
    if kind == "bfloat16":
        raw = scale.view(np.uint32).astype(np.uint64)
        raw = (raw + 0x7FFF + ((raw >> 16) & 1)) >> 16
        return (raw << 16).astype(np.uint32).view(F)
    if kind == "power_of_two":
        return np.exp2(np.ceil(np.log2(scale.astype(np.float64)))).astype(F)
    return scale


def params(low, high, qmin, qmax, symmetry, signed, nbits, kind):
    """Scale, zero_point, offset of units with extremes low, high, all in float32 arithmetic."""
    low, high = low.astype(F), high.astype(F)
    zero = np.zeros(low.shape, np.int64)
    offset = np.zeros(low.shape, F)
    with np.errstate(all="ignore"):
        if symmetry == "symmetric":
            middle = 0 if signed else 2 ** (nbits - 1)
            amax = np.maximum(np.abs(low), np.abs(high))
            scale = stored(np.where(amax > 0, amax / F(qmax - middle), F(1)), kind)
            zero += middle
        elif symmetry == "asymmetric":
            low, high = np.minimum(low, F(0)), np.maximum(high, F(0))
            same = low == high
            scale = stored(np.where(same, F(1), (high - low) / F(qmax - qmin)), kind)
            zero = qmin + np.rint(np.minimum(-low / scale, F(qmax - qmin))).astype(np.int64)
            zero = np.where(same, 0, zero)
        else:
            scale = stored(np.where(low == high, F(1), (high - low) / F(qmax - qmin)), kind)
            offset = (low.astype(np.float64) - scale.astype(np.float64) * qmin).astype(F)
    return scale.astype(F), zero, offset


def per_unit(x, granularity, axis, group):
    """A function that reduces x over each unit, and one that spreads units over x."""
    if granularity == "per_tensor":
        return (lambda f: np.asarray(f(x))), (lambda u: np.broadcast_to(u, x.shape))
    if granularity == "per_axis":
        others = tuple(i for i in range(x.ndim) if i != axis)
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        return (lambda f: f(x, axis=others)), (lambda u: np.broadcast_to(u.reshape(shape), x.shape))
    if granularity == "per_token":
        return (lambda f: f(x, axis=-1)), (lambda u: np.broadcast_to(u[..., None], x.shape))
    cuts = list(range(0, x.shape[axis], group))
    lengths = [min(group, x.shape[axis] - c) for c in cuts]

    def reduce(f):
        parts = np.split(x, cuts[1:], axis=axis)
        return np.stack([f(p, axis=axis) for p in parts], axis=axis)

    return reduce, (lambda u: np.repeat(u, lengths, axis=axis))


def case_numpy(out, rng, nbits, signed, narrow, symmetry, granularity, axis, group, kind):
    shape = [(3, 5, 4), (2, 7, 3)][int(rng.integers(2))]
    x = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 4)).astype(F)
    if rng.integers(4) == 0:
        x = np.abs(x)
    if rng.integers(4) == 0:
        x[0] = 0
    qmin, qmax = limits(nbits, signed, narrow)
    reduce, spread = per_unit(x, granularity, axis, group)
    scale, zero, offset = params(reduce(np.min), reduce(np.max), qmin, qmax, symmetry, signed, nbits, kind)
    s, z, o = spread(scale), spread(zero), spread(offset)
    if symmetry == "offset":
        q = np.clip(np.rint((x - o) / s), qmin, qmax).astype(np.int64)
        y = s * q.astype(F) + o
    else:
        q = np.clip(np.rint(x / s) + z, qmin, qmax).astype(np.int64)
        y = s * (q - z).astype(F)
    out.append("case numpy")
    out.append(f"scheme {nbits} {int(signed)} {int(narrow)} {symmetry} {granularity} {axis} {group} {kind}")
    out.append("dims " + ints(shape))
    out.append("x " + bits(x))
    out.append("scale " + bits(scale))
    if symmetry == "offset":
        out.append("offset " + bits(offset))
    elif symmetry == "asymmetric" or not signed:
        out.append("zero_point " + ints(zero))
    out.append("codes " + ints(q))
    out.append("y " + bits(y.astype(F)))


ORT_TYPES = {
    ("uint", 8): TensorProto.UINT8, ("int", 8): TensorProto.INT8,
    ("uint", 16): TensorProto.UINT16, ("int", 16): TensorProto.INT16,
    ("uint", 4): TensorProto.UINT4, ("int", 4): TensorProto.INT4,
}


def run(nodes, x, outputs, initializers=()):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs], list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def case_ort(out, rng, sign, nbits, granularity):
    """QuantizeLinear and DequantizeLinear with given parameters, ties and overflow included."""
    signed = sign == "int"
    qmin, qmax = limits(nbits, signed, False)
    x = (rng.standard_normal((4, 12)) * 3).astype(F)
    units = {"per_tensor": (), "per_axis": (4,), "per_group": (4, 3)}[granularity]
    scale = (2.0 ** rng.integers(-5, 0, units)).astype(F) * (F(1) if rng.integers(2) else F(1.1))
    zero = rng.integers(qmin, qmax + 1, units)
    x[0, :6] = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
    x[0, :6] *= scale.ravel()[0]
    x[3, :4] = [1e30, -1e30, np.inf, -np.inf]
    dtype = ORT_TYPES[(sign, nbits)]
    attributes = {"per_tensor": {}, "per_axis": {"axis": 0}, "per_group": {"axis": 1, "block_size": 4}}[granularity]
    inits = [helper.make_tensor("s", TensorProto.FLOAT, units, scale.ravel().tolist()),
             helper.make_tensor("z", dtype, units, np.asarray(zero).ravel().tolist())]
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
             helper.make_node("Cast", ["q"], ["qi"], to=TensorProto.INT32)]
    y, q = run(nodes, x, [("y", TensorProto.FLOAT), ("qi", TensorProto.INT32)], inits)
    axis, group = (1, 4) if granularity == "per_group" else (0, 0)
    out.append("case onnxruntime")
    out.append(f"scheme {nbits} {int(signed)} 0 asymmetric {granularity} {axis} {group} float32")
    out.append("dims " + ints(x.shape))
    out.append("x " + bits(x))
    out.append("scale " + bits(scale))
    out.append("zero_point " + ints(zero))
    out.append("codes " + ints(q))
    out.append("y " + bits(y))


def case_dynamic(out, rng):
    x = (rng.standard_normal(40) * 10.0 ** rng.uniform(-3, 3) + rng.uniform(-2, 2)).astype(F)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    q, s, z = run([node], x, [("q", TensorProto.UINT8), ("s", TensorProto.FLOAT), ("z", TensorProto.UINT8)])
    out.append("case dynamic")
    out.append("scheme 8 0 0 asymmetric per_tensor 0 0 float32")
    out.append("dims " + ints(x.shape))
    out.append("x " + bits(x))
    out.append("scale " + bits(s))
    out.append("zero_point " + ints(z))
    out.append("codes " + ints(q))


# name of the operator, attributes, opset 21
FUNCTIONS = [
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.1}), ("ThresholdedRelu", {"alpha": 0.5}), ("Sigmoid", {}),
    ("Tanh", {}), ("HardSigmoid", {}), ("HardSwish", {}), ("Elu", {"alpha": 0.7}), ("Selu", {}),
    ("Celu", {"alpha": 0.8}), ("Softplus", {}), ("Softsign", {}), ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}), ("Mish", {}), ("Exp", {}), ("Log", {}), ("Sqrt", {}),
    ("Abs", {}), ("Neg", {}), ("Erf", {}), ("Reciprocal", {}), ("Floor", {}), ("Ceil", {}),
    ("Round", {}), ("Sign", {}),
]


def case_table(out, op, attributes, sx, zx, signed_in, sy, zy, signed_out):
    lo = -128 if signed_in else 0
    codes = np.arange(lo, lo + 256)
    x = (F(sx) * (codes - zx).astype(F)).astype(F)
    tin = TensorProto.INT8 if signed_out else TensorProto.UINT8
    inits = [helper.make_tensor("s", TensorProto.FLOAT, (), [sy]), helper.make_tensor("z", tin, (), [zy])]
    nodes = [helper.make_node(op, ["x"], ["f"], **attributes),
             helper.make_node("QuantizeLinear", ["f", "s", "z"], ["q"]),
             helper.make_node("Cast", ["q"], ["qi"], to=TensorProto.INT32)]
    f, q = run(nodes, x, [("f", TensorProto.FLOAT), ("qi", TensorProto.INT32)], inits)
    finite = np.isfinite(f)
    q = np.where(np.isnan(f), zy, q)  # our rule: NaN is the zero_point
    assert finite.any()
    out.append("case table")
    alpha = next((v for k, v in attributes.items() if k == "alpha"), None)
    name = "GeluTanh" if attributes.get("approximate") == "tanh" else op
    out.append(f"function {name} {bits([alpha]) if alpha is not None else '-'}")
    out.append(f"grids {int(signed_in)} {bits([sx])} {zx} {int(signed_out)} {bits([sy])} {zy}")
    out.append("codes " + ints(q))


def main():
    rng = np.random.default_rng(20240607)
    out = []
    kinds = ["float32", "float16", "bfloat16", "power_of_two"]
    grans = [("per_tensor", 0, 0), ("per_axis", 0, 0), ("per_axis", 1, 0), ("per_axis", 2, 0),
             ("per_group", 0, 2), ("per_group", 1, 3), ("per_group", 2, 2), ("per_token", 0, 0)]
    n = 0
    for nbits, symmetry, signed in itertools.product(
            [2, 3, 4, 5, 6, 7, 8, 16], ["symmetric", "asymmetric", "offset"], [True, False]):
        for narrow in ([False, True] if signed else [False]):
            gran, axis, group = grans[n % len(grans)]
            kind = kinds[(n // 3) % len(kinds)]
            case_numpy(out, rng, nbits, signed, narrow, symmetry, gran, axis, group, kind)
            n += 1
    for sign, nbits in ORT_TYPES:
        for gran in ["per_tensor", "per_axis", "per_group"]:
            case_ort(out, rng, sign, nbits, gran)
    for _ in range(20):
        case_dynamic(out, rng)
    for i, (op, attributes) in enumerate(FUNCTIONS):
        positive = op in ("Exp", "Reciprocal", "Softplus", "Sqrt")
        sy = {"Exp": 0.25, "Reciprocal": 0.05, "Log": 0.03}.get(op, 0.031)
        case_table(out, op, attributes, 0.0314159, 120 if i % 2 == 0 else 3, i % 2 == 1, sy,
                   0 if positive else 11, i % 3 == 0)
    OUT.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
