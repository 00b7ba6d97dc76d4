# SPDX-License-Identifier: Apache-2.0
"""Accuracy of narrow's quantized networks, agreement of the written files with onnxruntime and OpenVINO, and
agreement of narrow with onnxruntime on onnxruntime's own files. Usage: accuracy.py WORK_FOLDER"""
import pathlib
import sys

import numpy as np

import common as c


def networks(work):
    cifar = c.cifar_folder(work)
    xc, yc = c.cifar(cifar)
    fashion, mnist = c.FASHION, c.ASSETS / "mnist"
    return [
        ("Fashion CNN", c.ROOT / "assets/fashion_cnn.onnx", f"mnist:{fashion},split=train", f"mnist:{fashion},split=test",
         c.mnist_like(fashion, "test"), c.mnist_like(fashion, "train")[0]),
        ("MNIST CNN", c.ROOT / "assets/mnist_cnn.onnx", f"mnist:{mnist},split=train", f"mnist:{mnist},split=test",
         c.mnist_like(mnist, "test"), c.mnist_like(mnist, "train")[0]),
        ("ResNet-20", c.ASSETS / "cifar10/resnet20_cifar10.onnx", f"images:{cifar},{c.CIFAR_SPEC}",
         f"images:{cifar},{c.CIFAR_SPEC}", (xc, yc), xc),
    ]


def narrow_logits(model, x, work):
    """narrow's own outputs, batch by batch, through npz files."""
    out = []
    for i in range(0, len(x), 1000):
        np.savez(work / "in.npz", **{name_of(model): x[i:i + 1000]})
        c.narrow("run", model, "--input", f"{work}/in.npz", "--output", work / "out.npz")
        z = np.load(work / "out.npz")
        out.append(z[z.files[0]])
    return np.concatenate(out)


def name_of(model):
    import onnx
    m = onnx.load(str(model), load_external_data=False)
    constants = {i.name for i in m.graph.initializer}
    return next(i.name for i in m.graph.input if i.name not in constants)


def main(work):
    modes = [
        ("static w8a8", ["--mode", "static", "--weights", "int8", "--activations", "uint8"]),
        ("dynamic w8", ["--mode", "dynamic", "--weights", "int8"]),
        ("weight-only w4g32", ["--mode", "weight_only", "--weights", "int4", "--group-size", "32"]),
    ]
    rows, exchange = [], []
    for title, model, data, eval_data, (x, y), train in networks(work):
        float_top1 = c.narrow("eval", model, "--data", eval_data, "--metric", "top1")["value"]
        for mode, flags in modes:
            if title == "ResNet-20" and mode != "static w8a8":
                continue
            target = work / f"{title.replace(' ', '_')}.{mode.split()[0]}.onnx"
            c.narrow("quantize", model, "-o", target, *flags, "--data", data, "--calibration-samples", "500")
            value = c.narrow("eval", target, "--data", eval_data, "--metric", "top1")["value"]
            info = c.narrow("inspect", target)
            fraction = info.get("integer_mac_fraction", 0.0)
            size = target.stat().st_size / model.stat().st_size
            rows.append([title, mode, f"{float_top1:.2f}", f"{value:.2f}", f"{value - float_top1:+.2f}", f"{size:.3f}",
                         f"{fraction:.4f}"])
            if mode == "static w8a8":
                exchange.append(exchange_row(title, model, target, x, y, train, work))
    c.table("Accuracy (10,000 test images) and size", ["network", "mode", "float", "quantized", "difference",
                                                       "size / float", "integer MACs"], rows)
    c.table("The same file elsewhere", ["network", "narrow top-1", "onnxruntime top-1", "agreement narrow/onnxruntime %",
                                        "OpenVINO top-1", "agreement narrow/OpenVINO %",
                                        "agreement onnxruntime/OpenVINO %",
                                        "onnxruntime's own int8 file: top-1", "narrow on it: agreement %"], exchange)


def exchange_row(title, model, target, x, y, train, work):
    ours = narrow_logits(target, x, work)
    ort = c.ort_run(c.ort_session(target, 2), x)
    ov = c.openvino_run(target, x)
    theirs = work / f"{title.replace(' ', '_')}.ort.onnx"
    samples = train[np.random.default_rng(1).permutation(len(train))[:500]]
    c.ort_quantize(model, theirs, samples, name_of(model), batch=1)
    ort_own = c.ort_run(c.ort_session(theirs, 2), x)
    ours_on_theirs = narrow_logits(theirs, x, work)
    return [title, f"{c.top1(ours, y):.2f}", f"{c.top1(ort, y):.2f}", f"{c.agreement(ours, ort):.2f}",
            f"{c.top1(ov, y):.2f}", f"{c.agreement(ours, ov):.2f}", f"{c.agreement(ort, ov):.2f}",
            f"{c.top1(ort_own, y):.2f}", f"{c.agreement(ours_on_theirs, ort_own):.2f}"]


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(c.cpu())
    main(folder)
