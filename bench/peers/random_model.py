# SPDX-License-Identifier: Apache-2.0
"""Llamas of any size whose weights say nothing, for times and memory. A tensor at a time is made and written, so that
a model may be larger than memory; the same seed gives the same files.

    random_model.py VOCABULARY_FOLDER OUT [--size 280m|1b|3b] [--type bf16|f16] [--seed 7]

OUT is a .gguf file, or the folder of a Hugging Face model in shards (bf16). VOCABULARY_FOLDER has the config.json and
the tokenizer that the model gets."""
import argparse
import json
import pathlib
import shutil

import numpy as np

SIZES = {
    "280m": dict(hidden_size=1024, num_hidden_layers=24, intermediate_size=2816, num_attention_heads=16,
                 num_key_value_heads=8),
    "1b": dict(hidden_size=2048, num_hidden_layers=23, intermediate_size=5632, num_attention_heads=32,
               num_key_value_heads=4),
    "3b": dict(hidden_size=3072, num_hidden_layers=30, intermediate_size=8192, num_attention_heads=24,
               num_key_value_heads=8),
}
SHARD_BYTES = 2 << 30


def config_of(folder, size):
    return json.loads((folder / "config.json").read_text()) | SIZES[size] | {"max_position_embeddings": 2048}


def shapes(c):
    """(name as Hugging Face has it, shape) in the order of the model."""
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    kv = hidden // c["num_attention_heads"] * c["num_key_value_heads"]
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        for name, rows, columns in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden),
                                    ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, hidden),
                                    ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                                    ("mlp.down_proj", hidden, inner)):
            yield f"{layer}{name}.weight", (rows, columns)
    yield "model.norm.weight", (hidden,)


def bf16(x):
    bits = x.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def values(shape, rng):
    """Float32; a spread that keeps activations near 1."""
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[1]))


def write_folder(vocabulary, out, size, seed=7):
    """Shards of at most SHARD_BYTES, each written in one pass behind its header."""
    out.mkdir(parents=True, exist_ok=True)
    c = config_of(vocabulary, size)
    (out / "config.json").write_text(json.dumps(c, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(vocabulary / name, out)
    shards, used = [[]], 0
    for name, shape in shapes(c):
        size_of = 2 * int(np.prod(shape))
        if used + size_of > SHARD_BYTES and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append((name, shape, used, used + size_of))
        used += size_of
    rng = np.random.default_rng(seed)
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header = json.dumps({n: {"dtype": "BF16", "shape": s, "data_offsets": [b, e]} for n, s, b, e in shard}).encode()
        header += b" " * (-len(header) % 8)
        with open(out / file, "wb") as f:
            f.write(len(header).to_bytes(8, "little") + header)
            for name, shape, _, _ in shard:
                bf16(values(shape, rng)).tofile(f)
                places[name] = file
    total = sum(shard[-1][3] for shard in shards)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))


def write_gguf(vocabulary, out, size, form="bf16", seed=7):
    import gguf
    import to_gguf

    c = config_of(vocabulary, size)
    writer = gguf.GGUFWriter(out, "llama")
    to_gguf.add_llama(writer, c)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if form == "bf16" else gguf.LlamaFileType.MOSTLY_F16)
    to_gguf.add_vocabulary(writer, vocabulary)
    half = gguf.GGMLQuantizationType.BF16 if form == "bf16" else gguf.GGMLQuantizationType.F16
    for name, shape in shapes(c):
        vector = len(shape) == 1
        writer.add_tensor_info(to_gguf.gguf_name(name), shape, np.dtype(np.float32 if vector else np.float16),
                               int(np.prod(shape)) * (4 if vector else 2),
                               raw_dtype=gguf.GGMLQuantizationType.F32 if vector else half)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for _, shape in shapes(c):
        x = values(shape, rng)
        if len(shape) > 1:
            x = bf16(x) if form == "bf16" else x.astype(np.float16)
        writer.write_tensor_data(x)
    writer.close()


def main():
    parser = argparse.ArgumentParser(description="a random llama")
    parser.add_argument("vocabulary", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--type", choices=("bf16", "f16"), default="bf16")
    parser.add_argument("--seed", type=int, default=7)
    a = parser.parse_args()
    if a.out.suffix == ".gguf":
        write_gguf(a.vocabulary, a.out, a.size, a.type, a.seed)
    else:
        write_folder(a.vocabulary, a.out, a.size, a.seed)


if __name__ == "__main__":
    main()
