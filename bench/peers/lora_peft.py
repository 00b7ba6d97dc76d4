# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters beside PEFT: what `narrow train --lora-output` wrote, loaded by PEFT, against narrow's merged model;
and what PEFT wrote, against the model that narrow merged it into. Needs torch, transformers and peft (setup.sh --torch).

Usage: lora_peft.py WORK TEXT
"""
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import common as c

MODEL = c.ROOT / "assets/novels-7m"
IDS = torch.tensor([[5, 900, 77, 1234, 8, 17, 300, 2000]])


def open_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def train(text, output, lora, *flags):
    c.narrow("train", MODEL, *(["-o", output] if output else []), "--lora", lora, "--data", f"text:{text},tokens=20000",
             *flags)


def main():
    work, text = map(pathlib.Path, sys.argv[1:3])
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    train(text, None, "rank=4,alpha=8", "--lora-output", work / "adapter", "--lr", "1e-3")
    train(text, work / "merged", "rank=4,alpha=8", "--lora-input", work / "adapter", "--lr", "0")
    theirs = logits(PeftModel.from_pretrained(open_model(MODEL), work / "adapter"))
    ours = logits(open_model(work / "merged"))
    changed = (theirs - logits(open_model(MODEL))).abs().max().item()
    rows.append(["narrow", f"{changed:.2g}", f"{(theirs - ours).abs().max().item():.1e}"])
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(open_model(MODEL), config)
    adapted.save_pretrained(work / "peft")
    train(text, work / "read", "rank=3,alpha=6,layers=blk.*.attn_q.weight,layers=blk.*.ffn_down.weight", "--lora-input",
          work / "peft", "--lr", "0")
    theirs = logits(adapted)
    changed = (theirs - logits(open_model(MODEL))).abs().max().item()
    rows.append(["PEFT", f"{changed:.2g}", f"{(theirs - logits(open_model(work / 'read'))).abs().max().item():.1e}"])
    c.table("Adapters of novels-7m: largest difference of logits", ["written by", "from the model alone", "narrow - PEFT"],
            rows)


if __name__ == "__main__":
    main()
