# SPDX-License-Identifier: Apache-2.0
"""Language models side by side with llama.cpp, on the same files in the same run, taking turns.

    bench/peers/setup.sh && bench/peers/setup_llama.sh
    cd bench/peers && ../../build/peers/bin/python llm.py ../../build/peers-work [PART ...] [--threads 1,2]

Parts: perplexity (the same files in both programs), quality (files quantized by each, judged by llama.cpp), time (of
quantizing), speed (prompt and new tokens per second). Without a part: all. LLAMA_CPP names the folder that
setup_llama.sh made, NARROW the program, NARROW_ASSETS the models and texts."""
import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import common as c
import to_gguf

LLAMA = pathlib.Path(os.environ.get("LLAMA_CPP", c.ROOT / "build/peers/llama.cpp")) / "build/bin"
TEXT = c.ASSETS / "novels-7m/heldout.txt"
WIKITEXT = c.ASSETS / "text/wikitext-2-raw/wiki.test.raw"
CALIBRATION = c.ASSETS / "novels-7m/calibration.txt"
CONTEXT = 512
CHUNKS = 100
PROMPT, NEW = 256, 64
FORMATS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_xs", "q4_0", "q3_k_m", "q2_k")


class Failed(Exception):
    pass


Cost = collections.namedtuple("Cost", "seconds cpu peak")  # cpu: seconds of all threads, which others disturb less


def run(command):
    """Output and cost of a program."""
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL)
    output = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\nexit {process.returncode}\n{output[-2000:]}")
    return output, Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def narrow(*arguments):
    command = [c.NARROW, *map(str, arguments), "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout) | {"wall_seconds": time.perf_counter() - start}


class Rows(list):
    """Rows of a table; each is shown on stderr as it comes, for the table may take an hour."""

    def append(self, row):
        print(" | ".join(map(str, row)), file=sys.stderr, flush=True)
        super().append(row)


def number(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise Failed(f"no '{pattern}' in\n{text[-2000:]}")
    return float(found.group(1))


# --- models ---------------------------------------------------------------------------------


def made(path, make):
    if not path.exists():
        part = path.with_suffix(".part")
        make(part)
        part.rename(path)
    return path


def novels(work, name="novels-7m"):
    return made(work / f"{name}.f32.gguf", lambda out: to_gguf.convert(c.ASSETS / name, out))


def random_llama(work, size="280m", form="f16"):
    """Made by a process of its own: the peak of a program that is started later begins with that of its parent."""
    def make(out):
        gguf = out.with_suffix(".part.gguf")
        run([sys.executable, pathlib.Path(__file__).with_name("random_model.py"), c.ROOT / "assets/novels-7m", gguf, "--size",
             size, "--type", form])
        gguf.rename(out)
    return made(work / f"random-{size}.{form}.gguf", make)


def gemma(work):
    path = work / "gemma-3-270m-q4_k_m.gguf"
    return path if path.exists() else None


def llama_quantized(model, form, importance=None, threads=2):
    """llama.cpp's file of this format, and what making it anew cost."""
    out = model.with_name(f"{model.stem}.llama.{form}{'.im' if importance else ''}.gguf")
    extra = ["--imatrix", importance] if importance else []
    _, cost = run([LLAMA / "llama-quantize", *extra, model, out, form.upper(), threads])
    return out, cost


def narrow_quantized(model, form, method, statistics_file=None, threads=2):
    out = model.with_name(f"{model.stem}.narrow.{form}.{method}.gguf")
    extra = ["--statistics", statistics_file] if statistics_file else []
    _, cost = run([c.NARROW, "quantize", model, "-o", out, "--format", form, "--method", method, *extra, "--threads",
                   threads])
    return out, cost


def importance_matrix(model, threads=2):
    def make(out):
        run([LLAMA / "llama-imatrix", "-m", model, "-f", CALIBRATION, "-o", out, "-c", CONTEXT, "-t", threads,
             "--output-format", "gguf"])
    return made(model.with_name(f"{model.stem}.imatrix.gguf"), make)


# --- parts ----------------------------------------------------------------------------------


def llama_perplexity(model, *arguments, chunks=None, threads=2, text=TEXT):
    limit = ["--chunks", chunks] if chunks else []
    output, cost = run([LLAMA / "llama-perplexity", "-m", model, "-f", text, "-c", CONTEXT, "-t", threads, *limit,
                        *arguments])
    return output, cost.seconds


def narrow_perplexity(model, *arguments, chunks=None, threads=2, text=TEXT):
    limit = ["--chunks", chunks] if chunks else []
    return narrow("perplexity", model, "--data", f"text:{text}", "--context", CONTEXT, *limit, *arguments,
                  "--threads", threads)


def perplexity(work, threads):
    """The same files in both programs."""
    rows = Rows()
    files = []
    for name in ("novels-7m", "novels-gpt2"):
        files += [(novels(work, name), TEXT, CHUNKS)]
        files += [(llama_quantized(novels(work, name), form)[0], TEXT, CHUNKS) for form in ("q8_0", "q4_k_m", "q4_0")]
    if gemma(work):
        files.append((gemma(work), WIKITEXT, min(CHUNKS, 20)))
    for model, text, chunks in files:
        output, theirs_seconds = llama_perplexity(model, chunks=chunks, threads=threads[-1], text=text)
        theirs = number(r"Final estimate: PPL = ([0-9.]+)", output)
        try:
            got = narrow_perplexity(model, chunks=chunks, threads=threads[-1], text=text)
            ours, ours_seconds = got["perplexity"], got["wall_seconds"]
        except Failed as e:
            print(e, file=sys.stderr)
            rows.append([model.name, text.name, chunks, f"{theirs:.4f}", "failed", "", f"{theirs_seconds:.1f}", ""])
            continue
        rows.append([model.name, text.name, chunks, f"{theirs:.4f}", f"{ours:.4f}", f"{100 * (ours / theirs - 1):+.3f} %",
                     f"{theirs_seconds:.1f}", f"{ours_seconds:.1f}"])
    c.table(f"Perplexity of the same file, chunks of {CONTEXT} tokens",
            ["file", "text", "chunks", "llama.cpp", "narrow", "difference", "seconds llama.cpp", "seconds narrow"], rows)


def quality(work, threads):
    """Each program's files, judged by one: llama.cpp's KL divergence from the float model."""
    for name in ("novels-7m", "novels-gpt2"):
        model = novels(work, name)
        base = work / f"{name}.kld"
        llama_perplexity(model, "--kl-divergence-base", base, chunks=CHUNKS, threads=threads[-1])
        matrix = importance_matrix(model, threads[-1])
        rows = Rows()
        for form in FORMATS:
            for title, make in (
                    ("llama.cpp", lambda: llama_quantized(model, form)),
                    ("narrow, mse", lambda: narrow_quantized(model, form, "mse")),
                    ("llama.cpp, imatrix", lambda: llama_quantized(model, form, matrix)),
                    ("narrow, importance", lambda: narrow_quantized(model, form, "importance", matrix))):
                try:
                    file = make()[0]
                    output, _ = llama_perplexity(file, "--kl-divergence", "--kl-divergence-base", base, chunks=CHUNKS,
                                                 threads=threads[-1])
                except Failed as e:
                    print(e, file=sys.stderr)
                    rows.append([form, title, "", "failed", "", "", ""])
                    continue
                rows.append([form, title, f"{file.stat().st_size / 1e6:.2f}",
                             f"{number(r'Mean    KLD: +(-?[0-9.]+)', output):.5f}",
                             f"{number(r'99.0%   KLD: +(-?[0-9.]+)', output):.4f}",
                             f"{number(r'Same top p: +([0-9.]+)', output):.2f}",
                             f"{number(r'Mean PPL.Q. +: +([0-9.]+)', output):.3f}"])
        base.unlink()
        c.table(f"{name}: quantized files, judged by llama.cpp ({CONTEXT} x {CHUNKS} tokens)",
                ["format", "made by", "MB", "mean KL", "99 % KL", "same top %", "perplexity"], rows)


def least(costs, field):
    return min(getattr(cost, field) for cost in costs)


def quantize_time(work, threads, rounds=3):
    """A billion parameters. The programs take turns; other work on the machine only slows them down, so the least
    counts."""
    model = random_llama(work, "1b", "bf16")
    rows = Rows()
    for form in ("q8_0", "q4_k_m"):
        for count in threads:
            makers = {"llama.cpp": lambda: llama_quantized(model, form, threads=count)}
            for method in ("mse", "rtn"):
                makers[f"narrow, {method}"] = lambda method=method: narrow_quantized(model, form, method, threads=count)
            costs = {title: [] for title in makers}
            for _ in range(rounds):
                for title, make in makers.items():
                    out, cost = make()
                    costs[title].append(cost)
                    out.unlink()
            theirs = costs["llama.cpp"]
            for title, own in costs.items():
                rows.append([form, count, title, f"{least(own, 'seconds'):.1f}",
                             f"{least(own, 'seconds') / least(theirs, 'seconds'):.2f}", f"{least(own, 'cpu'):.1f}",
                             f"{least(own, 'cpu') / least(theirs, 'cpu'):.2f}",
                             f"{max(cost.peak for cost in own) / 1e6:.0f}"])
    c.table(f"Quantizing {model.name} ({model.stat().st_size / 1e6:.0f} MB), the least of {rounds} rounds in turn",
            ["format", "threads", "program", "seconds", "/ llama.cpp", "CPU seconds", "/ llama.cpp", "peak MB"], rows)


def llama_bench(model, prompt, new, depth, threads):
    output, cost = run([LLAMA / "llama-bench", "-m", model, "-p", prompt, "-n", new, "-d", depth, "-t", threads, "-r", 2,
                        "-o", "jsonl"])
    entry = json.loads([line for line in output.splitlines() if line.startswith("{")][-1])
    return max(entry["samples_ts"]), cost.peak


def fastest(ours, theirs):
    """Other programs on the machine only slow things down: the best of each counts, the range says how sure it is."""
    ratios = [a / b for a, b in zip(ours, theirs)]
    return f"{max(ours) / max(theirs):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def speed(work, threads, rounds=5):
    models = [llama_quantized(novels(work), form)[0] for form in ("q8_0", "q4_k_m")]
    models += [llama_quantized(random_llama(work), form)[0] for form in ("q8_0", "q4_k_m")]
    models += [gemma(work)] if gemma(work) else []
    rows = Rows()
    for model in models:
        for count in threads:
            prefill, decode = ([], []), ([], [])  # llama.cpp, narrow
            for _ in range(rounds):
                prefill[0].append(llama_bench(model, PROMPT, 0, 0, count)[0])
                tokens, peak = llama_bench(model, 0, NEW, PROMPT, count)
                decode[0].append(tokens)
                got = narrow("bench", model, "--prompt-tokens", PROMPT, "--new-tokens", NEW, "--rounds", 3,
                             "--threads", count)
                prefill[1].append(got["prefill_tokens_per_second"])
                decode[1].append(got["decode_tokens_per_second"])
            rows.append([model.name, count, f"{max(prefill[0]):.0f}", f"{max(prefill[1]):.0f}",
                         fastest(prefill[1], prefill[0]), f"{max(decode[0]):.1f}", f"{max(decode[1]):.1f}",
                         fastest(decode[1], decode[0]), f"{peak / 1e6:.0f}", f"{got['peak_rss_bytes'] / 1e6:.0f}"])
    c.table(f"Tokens per second: a prompt of {PROMPT}, then {NEW} new ones; the best of {rounds} rounds in turn",
            ["file", "threads", "prompt llama.cpp", "prompt narrow", "ratio", "new llama.cpp", "new narrow", "ratio",
             "peak MB llama.cpp", "narrow"], rows)


def cache(work, threads):
    """What 8-bit keys and values cost, and what weights that stay in the file cost in speed."""
    rows = Rows()
    models = [(novels(work, name), TEXT, CHUNKS) for name in ("novels-7m", "novels-gpt2")]
    models += [(gemma(work), TEXT, min(CHUNKS, 8))] if gemma(work) else []
    for model, text, chunks in models:
        got = {kind: narrow_perplexity(model, "--kv-cache", kind, chunks=chunks, threads=threads[-1], text=text)
               for kind in ("f16", "int8")}
        f16, int8 = (got[kind]["perplexity"] for kind in ("f16", "int8"))
        rows.append([model.name, chunks, f"{f16:.4f}", f"{int8:.4f}", f"{100 * (int8 / f16 - 1):+.3f} %"])
    c.table("Perplexity with keys and values in the cache", ["file", "chunks", "f16", "int8", "difference"], rows)
    rows = Rows()
    models = [llama_quantized(novels(work), "q4_k_m")[0]] + ([gemma(work)] if gemma(work) else [])
    for model in models:
        for count in threads:
            best = {}
            for flags in ([], ["--no-repack"]):
                got = narrow("bench", model, "--prompt-tokens", PROMPT, "--new-tokens", NEW, "--rounds", 3,
                             "--threads", count, *flags)
                best[bool(flags)] = got
            rows.append([model.name, count, *(f"{best[kept]['decode_tokens_per_second']:.1f}" for kept in (False, True)),
                         *(f"{best[kept]['peak_rss_bytes'] / 1e6:.0f}" for kept in (False, True))])
    c.table("New tokens per second, weights copied into the kernels' layout and left in the file",
            ["file", "threads", "copied", "left", "peak MB copied", "left"], rows)


PARTS = {"perplexity": perplexity, "quality": quality, "time": quantize_time, "speed": speed, "cache": cache}


def main():
    parser = argparse.ArgumentParser(description="narrow and llama.cpp side by side")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--threads", default="1,2", help="counts to measure; the last one is used where time is no matter")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="of text; fewer where time is short")
    arguments = parser.parse_args()
    globals()["CHUNKS"] = arguments.chunks
    if not (LLAMA / "llama-bench").exists():
        sys.exit(f"no llama.cpp in {LLAMA}: bench/peers/setup_llama.sh builds it")
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(c.cpu())
    threads = [int(count) for count in arguments.threads.split(",")]
    for part in arguments.part or PARTS:
        try:
            PARTS[part](arguments.work, threads)
        except Failed as e:
            print(f"{part}: {e}", file=sys.stderr)


if __name__ == "__main__":
    main()
