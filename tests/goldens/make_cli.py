#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/goldens/cli/fashion_run.npz: an input of assets/fashion_cnn.onnx and onnxruntime's output.

    python3 -m venv v && v/bin/pip install numpy onnxruntime && v/bin/python tests/goldens/make_cli.py
"""
import pathlib

import numpy as np
import onnxruntime as ort

HERE = pathlib.Path(__file__).resolve().parent
(HERE / "cli").mkdir(exist_ok=True)
x = np.random.default_rng(11).random((2, 1, 28, 28), dtype=np.float32)
session = ort.InferenceSession(str(HERE.parents[1] / "assets/fashion_cnn.onnx"), providers=["CPUExecutionProvider"])
(y,) = session.run(None, {"image": x})
np.savez(HERE / "cli" / "fashion_run.npz", image=x, log_prob=y)
