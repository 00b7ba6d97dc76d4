# SPDX-License-Identifier: Apache-2.0
"""The language model part of scripts/demo.sh: quantizes a model to several formats and prints what each costs and gains.
The text it is measured on is drawn from the float model itself (seeded), so that none has to come along.
Usage: demo_llm.py NARROW MODEL FOLDER"""
import json
import pathlib
import subprocess
import sys

FORMATS = ("q8_0", "q6_k", "q4_k_m", "q4_0", "q3_k_m", "q2_k")
SAMPLES = 24  # texts of the model, each shorter than its context
TOKENS = 480


def ask(*args):
    return json.loads(subprocess.run([*map(str, args), "--json"], check=True, capture_output=True, text=True).stdout)


def sampled_text(narrow, model, path):
    """Plain draws: any filter would make the text easier than the model finds it."""
    flags = ("--tokens", TOKENS, "--temperature", 1, "--top-k", 0, "--top-p", 1, "--min-p", 0, "--ignore-ends")
    texts = [ask(narrow, "generate", model, *flags, "--seed", seed)["text"] for seed in range(1, SAMPLES + 1)]
    path.write_text("\n".join(texts))


def row_of(narrow, title, model, reference, text, bits):
    quality = ask(narrow, "perplexity", model, "--data", f"text:{text}", "--context", 256,
                  *(("--reference", reference) if reference else ()))
    speed = ask(narrow, "bench", model, "--prompt-tokens", 256, "--new-tokens", 64)
    files = [model] if model.is_file() else list(model.glob("*.safetensors"))
    compared = (f"{quality['kl_mean']:.5f}", f"{100 * quality['same_top_token']:.1f} %") if reference else ("", "")
    return (title, f"{sum(f.stat().st_size for f in files) / 1e6:.1f}", bits, f"{quality['perplexity']:.2f}", *compared,
            f"{speed['prefill_tokens_per_second']:.0f}", f"{speed['decode_tokens_per_second']:.0f}")


def main(narrow, model, folder):
    text = folder / "sampled.txt"
    print(f"drawing {SAMPLES} texts of {TOKENS} tokens from {model} ...", flush=True)
    sampled_text(narrow, model, text)
    rows = [row_of(narrow, "bfloat16", model, None, text, "16")]
    for name in FORMATS:
        target = folder / f"{model.name}-{name}.gguf"
        print(f"$ narrow quantize {model} -o {target} --format {name}", flush=True)
        report = ask(narrow, "quantize", model, "-o", target, "--format", name)
        rows.append(row_of(narrow, name, target, model, text, f"{report['bits_per_weight']:.2f}"))
    print(f"\n{model.name} on text drawn from its float model\n")
    head = ("format", "MB", "bits/weight", "perplexity", "mean KL", "same top token", "prompt tok/s", "new tok/s")
    for r in (head, *rows):
        print(f"{r[0]:10}" + "".join(f"{c:>{len(h) + 2}}" for c, h in zip(r[1:], head[1:])))
    best = folder / f"{model.name}-q4_k_m.gguf"
    print(f'\n$ narrow generate {best} --prompt "It was late in the evening when" --tokens 60 --seed 3')
    print("It was late in the evening when", end="", flush=True)
    subprocess.run([narrow, "generate", str(best), "--prompt", "It was late in the evening when", "--tokens", "60",
                    "--seed", "3"], check=True)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
