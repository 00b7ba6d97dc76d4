# SPDX-License-Identifier: Apache-2.0
"""Each quantized layer of narrow's QDQ files by itself in onnxruntime, fed the codes that narrow computed in front of
it: how many of its output codes differ from narrow's, and by how much. Needs the files that accuracy.py and
detectors.py left. Usage: one_step.py WORK_FOLDER"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import helper

import accuracy
import common as c
import detectors


def code_values(model):
    """Names of the activations' codes, in order: what a QuantizeLinear of an activation writes."""
    constants = {i.name for i in model.graph.initializer}
    return [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]


def with_outputs(model, names):
    """The model with these values as its outputs."""
    types = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    zero_points = {n.output[0]: n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    constants = {i.name: i.data_type for i in model.graph.initializer}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in names:
        known = types.get(name)
        copy.graph.output.append(known if known is not None else helper.make_tensor_value_info(
            name, constants[zero_points[name]], None))
    return copy


def layer_model(model, output, codes):
    """The nodes between `output` and the nearest codes in front of it, as a model; None if it reads none."""
    makers = {o: n for n in model.graph.node for o in n.output}
    constants = {i.name: i for i in model.graph.initializer}
    nodes, inputs, used, todo, seen = [], [], [], [output], set()
    while todo:
        name = todo.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if name in constants:
            used.append(constants[name])
        elif name in codes and name != output:
            inputs.append(name)
        elif name in makers:
            if makers[name] not in nodes:
                nodes.append(makers[name])
            todo.extend(makers[name].input)
        else:
            return None, []  # a float input of the whole model
    ordered = [n for n in model.graph.node if any(n is m for m in nodes)]
    typed = {v.name: v for v in with_outputs(model, list(inputs) + [output]).graph.output}
    graph = helper.make_graph(ordered, "layer", [typed[i] for i in inputs], [typed[output]], used)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version), inputs


def differences(path, x, work):
    model = onnx.load(str(path))
    codes = code_values(model)
    probe = work / "probe.onnx"
    onnx.save(with_outputs(model, codes), str(probe))
    np.savez(work / "in.npz", **{accuracy.name_of(path): x})
    c.narrow("run", probe, "--input", f"{work}/in.npz", "--output", work / "out.npz")
    ours = np.load(work / "out.npz")
    layers = elements = differing = most = 0
    for output in codes:
        layer, inputs = layer_model(model, output, set(codes))
        if layer is None or not inputs:
            continue
        onnx.save(layer, str(work / "layer.onnx"))
        theirs = c.ort_session(work / "layer.onnx", 2).run(None, {i: ours[i] for i in inputs})[0]
        step = np.abs(theirs.astype(np.int32) - ours[output].astype(np.int32))
        layers, elements, differing = layers + 1, elements + step.size, differing + int((step > 0).sum())
        most = max(most, int(step.max(initial=0)))
    return layers, elements, differing, most


def main(work):
    rows = []
    cases = [(title, work / f"{title.replace(' ', '_')}.static.onnx", x[:200])
             for title, _, _, _, (x, _), _ in accuracy.networks(work)]
    pictures = [detectors.load(c.ASSETS / "ultraface/photos" / p, (320, 240), "rgb", 127, 128) for p in detectors.PHOTOS]
    cases.append(("UltraFace slim", work / "ultraface.narrow.onnx", pictures[0]))
    photo = sorted(detectors.photos(work)[1].iterdir())[0]
    cases.append(("FastestDet", work / "fastestdet.minmax.onnx", detectors.load(photo, (352, 352), "bgr", 0, 255)))
    for title, path, x in cases:
        layers, elements, differing, most = differences(path, x, work)
        rows.append([title, layers, f"{elements:,}", differing, f"{100 * differing / elements:.5f}", most])
    c.table("Each quantized layer in onnxruntime on narrow's own codes",
            ["network", "layers", "codes compared", "different", "%", "most steps"], rows)


if __name__ == "__main__":
    print(c.cpu())
    main(pathlib.Path(sys.argv[1]))
