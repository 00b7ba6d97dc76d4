# SPDX-License-Identifier: Apache-2.0
"""Inference, narrow against onnxruntime, OpenVINO and LiteRT: interleaved on the same inputs, answers compared.
Usage: runtimes.py WORK_FOLDER [NETWORK ...]     (--memory RUNTIME MODEL INPUTS, --openvino MODEL INPUTS: asked by itself)
BATCHES (1,32; 8 too for shapes of ImageNet), THREADS (1,2), ROUNDS (3) in the environment. onnxruntime runs its own
int8 file and narrow's float file; OpenVINO runs narrow's int8 file (answers compared too) and the float one."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

import accuracy
import common as c
import shapes

ROUNDS = int(os.environ.get("ROUNDS", "3"))
THREADS = [int(t) for t in os.environ.get("THREADS", "1,2").split(",")]
BATCHES = [int(b) for b in os.environ.get("BATCHES", "1,8,32").split(",")]
SECONDS = 0.5
ISAS = {"avx512_vnni": "AVX512_CORE_VNNI", "avx_vnni": "AVX2_VNNI", "avx2": "AVX2"}  # narrow's and OpenVINO's names
LITERT = {"MobileNetV2": c.ASSETS / "imagenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
          "ResNet-8": c.ASSETS / "mlperf-tiny/models/pretrainedResnet_quant.tflite"}


class Network:
    def __init__(self, title, model, x, batches, data=None):
        self.title, self.model, self.x, self.batches, self.data = title, pathlib.Path(model), x, batches, data
        self.name = accuracy.name_of(self.model)


def random_images(*shape, scale=1.0):
    """Smooth noise, with zeros as photos behind a normalisation have them on both sides."""
    r = np.random.default_rng(3).standard_normal((*shape[:2], shape[2] // 4, shape[3] // 4)).astype(np.float32)
    return np.kron(r, np.ones((1, 1, 4, 4), np.float32)) * np.float32(scale)


def networks(work):
    mnist = c.mnist_like(c.ASSETS / "mnist", "test")[0][:64]
    fashion = c.mnist_like(c.FASHION, "test")[0][:64]
    small, large = [1, 32], BATCHES
    ours = [Network("MNIST CNN", c.ROOT / "assets/mnist_cnn.onnx", mnist, small),
            Network("ONNX zoo MNIST", c.ASSETS / "onnx-mnist/mnist.onnx", mnist * 255, [1]),
            Network("ResNet-20 (gray)", c.ROOT / "assets/resnet20_fashion.onnx", fashion, small),
            Network("ResNet-20", c.ASSETS / "cifar10/resnet20_cifar10.onnx", random_images(64, 3, 32, 32), small),
            Network("UltraFace slim", c.ASSETS / "ultraface/version-slim-320_simplified.onnx",
                    random_images(4, 3, 240, 320, scale=0.5), [1]),
            Network("FastestDet", c.ASSETS / "fastestdet/FastestDet.onnx", random_images(4, 3, 352, 352, scale=0.5), [1]),
            Network("ResNet-8", shapes.make("resnet8", work / "resnet8.onnx"), random_images(64, 3, 32, 32), small),
            Network("MobileNetV2", shapes.make("mobilenet_v2", work / "mobilenet_v2.onnx"),
                    random_images(32, 3, 224, 224), large),
            Network("ResNet-50", shapes.make("resnet50", work / "resnet50.onnx"), random_images(32, 3, 224, 224), large)]
    return ours


def prepare(n, work):
    stem = n.title.replace(" ", "_")
    n.model = modern(n.model, work / f"{stem}.onnx")
    ours, theirs = work / f"{stem}.narrow.onnx", work / f"{stem}.ort.onnx"
    samples = n.x[:8]
    if not ours.exists():
        np.savez(work / "calibration.npz", **{n.name: samples})
        c.narrow("quantize", n.model, "-o", ours, "--data", f"npz:{work}/calibration.npz", "--weights", "int8",
                 "--activations", "uint8")
    if not theirs.exists():
        try:
            c.ort_quantize(n.model, theirs, samples, n.name)
        except ValueError:  # its quantizer takes no biases of two dimensions per channel
            c.ort_quantize(n.model, theirs, samples, n.name, per_channel=False)
    return ours, theirs


def modern(path, target):
    """Opset 13, as onnxruntime's quantizer needs per channel, and constants that are no inputs, as its passes need."""
    import onnx
    model = onnx.load(str(path))
    constants = {i.name for i in model.graph.initializer}
    if model.opset_import[0].version >= 13 and not any(i.name in constants for i in model.graph.input):
        return path
    if model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 13)
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    onnx.save(model, str(target))
    return target


def median_us(run):
    for _ in range(3):
        run()
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def of_ort(path, x, threads):
    session = c.ort_session(path, threads)
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def of_openvino(path, x, threads):
    import openvino as ov
    core = ov.Core()
    model = core.read_model(str(path))
    if model.input(0).partial_shape.is_dynamic:
        model.reshape(list(x.shape))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(x.copy()))
    return lambda: (request.infer(), request.get_output_tensor(0).data)[1]


def of_litert(path, threads):
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    i = interpreter.get_input_details()[0]
    interpreter.set_tensor(i["index"], np.random.default_rng(1).integers(0, 100, i["shape"]).astype(i["dtype"]))
    return interpreter.invoke


def of_narrow(path, batch, threads):
    return lambda: c.narrow("bench", path, "--batch", batch, "--seconds", SECONDS, threads=threads)["median_us"]


def narrow_output(path, name, x, work):
    """The first one."""
    np.savez(work / "in.npz", **{name: x})
    c.narrow("run", path, "--input", f"{work}/in.npz", "--output", work / "out.npz")
    return np.load(work / "out.npz")[c.ort_session(path, 1).get_outputs()[0].name]


def distance(a, b):
    """Relative to the range of the values."""
    return float(np.abs(a - b).max() / max(1e-9, b.max() - b.min()))


def status_mb(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1e3


def grown_by(runtime, path, inputs):
    """Megabytes that loading and running a model take beyond Python and the runtime's own libraries."""
    x = next(iter(np.load(inputs).values()))
    of = {"onnxruntime": of_ort, "OpenVINO": of_openvino}[runtime]
    __import__(runtime.lower())
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = status_mb("VmRSS")
    run = of(path, x, 1)
    for _ in range(10):
        run()
    return status_mb("VmHWM") - before


def ask(*arguments, **environment):
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=True,
                          env=os.environ | environment)
    return [float(v) for v in done.stdout.split()[-2:]]


def memory(n, ours, theirs, work):
    """narrow's is that of the whole program."""
    np.savez(work / "in.npz", **{n.name: n.x[:1]})
    out = {"narrow": c.narrow("bench", ours, "--runs", 10, threads=1)["peak_rss_bytes"] / 1e6}
    for runtime, path in (("onnxruntime", theirs), ("OpenVINO", ours)):
        out[runtime] = ask("--memory", runtime, path, work / "in.npz")[-1]
    return out


def measure(n, work):
    ours, theirs = prepare(n, work)
    rows = []
    x = n.x[:1]
    mine = narrow_output(ours, n.name, x, work)
    agree = {"onnxruntime": distance(mine, c.ort_session(ours, 1).run(None, {n.name: x})[0]),
             "openvino": distance(mine, np.array(of_openvino(ours, x, 1)())),
             "float": distance(narrow_output(n.model, n.name, x, work),
                               c.ort_session(n.model, 1).run(None, {n.name: x})[0])}
    agree["memory"] = memory(n, ours, theirs, work)
    for batch in n.batches:
        x = np.ascontiguousarray(n.x[:batch])
        for threads in THREADS:
            runs = {"narrow int8": of_narrow(ours, batch, threads), "narrow float": of_narrow(n.model, batch, threads)}
            peers = {"ort int8": of_ort(theirs, x, threads), "ort float": of_ort(n.model, x, threads),
                     "ov int8": of_openvino(ours, x, threads), "ov float": of_openvino(n.model, x, threads)}
            if n.title in LITERT and batch == 1:
                peers["litert int8"] = of_litert(LITERT[n.title], threads)
            times = {name: [] for name in [*runs, *peers]}
            for _ in range(ROUNDS):  # one after the other: a slow moment hits all
                for name, run in runs.items():
                    times[name].append(run())
                for name, run in peers.items():
                    times[name].append(median_us(run))
            rows.append({"network": n.title, "batch": batch, "threads": threads, "times": times, "agree": agree})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def ratio(row, a, *others):
    """Median over the rounds of a's time over the best of the others' in that round, and its range."""
    per_round = [mine / min(row["times"][o][i] for o in others) for i, mine in enumerate(row["times"][a])]
    return statistics.median(per_round), min(per_round), max(per_round)


def by_instruction_set(n, work):
    """Batch 1, one thread: the fastest of the rounds, and what convolutions reach of the measured peak."""
    model = prepare(n, work)[0]
    np.savez(work / "in.npz", **{n.name: n.x[:1]})
    rows = []
    for isa, theirs in ISAS.items():
        runs, openvino, differences = [], [], []
        for _ in range(ROUNDS):
            runs.append(c.narrow("bench", model, "--profile", "--isa", isa, "--seconds", SECONDS, threads=1))
            difference, us = ask("--openvino", model, work / "in.npz", ONEDNN_MAX_CPU_ISA=theirs)
            openvino.append(us)
            differences.append(difference)
        best = min(runs, key=lambda r: r["median_us"])
        convs = [p for p in best["profile"] if p["op"].startswith("narrow::QConv") and p["bound"] == "int8"]
        share = sum(p["macs"] for p in convs) / sum(p["macs"] / p["peak_fraction"] for p in convs) if convs else 0
        rows.append([n.title, isa, f"{best['median_us']:.0f}", f"{min(openvino):.0f}",
                     f"{best['median_us'] / min(openvino):.2f}", f"{max(differences):.1e}", f"{100 * share:.0f} %",
                     f"{100 * min((p['peak_fraction'] for p in convs), default=0):.0f} %",
                     f"{best['peaks']['int8_gops']:.0f}"])
    return rows


def report(rows):
    def cell(row, a, *others):
        if any(o not in row["times"] for o in others):
            return ""
        middle, low, high = ratio(row, a, *others)
        return f"{middle:.2f} ({low:.2f}..{high:.2f})"

    def us(row, name):
        return f"{statistics.median(row['times'][name]):.0f}" if name in row["times"] else ""

    c.table("int8 inference, microseconds; ratios below 1 are narrow's",
            ["network", "batch", "threads", "narrow", "onnxruntime", "OpenVINO", "LiteRT", "/ onnxruntime",
             "/ best of OpenVINO", "/ LiteRT"],
            [[r["network"], r["batch"], r["threads"], us(r, "narrow int8"), us(r, "ort int8"), us(r, "ov int8"),
              us(r, "litert int8"), cell(r, "narrow int8", "ort int8"), cell(r, "narrow int8", "ov int8", "ov float"),
              cell(r, "narrow int8", "litert int8")] for r in rows])
    c.table("float inference, microseconds",
            ["network", "batch", "threads", "narrow", "onnxruntime", "OpenVINO", "/ onnxruntime", "narrow float / int8"],
            [[r["network"], r["batch"], r["threads"], us(r, "narrow float"), us(r, "ort float"), us(r, "ov float"),
              cell(r, "narrow float", "ort float"), cell(r, "narrow float", "narrow int8")] for r in rows])
    seen = {r["network"]: r["agree"] for r in rows}
    c.table("Largest difference of the outputs, relative to their range: the same int8 file elsewhere, and float",
            ["network", "onnxruntime", "OpenVINO", "float, onnxruntime"],
            [[t, f"{a['onnxruntime']:.1e}", f"{a['openvino']:.1e}", f"{a['float']:.1e}"] for t, a in seen.items()])
    c.table("Peak memory of int8 inference at batch 1, MB: narrow's whole process; peers beyond Python and their libraries",
            ["network", "narrow", "onnxruntime", "OpenVINO"],
            [[t, *(f"{a['memory'][r]:.0f}" for r in ("narrow", "onnxruntime", "OpenVINO"))] for t, a in seen.items()])
    summary = []
    for title, a, others in (("int8 / onnxruntime int8", "narrow int8", ["ort int8"]),
                             ("int8 / better of OpenVINO int8 and float", "narrow int8", ["ov int8", "ov float"]),
                             ("int8 / LiteRT int8", "narrow int8", ["litert int8"]),
                             ("float / onnxruntime float", "narrow float", ["ort float"]),
                             ("int8 / float, narrow", "narrow int8", ["narrow float"])):
        all_of = [(ratio(r, a, *others)[0], f"{r['network']} batch {r['batch']} threads {r['threads']}") for r in rows
                  if all(o in r["times"] for o in others)]
        if all_of:
            worst = max(all_of)
            mean = statistics.geometric_mean([v for v, _ in all_of])
            summary.append([title, f"{mean:.2f}", f"{worst[0]:.2f} ({worst[1]})"])
    c.table("Geometric means", ["", "mean", "worst"], summary)


if __name__ == "__main__":
    if sys.argv[1] == "--memory":
        print(f"{grown_by(*sys.argv[2:]):.1f}")
        sys.exit()
    if sys.argv[1] == "--openvino":
        path, inputs = sys.argv[2:]
        (name, x), = np.load(inputs).items()
        run = of_openvino(path, x, 1)
        print(distance(np.array(run()), c.ort_session(path, 1).run(None, {name: x})[0]), median_us(run))
        sys.exit()
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(c.cpu())
    wanted = sys.argv[2:]
    chosen = [n for n in networks(folder) if not wanted or n.title in wanted]
    report([row for n in chosen for row in measure(n, folder)])
    c.table("By instruction set: the same int8 file, batch 1, one thread",
            ["network", "instructions", "narrow, us", "OpenVINO", "ratio", "OpenVINO's difference",
             "convolutions / int8 peak", "least of them", "peak, GOPS"],
            [row for n in chosen for row in by_instruction_set(n, folder)])
