# SPDX-License-Identifier: Apache-2.0
"""What the comparisons share: data, the program, the peers."""
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
NARROW = os.environ.get("NARROW", str(ROOT / "build/release/bin/narrow"))
ASSETS = pathlib.Path(os.environ.get("NARROW_ASSETS", ROOT.parent / "shared/assets"))
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
CIFAR_SPEC = ("mean=0.485/0.456/0.406,std=0.229/0.224/0.225,scale=1/255")


def narrow(*args, check=True, threads=None):
    """Runs the program with --json and returns the object it prints."""
    command = [NARROW, *map(str, args), "--json"]
    if threads:
        command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else {"exit": done.returncode}


def idx(path):
    with gzip.open(path) as f:
        data = f.read()
    rank = data[3]
    dims = [int.from_bytes(data[4 + 4 * i: 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(dims)


def mnist_like(folder, split):
    stem = "train" if split == "train" else "t10k"
    x = idx(folder / f"{stem}-images-idx3-ubyte.gz").astype(np.float32)[:, None] / np.float32(255)
    return x, idx(folder / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64)


def cifar_folder(work):
    """The jpeg test images, unpacked."""
    folder = work / "cifar10"
    if not folder.exists():
        folder.mkdir(parents=True)
        subprocess.run(["tar", "xzf", ASSETS / "cifar10/cifar10_test_jpeg.tar.gz", "-C", folder], check=True)
    return folder / "test"


def cifar(folder):
    from PIL import Image
    xs, ys = [], []
    for label, name in enumerate(sorted(p.name for p in folder.iterdir())):
        for path in sorted((folder / name).iterdir()):
            image = np.asarray(Image.open(path).convert("RGB"), np.float32) / np.float32(255)
            xs.append(((image - MEAN) / STD).transpose(2, 0, 1))
            ys.append(label)
    return np.stack(xs), np.array(ys, np.int64)


def ort_session(path, threads=1):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ort_run(session, x, batch=100):
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i:i + batch]})[0] for i in range(0, len(x), batch)])


def openvino_run(path, x, batch=100):
    import openvino as ov
    core = ov.Core()
    model = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([model(x[i:i + batch])[model.output(0)] for i in range(0, len(x), batch)])


def top1(logits, labels):
    return 100.0 * float(np.mean(np.argmax(logits, -1) == labels))


def agreement(a, b):
    return 100.0 * float(np.mean(np.argmax(a, -1) == np.argmax(b, -1)))


def ort_quantize(source, target, x, name, method="MinMax", batch=1, per_channel=True):
    """onnxruntime's static quantization: QDQ, uint8 activations, int8 weights."""
    import logging
    logging.disable(logging.WARNING)
    from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType,
                                          quantize_static)
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{name: x[i:i + batch]} for i in range(0, len(x), batch)])

        def get_next(self):
            return next(self.batches, None)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared = pathlib.Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        calibrate_method=getattr(CalibrationMethod, method))
    return time.perf_counter() - start


def cpu():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags"))
    best = "AMX" if "amx_int8" in flags else "AVX-512 VNNI" if "avx512_vnni" in flags else "AVX2"
    return f"{model}, {os.cpu_count()} cores, {best}"


def table(title, header, rows):
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    sys.stdout.flush()
