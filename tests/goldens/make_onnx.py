#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny models of tests/corpus/onnx, and checks what narrow writes from them.

  make_onnx.py make               writes tests/corpus/onnx/*.onnx
  make_onnx.py check DIR [FILE..] for every FILE (default: the corpus) compares DIR/<name> with it:
                                  onnx.checker accepts it, onnxruntime loads it, outputs are equal

DIR is what the test OnnxCorpus.round_trip leaves in the folder that NARROW_KEEP_DIR names.
Needs onnx, onnxruntime and numpy.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

CORPUS = pathlib.Path(__file__).resolve().parent.parent / "corpus" / "onnx"
RNG = np.random.default_rng(7)
# Deprecated in that very opset but written by exporters; against the rules but seen.
UNCHECKED = {"group_norm_18", "unsorted", "function_old_opset"}
MS = '"com.microsoft" : 1'


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(opset, graph, init=(), ir=None, extra="", functions=""):
    """A model from onnx's text form; initializers are added as tensors."""
    if ir is None:
        ir = 3 if opset < 9 else 4 if opset < 10 else 5 if opset < 11 else 6 if opset < 12 else \
            7 if opset < 15 else 8 if opset < 19 else 9 if opset < 21 else 10 if opset < 23 else 13
    domains = f'"" : {opset}' + (f", {extra}" if extra else "")
    m = parser.parse_model(f'<ir_version: {ir}, opset_import: [{domains}]>\n{graph}\n{functions}')
    m.graph.initializer.extend(init)
    if ir < 4:
        for t in init:
            m.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    return m


def old_opsets():
    yield "squeeze_7", model(7, "g (float[2,1,4,1] x) => (float[2,4] y) "
                                "{ y = Squeeze<axes=[1,3]>(x) }")
    yield "squeeze_all_9", model(9, "g (float[1,3,1] x) => (float[3] y) { y = Squeeze(x) }")
    yield "unsqueeze_11", model(11, "g (float[2,3] x) => (float[1,2,3,1] y) "
                                    "{ y = Unsqueeze<axes=[0,-1]>(x) }")
    for op in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]:
        yield f"reduce_{op.lower()}_11", model(
            11, f"g (float[2,3,4] x) => (float[2,1,4] y, float[1,1,1] z) "
                f"{{ y = Reduce{op}<axes=[-2]>(x) z = Reduce{op}(x) }}")
    yield "reduce_mean_18", model(18, "g (float[2,3,4] x) => (float[2,4] y) "
                                      "{ y = ReduceMean<keepdims=0>(x, a) }",
                                  [tensor("a", [1], np.int64)])
    yield "reduce_noop_18", model(18, "g (float[2,3] x) => (float[2,3] y) "
                                      "{ y = ReduceMax<noop_with_empty_axes=1>(x) }")
    yield "slice_9", model(9, "g (float[4,5,6] x) => (float[2,5,3] y) "
                              "{ y = Slice<starts=[1,-3], ends=[3,9999], axes=[0,2]>(x) }")
    yield "slice_no_axes_7", model(7, "g (float[4,5] x) => (float[2,3] y) "
                                      "{ y = Slice<starts=[1,1], ends=[3,-1]>(x) }")
    yield "pad_9", model(9, "g (float[1,1,2,3] x) => (float[1,1,4,5] y) "
                            "{ y = Pad<pads=[0,0,1,1,0,0,1,1], value=0.5>(x) }")
    yield "pad_reflect_7", model(7, "g (float[1,1,3,3] x) => (float[1,1,5,3] y) "
                                    '{ y = Pad<pads=[0,0,1,0,0,0,1,0], mode="reflect">(x) }')
    yield "pad_axes_18", model(18, "g (float[2,3] x) => (float[2,6] y) { y = Pad(x, p, , a) }",
                               [tensor("p", [1, 2], np.int64), tensor("a", [-1], np.int64)])
    yield "pad_wrap_19", model(19, "g (float[2,3] x) => (float[2,5] y) "
                                   '{ y = Pad<mode="wrap">(x, p) }',
                               [tensor("p", [0, 1, 0, 1], np.int64)])
    yield "clip_6", model(10, "g (float[5] x) => (float[5] y, float[5] z, float[5] w) "
                              "{ y = Clip<min=-0.5, max=0.5>(x) z = Clip<max=0.25>(x) w = Clip(x) }")
    yield "clip_half_10", model(10, "g (float[5] x) => (float[5] y) "
                                    "{ h = Cast<to=10>(x) c = Clip<min=0.0>(h) y = Cast<to=1>(c) }")
    yield "dropout_7", model(7, "g (float[5] x) => (float[5] y) { y, m = Dropout<ratio=0.3>(x) }")
    yield "dropout_12", model(12, "g (float[5] x) => (float[5] y) { y = Dropout(x, r) }",
                              [tensor("r", 0.4)])
    yield "split_11", model(11, "g (float[2,6] x) => (float[2,1] a, float[2,5] b) "
                                "{ a, b = Split<axis=1, split=[1,5]>(x) }")
    yield "split_equal_9", model(9, "g (float[4,6] x) => (float[2,6] a, float[2,6] b) "
                                    "{ a, b = Split(x) }")
    yield "split_uneven_18", model(18, "g (float[5] x) => (float[3] a, float[2] b) "
                                       "{ a, b = Split<num_outputs=2>(x) }")
    yield "topk_9", model(9, "g (float[2,5] x) => (float[2,3] v, int64[2,3] i) "
                             "{ v, i = TopK<k=3, axis=1>(x) }")
    yield "topk_10", model(10, "g (float[2,5] x) => (float[2,2] v, int64[2,2] i) "
                               "{ v, i = TopK(x, k) }", [tensor("k", [2], np.int64)])
    yield "upsample_7", model(7, "g (float[1,1,2,2] x) => (float[1,1,4,6] y) "
                                 '{ y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,3.0]>(x) }')
    yield "upsample_9", model(9, "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
                                 '{ y = Upsample<mode="linear">(x, s) }',
                              [tensor("s", [1, 1, 2, 2])])
    yield "resize_10", model(10, "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
                                 '{ y = Resize<mode="nearest">(x, s) }',
                             [tensor("s", [1, 1, 2, 2])])
    yield "resize_down_10", model(10, "g (float[1,1,4,8] x) => (float[1,1,2,4] y) "
                                      '{ y = Resize<mode="nearest">(x, s) }',
                                  [tensor("s", [1, 1, 0.6, 0.6])])
    yield "resize_empty_11", model(11, "g (float[1,1,2,2] x) => (float[1,1,5,4] y) "
                                       "{ y = Resize<mode=\"linear\", "
                                       "coordinate_transformation_mode=\"align_corners\">"
                                       "(x, r, s, t) }",
                                   [tensor("r", []), tensor("s", []),
                                    tensor("t", [1, 1, 5, 4], np.int64)])
    yield "resize_13", model(13, "g (float[1,1,2,2] x) => (float[1,1,4,4] y) "
                                 '{ y = Resize<mode="cubic">(x, , s) }',
                             [tensor("s", [1, 1, 2, 2])])
    yield "resize_axes_18", model(18, "g (float[1,1,2,2] x) => (float[1,1,6,4] y) "
                                      '{ y = Resize<mode="nearest", axes=[3,2]>(x, , s) }',
                                  [tensor("s", [2, 3])])
    yield "resize_antialias_18", model(18, "g (float[1,1,8,8] x) => (float[1,1,4,4] y) "
                                           '{ y = Resize<mode="linear", antialias=1>(x, , s) }',
                                       [tensor("s", [1, 1, 0.5, 0.5])])
    yield "softmax_last_11", model(11, "g (float[2,3,4] x) => (float[2,3,4] y) "
                                       "{ y = Softmax<axis=2>(x) }")
    yield "softmax_flat_9", model(9, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }")
    yield "softmax_ones_9", model(9, "g (float[2,3,1,1] x) => (float[2,3,1,1] y) "
                                     "{ y = Softmax(x) }")
    yield "softmax_zero_axis_7", model(7, "g (float[2,3] x) => (float[2,3] y) "
                                          "{ y = Softmax<axis=0>(x) }")
    yield "softmax_dynamic_9", model(9, "g (float[N,3,4] x) => (float[N,3,4] y) { y = Softmax(x) }")
    yield "log_softmax_11", model(11, "g (float[2,3,4] x) => (float[2,3,4] y) "
                                      "{ y = LogSoftmax<axis=-2>(x) }")
    yield "hardmax_11", model(11, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Hardmax(x) }")
    bn = [tensor(n, v) for n, v in [("s", [1, 2]), ("b", [0, 1]), ("m", [0.5, -1]), ("v", [1, 4])]]
    yield "batch_norm_7", model(7, "g (float[1,2,3] x) => (float[1,2,3] y) "
                                   "{ y = BatchNormalization<spatial=1, epsilon=0.01>(x,s,b,m,v) }",
                                bn)
    yield "batch_norm_9", model(9, "g (float[1,2,3] x) => (float[1,2,3] y) "
                                   "{ y, om, ov, sm, sv = BatchNormalization(x,s,b,m,v) }", bn)
    yield "batch_norm_15", model(15, "g (float[1,2,3] x) => (float[1,2,3] y) "
                                     "{ y = BatchNormalization<training_mode=0>(x,s,b,m,v) }", bn)
    yield "scatter_9", model(9, "g (float[3,3] x) => (float[3,3] y) { y = Scatter<axis=1>(x,i,u) }",
                             [tensor("i", [[1], [0], [2]], np.int64), tensor("u", [[9], [8], [7]])])
    yield "roi_align_10", model(10, "g (float[1,1,6,6] x) => (float[1,1,2,2] y) "
                                    "{ y = RoiAlign<output_height=2, output_width=2>(x, r, b) }",
                                [tensor("r", [[0.5, 0.5, 4, 4]]), tensor("b", [0], np.int64)])
    yield "grid_sample_16", model(16, "g (float[1,1,3,3] x, float[1,2,2,2] q) => "
                                      "(float[1,1,2,2] y) { y = GridSample(x, q) }")
    yield "group_norm_18", model(18, "g (float[1,4,2] x) => (float[1,4,2] y) "
                                     "{ y = GroupNormalization<num_groups=2>(x, s, b) }",
                                 [tensor("s", [1, 2]), tensor("b", [0.5, -1])])
    yield "gemm_7", model(7, "g (float[2,3] x) => (float[2,4] y) "
                             "{ y = Gemm<transB=1, alpha=0.5>(x, w, b) }",
                          [tensor("w", RNG.normal(size=(4, 3))), tensor("b", [1, 2, 3, 4])])
    yield "average_pool_7", model(7, "g (float[1,1,4,4] x) => (float[1,1,2,2] y, float[1,1,2,2] z) "
                                     "{ y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) "
                                     "z = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }")
    yield "average_pool_19", model(19, "g (float[1,1,6,6] x) => (float[1,1,4,4] y) "
                                       "{ y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x) }")
    yield "reshape_13", model(13, "g (float[2,3] x) => (float[3,2] y) { y = Reshape(x, s) }",
                              [tensor("s", [3, -1], np.int64)])
    yield "reshape_zero_14", model(14, "g (float[0,3] x) => (float[3,0] y) "
                                       "{ y = Reshape<allowzero=1>(x, s) }",
                                   [tensor("s", [3, 0], np.int64)])
    yield "shape_15", model(15, "g (float[2,3,4] x) => (int64[2] y, int64[3] z) "
                                "{ y = Shape<start=1>(x) z = Shape(x) }")
    yield "add_int8_14", model(14, "g (int8[3] x, int8[3] q) => (int8[3] y) { y = Add(x, q) }")
    yield "relu_int32_14", model(14, "g (int32[3] x) => (int32[3] y) { y = Relu(x) }")
    yield "gelu_20", model(20, "g (float[4] x) => (float[4] y) { y = Gelu(x) }")


def constants():
    def node(**kw):
        return helper.make_node("Constant", [], [f"c{len(nodes)}"], **kw)

    nodes = []
    for kw in [dict(value=tensor("t", [1, 2, 3])), dict(value_float=2.5),
               dict(value_floats=[1.0, 2.0, 3.0])]:
        nodes.append(node(**kw))
    nodes.append(helper.make_node("Sum", ["x", "c0", "c1", "c2"], ["y"], name="sum"))
    nodes.append(helper.make_node("Constant", [], ["shape"], value_ints=[3, 1]))
    nodes.append(helper.make_node("Constant", [], ["k"], value_int=7))
    nodes.append(helper.make_node("Reshape", ["y", "shape"], ["z"]))
    nodes.append(helper.make_node("Identity", ["k"], ["kk"]))
    g = helper.make_graph(nodes, "constants",
                          [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
                          [helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 1]),
                           helper.make_tensor_value_info("kk", TensorProto.INT64, [])])
    yield "constants", helper.make_model(g, ir_version=8,
                                         opset_imports=[helper.make_opsetid("", 13)])


def typed_data():
    """One initializer for each element type in its typed field, each an output through Identity."""
    rows = [("f32", TensorProto.FLOAT, [1.5, -2.0, 0.25]), ("f64", TensorProto.DOUBLE, [1.5, -2.0]),
            ("f16", TensorProto.FLOAT16, [1.0, -0.5, 65504.0]),
            ("bf16", TensorProto.BFLOAT16, [1.0, -2.0]),
            ("i8", TensorProto.INT8, [-128, 127]), ("u8", TensorProto.UINT8, [0, 255]),
            ("i16", TensorProto.INT16, [-32768, 32767]), ("u16", TensorProto.UINT16, [0, 65535]),
            ("i32", TensorProto.INT32, [-2**31, 2**31 - 1]),
            ("u32", TensorProto.UINT32, [0, 2**32 - 1]),
            ("i64", TensorProto.INT64, [-2**63, 2**63 - 1]),
            ("u64", TensorProto.UINT64, [0, 2**64 - 1]), ("b", TensorProto.BOOL, [True, False, True]),
            ("i4", TensorProto.INT4, [-8, 7, 3]), ("u4", TensorProto.UINT4, [15, 0, 9]),
            ("i2", TensorProto.INT2, [-2, 1, 0, -1, 1]), ("u2", TensorProto.UINT2, [3, 0, 2])]
    for raw in [False, True]:
        nodes, inits, outs = [], [], []
        for name, t, values in rows:
            init = helper.make_tensor(name, t, [len(values)], values)
            if raw:
                init = numpy_helper.from_array(numpy_helper.to_array(init), name)
                assert init.HasField("raw_data") and init.data_type == t
            inits.append(init)
            nodes.append(helper.make_node("Identity", [name], ["o_" + name]))
            outs.append(helper.make_tensor_value_info("o_" + name, t, [len(values)]))
        g = helper.make_graph(nodes, "typed", [], outs, inits)
        yield "raw_data" if raw else "typed_data", helper.make_model(
            g, ir_version=13, opset_imports=[helper.make_opsetid("", 25)])


def features():
    yield "inputs_ir3", model(8, "g (float[1,2] x) => (float[1,2] y) { y = Add(x, w) }",
                              [tensor("w", [[1, 2]])], ir=3)
    yield "unsorted", model(13, "g (float[2] x) => (float[2] y) "
                                "{ y = Relu(b) b = Neg(a) a = Abs(x) }")
    yield "names", model(13, "g (float[2] x) => (float[2] y) "
                             "{ a = Abs(x) b = Neg(a) c = Relu(b) y = Neg(c) }")
    m = model(13, "g (float[2] x) => (float[2] y) { a = Abs(x) b = Neg(a) c = Relu(b) y = Neg(c) }")
    for node, name in zip(m.graph.node, ["same", "", "same", "Relu_c"]):
        node.name = name
    yield "duplicate_names", m
    m = model(13, "g (float[batch,4] x) => (float[batch,4] y) { h = Relu(x) y = Neg(h) }")
    m.graph.doc_string = "two nodes"
    m.producer_name, m.producer_version = "corpus", "1.2"
    m.graph.node[0].doc_string = "the first"
    helper.set_model_props(m, {"key": "value", "answer": "42"})
    m.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 4]))
    yield "metadata", m
    # A shape from before the batch size was made variable, and an unknown one that it states.
    m = model(13, "g (float[batch,4] x) => (float[batch,4] y) { h = Relu(x) y = Neg(h) }")
    m.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, 4]))
    yield "stale_value_info", m
    yield "optional_inputs", model(13, "g (float[4] x) => (float[4] y) { y = Clip(x, , hi) }",
                                   [tensor("hi", 0.5)])
    yield "optional_outputs", model(17, "g (float[2,3] x) => (float[2,3] y, float[2,1] s) "
                                        "{ y, , s = LayerNormalization(x, w) }",
                                    [tensor("w", [1, 2, 3])])
    yield "unknown_ops", model(13, "g (float[2] x) => (float[2] y) "
                                   "{ a = example.Foo<k=1>(x) b = Neg(a) y = example.Bar(b, a) }",
                               extra='"example" : 3')
    yield "output_is_input", model(13, "g (float[2] x) => (float[2] x, float[2] y) { y = Neg(x) }")
    yield "scalars", model(13, "g (float x) => (float y) { y = Mul(x, c) }", [tensor("c", 3)])
    yield "empty_tensor", model(13, "g (float[2] x) => (float[2] y) { y = Concat<axis=0>(x, e) }",
                                [tensor("e", [])])
    strings = helper.make_tensor("labels", TensorProto.STRING, [2], [b"cat", b"dog"])
    yield "unused_strings", model(13, "g (float[2] x) => (float[2] y) { y = Neg(x) }", [strings])
    float8 = helper.make_tensor("f8", TensorProto.FLOAT8E4M3FN, [2], [1.0, 2.0])
    yield "unused_float8", model(19, "g (float[2] x) => (float[2] y) { y = Neg(x) }", [float8])
    yield "cast_half", model(13, "g (float[3] x) => (float[3] y) "
                                 "{ h = Cast<to=10>(x) k = Mul(h, h) y = Cast<to=1>(k) }")
    m = model(13, "g (float[8,4] x) => (float[8,4] y) { a = MatMul(x, w) y = Add(a, b) }",
              [tensor("w", RNG.normal(size=(4, 4))), tensor("b", [1, 2, 3, 4])])
    onnx.save(m, str(CORPUS / "external.onnx"), save_as_external_data=True, location="external.bin",
              size_threshold=0)


def functions():
    yield "function", model(
        17, "g (float[3] x) => (float[3] y) { t = local.twice<a=0.5>(x) y = local.twice(t) }",
        extra='"local" : 1', functions="""
        <domain: "local", opset_import: ["" : 17]>
        scaled <alpha>(v) => (w) { w = LeakyRelu<alpha: float = @alpha>(v) }
        <domain: "local", opset_import: ["" : 17, "local" : 1]>
        twice <a: float = 0.25>(v) => (w)
        { t = local.scaled<alpha: float = @a>(v) u = Neg(t) w = local.scaled<alpha: float = @a>(u) }
        """)
    # Its body captures an argument and has a local name that the call's argument has as well.
    yield "function_body", model(
        17, "g (float[3] t, bool c) => (float[3] y) { y = local.pick(t, c) }",
        extra='"local" : 1', functions="""
        <domain: "local", opset_import: ["" : 17]>
        pick (v, c) => (w) {
          w = If (c) <then_branch = a () => (o) { t = Neg(v) o = Abs(t) },
                      else_branch = b () => (p) { p = Relu(v) }>
        }""")
    # A function written in an older opset than the model.
    yield "function_old_opset", model(
        17, "g (float[2,3] x) => (float[3,1] y) { y = local.sum(x) }", extra='"local" : 1',
        functions="""
        <domain: "local", opset_import: ["" : 11]>
        sum (v) => (w) { s = ReduceSum<axes = [0], keepdims = 0>(v) w = Unsqueeze<axes = [1]>(s) }
        """)


def subgraphs():
    yield "if_captures", model(13, """g (float[2] x, bool c) => (float[2] y, float[2] z) {
        h = Relu(x)
        y, z = If (c) <
          then_branch = t () => (float[2] o, float[2] h2) { o = Add(h, w) h2 = Neg(x) },
          else_branch = e () => (float[2] q, float[2] r) { q = Mul(x, w) r = Identity(h) }>
      }""", [tensor("w", [1, 2])])
    yield "if_shadow", model(13, """g (float[2] x, bool c) => (float[2] y) {
        t = Relu(x)
        y = If (c) <
          then_branch = a () => (float[2] o) { u = Neg(t) o = Abs(u) },
          else_branch = b () => (float[2] o) { u = Abs(x) o = Neg(u) }>
      }""")
    yield "if_nested", model(13, """g (float[2] x, bool c, bool d) => (float[2] y) {
        h = Relu(x)
        y = If (c) <
          then_branch = a () => (float[2] o) {
            k = Neg(h)
            o = If (d) <then_branch = aa () => (float[2] p) { p = Add(k, h) },
                        else_branch = bb () => (float[2] r) { r = Mul(x, w) }>
          },
          else_branch = b () => (float[2] s) { s = Abs(x) }>
      }""", [tensor("w", [3, 4])])
    yield "if_old_body", model(11, """g (float[2,3] x, bool c) => (float[2] y) {
        y = If (c) <
          then_branch = a () => (float[2] o) { o = ReduceSum<axes=[1], keepdims=0>(x) },
          else_branch = b () => (float[2] p) { p = ReduceMax<axes=[1], keepdims=0>(x) }>
      }""")
    yield "loop", model(13, """g (float[2] x, int64 n) => (float[2] y, float[m,2] all) {
        h = Neg(x)
        y, all = Loop (n, , x) <
          body = b (int64 i, bool cond, float[2] v) => (bool cond_out, float[2] v2, float[2] s) {
            cond_out = Identity(cond) v2 = Add(v, h) s = Mul(v2, w) }>
      }""", [tensor("w", [0.5, 2])])
    yield "scan", model(13, """g (float[2] a, float[3,2] x) => (float[2] y, float[3,2] z) {
        k = Relu(a)
        y, z = Scan <num_scan_inputs = 1,
          body = b (float[2] s, float[2] e) => (float[2] s2, float[2] o)
          { s2 = Add(s, e) o = Mul(s2, k) }> (a, x)
      }""")


def quantized():
    f = np.float32
    u8, i8, i32 = np.uint8, np.int8, np.int32

    def grid(name, scale, zero, dtype=u8):
        return [tensor(name + "_s", scale), tensor(name + "_z", zero, dtype)]

    x, y = grid("x", 0.02, 120), grid("y", 0.05, 10)
    w = RNG.integers(-100, 100, (4, 2, 3, 3)).astype(i8)
    conv = "g (uint8[1,2,5,5] x) => (uint8[1,4,5,5] y) " \
           "{ y = QLinearConv<pads=[1,1,1,1]>(x, x_s, x_z, w, w_s, w_z, y_s, y_z%s) }"
    yield "qlinear_conv", model(10, conv % "", [*x, *grid("w", 0.01, 3, i8), *y, tensor("w", w, i8)])
    yield "qlinear_conv_bias", model(
        13, conv % ", b",
        [*x, *grid("w", [0.01, 0.02, 0.03, 0.04], [0] * 4, i8), *y, tensor("w", w, i8),
         tensor("b", [100, -200, 300, 0], i32)])
    yield "qlinear_matmul", model(
        10, "g (uint8[2,4] x) => (uint8[2,3] y) "
            "{ y = QLinearMatMul(x, x_s, x_z, w, w_s, w_z, y_s, y_z) }",
        [*x, *y, tensor("w", RNG.integers(-99, 99, (4, 3)), i8),
         *grid("w", [0.01, 0.02, 0.03], [0, 0, 0], i8)])
    gemm = [*x, tensor("w", RNG.integers(-99, 99, (3, 4)), i8),
            *grid("w", [0.01, 0.02, 0.03], [0, 0, 0], i8), tensor("b", [10, -20, 30], i32)]
    yield "qgemm", model(13, "g (uint8[2,4] x) => (uint8[2,3] y) { y = com.microsoft.QGemm"
                             "<transB=1, alpha=1.0>(x, x_s, x_z, w, w_s, w_z, b, y_s, y_z) }",
                         [*gemm, *y], extra=MS)
    yield "qgemm_float", model(13, "g (uint8[2,4] x) => (float[2,3] y) { y = com.microsoft.QGemm"
                                   "<transB=1, alpha=1.0>(x, x_s, x_z, w, w_s, w_z, b) }",
                               gemm, extra=MS)
    for op in ["Add", "Mul"]:
        yield f"qlinear_{op.lower()}", model(
            13, "g (uint8[2,4] x, uint8[4] q) => (uint8[2,4] y) "
                f"{{ y = com.microsoft.QLinear{op}(x, x_s, x_z, q, q_s, q_z, y_s, y_z) }}",
            [*x, *grid("q", 0.03, 100), *y], extra=MS)
    yield "qlinear_concat", model(
        13, "g (uint8[2,3] x, uint8[2,1] q) => (uint8[2,4] y) "
            "{ y = com.microsoft.QLinearConcat<axis=1>(y_s, y_z, x, x_s, x_z, q, q_s, q_z) }",
        [*x, *grid("q", 0.03, 100), *y], extra=MS)
    unary = [("average_pool", "QLinearAveragePool<kernel_shape=[2,2]>", "[1,2,4,4]", "[1,2,3,3]"),
             ("global_average_pool", "QLinearGlobalAveragePool<channels_last=0>", "[1,2,4,4]",
              "[1,2,1,1]"),
             ("leaky_relu", "QLinearLeakyRelu<alpha=0.1>", "[2,4]", "[2,4]"),
             ("sigmoid", "QLinearSigmoid", "[2,4]", "[2,4]"),
             ("softmax", "QLinearSoftmax<axis=1, opset=13>", "[2,4]", "[2,4]"),
             ("softmax_flat", "QLinearSoftmax<axis=1, opset=12>", "[2,3,4]", "[2,3,4]")]
    for name, op, shape, result in unary:
        yield f"qlinear_{name}", model(
            13, f"g (uint8{shape} x) => (uint8{result} y) "
                f"{{ y = com.microsoft.{op}(x, x_s, x_z, y_s, y_z) }}",
            [*x, *grid("y", 0.005 if "softmax" in name or "sigmoid" in name else 0.05, 0)], extra=MS)
    fw = [tensor("w", RNG.normal(size=(2, 2, 1, 1))), tensor("b", [0.5, -0.5])]
    yield "fused_conv", model(
        13, "g (float[1,2,3,3] x) => (float[1,2,3,3] y) { h = com.microsoft.FusedConv"
            '<activation="Relu">(x, w, b) k = com.microsoft.FusedConv<activation="Clip", '
            "activation_params=[-0.25,0.75]>(h, w) y = com.microsoft.FusedConv"
            '<activation="LeakyRelu", activation_params=[0.1]>(k, w, b) }', fw, extra=MS)
    yield "fused_conv_sum", model(
        13, "g (float[1,2,3,3] x) => (float[1,2,3,3] y) { y = com.microsoft.FusedConv"
            '<activation="Relu">(x, w, b, x) }', fw, extra=MS)
    gw = [tensor("w", RNG.normal(size=(3, 2))), tensor("b", [0.5, -0.5, 0])]
    yield "fused_gemm", model(
        13, "g (float[4,2] x) => (float[4,3] y) { y = com.microsoft.FusedGemm<transB=1, "
            'activation="LeakyRelu", activation_alpha=0.2>(x, w, b) }', gw, extra=MS)
    yield "fused_matmul", model(
        13, "g (float[4,2] x) => (float[2,2] y) { y = com.microsoft.FusedMatMul<transA=1, "
            "alpha=0.5>(x, x) }", extra=MS)
    yield "gelus", model(
        13, "g (float[4] x) => (float[4] y) { h = com.microsoft.Gelu(x) "
            "y = com.microsoft.QuickGelu<alpha=1.5>(h) }", extra=MS)
    # As onnxruntime's quantizer writes it: a bias scale [1] with a scalar zero point.
    yield "qdq_shapes_13", model(
        13, "g (int32[3] x) => (float[3] y) { y = DequantizeLinear<axis=0>(x, s, z) }",
        [tensor("s", [0.25]), tensor("z", 0, i32)])
    yield "microsoft_qdq", model(
        13, "g (float[2,4] x) => (float[2,4] y) { q = com.microsoft.QuantizeLinear(x, s, z) "
            "y = com.microsoft.DequantizeLinear(q, s, z) }",
        [tensor("s", 0.01), tensor("z", 30000, np.uint16)], extra=MS)
    yield "qdq_13", model(
        13, "g (float[1,2,5,5] x) => (float[1,4,5,5] y) { q = QuantizeLinear(x, x_s, x_z) "
            "d = DequantizeLinear(q, x_s, x_z) v = DequantizeLinear<axis=0>(w, w_s, w_z) "
            "c = Conv<pads=[1,1,1,1]>(d, v) r = QuantizeLinear(c, y_s, y_z) "
            "y = DequantizeLinear(r, y_s, y_z) }",
        [*x, *grid("w", [0.01, 0.02, 0.03, 0.04], [0] * 4, i8), *y, tensor("w", w, i8)])
    yield "qdq_no_zero_point_21", model(
        21, "g (float[4] x) => (float[4] y) "
            "{ q = QuantizeLinear<output_dtype=3>(x, s) y = DequantizeLinear(q, s) }",
        [tensor("s", 0.1)])
    yield "qdq_int16_21", model(
        21, "g (float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z) "
            "y = DequantizeLinear(q, s, z) }", [tensor("s", 0.001), tensor("z", 5, np.int16)])
    i4 = helper.make_tensor("w", TensorProto.INT4, [8, 3], RNG.integers(-8, 8, 24).tolist())
    yield "blocked_int4_21", model(
        21, "g (float[2,8] x) => (float[2,3] y) "
            "{ v = DequantizeLinear<axis=0, block_size=4>(w, s) y = MatMul(x, v) }",
        [i4, tensor("s", np.abs(RNG.normal(size=(2, 3))))])
    i2 = helper.make_tensor("w", TensorProto.INT2, [4, 3], RNG.integers(-2, 2, 12).tolist())
    yield "int2_25", model(
        25, "g (float[2,4] x) => (float[2,3] y) "
            "{ v = DequantizeLinear<axis=0, block_size=2>(w, s) y = MatMul(x, v) }",
        [i2, tensor("s", np.abs(RNG.normal(size=(2, 3))))])
    yield "dynamic", model(
        11, "g (float[2,4] x) => (float[2,3] y) { q, s, z = DynamicQuantizeLinear(x) "
            "a = MatMulInteger(q, w, z) c = Cast<to=1>(a) p = Mul(s, w_s) y = Mul(c, p) }",
        [tensor("w", RNG.integers(-99, 99, (4, 3)), i8), tensor("w_s", 0.02, f)])


def make():
    CORPUS.mkdir(parents=True, exist_ok=True)
    for old in CORPUS.glob("*"):
        old.unlink()
    for group in [old_opsets, constants, typed_data, features, functions, subgraphs, quantized]:
        for name, m in group():
            if name not in UNCHECKED:
                try:
                    onnx.checker.check_model(m)
                except Exception as e:
                    sys.exit(f"{name}: {e}")
            (CORPUS / f"{name}.onnx").write_bytes(m.SerializeToString(deterministic=True))
    total = sum(f.stat().st_size for f in CORPUS.glob("*"))
    print(len(list(CORPUS.glob("*"))), "files,", total, "bytes")


# --- checking what narrow wrote --------------------------------------------------------------------

TYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_,
         "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16,
         "int32": np.int32, "uint32": np.uint32, "int64": np.int64, "uint64": np.uint64}


def feeds(session):
    rng = np.random.default_rng(1)
    out = {}
    for i in session.get_inputs():
        shape = [d if isinstance(d, int) else 2 for d in i.shape]
        dtype = TYPES[i.type[7:-1]]
        if dtype == np.bool_:
            out[i.name] = rng.integers(0, 2, shape).astype(dtype)
        elif np.issubdtype(dtype, np.integer):
            out[i.name] = rng.integers(0, 5, shape).astype(dtype)
        else:
            out[i.name] = rng.normal(size=shape).astype(dtype)
    return out


def run(path, optimised=False):
    import onnxruntime as ort
    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return {o.name: v for o, v in zip(session.get_outputs(), session.run(None, feeds(session)))}


# Differences that are meant, as tolerances. Before opset 14 BatchNormalization with five outputs
# trains; onnxruntime rounds nothing to float16 in its Clip of opset 6.
TOLERANCE = {"batch_norm_9": np.inf, "clip_half_10": 1e-3}


def check_file(original, written):
    onnx.checker.check_model(str(written), full_check=True)
    opset = [o.version for o in onnx.load(str(written)).opset_import if o.domain == ""][0]
    try:
        want = run(original)
    except Exception as e:  # beyond onnxruntime, or against the rules where narrow is lenient
        return f"opset {opset}; checked only, onnxruntime refuses the original: {str(e)[:90]!r}"
    got = run(written)
    assert list(want) == list(got), (list(want), list(got))
    # A QLinear operator rounds once; QDQ through float may land on the neighbouring code.
    rounded = "qlinear" in original.name or "qgemm" in original.name
    tolerance = TOLERANCE.get(original.stem, 1 if rounded else 2e-6)
    worst = 0.0
    for name, a in want.items():
        b = got[name]
        assert a.shape == b.shape and a.dtype == b.dtype, (name, a.shape, b.shape, a.dtype, b.dtype)
        if a.size:
            a, b = a.astype(np.float64), b.astype(np.float64)
            assert np.array_equal(np.isnan(a), np.isnan(b)), f"{name}: NaN in other places"
            worst = max(worst, np.max(np.abs(np.nan_to_num(a) - np.nan_to_num(b))))
    assert worst <= tolerance, f"outputs differ by {worst}"
    return f"opset {opset}; outputs differ by {worst:.3g}"


def check(folder, files):
    failed = 0
    corpus = [f for f in sorted(CORPUS.glob("*.onnx")) if f.stem != "unknown_ops"]
    for original in map(pathlib.Path, files) if files else corpus:
        written = pathlib.Path(folder) / original.name
        try:
            print(f"{original.name}: {check_file(original, written)}")
        except Exception as e:
            failed += 1
            print(f"{original.name}: FAILED {type(e).__name__}: {str(e)[:500]}")
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make()
    elif sys.argv[1:2] == ["check"] and len(sys.argv) > 2:
        sys.exit(check(sys.argv[2], sys.argv[3:]) > 0)
    else:
        sys.exit(__doc__)
