# SPDX-License-Identifier: Apache-2.0
"""The time of a training step, and the memory, beside Python's PyTorch: the same networks, batch and threads, the runs
of both in turns and the best of each. QAT of the peer is torch.ao's eager mode, w8a8. CPU time, which a busy machine
disturbs less, stands beside: of narrow the difference of two runs, of 1 and of 4 epochs.

Usage: train_step.py WORK_FOLDER [PYTHON_WITH_TORCH] [THREADS] [ROUNDS]
(that of build/peers-torch: setup.sh --torch)"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

BATCH = 100
SAMPLES = {"mnist_cnn": 3000, "fashion_cnn": 2000, "resnet20": 1000}


def peer_network(name):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(out)
            self.relu1 = nn.ReLU()
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(out)
            self.short = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False),
                                       nn.BatchNorm2d(out)) if stride != 1 else nn.Identity()
            self.add = nn.quantized.FloatFunctional() if hasattr(nn, "quantized") else \
                torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x):
            y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
            return self.add.add_relu(y, self.short(x))

    def resnet20():
        layers = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        width = 16
        for stage in range(3):
            for block in range(3):
                layers.append(Block(width, 16 << stage, 2 if stage and not block else 1))
                width = 16 << stage
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    if name == "resnet20":
        return resnet20()
    if name == "fashion_cnn":
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))


def for_qat(model):
    import torch
    from torch import nn
    ao = torch.ao.quantization
    model = nn.Sequential(ao.QuantStub(), *model, ao.DeQuantStub())
    model.train()
    groups = []
    kinds = {"Conv2d": "c", "BatchNorm2d": "b", "ReLU": "r", "Linear": "l"}

    def walk(module, prefix):
        named = [(prefix + n, m) for n, m in module.named_children()]
        letters = [kinds.get(type(m).__name__, "-") for _, m in named]
        i = 0
        while i < len(named):
            for pattern in ("cbr", "cb", "cr", "lr"):
                if "".join(letters[i:i + len(pattern)]) == pattern:
                    groups.append([n for n, _ in named[i:i + len(pattern)]])
                    i += len(pattern) - 1
                    break
            else:
                if letters[i] == "-":
                    walk(named[i][1], named[i][0] + ".")
            i += 1

    walk(model, "")
    ao.fuse_modules_qat(model, groups, inplace=True)
    model.qconfig = ao.get_default_qat_qconfig("fbgemm")
    return ao.prepare_qat(model)


def peer(name, threads, qat):
    import warnings

    import numpy as np
    import torch
    warnings.filterwarnings("ignore")
    import common as c
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = peer_network(name)
    if qat:
        model = for_qat(model)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = c.mnist_like(c.FASHION, "train")
    x, y = torch.from_numpy(x[:SAMPLES[name]].copy()), torch.from_numpy(y[:SAMPLES[name]])
    best = cpu = 1e9
    for _ in range(3):
        start, used = time.perf_counter(), time.process_time()
        order = torch.from_numpy(np.random.default_rng(1).permutation(len(x)))
        for i in range(0, len(x), BATCH):
            at = order[i:i + BATCH]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[at]), y[at])
            loss.backward()
            optimizer.step()
            loss.item()
        best = min(best, (time.perf_counter() - start) / (len(x) / BATCH))
        cpu = min(cpu, (time.process_time() - used) / (len(x) / BATCH))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"step": best, "cpu": cpu, "peak": peak, "torch": torch.__version__}))


def ours(c, name, threads, qat, work):
    model = work / f"{name}.step.onnx"
    if name == "fashion_cnn":
        model = c.ROOT / "assets/fashion_cnn.onnx"
    elif not model.exists():
        c.narrow("train", "--arch", name, "-o", model, "--epochs", 1, "--data",
                 f"mnist:{c.FASHION},split=train,samples=100", threads=threads)
    used = []
    for epochs in (1, 4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = c.narrow("train", model, "-o", work / "step.out.onnx", "--epochs", epochs, "--batch", BATCH, "--data",
                          f"mnist:{c.FASHION},split=train,samples={SAMPLES[name]}", *(["--qat", "w8a8"] if qat else []),
                          threads=threads)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"cpu": (used[1] - used[0]) / 3 / (SAMPLES[name] / BATCH), "step": BATCH / max(e["samples_per_second"] for e in report["epochs"]), "peak": report["peak_rss_bytes"],
            "torch": report["torch"]}


def main():
    import common as c
    work = pathlib.Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    python = sys.argv[2] if len(sys.argv) > 2 else sys.executable
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    rows, memory = [], []
    for name in SAMPLES:
        for qat in (False, True):
            best = {}
            for _ in range(rounds):
                theirs = subprocess.run([python, __file__, "--peer", name, str(threads), str(int(qat))],
                                        capture_output=True, text=True, check=True,
                                        env={**os.environ, "OMP_NUM_THREADS": str(threads)})
                for who, r in (("narrow", ours(c, name, threads, qat, work)), ("peer", json.loads(theirs.stdout))):
                    old = best.setdefault(who, r)
                    best[who] = min(old, r, key=lambda x: x["step"])
                    best[who]["peak"] = max(old["peak"], r["peak"])
                    best[who]["cpu"] = min(old["cpu"], r["cpu"])
            a, b = best["narrow"], best["peer"]
            rows.append([name, "QAT w8a8" if qat else "float", f"{1e3 * a['step']:.1f}", f"{1e3 * b['step']:.1f}",
                         f"{a['step'] / b['step']:.2f}", f"{1e3 * a['cpu']:.1f}",
                         f"{1e3 * b['cpu']:.1f}", f"{a['cpu'] / b['cpu']:.2f}", f"{a['peak'] / 2**20:.0f}", f"{b['peak'] / 2**20:.0f}"])
            memory.append(a["peak"])
    print(c.cpu(), f"{threads} threads, batch {BATCH}; libtorch {a['torch']} in narrow, peer torch {b['torch']}")
    c.table("A training step", ["network", "", "narrow, ms", "PyTorch, ms", "ratio", "narrow, CPU ms", "PyTorch, CPU ms",
                                "ratio", "narrow, peak MiB",
                                "PyTorch, peak MiB"], rows)
    c.table("Memory of narrow's QAT / float", ["network", "ratio"],
            [[n, f"{memory[2 * i + 1] / memory[2 * i]:.2f}"] for i, n in enumerate(SAMPLES)])


if __name__ == "__main__":
    if sys.argv[1] == "--peer":
        peer(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")
    else:
        main()
