# SPDX-License-Identifier: Apache-2.0
"""int8 latency, narrow against onnxruntime, interleaved on the same input; and the time to quantize.
Usage: latency.py WORK_FOLDER [quantize]"""
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

import accuracy
import common as c

ROUNDS = 3


def ort_us(session, x, seconds=0.7):
    name = session.get_inputs()[0].name
    feed = {name: x}
    for _ in range(5):
        session.run(None, feed)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


def latency(work):
    rows = []
    for title, model, _, _, (x, _), train in accuracy.networks(work):
        if title == "Fashion CNN":
            continue
        ours = work / f"{title.replace(' ', '_')}.static.onnx"
        theirs = work / f"{title.replace(' ', '_')}.ort.onnx"
        for batch in (1, 32):
            for threads in (1, 2):
                session = c.ort_session(theirs, threads)
                a, b, f = [], [], []
                for _ in range(ROUNDS):
                    a.append(c.narrow("bench", ours, "--batch", batch, threads=threads)["median_us"])
                    b.append(ort_us(session, x[:batch]))
                    f.append(c.narrow("bench", model, "--batch", batch, threads=threads)["median_us"])
                ratio = [p / q for p, q in zip(a, b)]
                rows.append([title, batch, threads, f"{np.median(a):.0f}", f"{np.median(b):.0f}",
                             f"{np.median(ratio):.2f} ({min(ratio):.2f}..{max(ratio):.2f})", f"{np.median(f):.0f}",
                             f"{np.median(f) / np.median(a):.2f}"])
    c.table("int8 latency, microseconds", ["network", "batch", "threads", "narrow int8", "onnxruntime int8",
                                           "ratio (range)", "narrow float", "float / int8"], rows)


def quantize_time(work):
    title, model, data, _, (x, _), _ = accuracy.networks(work)[2]
    samples = x[np.random.default_rng(1).permutation(len(x))[:1000]]
    rows, peak = [], 0
    for observer, method in (("minmax", "MinMax"), ("entropy", "Entropy")):
        ours, theirs = [], []
        for _ in range(2):
            start = time.perf_counter()
            command = [c.NARROW, "quantize", str(model), "-o", str(work / "time.onnx"), "--data", data, "--observer",
                       observer, "--calibration-samples", "1000", "--json"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            ours.append(time.perf_counter() - start)
            peak = max(peak, json.loads(done.stdout)["peak_rss_bytes"])
            theirs.append(c.ort_quantize(model, work / "time_ort.onnx", samples, accuracy.name_of(model), method))
        rows.append([observer, f"{min(ours):.2f}", f"{min(theirs):.2f}", f"{min(ours) / min(theirs):.3f}"])
    c.table(f"Quantizing {title} with 1,000 images, seconds (narrow's peak memory {peak / 1e6:.0f} MB)",
            ["observer", "narrow", "onnxruntime", "ratio"], rows)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    print(c.cpu())
    if "quantize" in sys.argv[2:]:
        quantize_time(folder)
    else:
        latency(folder)
