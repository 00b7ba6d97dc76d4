#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Language models as ONNX files: what onnxruntime computes with the file against what narrow computes.

    bench/peers/setup.sh
    build/peers/bin/python bench/peers/llm_onnx.py [--narrow build/release/bin/narrow] [MODEL ...]

For each model (tests/goldens/llm and assets/novels-7m where none is named) and format: the file is written, both
programs run it on the same ids, and the largest difference of logits (hidden states of BERT) is printed, relative to
the largest logit. "float" is the difference from the goldens of `transformers` where there are some. A decoder also
runs in two pieces, the second on the keys and values of the first, which have to give the whole's logits.
"""
import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime

import common as c

ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMATS = ["f32", "f16", "bf16", "w4g32", "w8g32", "w8", "w8a8"]


def narrow_outputs(program, model, feeds, folder):
    np.savez(folder / "in.npz", **feeds)
    subprocess.run([program, "run", model, "--input", folder / "in.npz", "-o", folder / "out.npz"], check=True,
                   capture_output=True)
    return np.load(folder / "out.npz")


def feeds_of(session, ids, types=None, mask=None, past=None):
    length = 0 if past is None else next(iter(past.values())).shape[2]
    feeds = {}
    for wanted in session.get_inputs():
        name = wanted.name
        if name == "input_ids":
            feeds[name] = ids
        elif name == "attention_mask":
            feeds[name] = np.ones((ids.shape[0], length + ids.shape[1]), np.int64) if mask is None else mask
        elif name == "position_ids":
            feeds[name] = np.tile(np.arange(length, length + ids.shape[1]), (ids.shape[0], 1))
        elif name == "token_type_ids":
            feeds[name] = np.zeros_like(ids) if types is None else types
        elif past is None:
            feeds[name] = np.zeros((ids.shape[0], wanted.shape[1], 0, wanted.shape[3]), np.float32)
        else:
            feeds[name] = past[name]
    return feeds


def run_all(session, feeds):
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def pieces(session, ids, cut):
    first = run_all(session, feeds_of(session, ids[:, :cut]))
    past = {k.replace("present", "past_key_values"): v for k, v in first.items() if k.startswith("present")}
    second = run_all(session, feeds_of(session, ids[:, cut:], past=past))
    return np.concatenate([first["logits"], second["logits"]], axis=1)


def compare(program, model, fmt, folder, exact):
    path = folder / "model.onnx"
    command = "convert" if fmt in ("f32", "f16", "bf16") else "quantize"
    subprocess.run([program, command, model, "-o", path, "--format", fmt], check=True, capture_output=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if exact:
        # What follows the file's own arithmetic: onnxruntime rounds activations of 4 and 8 bit weights otherwise.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    golden = model / "golden.npz"
    golden = np.load(golden) if golden.exists() else None
    rng = np.random.default_rng(1)
    ids = golden["ids"] if golden is not None else rng.integers(3, 4000, (2, 40))
    extra = {"types": golden["token_type_ids"], "mask": golden["attention_mask"]} if golden is not None and \
        "attention_mask" in golden else {}
    feeds = feeds_of(session, ids.astype(np.int64), **{k: v.astype(np.int64) for k, v in extra.items()})
    theirs = run_all(session, feeds)
    ours = narrow_outputs(program, path, feeds, folder)
    main = "logits" if "logits" in theirs else "last_hidden_state"
    keep = feeds["attention_mask"].astype(bool) if main != "logits" else np.ones(ids.shape, bool)
    row = [relative(theirs[main][keep], ours[main][keep])]
    if golden is not None:
        row.append(relative(theirs[main][keep], golden[main][keep]))
    else:
        row.append(float("nan"))
    row.append(relative(pieces(session, ids.astype(np.int64), 7), theirs[main]) if main == "logits" else float("nan"))
    return row + [path.stat().st_size]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--narrow", default=c.NARROW)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--exact", action="store_true", help="activations stay float in onnxruntime")
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    models = args.models or sorted((ROOT / "tests/goldens/llm").iterdir()) + [ROOT / "assets/novels-7m"]
    print(c.cpu())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for form in args.formats.split(","):
                *differences, size = compare(args.narrow, model, form, pathlib.Path(folder), args.exact)
                rows.append([model.name, form, *("" if np.isnan(d) else f"{d:.1e}" for d in differences), size])
    exact = ", activations kept float" if args.exact else ""
    c.table(f"The same file in onnxruntime {onnxruntime.__version__}{exact}: largest difference of outputs",
            ["model", "format", "narrow", "transformers", "in two pieces", "bytes"], rows)


if __name__ == "__main__":
    main()
