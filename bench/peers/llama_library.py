# SPDX-License-Identifier: Apache-2.0
"""What llama.cpp's library computes, through the Python declarations that come with its sources."""
import os
import pathlib
import sys
import types

import numpy as np

FOLDER = pathlib.Path(os.environ.get("LLAMA_CPP", pathlib.Path(__file__).resolve().parents[2] / "build/peers/llama.cpp"))


def library(folder=FOLDER):
    """The declarations alone: the package around them wants packages of its own."""
    os.environ.setdefault("LLAMA_CPP_LIB_PATH", str(folder / "build/bin"))
    if "llama_cpp" not in sys.modules:
        package = types.ModuleType("llama_cpp")
        package.__path__ = [str(folder / "llama_cpp")]
        sys.modules["llama_cpp"] = package
    from llama_cpp import llama_cpp as ll
    if not hasattr(ll, "quiet"):
        ll.quiet = ll.llama_log_callback(lambda level, text, data: None)
        ll.llama_log_set(ll.quiet, None)
    return ll


class Model:
    """A file that llama.cpp has read; keys and values are kept as float32."""

    def __init__(self, path, folder=FOLDER, context=64):
        self.ll = library(folder)
        self.context_tokens = context
        self.model = self.ll.llama_model_load_from_file(str(path).encode(), self.ll.llama_model_default_params())
        if not self.model:
            raise ValueError(f"llama.cpp does not read {path}")
        self.vocabulary = self.ll.llama_model_get_vocab(self.model)

    def close(self):
        self.ll.llama_model_free(self.model)

    def outputs(self, ids, encoder=False):
        """For each token its logits, or of an encoder its vector."""
        ll = self.ll
        params = ll.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.context_tokens
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # float32
        params.embeddings = encoder
        params.flash_attn_type = 0
        context = ll.llama_init_from_model(self.model, params)
        batch = ll.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
            batch.seq_id[i][0] = 0
        if (ll.llama_encode if encoder else ll.llama_decode)(context, batch) != 0:
            raise ValueError("llama.cpp does not run these tokens")
        get = ll.llama_get_embeddings_ith if encoder else ll.llama_get_logits_ith
        width = ll.llama_model_n_embd(self.model) if encoder else ll.llama_vocab_n_tokens(self.vocabulary)
        rows = np.stack([np.ctypeslib.as_array(get(context, i), (width,)).copy() for i in range(len(ids))])
        ll.llama_batch_free(batch)
        ll.llama_free(context)
        return rows

    def tokenize(self, text):
        import ctypes
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        count = self.ll.llama_tokenize(self.vocabulary, raw, len(raw), ids, len(ids), True, False)
        return list(ids[:count])

    def greedy(self, ids, count):
        """The most likely tokens behind ids, each by reading all before it."""
        all_ids = list(ids)
        for _ in range(count):
            all_ids.append(int(np.argmax(self.outputs(all_ids)[-1])))
        return all_ids[len(ids):]
