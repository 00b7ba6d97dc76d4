# SPDX-License-Identifier: Apache-2.0
"""The time to quantize a network with 1,000 images, narrow against onnxruntime.
Usage: quantize_time.py WORK_FOLDER"""
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

import accuracy
import common as c


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
    print(c.cpu())
    quantize_time(pathlib.Path(sys.argv[1]))
