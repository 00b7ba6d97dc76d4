# SPDX-License-Identifier: Apache-2.0
"""GGUF files for the comparison with llama.cpp, written with its own `gguf` package and nothing of narrow.
Usage: to_gguf.py CHECKPOINT_FOLDER OUT.gguf"""
import json
import pathlib
import struct
import sys

import gguf
import numpy as np

LLAMA_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
GPT2_NAMES = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}
OUTER_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm",
}


def safetensors(path):
    """Every tensor as float32."""
    data = np.memmap(path, np.uint8, "r")
    size = struct.unpack("<Q", data[:8].tobytes())[0]
    header = json.loads(data[8:8 + size].tobytes())
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end].tobytes()
        if entry["dtype"] == "BF16":
            x = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        yield name, x.reshape(entry["shape"])


def interleaved(weights, heads):
    """Rows of rotary pairs side by side, as llama.cpp turns them."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def add_vocabulary(writer, folder):
    """A byte-level BPE cut as GPT-2 cuts."""
    file = json.loads((folder / "tokenizer.json").read_text())
    pieces = sorted(file["model"]["vocab"], key=file["model"]["vocab"].get)
    special = {token["content"] for token in file["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types([gguf.TokenType.CONTROL if p in special else gguf.TokenType.NORMAL for p in pieces])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in file["model"]["merges"]])
    config = json.loads((folder / "config.json").read_text())
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)


def add_llama(writer, c):
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_rope_dimension_count(c["hidden_size"] // c["num_attention_heads"])
    writer.add_vocab_size(c["vocab_size"])


def add_gpt2(writer, c):
    writer.add_block_count(c["n_layer"])
    writer.add_context_length(c["n_positions"])
    writer.add_embedding_length(c["n_embd"])
    writer.add_feed_forward_length(c.get("n_inner") or 4 * c["n_embd"])
    writer.add_head_count(c["n_head"])
    writer.add_layer_norm_eps(c["layer_norm_epsilon"])


def gguf_name(name):
    name = name.removeprefix("transformer.")
    stem, kind = name.rsplit(".", 1)
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.{kind}"
    parts = stem.removeprefix("model.").split(".", 2)  # layers.3.self_attn.q_proj, h.3.attn.c_attn
    return f"blk.{parts[1]}.{(LLAMA_NAMES | GPT2_NAMES)[parts[2]]}.{kind}"


def convert(folder, out):
    c = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, {"llama": "llama", "gpt2": "gpt2"}[c["model_type"]])
    (add_llama if c["model_type"] == "llama" else add_gpt2)(writer, c)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_vocabulary(writer, folder)
    for name, x in safetensors(folder / "model.safetensors"):
        if c["model_type"] == "gpt2" and name.split(".")[-2].startswith("c_") and x.ndim == 2:
            x = x.T
        if ".q_proj." in name or ".k_proj." in name:
            x = interleaved(x, c["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(x))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    convert(pathlib.Path(sys.argv[1]), sys.argv[2])
