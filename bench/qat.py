#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training figures: from scratch, and quantization-aware training beside post-training quantization and beside the
float network trained on for as many epochs. Each run is kept in WORK_FOLDER/qat.jsonl and not made again, so that the
script may be stopped and started; the tables come from that file.

Usage: qat.py WORK_FOLDER [PART ...]      parts: scratch fashion mnist resnet smaller methods fastestdet (default: all)
NARROW names the program, MNIST the folder of the digits, SEEDS how many, EPOCHS how many a variant has."""
import json
import os
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
import common as c  # noqa: E402

WORK = pathlib.Path(sys.argv[1])
MNIST = pathlib.Path(os.environ.get("MNIST", c.ASSETS / "mnist"))
SEEDS = range(1, int(os.environ.get("SEEDS", "3")) + 1)
EPOCHS = int(os.environ.get("EPOCHS", "2"))
THIN_EPOCHS = 5
LR = {"float": "1e-4", "w8a8": "1e-4", "w4a4": "3e-4", "w2a4": "1e-3", "w2a2": "1e-3"}
ALLOWED = {"mnist": {"w8a8": 0.05, "w4a4": 0.15, "w2a2": 0.6}, "fashion": {"w8a8": 0.1, "w4a4": 0.5, "w2a2": 2.0}}


def data(folder, more=""):
    return ["--data", f"mnist:{folder},split=train{more}", "--eval-data", f"mnist:{folder}"]


def run(key, *arguments):
    """The report of a training run, made once."""
    log = WORK / "qat.jsonl"
    done = {}
    if log.exists():
        done = {r["key"]: r for r in map(json.loads, log.read_text().splitlines())}
    if key not in done:
        out = WORK / f"{key.replace(' ', '_')}.onnx"
        arguments = ["train", *map(str, arguments), "-o", out]
        report = c.narrow(*arguments, threads=1)
        record = {"key": key, "command": "narrow " + " ".join(map(str, arguments)), "metric": report.get("metric"),
                  "ptq": report.get("metric_ptq"), "before": report.get("metric_before"),
                  "best_epoch": report["best_epoch"], "seconds": report["wall_seconds"],
                  "samples_per_second": max(e["samples_per_second"] for e in report["epochs"])}
        record.update({k: report[k] for k in ("prune", "thinned") if k in report})
        with open(log, "a") as f:
            f.write(json.dumps(record) + "\n")
        print(f"{key}: {record['metric']}, untrained {record['ptq']}, {record['seconds']:.0f} s", file=sys.stderr)
        done[key] = record
    return done[key]


def last(record):
    return record["metric"]


def scratch():
    rows = []
    for name, folder, arguments, least in (
            ("MNIST CNN", MNIST, ["--arch", "mnist_cnn", "--epochs", 10, "--lr", "1e-3"], 98.9),
            ("Fashion CNN", c.FASHION, ["--arch", "fashion_cnn", "--epochs", 12, "--optimizer", "adamw", "--weight-decay", "0.01", "--lr",
                                        "1e-3",
                                        "--schedule", "cosine", "--flip"], 92.0)):
        r = run(f"scratch {name}", *arguments, "--batch", 100, *data(folder))
        rows.append([name, f"{last(r):.2f}", least, f"{r['seconds']:.0f}"])
    c.table("From scratch", ["network", "top-1", "at least", "seconds"], rows)


def variants(title, model, folder, extra):
    rows = []
    fine_tuned = []
    for seed in SEEDS:
        fine_tuned.append(last(run(f"{title} float {seed}", model, "--epochs", EPOCHS, "--lr", LR["float"], "--schedule",
                                   "cosine", "--seed", seed, *data(folder), *extra)))
    reference = statistics.mean(fine_tuned)
    rows.append(["float, trained on", "", f"{reference:.2f}", "", ""])
    for bits, allowed in ALLOWED[title].items():
        trained, untrained = [], []
        for seed in SEEDS:
            r = run(f"{title} {bits} {seed}", model, "--qat", bits, "--epochs", EPOCHS, "--lr", LR[bits], "--schedule",
                    "cosine", "--seed", seed, *data(folder), *extra)
            trained.append(last(r))
            untrained.append(r["ptq"])
        mean = statistics.mean(trained)
        rows.append([bits, f"{statistics.mean(untrained):.2f}", f"{mean:.2f}", f"{mean - reference:+.2f}",
                     f"-{allowed}"])
    c.table(f"{title}: QAT, mean of {len(SEEDS)} seeds, {EPOCHS} epochs",
            ["", "untrained", "trained", "to float", "allowed"], rows)


def resnet():
    model = c.ROOT / "assets/resnet20_fashion.onnx"
    folder = c.FASHION
    training = ["--epochs", EPOCHS, "--schedule", "cosine", *data(folder), "--flip"]
    float_run = run("resnet float", model, "--lr", LR["float"], *training)
    rows = [["float", f"{float_run['before']:.2f}", "", "", "", ""],
            ["float, trained on", "", "", "", f"{last(float_run):.2f}", ""]]
    for bits in ("w4a4", "w2a4"):
        plain = run(f"resnet {bits}", model, "--qat", bits, "--lr", LR[bits], *training)
        distilled = run(f"resnet {bits} distilled", model, "--qat", bits, "--lr", LR[bits], "--loss", "distill",
                        "--distill-weight", "0.7", *training)
        row = [bits]
        for correction in ("none", "fast"):
            made = c.narrow("quantize", model, "-o", WORK / "ptq.onnx", "--weights", f"int{bits[1]}", "--activations",
                            f"uint{bits[3]}", "--observer", "mse", "--bias-correction", correction, *data(folder))
            row.append(f"{made['verification']['quantized']:.2f}")
        rows.append([*row, f"{plain['ptq']:.2f}", f"{last(plain):.2f}", f"{last(distilled):.2f}"])
    c.table(f"ResNet-20 on Fashion-MNIST, {EPOCHS} epochs", ["", "no correction", "biases corrected",
                                                            "where training begins", "QAT", "QAT and distillation"], rows)


def smaller():
    """Zeros and fewer filters: what accuracy and bytes they cost, and what time they save."""
    mnist, resnet20 = c.ROOT / "assets/mnist_cnn.onnx", c.ROOT / "assets/resnet20_fashion.onnx"
    rows = []
    # A network with batch norms loses its weights best before these are folded.
    slow = ["--optimizer", "sgd", "--lr", "0.02", "--weight-decay", "1e-4", "--flip", "--keep-norms"]
    for title, model, folder, sparsity, allowed, epochs, extra in (
            ("MNIST CNN", mnist, MNIST, 0.8, 0.1, 2, ["--lr", "3e-4"]),
            ("MNIST CNN", mnist, MNIST, 0.95, 0.4, 2, ["--lr", "3e-4"]),
            ("ResNet-20", resnet20, c.FASHION, 0.7, 1.0, "4 + 1", None)):
        prune = f"magnitude,sparsity={sparsity}"
        common = ["--qat", "w8a8", "--schedule", "cosine", *data(folder)]
        if extra is None:
            before = run(f"smaller {title} {sparsity} float", model, "--prune", prune, "--epochs", 4, "--schedule", "cosine",
                         *data(folder), *slow)
            r = run(f"smaller {title} {sparsity}", WORK / f"smaller_{title}_{sparsity}_float.onnx", "--prune", "keep",
                    "--epochs", 1, "--lr", "1e-4", "--flip", *common)
            r["before"] = before["before"]
        else:
            r = run(f"smaller {title} {sparsity}", model, "--prune", prune, "--epochs", epochs, *common, *extra)
        rows.append([title, epochs, f"{100 * sparsity:.0f} %", f"{r['before']:.2f}", f"{last(r):.2f}",
                     f"{last(r) - r['before']:+.2f}", f"-{allowed}", f"{r['prune']['deflated_bytes'] / r['prune']['float_bytes']:.3f}"])
    c.table("Zeros, w8a8", ["network", "epochs", "zeros", "float", "trained", "to float", "allowed",
                            "compressed / float file"], rows)
    rows = []
    for rank in ("l1",):
        # Numbers of filters that fill vectors of 16 floats.
        r = run(f"smaller ResNet-20 {rank}", resnet20, "--thin", f"{rank},macs=0.5,align=16", "--epochs", THIN_EPOCHS,
                "--lr", "1e-3", "--clip-norm", 1, "--schedule", "cosine", "--flip", *data(c.FASHION))
        t = r["thinned"][0]
        rows.append([rank, f"{t['macs_after'] / t['macs_before']:.3f}",
                     f"{t['before_us'] / t['after_us']:.2f}", f"{r['before']:.2f}", f"{last(r):.2f}",
                     f"{last(r) - r['before']:+.2f}"])
    c.table(f"ResNet-20 with fewer filters, {THIN_EPOCHS} epochs", ["rank", "multiply-adds left", "times faster",
                                                                   "before", "after", "difference"], rows)


def methods():
    rows = []
    model = c.ROOT / "assets/fashion_cnn.onnx"
    few = data(c.FASHION, ",samples=10000")
    for name, arguments in (
            ("lsq", []), ("lsq_plus", ["--qat-method", "lsq_plus"]), ("pact", ["--qat-method", "pact"]),
            ("dorefa", ["--qat-method", "dorefa"]), ("wrpn", ["--qat-method", "wrpn"]),
            ("fixed ranges", ["--ranges", "fixed"]), ("moving average", ["--ranges", "moving_average"]),
            ("first and last layer at 8 bits", ["--first-last", 8]), ("per tensor", ["--granularity", "per_tensor"]),
            ("oscillation freezing", ["--freeze-oscillating", 0.02])):
        row = [name]
        for bits in ("w4a4", "w2a2"):
            r = run(f"methods {name} {bits}", model, "--qat", bits, "--epochs", 1, "--lr", LR[bits], "--schedule",
                    "cosine", *few, *arguments)
            row += [f"{r['ptq']:.2f}", f"{last(r):.2f}"]
        rows.append(row)
    c.table("Methods: Fashion CNN, 1 epoch of 10,000 images, one seed",
            ["", "w4a4 untrained", "trained", "w2a2 untrained", "trained"], rows)


def fastestdet():
    """No labels: the quantized detector learns the float detector's outputs on photos."""
    import detectors as d
    model = c.ASSETS / "fastestdet/FastestDet.onnx"
    calibration, evaluation = d.photos(WORK)
    spec = f"images:{calibration},resize=352x352,order=bgr,scale=1/255"
    photos = sorted(evaluation.iterdir())[:int(os.environ.get("PHOTOS", "300"))]
    xs = [d.load(p, (352, 352), "bgr", 0, 255) for p in photos]

    def boxes(path):
        return [d.fastest_boxes(next(iter(d.narrow_run(path, x, "input.1", WORK).values()))[0]) for x in xs]

    reference = boxes(model)
    c.narrow("quantize", model, "-o", WORK / "fastestdet.ptq.onnx", "--weights", "int4", "--observer", "mse", "--data",
             spec, "--calibration-samples", 200)
    run("fastestdet w4a8", model, "--qat", "w4a8", "--loss", "mse", "--batch", 1, "--accumulate", 8, "--epochs", 10,
        "--lr", "1e-4", "--schedule", "cosine", "--flip", "--data", spec)
    rows = [[name, f"{d.f1(reference, boxes(path)):.3f}"]
            for name, path in (("w4a8 untrained", WORK / "fastestdet.ptq.onnx"),
                               ("w4a8 trained", WORK / "fastestdet_w4a8.onnx"))]
    c.table(f"FastestDet on {len(photos)} photos, F1 against its float boxes, 10 epochs on 200 other photos",
            ["", "F1"], rows)


PARTS = {"scratch": scratch,
         "fashion": lambda: variants("fashion", c.ROOT / "assets/fashion_cnn.onnx", c.FASHION, ["--flip"]),
         "mnist": lambda: variants("mnist", c.ROOT / "assets/mnist_cnn.onnx", MNIST, []),
         "resnet": resnet, "smaller": smaller, "methods": methods, "fastestdet": fastestdet}

if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    print(c.cpu())
    for part in sys.argv[2:] or PARTS:
        PARTS[part]()
