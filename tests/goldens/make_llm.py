#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/goldens/llm/<family>/: tiny random language models and what `transformers` computes with them.

    bench/peers/setup_llama.sh     # llama.cpp: its converter makes the GGUF twins, its library checks them
    python3 -m venv v && v/bin/pip install numpy torch transformers safetensors gguf sentencepiece
    v/bin/python tests/goldens/make_llm.py [--llama-cpp build/peers/llama.cpp] [FAMILY ...]

Each folder has
    config.json, model.safetensors    as the family's checkpoints on the usual hub look: names, storage types, keys
    model.gguf                        the same weights in float32, where llama.cpp computes the same function
    golden.npz                        ids [2, 24] and, computed in float32, logits [2, 24, vocabulary]; of BERT
                                      token_type_ids, attention_mask, last_hidden_state, pooler_output, and the
                                      normalized mean of the hidden states that are not masked

Weights are large enough for every part to matter: each line of `matters` changes the configuration and has to
change the logits. llama.cpp reads the twins and has to agree within 1e-2.
"""
import argparse
import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
SEQUENCES, LENGTH = 2, 24

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 48,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
    "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "torch_dtype": "float16", "use_cache": True,
}
GEMMA = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 20,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 48,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "attention_bias": False,
    "attn_logit_softcapping": None, "final_logit_softcapping": None, "bos_token_id": 2, "eos_token_id": 1,
    "pad_token_id": 0, "torch_dtype": "bfloat16",
}
# matters: changes of the configuration, or functions that change the weights.
FAMILIES = {
    "llama2": {"config": LLAMA, "dtype": torch.float16, "twin": True,
               "matters": [{"rope_theta": 100.0}, {"rms_norm_eps": 0.3}]},
    # Grouped queries, tied embedding, frequencies scaled as Llama 3.1 does - with a short original context, so that
    # the few positions here have wavelengths of all three kinds.
    "llama3": {"config": LLAMA | {
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 500.0,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 32, "rope_type": "llama3"},
        "max_position_embeddings": 256, "tie_word_embeddings": True, "torch_dtype": "bfloat16"},
        "dtype": torch.bfloat16, "twin": True, "matters": [{"rope_scaling": None}]},
    # No twin: llama.cpp's reader of this family has no window.
    "mistral": {"config": {k: v for k, v in LLAMA.items() if k not in ("attention_bias", "mlp_bias", "rope_scaling")} | {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_key_value_heads": 2,
        "sliding_window": 8, "torch_dtype": "bfloat16"},
        "dtype": torch.bfloat16, "twin": False, "matters": [{"sliding_window": None}, {"sliding_window": 9}]},
    "qwen2": {"config": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 48,
        "max_position_embeddings": 64, "max_window_layers": 2, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "rope_theta": 1000000.0, "sliding_window": 8, "use_sliding_window": False, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"},
        "dtype": torch.bfloat16, "twin": True, "matters": [{"rope_theta": 100.0}, "q_proj.bias", "v_proj.bias"]},
    # Heads together wider than the hidden size; the newer spelling of the configuration.
    "qwen3": {"config": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 24, "vocab_size": 48,
        "max_position_embeddings": 64, "max_window_layers": 2, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "sliding_window": None,
        "layer_types": ["full_attention"] * 2, "use_sliding_window": False, "attention_bias": False,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16"},
        "dtype": torch.bfloat16, "twin": True, "matters": ["q_norm.weight", "k_norm.weight"]},
    # Five layers of eight positions, then one of all, as llama.cpp fixes it.
    "gemma3": {"config": GEMMA | {
        "num_hidden_layers": 6, "sliding_window": 8, "sliding_window_pattern": 6, "query_pre_attn_scalar": 16,
        "rope_scaling": None},
        "dtype": torch.bfloat16, "twin": True,
        "matters": [{"sliding_window": 64}, {"sliding_window": 9}, {"rope_local_base_freq": 100.0},
                    {"rope_theta": 50.0}, "q_norm.weight", "post_feedforward_layernorm.weight"]},
    # A scale of the scores that is not the heads' width, and linear scaling of the global layer's positions.
    "gemma3_scaled": {"config": GEMMA | {
        "num_hidden_layers": 2, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 40, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 100.0},
        "dtype": torch.bfloat16, "twin": False,
        "matters": [{"query_pre_attn_scalar": 16}, {"rope_scaling": None},
                    {"layer_types": ["sliding_attention"] * 2}]},
    "gpt2": {"config": {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 3,
        "n_positions": 32, "n_ctx": 32, "n_inner": None, "vocab_size": 48, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1,
        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"},
        "dtype": torch.bfloat16, "twin": True, "strip": "transformer.",
        "matters": [{"activation_function": "relu"}, "c_attn.bias", "ln_f.bias"]},
    "bert": {"config": {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 32, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 48, "max_position_embeddings": 40,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
        "pad_token_id": 0, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "torch_dtype": "float32"},
        "dtype": torch.float32, "twin": True, "matters": [{"hidden_act": "relu"}, {"layer_norm_eps": 0.1}]},
}


def random_weights(model, seed):
    """Every weight by name order; products keep the size of what goes in, and no norm or bias is without effect."""
    rng = np.random.default_rng(seed)
    state = model.state_dict()
    for name in sorted(state):
        shape = tuple(state[name].shape)
        if not state[name].is_floating_point():
            continue
        x = rng.standard_normal(shape)
        if name.endswith("bias"):
            x *= 0.4
        elif len(shape) == 1:
            x = 0.3 * x + (0.0 if "gemma" in model.config.model_type else 1.0)
        elif "embed" in name or "wte" in name or "wpe" in name or "lm_head" in name:
            x *= 0.6
        else:
            fan_in = shape[0] if name.split(".")[-2] in ("c_attn", "c_proj", "c_fc") else shape[1]
            x *= 1.4 / np.sqrt(fan_in)
        state[name].copy_(torch.from_numpy(x.astype(np.float32)))
    model.tie_weights()


def write_checkpoint(folder, family, seed):
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    (folder / "config.json").write_text(json.dumps(family["config"], indent=2, sort_keys=True) + "\n")
    config = AutoConfig.from_pretrained(folder)
    auto = AutoModel if config.model_type == "bert" else AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32)
    random_weights(model, seed)
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensors[name.removeprefix(family.get("strip", ""))] = value.to(family["dtype"]).contiguous().clone()
    if config.model_type == "bert":  # older files have it
        tensors["embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder, changes=None):
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    auto = AutoModel if json.loads((folder / "config.json").read_text())["model_type"] == "bert" else AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder)
    if changes:
        values = json.loads((folder / "config.json").read_text()) | changes
        config = type(config)(**values)
    model, info = auto.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager",
                                       output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    return model.eval()


def run(model, inputs):
    with torch.no_grad():
        out = model(**{name: torch.from_numpy(x) for name, x in inputs.items()})
    return out


def main_output(model, inputs):
    out = run(model, inputs)
    return (out.last_hidden_state if model.config.model_type == "bert" else out.logits).numpy()


def make_golden(folder, seed):
    model = load(folder)
    rng = np.random.default_rng(seed + 1000)
    ids = rng.integers(3, model.config.vocab_size, (SEQUENCES, LENGTH)).astype(np.int64)
    inputs = {"input_ids": ids}
    golden = {"ids": ids}
    if model.config.model_type == "bert":
        mask = np.ones_like(ids)
        mask[1, LENGTH - 5:] = 0
        types = (np.arange(LENGTH)[None] >= np.array([[9], [14]])).astype(np.int64)
        inputs |= {"attention_mask": mask, "token_type_ids": types}
        out = run(model, inputs)
        hidden = out.last_hidden_state.numpy()
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        golden |= {"attention_mask": mask, "token_type_ids": types, "last_hidden_state": hidden,
                   "pooler_output": out.pooler_output.numpy(),
                   "sentence_embedding": (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)}
    else:
        golden["logits"] = main_output(model, inputs)
    np.savez(folder / "golden.npz", **golden)
    double = float(np.abs(main_output(model.double(), inputs) - main_output(load(folder), inputs)).max())
    print(f"    float32 differs from float64 by {double:.1e}")
    assert double < 1e-4
    return inputs


def check_matters(folder, family, inputs):
    want = main_output(load(folder), inputs)
    for change in family["matters"]:
        if isinstance(change, dict):
            model = load(folder, change)
        else:  # parameters of this name become those that do nothing
            model = load(folder)
            neutral = 1.0 if change.endswith("weight") and "gemma" not in model.config.model_type else 0.0
            changed = [p for name, p in model.named_parameters() if name.endswith(change)]
            assert changed, change
            for p in changed:
                p.data.fill_(neutral)
        difference = float(np.abs(main_output(model, inputs) - want).max())
        print(f"    without {change}: {difference:.3f}")
        assert difference > 0.05, f"{folder.name}: {change} has no effect"
    print(f"    logits within {want.min():.2f} .. {want.max():.2f}")


def write_twin(folder, llama_cpp):
    """By llama.cpp's own converter; these models have no text, so the vocabulary is only a count."""
    sys.path[:0] = [str(llama_cpp / "source"), str(llama_cpp / "source/gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    hparams = ModelBase.load_hparams(folder, False)
    model_class = get_model_class(get_model_architecture(hparams, ModelType.TEXT))

    class WithoutText(model_class):
        model_arch = model_class.model_arch

        def set_vocab(self):
            self.vocab_size = hparams["vocab_size"]
            self.gguf_writer.add_tokenizer_model("none")
            self.gguf_writer.add_vocab_size(hparams["vocab_size"])
            if "type_vocab_size" in hparams:
                self.gguf_writer.add_token_type_count(hparams["type_vocab_size"])

    # Gemma's class cuts the embedding to the pieces of this file.
    pieces = folder / "tokenizer.json"
    pieces.write_text(json.dumps({"model": {"vocab": {str(i): i for i in range(hparams["vocab_size"])}},
                                  "added_tokens": []}))
    try:
        with torch.inference_mode():
            WithoutText(folder, gguf.LlamaFileType.ALL_F32, folder / "model.gguf", eager=True,
                        model_name=folder.name).write()
    finally:
        pieces.unlink()


def check_twin(folder, llama_cpp):
    os.environ.setdefault("LLAMA_CPP_LIB_PATH", str(llama_cpp / "build/bin"))
    sys.path.insert(0, str(llama_cpp))
    import ctypes
    from llama_cpp import llama_cpp as ll
    quiet = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, None)
    golden = np.load(folder / "golden.npz")
    bert = "last_hidden_state" in golden
    model = ll.llama_model_load_from_file(str(folder / "model.gguf").encode(), ll.llama_model_default_params())
    assert model, f"llama.cpp does not read {folder / 'model.gguf'}"
    worst = 0.0
    for row, ids in enumerate(golden["ids"]):
        if bert and (golden["attention_mask"][row] == 0).any():
            ids = ids[:golden["attention_mask"][row].sum()]
        params = ll.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = 64, 64, 64, 1
        params.type_k = params.type_v = 0  # float32
        params.embeddings = bert
        params.flash_attn_type = 0
        context = ll.llama_init_from_model(model, params)
        batch = ll.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
            batch.seq_id[i][0] = 0
        assert (ll.llama_encode if bert else ll.llama_decode)(context, batch) == 0
        get = ll.llama_get_embeddings_ith if bert else ll.llama_get_logits_ith
        want = golden["last_hidden_state" if bert else "logits"][row][:len(ids)]
        if bert:  # llama.cpp takes every token for one of the first kind
            types = np.zeros_like(golden["token_type_ids"][row:row + 1][:, :len(ids)])
            want = main_output(load(folder), {"input_ids": ids[None], "token_type_ids": types})[0]
        for i in range(len(ids)):
            got = np.ctypeslib.as_array(get(context, i), (want.shape[1],))
            worst = max(worst, float(np.abs(got - want[i]).max()))
        ll.llama_batch_free(batch)
        ll.llama_free(context)
    ll.llama_model_free(model)
    print(f"    llama.cpp: greatest difference {worst:.2e}")
    assert worst < 1e-2, f"{folder.name}: llama.cpp computes something else"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", nargs="*", choices=[[], *FAMILIES])
    parser.add_argument("--llama-cpp", type=pathlib.Path, default=HERE.parents[1] / "build/peers/llama.cpp")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from transformers.utils import logging
    logging.disable_progress_bar()
    for seed, (name, family) in enumerate(FAMILIES.items()):
        if arguments.family and name not in arguments.family:
            continue
        print(name)
        folder = HERE / "llm" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder, family, seed)
        inputs = make_golden(folder, seed)
        check_matters(folder, family, inputs)
        if family["twin"]:
            write_twin(folder, arguments.llama_cpp)
            if (arguments.llama_cpp / "build/bin/libllama.so").exists():
                check_twin(folder, arguments.llama_cpp)
            else:
                print("    not checked with llama.cpp: it is not built")
        print("    " + ", ".join(f"{p.name} {p.stat().st_size}" for p in sorted(folder.iterdir())))


if __name__ == "__main__":
    main()
