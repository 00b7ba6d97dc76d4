# SPDX-License-Identifier: Apache-2.0
"""Language models trained on the grids of their files: the divergence from the float model, untrained and trained.

Usage: lm_qat.py WORK NOVELS_FOLDER HELDOUT [BITS=RATE[:BATCH[:importance]] ...]

Trains assets/novels-7m on text of the novels in the folder, each cut of which that is in HELDOUT left out, towards the
float model's outputs; judged on the first 40 chunks of HELDOUT. With `importance` scales begin where the error weighted
by an importance matrix of 100 chunks of the training text is least. In the environment: TOKENS of training (1,000,000), COMPUTE (bfloat16;
float32 for CPUs without it).
"""
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench/peers"))
import common as c  # noqa: E402

PART = 48_000  # characters of a novel, from a place that is no title page
START = 70_000
CHARACTERS_OF_A_TOKEN = 3.4


def training_text(novels, heldout, tokens):
    held = heldout.read_text(encoding="utf-8")
    probes = [held[i:i + 60] for i in range(1000, len(held), 20_000)]
    parts = []
    for path in sorted(p for p in novels.rglob("*.txt") if p.stat().st_size > START + PART):
        text = path.read_text(encoding="utf-8", errors="replace")
        if not any(probe in text for probe in probes):
            parts.append(text[START:START + PART])
    return "".join(parts)[:int(tokens * CHARACTERS_OF_A_TOKEN)]


def main():
    work, novels, heldout = (pathlib.Path(p) for p in sys.argv[1:4])
    runs = dict(a.split("=") for a in sys.argv[4:]) or {"w4": "5e-5", "w3": "2e-4", "w2": "1.5e-4:1:importance"}
    tokens = int(os.environ.get("TOKENS", "1000000"))
    work.mkdir(parents=True, exist_ok=True)
    text = work / "train.txt"
    text.write_text(training_text(novels, heldout, tokens), encoding="utf-8")
    model = ROOT / "assets/novels-7m"
    print(c.cpu())
    rows = []
    for bits, how in runs.items():
        rate, *more = how.split(":")
        batch = more[0] if more else "4"
        begin = []
        if "importance" in more:
            begin = ["--statistics", work / "importance.gguf"]
            c.narrow("calibrate", model, "-o", begin[1], "--data", f"text:{text}", "--chunks", 100)
        got = c.narrow("train", model, "-o", work / f"{bits}.gguf", "--qat", bits, "--loss", "distill",
                       "--data", f"text:{text},tokens={tokens}", "--eval-data", f"text:{heldout},chunks=40",
                       "--lr", rate, "--batch", batch, *begin, "--compute", os.environ.get("COMPUTE", "bfloat16"))
        rows.append([bits, rate, batch, f"{got['metric_ptq']:.5f}", f"{got['metric']:.5f}",
                     f"{got['metric'] / got['metric_ptq']:.2f}", f"{got['perplexity']:.3f}",
                     f"{got['wall_seconds']:.0f}"])
    c.table(f"novels-7m on its grid, groups of 32: divergence on 40 chunks, {tokens:,} tokens of training",
            ["bits", "rate", "batch", "untrained", "trained", "ratio", "perplexity", "seconds"], rows)


if __name__ == "__main__":
    main()
