# SPDX-License-Identifier: Apache-2.0
"""Embeddings of texts by the tiny BERT of goldens/llm/bert, for tests/llm/embed_test.cpp.

    python make_embed.py        (numpy, safetensors, tokenizers)

Writes goldens/embed: a WordPiece tokenizer for the model's 48 ids, the files that sentence-transformers puts beside a
model (mean pooling, at most 12 tokens), texts.txt, and golden.npz with the ids of each text, cut, and its mean, cls and
last-token vectors, of length 1 and as they are. Ids come from the package `tokenizers`; the model is computed here in
numpy in float64, and this computation has to give the hidden states that transformers gave for goldens/llm/bert."""
import json
import math
import pathlib

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE / "llm" / "bert"
OUT = HERE / "embed"
MOST = 12
PIECES = ("[PAD] [UNK] [CLS] [SEP] the cat dog sat on mat a b c d e f g h i j k l m n o p q r s t u v w x y z ##s ##ing ##ly "
          "##ed run walk red blue , . ! ?").split()
TEXTS = ["The cat sat on the mat.", "the DOG walked", "", "running, walking; cats!", "a", "z zebra ?",
         "the cat sat on the red mat . the dog sat on the blue mat . the cat runs",  # is cut
         "  the\tcat  ", "C\u00e9d\u00e9 e", "the cat sat on the mat.", "\ufffd"]


class Bert:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def attention(self, x, name):
        heads = self.config["num_attention_heads"]
        q, k, v = (self.linear(x, f"{name}.self.{part}").reshape(len(x), heads, -1).transpose(1, 0, 2)
                   for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = (scores / scores.sum(-1, keepdims=True)) @ v
        return self.linear(y.transpose(1, 0, 2).reshape(len(x), -1), name + ".output.dense")

    def hidden(self, ids, types):
        e = "embeddings."
        x = (self.w[e + "word_embeddings.weight"][ids] + self.w[e + "token_type_embeddings.weight"][types]
             + self.w[e + "position_embeddings.weight"][:len(ids)])
        x = self.norm(x, e + "LayerNorm")
        for i in range(self.config["num_hidden_layers"]):
            layer = f"encoder.layer.{i}."
            x = self.norm(x + self.attention(x, layer + "attention"), layer + "attention.output.LayerNorm")
            y = self.linear(x, layer + "intermediate.dense")
            y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
            x = self.norm(x + self.linear(y, layer + "output.dense"), layer + "output.LayerNorm")
        return x


def check_against_transformers(bert):
    golden = np.load(MODEL / "golden.npz")
    for row, mask in enumerate(golden["attention_mask"]):
        n = int(mask.sum())
        got = bert.hidden(golden["ids"][row][:n], golden["token_type_ids"][row][:n])
        worst = np.abs(got - golden["last_hidden_state"][row][:n]).max()
        print(f"differs from transformers by {worst:.1e}")
        assert worst < 2e-5


def write_tokenizer():
    assert len(PIECES) == 48 and len(set(PIECES)) == 48, len(PIECES)
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    # As real files have it: what sentence-transformers says counts, not this.
    tokenizer.enable_truncation(5)
    tokenizer.save(str(OUT / "tokenizer.json"))
    tokenizer.enable_truncation(MOST)
    return tokenizer


def write_json(name, value):
    path = OUT / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def main():
    OUT.mkdir(exist_ok=True)
    bert = Bert(MODEL)
    check_against_transformers(bert)
    tokenizer = write_tokenizer()
    kind = "sentence_transformers.models."
    write_json("modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind + "Transformer"},
                                {"idx": 1, "name": "1", "path": "1_Pooling", "type": kind + "Pooling"},
                                {"idx": 2, "name": "2", "path": "2_Normalize", "type": kind + "Normalize"}])
    write_json("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_cls_token": False,
                                         "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
                                         "pooling_mode_mean_sqrt_len_tokens": False})
    write_json("sentence_bert_config.json", {"max_seq_length": MOST, "do_lower_case": False})
    (OUT / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    golden = {"lengths": [], "ids": [], "mean": [], "cls": [], "last": []}
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        hidden = bert.hidden(np.array(ids), np.zeros(len(ids), np.int64))
        golden["lengths"].append(len(ids))
        golden["ids"] += ids
        golden["mean"].append(hidden.mean(0))
        golden["cls"].append(hidden[0])
        golden["last"].append(hidden[-1])
    arrays = {"lengths": np.array(golden["lengths"]), "ids": np.array(golden["ids"])}
    for name in ("mean", "cls", "last"):
        raw = np.stack(golden[name])
        arrays[name] = raw.astype(np.float32)
        arrays[name + "_normalized"] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    np.savez(OUT / "golden.npz", **arrays)
    print(golden["lengths"])


if __name__ == "__main__":
    main()
