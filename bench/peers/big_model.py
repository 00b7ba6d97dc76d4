# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of 6 GB is quantized in 1 GB, killed half-way, taken up again: the same file?

    bench/peers/setup.sh
    cd bench/peers && ../../build/peers/bin/python big_model.py WORK [--size 3b] [--limit 1G] [--format q4_k_m]

Makes the folder of a random Hugging Face model in WORK (12 GB free), and removes it again unless --keep is given. The
process may take --limit bytes of memory of its own (RLIMIT_DATA), and everything that it has in memory at a time, the
pages of the mapped model included, has to stay below that as well. Exits with 1 where it does not, or the file that was
taken up again is another one."""
import argparse
import json
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import common as c
import random_model

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def status_kib(pid, field):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


class Run:
    """The program at work; its memory is looked at ten times a second."""

    def __init__(self, command, limit):
        self.start = time.perf_counter()
        self.out = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would stop it
        self.process = subprocess.Popen(list(map(str, command)), stdout=self.out, stderr=subprocess.STDOUT,
                                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        self.resident = self.anonymous = 0

    def watch(self, stop=lambda: False):
        """True when `stop` said so; False when the program ended by itself."""
        while self.process.poll() is None:
            try:
                self.resident = max(self.resident, status_kib(self.process.pid, "VmHWM") << 10)
                self.anonymous = max(self.anonymous, status_kib(self.process.pid, "RssAnon") << 10)
            except (OSError, ProcessLookupError):
                break
            if stop():
                return True
            time.sleep(0.1)
        return False

    def finish(self):
        self.process.wait()
        self.seconds = time.perf_counter() - self.start
        self.out.seek(0)
        text = self.out.read()
        if self.process.returncode != 0:
            sys.exit(f"exit {self.process.returncode}\n{text}")
        return json.loads(text)


def main():
    parser = argparse.ArgumentParser(description="more model than memory")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--size", choices=random_model.SIZES, default="3b")
    parser.add_argument("--limit", default="1G", help="what the process may take, and --max-memory of the program")
    parser.add_argument("--format", default="q4_k_m")
    parser.add_argument("--keep", action="store_true", help="leave the model")
    a = parser.parse_args()
    limit = int(a.limit[:-1]) * UNITS[a.limit[-1]]
    a.work.mkdir(parents=True, exist_ok=True)
    model = a.work / f"random-{a.size}"
    if not (model / "model.safetensors.index.json").exists():
        random_model.write_folder(c.ROOT / "assets/novels-7m", model, a.size)
    size = sum(p.stat().st_size for p in model.iterdir())
    whole, resumed = a.work / "whole.gguf", a.work / "resumed.gguf"
    partial = resumed.with_name(resumed.name + ".partial")

    def start(out, *more):
        return Run([c.NARROW, "quantize", model, "-o", out, "--format", a.format, "--max-memory", a.limit, "--json", *more],
                   limit)

    print(c.cpu())
    run = start(whole)
    run.watch()
    run.finish()
    rows = [["whole", f"{run.seconds:.0f}", f"{run.resident / 1e6:.0f}", f"{run.anonymous / 1e6:.0f}",
             f"{whole.stat().st_size / 1e6:.0f} MB written"]]
    peak = run.resident

    def half():
        return partial.exists() and partial.stat().st_size > whole.stat().st_size // 2

    run = start(resumed)
    if not run.watch(half):
        sys.exit("it was over before it could be killed")
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    first = time.perf_counter() - run.start
    again = start(resumed, "--resume")
    again.watch()
    report = again.finish()
    same = subprocess.run(["cmp", whole, resumed]).returncode == 0
    peak = max(peak, run.resident, again.resident)
    rows.append([f"kill -9 after {first:.0f} s, then --resume", f"{again.seconds:.0f}", f"{again.resident / 1e6:.0f}",
                 f"{again.anonymous / 1e6:.0f}",
                 f"{report['resumed_tensors']} of {len(report['tensors'])} tensors were there; "
                 f"{'the same file' if same else 'ANOTHER FILE'}"])
    c.table(f"A checkpoint of {size / 1e9:.2f} GB to {a.format} with --max-memory {a.limit}, "
            f"memory of the process limited to {a.limit}",
            ["run", "seconds", "peak resident MB", "most of its own MB", ""], rows)
    for path in (whole, resumed):
        path.unlink()
    if not a.keep:
        shutil.rmtree(model)
    if not same or peak > limit:
        sys.exit("another file" if not same else f"{peak} bytes resident, {limit} allowed")


if __name__ == "__main__":
    main()
