# SPDX-License-Identifier: Apache-2.0
"""Does llama.cpp compute, from the GGUF files that narrow writes, what the models are?

    bench/peers/setup.sh && bench/peers/setup_llama.sh
    cd bench/peers && ../../build/peers/bin/python llm_families.py

The tiny model of every family (tests/goldens/llm, with the logits of `transformers`) and the project's own models with
their tokenizers, converted and quantized by narrow. Logits of float32 files have to be within 1e-2 and have the same most
likely tokens. Files of 16-bit floats round activations too in llama.cpp: they have to equal its own such files.
Quantized ones are beside its own as well, each program's distance from the float32 file. Greedy continuations have to be
narrow's. Exits with 1 where that is not so."""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import common as c
import llama_library

GOLDENS = c.ROOT / "tests/goldens/llm"
TEXTS = ("It was a dark evening, and", "She said that", "The old man's house; 1850: \"Where?\" he cried, and ran.")
TOLERANCE = 1e-2
# What llama.cpp's readers cannot take over from the file: the reason, and the tokens that are compared.
LIMITS = {
    "mistral": ("llama.cpp has no window here: 8 tokens compared", 8),
    "gemma3_scaled": ("llama.cpp reads no attention.scale here: not compared", 0),
}
HALVES = ("bf16", "f16")
BLOCKS = ("q8_0", "q4_0")


class Failures(list):
    def check(self, good, what):
        if not good:
            self.append(what)
            print(f"FAILED: {what}", file=sys.stderr)


def narrow_gguf(source, out, form):
    if form in BLOCKS:
        c.narrow("quantize", source, "-o", out, "--format", form)
    else:
        c.narrow("convert", source, "-o", out, *([] if form == "as it is" else ["--format", form]))
    return out


def compare(got, want):
    """Greatest difference, and the share of tokens with the same most likely one."""
    same = np.argmax(got, -1) == np.argmax(want, -1)
    return float(np.abs(got - want).max()), 100 * float(same.mean())


def outputs(path, ids, encoder):
    model = llama_library.Model(path)
    rows = [model.outputs(row, encoder) for row in ids]
    model.close()
    return np.concatenate(rows)


def llama_quantized(source, out, form):
    subprocess.run([llama_library.FOLDER / "build/bin/llama-quantize", source, out, form.upper()], check=True,
                   capture_output=True)
    return out


def family(folder, work, failures):
    golden = np.load(folder / "golden.npz")
    encoder = "last_hidden_state" in golden
    note, length = LIMITS.get(folder.name, ("", golden["ids"].shape[1]))
    if length == 0:
        return [folder.name, *[""] * (1 + len(HALVES) + len(BLOCKS)), note]
    ids = golden["ids"][:, :length]
    if encoder:  # llama.cpp takes every token for one of the first kind: its own twin of the model is the measure
        ids = ids[:1]
        want = outputs(folder / "model.gguf", ids, True)
    else:
        want = golden["logits"][:, :length].reshape(-1, golden["logits"].shape[-1])
    plain = narrow_gguf(folder, work / f"{folder.name}.f32.gguf", "f32")
    base = outputs(plain, ids, encoder)
    most, same = compare(base, want)
    failures.check(most < TOLERANCE, f"{folder.name}: outputs differ by {most}")
    failures.check(same == 100 or encoder, f"{folder.name}: {same} % same tokens")
    row = [folder.name, f"{most:.1e}"]
    for form in HALVES + BLOCKS:
        ours = outputs(narrow_gguf(folder, work / f"{folder.name}.{form}.gguf", form), ids, encoder)
        theirs = outputs(llama_quantized(plain, work / f"{folder.name}.theirs.gguf", form), ids, encoder)
        if form in HALVES:
            most, _ = compare(ours, theirs)
            failures.check(most < TOLERANCE, f"{folder.name}, {form}: {most} from llama.cpp's own file")
            row.append(f"{most:.1e}")
        else:
            distance = [float(np.sqrt(np.mean((x - base) ** 2))) for x in (ours, theirs)]
            failures.check(distance[0] < 1.5 * distance[1], f"{folder.name}, {form}: {distance} from the float file")
            row.append(f"{distance[0]:.3f} / {distance[1]:.3f}")
    return row + [note]


def with_text(folder, work, form, failures):
    """Tokens, then 24 greedy ones, of a model that has a tokenizer."""
    path = narrow_gguf(folder, work / f"{folder.name}.{form}.text.gguf", form)
    model = llama_library.Model(path, context=256)
    tokens = same = greedy = 0
    for text in TEXTS:
        ids = model.tokenize(text)
        ours = c.narrow("tokenize", path, "--text", text)["ids"]
        tokens += len(ids)
        failures.check(ids == ours, f"{folder.name}, {form}: {text!r} is {ours}, in llama.cpp {ids}")
        made = c.narrow("generate", path, "--prompt", text, "--tokens", "24", "--temperature", "0")["ids"]
        theirs = model.greedy(ids, len(made))
        greedy += len(made)
        same += sum(a == b for a, b in zip(made, theirs))
    model.close()
    failures.check(same == greedy, f"{folder.name}, {form}: {greedy - same} of {greedy} greedy tokens differ")
    return [folder.name, form, tokens, f"{same} of {greedy}"]


def main():
    failures = Failures()
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        rows = [family(folder, work, failures) for folder in sorted(GOLDENS.iterdir())]
        c.table("narrow's GGUF files of every family in llama.cpp",
                ["model", "f32: greatest difference from transformers",
                 *(f"{form}: from llama.cpp's own file" for form in HALVES),
                 *(f"{form}: rms from f32, narrow's file / llama.cpp's" for form in BLOCKS), ""], rows)
        folders = [c.ROOT / "assets/novels-7m"]
        folders += [c.ASSETS / "novels-gpt2"] if (c.ASSETS / "novels-gpt2").exists() else []
        rows = [with_text(folder, work, form, failures) for folder in folders for form in ("as it is", "f32", "q8_0")]
        c.table("Tokens and greedy continuations, the same file in both", ["model", "format", "tokens, all the same",
                                                                           "greedy tokens the same"], rows)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
