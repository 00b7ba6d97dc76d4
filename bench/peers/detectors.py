# SPDX-License-Identifier: Apache-2.0
"""The detectors after w8a8: UltraFace slim by its faces, FastestDet by F1 against its float boxes; onnxruntime
beside. Calibration on 200 unlabelled photos. Usage: detectors.py WORK_FOLDER"""
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

import common as c

PHOTOS = ("2.jpg", "5.jpg", "13.jpg", "9.jpg")


def photos(work):
    """500 photos, split by order into 200 for calibration and 300 for evaluation."""
    folder = work / "photos"
    if not folder.exists():
        (folder / "all").mkdir(parents=True)
        subprocess.run(["tar", "xf", c.ASSETS / "imagenet/imagenet_sample_500.tar", "-C", folder / "all"], check=True)
        names = sorted((folder / "all").rglob("*.jpg"))
        order = np.random.default_rng(7).permutation(len(names))
        for part, chosen in (("calibration", order[:200]), ("evaluation", order[200:])):
            (folder / part).mkdir()
            for i in chosen:
                (folder / part / names[i].name).symlink_to(names[i].resolve())
    return folder / "calibration", folder / "evaluation"


def load(path, size, order, mean, std):
    image = np.asarray(Image.open(path).convert("RGB").resize(size, Image.BILINEAR), np.float32)
    if order == "bgr":
        image = image[:, :, ::-1]
    return ((image - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[None].astype(np.float32)


def narrow_run(model, x, name, work):
    np.savez(work / "in.npz", **{name: x})
    c.narrow("run", model, "--input", f"{work}/in.npz", "--output", work / "out.npz")
    z = np.load(work / "out.npz")
    return {k: z[k] for k in z.files}


def iou(a, b):
    lo, hi = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = np.prod(np.maximum(hi - lo, 0))
    area = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])
    return inter / max(area - inter, 1e-12)


def nms(boxes, scores, threshold):
    keep = []
    for i in np.argsort(-scores):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in keep):
            keep.append(i)
    return keep


def faces(outputs):
    scores, boxes = outputs["scores"][0, :, 1], outputs["boxes"][0]
    chosen = scores > 0.7
    return int(chosen.sum()), len(nms(boxes[chosen], scores[chosen], 0.3))


def fastest_boxes(y):
    """(class, score, box) of one output map [85, 22, 22]; the rule of the network's authors."""
    _, height, width = y.shape
    cls = y[5:].argmax(0)
    score = y[0] ** 0.6 * y[5:].max(0) ** 0.4
    out = []
    for h, w in zip(*np.where(score > 0.65)):
        tx, ty = np.tanh(y[1:3, h, w])
        bw, bh = 1 / (1 + np.exp(-y[3:5, h, w]))
        cx, cy = (w + tx) / width, (h + ty) / height
        out.append((int(cls[h, w]), float(score[h, w]), np.array([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2])))
    if not out:
        return []
    keep = nms(np.stack([o[2] for o in out]), np.array([o[1] for o in out]), 0.45)
    return [out[i] for i in keep]


def f1(reference, candidate):
    hits = total_r = total_c = 0
    for r, q in zip(reference, candidate):
        total_r, total_c = total_r + len(r), total_c + len(q)
        free = list(q)
        for cls, _, box in r:
            match = next((i for i, o in enumerate(free) if o[0] == cls and iou(box, o[2]) >= 0.5), None)
            if match is not None:
                hits += 1
                free.pop(match)
    return 2 * hits / max(total_r + total_c, 1)


def ultraface(work, calibration):
    model = c.ASSETS / "ultraface/version-slim-320.onnx"
    ours, theirs = work / "ultraface.narrow.onnx", work / "ultraface.ort.onnx"
    c.narrow("quantize", model, "-o", ours, "--data",
             f"images:{calibration},resize=320x240,mean=127,std=128,scale=1", "--eval-data",
             f"images:{c.ASSETS / 'ultraface/photos'},resize=320x240,mean=127,std=128,scale=1",
             "--calibration-samples", "200")
    rows = []
    pictures = [(p, load(c.ASSETS / "ultraface/photos" / p, (320, 240), "rgb", 127, 128)) for p in PHOTOS]
    for title, path in (("float", model), ("narrow", ours)):
        counts = [faces(narrow_run(path, x, "input", work)) for _, x in pictures]
        rows.append([title, " / ".join(str(a) for a, _ in counts), " / ".join(str(b) for _, b in counts)])
    session = c.ort_session(ours)
    names = [o.name for o in session.get_outputs()]
    counts = [faces(dict(zip(names, session.run(None, {"input": x})))) for _, x in pictures]
    rows.append(["narrow's file in onnxruntime", " / ".join(str(a) for a, _ in counts),
                 " / ".join(str(b) for _, b in counts)])
    c.table("UltraFace slim", ["model", f"anchors above 0.7 in {', '.join(PHOTOS)}", "faces after NMS"], rows)


def fastestdet(work, calibration, evaluation):
    model = c.ASSETS / "fastestdet/FastestDet.onnx"
    theirs = work / "fastestdet.ort.onnx"
    spec = "resize=352x352,order=bgr,scale=1/255"
    ours = {}
    for flags in ("--observer minmax", "--observer moving_average", "--observer mse", "--activations uint16"):
        ours[flags] = work / f"fastestdet.{flags.split()[-1]}.onnx"
        c.narrow("quantize", model, "-o", ours[flags], "--data", f"images:{calibration},{spec}", "--eval-data",
                 f"images:{evaluation},{spec}", "--calibration-samples", "200", *flags.split())
    images = sorted(evaluation.iterdir())
    xs = np.concatenate([load(p, (352, 352), "bgr", 0, 255) for p in images])
    session = c.ort_session(model, 2)
    float_maps = [session.run(None, {"input.1": x[None]})[0][0] for x in xs]
    reference = [fastest_boxes(m) for m in float_maps]
    rows = []
    for flags, path in ours.items():
        boxes = [fastest_boxes(next(iter(narrow_run(path, x[None], "input.1", work).values()))[0]) for x in xs]
        rows.append([f"narrow, {flags}", f1(reference, boxes)])
        in_ort = c.ort_session(path, 2)
        rows.append(["the same file in onnxruntime",
                     f1(reference, [fastest_boxes(in_ort.run(None, {"input.1": x[None]})[0][0]) for x in xs])])
    samples = np.concatenate([load(p, (352, 352), "bgr", 0, 255) for p in sorted(calibration.iterdir())])
    try:
        import onnx
        from onnx import version_converter
        upgraded = work / "fastestdet.13.onnx"
        onnx.save(version_converter.convert_version(onnx.load(str(model)), 13), str(upgraded))
        c.ort_quantize(upgraded, theirs, samples, "input.1")
        peer = c.ort_session(theirs, 2)
        rows.append(["onnxruntime's own (upgraded to opset 13 first)",
                     f1(reference, [fastest_boxes(peer.run(None, {"input.1": x[None]})[0][0]) for x in xs])])
    except Exception as error:  # the peer's failure is a result too
        rows.append([f"onnxruntime's own: {type(error).__name__}: {str(error)[:80]}", float("nan")])
    c.table(f"FastestDet on {len(images)} photos, F1 at IoU 0.5 against its float boxes "
            f"({sum(map(len, reference))} boxes)", ["model", "F1"], [[a, f"{b:.3f}"] for a, b in rows])


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(c.cpu())
    calibration_photos, evaluation_photos = photos(folder)
    ultraface(folder, calibration_photos)
    fastestdet(folder, calibration_photos, evaluation_photos)
