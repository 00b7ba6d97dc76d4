#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small TorchScript models, and what PyTorch (PyPI, 2.15) computes with them for three samples.

Usage: make_torchscript.py FOLDER
"""
import pathlib
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

warnings.filterwarnings("ignore")


class Block(nn.Module):
    """Writes in place, as residual networks in the wild do."""

    def __init__(self, width, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(width, out, 1, stride) if stride > 1 else None

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.first = Block(4, 4, 1)
        self.second = Block(4, 6, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu6(self.stem(x)), 2)
        x = torch.flatten(self.pool(self.second(self.first(x))), 1)
        return self.out(self.drop(x))


class Transformer(nn.Module):
    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        q = q.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        k = k.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        v = v.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        a = torch.softmax(q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5, -1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(x))), x.mean(1)


class Shapes(nn.Module):
    """What the others leave out, and control flow that shapes decide."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(2, 8, 3, padding="same")
        self.transposed = nn.ConvTranspose2d(8, 4, 2, 2)
        self.norm = nn.GroupNorm(2, 8)
        self.slopes = nn.PReLU(8)

    def forward(self, x):
        y = self.slopes(self.norm(self.same(x)))
        z = F.interpolate(y, scale_factor=2.0, mode="nearest")
        w = F.interpolate(y, size=(12, 12), mode="bilinear", align_corners=False)
        left, right = torch.split(z, 4, 1)
        out = torch.cat([left + F.hardswish(self.transposed(y)), F.silu(right)], 1)
        out = F.leaky_relu(F.pad(out, (1, 1, 0, 2)), 0.1)
        sums = torch.stack([y.amax((2, 3)), y.sum((2, 3))], 1).pow(2)
        return out[:, 1:5, ::2].clamp(-1.0, 2.0), F.pixel_shuffle(w, 2), sums


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])

    def forward(self, x):
        if x.dim() == 3:
            x = x.mean(1)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        for i in range(3):
            x = x * 0.5 + float(i)
        return x


class Unknown(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real + torch.linalg.inv(x)


class DataDependent(nn.Module):
    def forward(self, x):
        if bool(x.sum() > 0):
            return x
        return -x


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    models = {
        "residual": (Residual(), (3, 16, 16), torch.jit.trace),
        "transformer": (Transformer(), (5, 8), torch.jit.trace),
        "shapes": (Shapes(), (2, 6, 6), torch.jit.trace),
        "scripted": (Scripted(), (3, 4), torch.jit.script),
    }
    arrays = {}
    for name, (model, size, make) in models.items():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        model.eval()
        script = make(model, torch.randn(2, *size)) if make is torch.jit.trace else make(model)
        script.save(folder / f"{name}.pt")
        x = torch.randn(3, *size)
        with torch.no_grad():
            outputs = model(x)
        arrays[f"{name}.x"] = x.numpy()
        for i, y in enumerate(outputs if isinstance(outputs, tuple) else (outputs,)):
            arrays[f"{name}.y{i}"] = y.numpy()
    np.savez(folder / "outputs.npz", **arrays)
    torch.jit.script(Unknown()).save(folder / "unknown.pt")
    torch.jit.script(DataDependent()).save(folder / "data_dependent.pt")


if __name__ == "__main__":
    main()
