#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/goldens/llm_onnx.npz: what onnxruntime computes with quantized ONNX files of the tiny language models.

    bench/peers/setup.sh
    build/peers/bin/python tests/goldens/make_llm_onnx.py [--narrow build/release/bin/narrow]

Arrays "<family>.<format>": logits of golden.npz's ids, hidden states of BERT. Activations that are float in the file
stay float (onnxruntime rounds them to 8 bits otherwise).
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench/peers"))
from llm_onnx import feeds_of, run_all  # noqa: E402

FAMILIES = ["bert", "gemma3", "gpt2", "llama2", "qwen3"]
FORMATS = ["w4g32", "w8a8"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--narrow", default=ROOT / "build/release/bin/narrow")
    args = parser.parse_args()
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            for fmt in FORMATS:
                model = ROOT / "tests/goldens/llm" / family
                path = pathlib.Path(folder) / "model.onnx"
                subprocess.run([args.narrow, "quantize", model, "-o", path, "--format", fmt], check=True,
                               capture_output=True)
                options = onnxruntime.SessionOptions()
                options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
                session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
                golden = np.load(model / "golden.npz")
                extra = {"types": golden["token_type_ids"], "mask": golden["attention_mask"]} if family == "bert" else {}
                outputs = run_all(session, feeds_of(session, golden["ids"], **extra))
                arrays[f"{family}.{fmt}"] = outputs["last_hidden_state" if family == "bert" else "logits"]
    np.savez_compressed(ROOT / "tests/goldens/llm_onnx.npz", **arrays)


if __name__ == "__main__":
    main()
