#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small file written by the `safetensors` package (PyPI, 0.8.0). Usage: make_safetensors.py small.safetensors"""
import sys

import numpy as np
from safetensors.numpy import save_file

save_file({
    "a.f32": np.arange(6, dtype=np.float32).reshape(2, 3) / 2,
    "b.f16": np.array([-1, 65504, 0.25], np.float16),
    "c.i64": np.array([-5, 1 << 40], np.int64),
    "d.u8": np.array([0, 255, 7], np.uint8),
    "e.bool": np.array([True, False]),
    "f.scalar": np.array(0.1, np.float64),
    "g.empty": np.zeros((0, 4), np.float32),
}, sys.argv[1], {"format": "pt", "ö": "ü\n"})
