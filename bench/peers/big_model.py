# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of 6 GB is quantized in 1 GB, killed half-way, taken up again: the same file?

    bench/peers/setup.sh
    cd bench/peers && ../../build/peers/bin/python big_model.py WORK [--size 3b] [--limit 1G] [--format q4_k_m]

Makes the folder of a random Hugging Face model in WORK (12 GB free), and removes it again unless --keep is given. The
process runs in a memory group limited to --limit where this user may make one (Linux control groups, version 1 or 2), so
that the pages of the mapped model count; else it runs without, and the peak of what it had mapped and in buffers is what
is checked."""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import common as c
import random_model

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class MemoryGroup:
    """A control group of our own, if we may make one."""

    def __init__(self, limit):
        name = f"narrow-{os.getpid()}"
        self.folder = None
        for root, limit_file, peak_file in ((pathlib.Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
                                            (pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes",
                                             "memory.max_usage_in_bytes")):
            try:
                folder = root / name
                folder.mkdir()
                self.folder, self.peak_file = folder, folder / peak_file
                (folder / limit_file).write_text(str(limit))
                return
            except OSError:
                self.close()

    def __bool__(self):
        return self.folder is not None

    def enter(self):
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self):
        try:
            return int(self.peak_file.read_text())
        except (OSError, AttributeError):
            return 0

    def close(self):
        if self.folder:
            try:
                self.folder.rmdir()
            except OSError as e:
                print(f"{self.folder}: {e}", file=sys.stderr)
        self.folder = None


def status_kib(pid, field):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


class Run:
    """The program at work; its memory is looked at ten times a second."""

    def __init__(self, command, group):
        self.start = time.perf_counter()
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        preexec_fn=group.enter)
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
        out, err = self.process.communicate()
        if self.process.returncode != 0:
            sys.exit(f"exit {self.process.returncode}\n{err}")
        self.seconds = time.perf_counter() - self.start
        return json.loads(out)


def main():
    parser = argparse.ArgumentParser(description="more model than memory")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--size", choices=random_model.SIZES, default="3b")
    parser.add_argument("--limit", default="1G", help="of the process, and --max-memory of the program")
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
    group = MemoryGroup(limit)

    def start(out, *more):
        return Run([c.NARROW, "quantize", model, "-o", out, "--format", a.format, "--max-memory", a.limit, "--json", *more],
                   group)

    print(c.cpu())
    run = start(whole)
    run.watch()
    report = run.finish()
    rows = [["whole", f"{run.seconds:.0f}", f"{run.resident / 1e6:.0f}", f"{run.anonymous / 1e6:.0f}",
             f"{group.peak() / 1e6:.0f}" if group else "no group", f"{whole.stat().st_size / 1e6:.0f} MB written"]]
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
                 f"{again.anonymous / 1e6:.0f}", f"{group.peak() / 1e6:.0f}" if group else "no group",
                 f"{report['resumed_tensors']} of {len(report['tensors'])} tensors were there; "
                 f"{'the same file' if same else 'ANOTHER FILE'}"])
    c.table(f"A checkpoint of {size / 1e9:.2f} GB to {a.format} with --max-memory {a.limit}"
            + (f", the process limited to {a.limit}" if group else ", the process not limited"),
            ["run", "seconds", "peak resident MB", "of it not file pages", "peak of the group MB", ""], rows)
    group.close()
    for path in (whole, resumed):
        path.unlink()
    if not a.keep:
        shutil.rmtree(model)
    if not same or peak > limit:
        sys.exit("another file" if not same else f"{peak} bytes resident, {limit} allowed")


if __name__ == "__main__":
    main()
