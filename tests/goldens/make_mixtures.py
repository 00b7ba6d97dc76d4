#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Types that llama.cpp's llama-quantize chooses (its --dry-run), for models of several shapes.

Usage: make_mixtures.py LLAMA_QUANTIZE > mixtures.txt     needs the PyPI packages gguf and numpy

Lines: "model NAME architecture layers experts heads_per_key", then "tensor NAME dims.." (rows first), then
"format NAME 0|1 TYPES": for each tensor in that order the letter of its type (see LETTERS); 1: with an
importance matrix.
"""
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np

LETTERS = dict(f32="F", f16="H", q4_0="a", q4_1="b", q5_0="c", q5_1="d", q8_0="e", q2_k="2", q3_k="3",
               q4_k="4", q5_k="5", q6_k="6", iq4_nl="n", iq4_xs="x")
FORMATS = ("Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_0 Q4_1 Q4_K_S Q4_K_M Q5_0 Q5_1 Q5_K_S Q5_K_M Q6_K Q8_0 IQ4_NL "
           "IQ4_XS F16").split()


def llama(layers, hidden=256, ffn=512, heads=4, kv=4, experts=0, tied=False):
    tensors = {"token_embd.weight": (32, hidden), "output_norm.weight": (hidden,)}
    if not tied:
        tensors["output.weight"] = (32, hidden)
    head = hidden // heads
    for i in range(layers):
        p = f"blk.{i}."
        tensors |= {p + "attn_q.weight": (hidden, hidden), p + "attn_k.weight": (kv * head, hidden),
                    p + "attn_v.weight": (kv * head, hidden), p + "attn_output.weight": (hidden, hidden),
                    p + "attn_norm.weight": (hidden,), p + "ffn_norm.weight": (hidden,)}
        if experts:
            tensors |= {p + "ffn_gate_inp.weight": (experts, hidden),
                        p + "ffn_gate_exps.weight": (experts, ffn, hidden),
                        p + "ffn_up_exps.weight": (experts, ffn, hidden),
                        p + "ffn_down_exps.weight": (experts, hidden, ffn)}
        else:
            tensors |= {p + "ffn_gate.weight": (ffn, hidden), p + "ffn_up.weight": (ffn, hidden),
                        p + "ffn_down.weight": (hidden, ffn)}
    keys = dict(block_count=layers, embedding_length=hidden, feed_forward_length=ffn,
                context_length=64, expert_count=experts, expert_used_count=min(experts, 2))
    keys |= {"attention.head_count": heads, "attention.head_count_kv": kv}
    return "llama", tensors, keys, "attention.layer_norm_rms_epsilon"


def fused(architecture, layers, hidden=256):
    tensors = {"token_embd.weight": (32, hidden), "output_norm.weight": (hidden,), "output_norm.bias": (hidden,)}
    if architecture == "gpt2":
        tensors["position_embd.weight"] = (64, hidden)
    for i in range(layers):
        p = f"blk.{i}."
        tensors |= {p + "attn_qkv.weight": (3 * hidden, hidden), p + "attn_output.weight": (hidden, hidden),
                    p + "attn_norm.weight": (hidden,), p + "ffn_up.weight": (4 * hidden, hidden),
                    p + "ffn_down.weight": (hidden, 4 * hidden)}
    keys = dict(block_count=layers, embedding_length=hidden, feed_forward_length=4 * hidden, context_length=64)
    keys |= {"attention.head_count": 4, "attention.head_count_kv": 4}
    return architecture, tensors, keys, "attention.layer_norm_epsilon"


MODELS = {
    "plain": llama(18),
    "shared_tied": llama(9, heads=8, kv=2, tied=True),
    "experts": llama(8, experts=8),
    "odd_rows": llama(8, hidden=288, ffn=96 * 4 + 8),
    "gpt2": fused("gpt2", 8),
    "falcon": fused("falcon", 17),
}


def write(path, model):
    architecture, tensors, keys, epsilon = model
    w = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        w.add_uint32(f"{architecture}.{key}", value)
    w.add_float32(f"{architecture}.{epsilon}", 1e-5)
    w.add_uint32(f"{architecture}.vocab_size", 32)
    w.add_string("tokenizer.ggml.model", "none")
    for name, dims in tensors.items():
        w.add_tensor(name, np.zeros(dims, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def importance(path, tensors):
    w = gguf.GGUFWriter(path, "none")
    w.kv_data[0].clear()
    w.add_string("general.type", "imatrix")
    w.add_array("imatrix.datasets", ["x"])
    w.add_uint32("imatrix.chunk_count", 1)
    w.add_uint32("imatrix.chunk_size", 64)
    for name, dims in tensors.items():
        if len(dims) < 2:
            continue
        experts = dims[0] if len(dims) > 2 else 1
        w.add_tensor(name + ".in_sum2", np.ones((experts, dims[-1]), np.float32))
        w.add_tensor(name + ".counts", np.ones((experts, 1), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    for name, model in MODELS.items():
        architecture, tensors, keys, _ = model
        per_key = keys["attention.head_count"] // keys["attention.head_count_kv"]
        print("model", name, architecture, keys["block_count"], keys.get("expert_count", 0), per_key)
        for tensor, dims in tensors.items():
            print("tensor", tensor, *dims)
        with tempfile.TemporaryDirectory() as folder:
            write(folder + "/m.gguf", model)
            importance(folder + "/i.gguf", tensors)
            for form in FORMATS:
                for informed in (0, 1):
                    command = [sys.argv[1], "--dry-run"] + (["--imatrix", folder + "/i.gguf"] if informed else [])
                    run = subprocess.run(command + [folder + "/m.gguf", form], capture_output=True, text=True)
                    types = {}
                    for line in (run.stdout + run.stderr).splitlines():
                        found = re.match(r"\[ *\d+/ *\d+\] +(\S+) .*type = +(\w+), size = (.*)", line)
                        if found:
                            changed = re.search(r"\((\w+)\)$", found[3].strip())
                            types[found[1]] = (changed[1] if changed else found[2]).lower()
                    if set(types) != set(tensors):
                        sys.exit(run.stdout + run.stderr)
                    print("format", form.lower(), informed, "".join(LETTERS[types[t]] for t in tensors))


if __name__ == "__main__":
    main()
