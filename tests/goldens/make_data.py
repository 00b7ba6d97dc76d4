#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/goldens/data: arrays by numpy, pictures by Pillow with their decoded pixels.

    python3 -m venv v && v/bin/pip install numpy pillow && v/bin/python tests/goldens/make_data.py
"""
import pathlib
import struct

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).parent / "data"
OUT.mkdir(exist_ok=True)
rng = np.random.default_rng(7)


def arrays():
    base = np.arange(12).reshape(3, 4)
    types = ["f4", "f8", "f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
    plain = {t: (base - 5 * (t[0] != "u")).astype("<" + t) for t in types}
    plain["b1"] = base % 2 == 0
    plain["scalar"] = np.float32(2.5)
    plain["empty"] = np.zeros((0, 3), "f4")
    plain["fortran"] = np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4))
    plain["big_f4"] = base.astype(">f4")
    plain["big_i2"] = (base - 5).astype(">i2")
    np.savez(OUT / "stored.npz", **plain)
    np.savez_compressed(OUT / "deflated.npz", **plain)
    np.savez(OUT / "text.npz", words=np.array(["a", "bc"]))
    np.savez(OUT / "complex.npz", x=np.zeros(2, "c8"))
    # A data set: five samples of [2, 3], their labels.
    x = rng.standard_normal((5, 2, 3)).astype("f4")
    np.savez(OUT / "samples.npz", x=x, y=np.array([4, 0, 2, 2, 1]))


def smooth(height, width, channels):
    """A picture that JPEG keeps well: waves of different length."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(x / (5 + 3 * c) + c) * np.cos(y / (7 - c)) for c in range(channels)]
    return np.stack(planes, -1).round().astype("u1")


def pictures():
    decoded = {}

    def save(name, image, mode="RGB", **options):
        image.save(OUT / name, **options)
        decoded[name] = np.asarray(Image.open(OUT / name).convert(mode))

    colour = Image.fromarray(smooth(24, 37, 3))
    gray = Image.fromarray(smooth(24, 37, 1)[:, :, 0])
    save("baseline.jpg", colour, quality=90)
    save("full_chroma.jpg", colour, quality=95, subsampling=0)
    save("progressive.jpg", colour, quality=90, progressive=True)
    save("gray.jpg", gray, "L", quality=90)
    colour.convert("CMYK").save(OUT / "cmyk.jpg", quality=95)
    decoded["cmyk.jpg"] = np.asarray(Image.open(OUT / "cmyk.jpg").convert("RGB"))
    save("rgb.png", colour)
    save("gray.png", gray, "L")
    save("palette.png", colour.quantize(16))
    alpha = colour.convert("RGBA")
    alpha.putalpha(gray)
    save("alpha.png", alpha)
    bits = gray.point(lambda v: 255 * (v > 127)).convert("1")
    save("bits.png", bits, "L")
    wide = (smooth(24, 37, 1)[:, :, 0].astype("u2") * 257).astype("u2")
    Image.fromarray(wide).save(OUT / "sixteen.png")
    decoded["sixteen.png"] = (wide // 257).astype("u1")
    colour.resize((5, 4)).save(OUT / "small.png")
    decoded["luma"] = np.asarray(colour.convert("L"))
    np.savez_compressed(OUT / "decoded.npz", **decoded)


def bilinear(image, height, width):
    """Half-pixel centres, edges repeated, in double, half to even."""

    def taps(size, to):
        at = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, size - 1), at - low

    y0, y1, wy = taps(image.shape[0], height)
    x0, x1, wx = taps(image.shape[1], width)
    wx = wx[None, :, None]
    wy = wy[:, None, None]
    image = image.astype("f8")
    top = image[y0][:, x0] * (1 - wx) + image[y0][:, x1] * wx
    bottom = image[y1][:, x0] * (1 - wx) + image[y1][:, x1] * wx
    return np.rint(top * (1 - wy) + bottom * wy).astype("u1")


def resized():
    picture = rng.integers(0, 256, (24, 37, 3), dtype="u1")
    out = {"source": picture}
    for height, width in [(12, 18), (48, 74), (7, 90), (24, 37), (1, 1), (33, 5)]:
        out[f"{height}x{width}"] = bilinear(picture, height, width)
    np.savez_compressed(OUT / "resized.npz", **out)


def idx():
    def write(name, array, code):
        head = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        (OUT / name).write_bytes(head + array.tobytes())

    base = np.arange(-3, 3)
    write("u1.idx", np.abs(base).astype("u1").reshape(2, 3), 0x08)
    write("i1.idx", base.astype("i1"), 0x09)
    write("i2.idx", (base * 300).astype(">i2").reshape(3, 2), 0x0B)
    write("i4.idx", (base * 70000).astype(">i4"), 0x0C)
    write("f4.idx", (base * 0.5).astype(">f4"), 0x0D)
    write("f8.idx", (base * 0.25).astype(">f8").reshape(1, 2, 3), 0x0E)


arrays()
pictures()
resized()
idx()
