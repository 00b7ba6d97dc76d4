#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that narrow wrote for GGUF files: `tokenizers` has to cut texts as narrow cuts them with the GGUF file.

    python3 -m venv v && v/bin/pip install tokenizers
    v/bin/python bench/peers/tokenizer_json.py [--narrow build/release/bin/narrow] MODEL.gguf ...

Each model is converted to a folder; the texts are those of tests/goldens/tokenizers/texts.json.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def narrow_ids(program, model, text, folder):
    file = folder / "text.txt"
    file.write_text(text, encoding="utf-8", newline="")
    done = subprocess.run([program, "tokenize", model, "--input", file, "--parse-special", "--json"], check=True, capture_output=True)
    return json.loads(done.stdout)["ids"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--narrow", default=ROOT / "build/release/bin/narrow")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    texts = json.loads((ROOT / "tests/goldens/tokenizers/texts.json").read_text())
    for model in args.models:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            subprocess.run([args.narrow, "convert", model, "-o", folder / "out"], check=True, capture_output=True)
            theirs = Tokenizer.from_file(str(folder / "out" / "tokenizer.json"))
            same = [theirs.encode(t).ids == narrow_ids(args.narrow, model, t, folder) for t in texts if t]
            print(f"{model.name}: {sum(same)} of {len(same)} texts have the same ids")


if __name__ == "__main__":
    main()
