#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains small tokenizers with `tokenizers` and `sentencepiece` and records what they make of texts.

    python3 -m venv v && v/bin/pip install tokenizers sentencepiece
    v/bin/python tests/goldens/make_tokenizers.py [folder of real tokenizers]

Writes the corpus of tests/fuzz/tokenizer_fuzz.cpp and tests/goldens/tokenizers: the tokenizers, texts.json, and for
each tokenizer NAME.ids.json with a list of [ids or their hash, decoded text or null] by text. Ties in training fall
differently each time. With the folder (NARROW_ASSETS): assets.json with hashes of the ids of its real tokenizers over
its real texts.
"""
import json
import os
import pathlib
import random
import sys
import unicodedata

import sentencepiece as spm
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

OUT = pathlib.Path(__file__).resolve().parent / "tokenizers"
OUT.mkdir(exist_ok=True)
LONGEST = 24  # ids; more of them are recorded as their hash

# The beginning of "Alice's Adventures in Wonderland" (1865), and the first article of the
# declaration of human rights in other languages.
TRAINING = """\
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or
twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what
is the use of a book," thought Alice "without pictures or conversations?" So she was considering in her own mind (as
well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of making a
daisy-chain would be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit with pink
eyes ran close by her. There was nothing so very remarkable in that; nor did Alice think it so very much out of the
way to hear the Rabbit say to itself, "Oh dear! Oh dear! I shall be late!" (when she thought it over afterwards, it
occurred to her that she ought to have wondered at this, but at the time it all seemed quite natural); but when the
Rabbit actually took a watch out of its waistcoat-pocket, and looked at it, and then hurried on, Alice started to her
feet, for it flashed across her mind that she had never before seen a rabbit with either a waistcoat-pocket, or a
watch to take out of it, and burning with curiosity, she ran across the field after it, and fortunately was just in
time to see it pop down a large rabbit-hole under the hedge. I'm sure she's there; they'll, we've, you're, he'd, don't.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Все люди рождаются свободными и равными в своем
достоинстве и правах. 人人生而自由，在尊严和权利上一律平等。すべての人間は、生まれながらにして自由であり。
모든 인간은 태어날 때부터 자유로우며. Όλοι οι άνθρωποι γεννιούνται ελεύθεροι. كل الناس يولدون أحرارا.
int main() {\n    for (int i = 0; i < 100; ++i) {\n        total += values[i] * 2.50;\n    }\n    return 0;\n}
In 1865, 2024 and 12345 there were 3 of 10, 99.9% at 12:30. x = y - z; a != b; #include <stdio.h> // 0x1F
""".splitlines()

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPACE = "\u2581"


def make_texts():
    rng = random.Random(20)
    texts = [
        "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\t\n x", "Hello", " Hello", "Hello ", "  Hello  world ",
        "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～", "I'm here, she's there, WE'LL go, I'D say 'tis'Ve 'S",
        "'\u017f \u212a 'ſ", "!!!!!!", "3", "33", "333", "3333", "33333333 3.3 3..3 3...3", "½ ² ③ Ⅷ ٣٤ १२३",
        "a\u0301e\u0308 caf\u00e9 cafe\u0301 \u0130stanbul ẞ ß Σ ς ŒÆ", "ﬁ ﬂ ﷺ ㍿ ｱﾞ Ｆｕｌｌ ｗｉｄｔｈ", "нещо на Български",
        "កាន់តែពិសេសអាចខលចេញ", "🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ 👨‍👩‍👧‍👦 🇩🇪🇫🇷", "Cửa Việt", "w048 7tuijk dsdfhu",
        "\u00a0nbsp\u00a0\u2003em\u2003\u3000ideographic\u180emongolian\u200bzero\ufeffbom\u0085nel\u2028ls", "a\x00b\x01c\x1fd\x7fe\x9ff",
        "\ufffd replaced \ufffd", "\U0010ffff\ue000\u0378 odd", "snake_case camelCase HTMLParser SCREAMING_CASE it's_ok",
        "x-y--z---w - -- a-b", "for (int i = 0; i < 100; ++i) {\n    total += 2;\n\n\n}\n", "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n",
        "end with spaces    ", "    four spaces", "a  b   c    d     e", "▁literal▁lower▁one▁eighth ▁ ▁▁", "▁start", "<unk> <s> </s> <0x41>",
        "<s>Hello</s>", "a <mask> b", "a<mask>b", "  <mask>  ", "xTOKy TOK TOKEN aTOK TOKb TOK.", "[CLS] text [SEP] [MASK] [UNK]",
        "<sep><sep> <sep>x", "Zebra ZEBRA zebra zébra ZÉBRA", "foo<user>bar <user> <user><user>", "   lead and trail   ", "the, the. the? the!",
        "漢字かな交じり文。日本語テキスト、中文文本，한국어 텍스트", "ال عربية ١٢٣ نص", "עברית שלום", "ไทยภาษา", "नमस्ते दुनिया", "e" * 300, "ab" * 100,
        " " * 100, "\n" * 50, "0123456789" * 20, "Aa" * 60 + " " + "-" * 70, "日" * 80, "don't can't I'll",
        "a.b,c;d:e!f?g(h)i[j]k{l}m\"n'o`p~q@r#s$t%u^v&w*x+y=z|A\\B/C<D>E", "“quotes” ‘single’ — dash… ¿qué? ¡sí!", "Ω≈ç√∫ ∑ ∞ € £ ¥ © ® ™",
    ]
    # The BERT steps of `tokenizers` know Unicode 8 only: no characters of which later versions say otherwise.
    bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    cut = pre_tokenizers.BertPreTokenizer()

    def is_settled(c):
        kind = unicodedata.category(c)
        plain = unicodedata.normalize("NFD", c) != c or (bert.normalize_str(f"a{c}b") == "ab") == (
            kind in ("Mn", "Cc", "Cf", "Co") and c not in "\t\n\r")
        return plain and kind != "Cn" and (len(cut.pre_tokenize_str(f"a{c}b")) == 3) == kind.startswith("P")

    def pick(low, high):
        while True:
            c = chr(rng.randint(low, high) % 0xD800 or 1) if high == 0xFFFF else chr(rng.randint(low, high))
            if is_settled(c):
                return c

    pools = [
        lambda: rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), lambda: rng.choice("0123456789"),
        lambda: rng.choice(" \t\n\r\u00a0\u3000   "), lambda: rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        lambda: pick(0xC0, 0x24F), lambda: pick(0x300, 0x36F), lambda: pick(0x400, 0x52F),
        lambda: pick(0x4E00, 0x9FFF), lambda: pick(0x3041, 0x30FF), lambda: pick(0xAC00, 0xD7A3),
        lambda: pick(0x1F300, 0x1F64F), lambda: pick(0x5D0, 0x6FF), lambda: pick(0x900, 0xDFF),
        lambda: pick(1, 0xFFFF), lambda: rng.choice(["the", "and", "ing", "'s", "'LL", "tion", "▁", "rabbit"]),
    ]
    for size in (8, 20, 40, 120) * 10:
        chosen = rng.sample(pools, rng.randint(2, len(pools)))
        texts.append("".join(rng.choice(chosen)() for _ in range(size)))
    words = " ".join(TRAINING).split(" ")
    # Sums of scores in double go otherwise here than those in float.
    texts += ["g\u0ca1\u0ca0fgA        total += va\u052f", "\u8088seb        total += values["]
    for size in (5, 30, 80):
        texts.append(" ".join(rng.choice(words) for _ in range(size)))
    texts.append("\n".join(TRAINING))
    return texts


def hash_of(ids):
    """FNV-1a over the ids as little-endian 32-bit integers."""
    h = 0xCBF29CE484222325
    for i in ids:
        for b in int(i).to_bytes(4, "little"):
            h = (h ^ b) * 0x100000001B3 % 2**64
    return f"{len(ids)}:{h:016x}"


def record(name, texts, encode, decode):
    rows = []
    for text in texts:
        ids = encode(text)
        decoded = decode(ids)
        rows.append([ids if len(ids) <= LONGEST else hash_of(ids),
                     None if decoded == text else decoded if len(decoded) <= 60 else hash_of(decoded.encode())])
    lines = ",\n".join(json.dumps(r, ensure_ascii=True, separators=(",", ":")) for r in rows)
    (OUT / f"{name}.ids.json").write_text(f"[{lines}]\n")


def save(name, texts, tokenizer):
    path = OUT / f"{name}.json"
    tokenizer.save(str(path), pretty=False)
    tokenizer = Tokenizer.from_file(str(path))
    record(name, texts, lambda t: tokenizer.encode(t).ids, lambda ids: tokenizer.decode(ids, skip_special_tokens=True))


def train(tokenizer, trainer):
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def bpe_trainer(size, **options):
    return trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)


BYTES = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}


def byte_level(texts):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    train(t, bpe_trainer(420, special_tokens=["<s>", "</s>"], **BYTES))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<sep>", rstrip=True)])
    t.add_tokens([AddedToken("TOK", single_word=True), AddedToken("zebra", normalized=True)])
    save("bytes_gpt2", texts, t)

    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    train(t, bpe_trainer(420, special_tokens=["<s>"], **BYTES))
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])])
    save("bytes_llama3", texts, t)

    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    save("bytes_qwen2", texts, train(t, bpe_trainer(400, **BYTES)))

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.Split(Regex(O200K), "removed", invert=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    train(t, bpe_trainer(400, special_tokens=["<s>", "</s>"], **BYTES))
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    save("bytes_o200k", texts, t)


def characters(texts):
    """Models of characters: byte fallback, unknown ones, affixes, every way of splitting."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    train(t, bpe_trainer(300, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)],
                         limit_alphabet=60))
    data = json.loads(t.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    data["pre_tokenizer"] = None
    data["model"]["byte_fallback"] = True
    # More merges than the trainer allows beside the bytes.
    more = Tokenizer(models.BPE(unk_token="<unk>"))
    more.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    more.train_from_iterator([SPACE + line.replace(" ", SPACE) for line in TRAINING],
                             bpe_trainer(300, special_tokens=["<unk>"], limit_alphabet=60))
    model = json.loads(more.to_str())["model"]
    vocab = dict(list(data["model"]["vocab"].items())[:259])
    for piece in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(piece, len(vocab))
    data["model"]["vocab"], data["model"]["merges"] = vocab, model["merges"]
    t = Tokenizer.from_str(json.dumps(data))
    t.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    save("characters_llama", texts, t)

    t = Tokenizer(models.BPE(unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    train(t, bpe_trainer(300, special_tokens=["[UNK]", "<s>"], limit_alphabet=80))
    save("characters_metaspace", texts, t)

    t = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
                                         normalizers.Strip(left=True, right=False)])
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    train(t, bpe_trainer(300, special_tokens=["[UNK]"], continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    save("characters_affixes", texts, t)

    # Trained without cuts, so that every cut shows in the ids.
    whole = train(Tokenizer(models.BPE(unk_token="[UNK]")),
                  bpe_trainer(330, special_tokens=["[UNK]"], max_token_length=8, limit_alphabet=100)).to_str()
    splits = {
        "a": [pre_tokenizers.Split("a", "merged_with_previous"), pre_tokenizers.Split(Regex(r"\s+"), "merged_with_next"),
              pre_tokenizers.Punctuation("contiguous")],
        "b": [pre_tokenizers.Split(Regex(r"[a-m]+"), "contiguous"), pre_tokenizers.Digits(individual_digits=False),
              pre_tokenizers.Split(Regex(r"\w+"), "merged_with_previous", invert=True)],
        "c": [pre_tokenizers.CharDelimiterSplit(" "), pre_tokenizers.Punctuation("merged_with_next"),
              pre_tokenizers.Split(Regex(r"(?=(\d{3})+(?!\d))"), "isolated")],
    }
    for name, steps in splits.items():
        t = Tokenizer.from_str(whole)
        t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Replace(Regex(r"[aeiou]{2,}"), "a")])
        t.pre_tokenizer = pre_tokenizers.Sequence(steps)
        save(f"characters_split_{name}", texts, t)


def word_models(texts):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    train(t, trainers.WordPieceTrainer(vocab_size=420, show_progress=False, limit_alphabet=140,
                                       special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    t.add_tokens([AddedToken("zebra", normalized=True)])
    save("wordpiece_bert", texts, t)

    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "),
                                         normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    t.decoder = decoders.Metaspace()
    train(t, trainers.UnigramTrainer(vocab_size=300, show_progress=False, unk_token="<unk>", max_piece_length=8,
                                     special_tokens=["<unk>", "</s>"]))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    save("unigram", texts, t)


def sentencepiece_models(texts):
    rules = OUT / "rules.tsv"
    rules.write_text("41\t61\n66 69\tFB01\n2126\t3A9\n2003\t20\nA0\t20\n2026\t2E 20 2E\n", encoding="utf-8")
    training = OUT / "training.txt"
    training.write_text("\n".join(TRAINING), encoding="utf-8")
    os.chdir(OUT)  # the models keep the names of their inputs
    common = dict(input=training.name, num_threads=1, minloglevel=2, max_sentencepiece_length=8)
    kinds = {
        "spm_bpe": dict(model_type="bpe", vocab_size=560, byte_fallback=True, character_coverage=0.98,
                        normalization_rule_name="identity", remove_extra_whitespaces=False,
                        allow_whitespace_only_pieces=True),
        "spm_bpe_plain": dict(model_type="bpe", vocab_size=330, character_coverage=0.985,
                              user_defined_symbols=["<user>", "ab"], normalization_rule_tsv=rules.name),
        "spm_unigram": dict(model_type="unigram", vocab_size=300, character_coverage=0.985,
                            user_defined_symbols=["<user>", "ab"], normalization_rule_tsv=rules.name),
        "spm_unigram_bytes": dict(model_type="unigram", vocab_size=500, character_coverage=0.98, byte_fallback=True,
                                  normalization_rule_name="identity", add_dummy_prefix=False, split_by_whitespace=False,
                                  remove_extra_whitespaces=False, allow_whitespace_only_pieces=True),
    }
    for name, options in kinds.items():
        spm.SentencePieceTrainer.train(model_prefix=name, **common, **options)
        (OUT / f"{name}.vocab").unlink()
        p = spm.SentencePieceProcessor(model_file=str(OUT / f"{name}.model"))
        record(name, texts, lambda t: [p.bos_id()] + p.encode(t), lambda ids: p.decode(ids[1:]))
    rules.unlink()
    training.unlink()


def real_tokenizers(folder):
    out = {}
    t = Tokenizer.from_file(str(folder / "novels-7m/tokenizer.json"))
    p = spm.SentencePieceProcessor(model_file=str(folder / "llama2-tokenizer/tokenizer.model"))
    for file in ("novels-7m/heldout.txt", "text/wikitext-2-raw/wiki.test.raw"):
        text = (folder / file).read_bytes().decode()
        out[f"novels-7m/tokenizer.json {file}"] = hash_of(t.encode(text).ids)
        out[f"llama2-tokenizer/tokenizer.model {file}"] = hash_of([1] + p.encode(text))
    (OUT / "assets.json").write_text(json.dumps(out, indent=1) + "\n")


def fuzz_corpus():
    """Small tokenizers with a text behind them, as tests/fuzz/tokenizer_fuzz.cpp reads them."""
    out = OUT.parent.parent / "fuzz/corpus/tokenizer_fuzz"
    letters = {c: i for i, c in enumerate("abcdefgh <>/s\u0120")}
    bpe = {"type": "BPE", "vocab": letters | {"ab": 14, "abc": 15}, "merges": [["a", "b"], "ab c"]}
    added = [{"id": 16, "content": "<s>", "special": True}, {"id": 17, "content": "hh", "lstrip": True, "rstrip": True}]
    files = {
        "bytes": {"model": bpe | {"ignore_merges": True}, "added_tokens": added, "decoder": {"type": "ByteLevel"},
                  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                      {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated"},
                      {"type": "ByteLevel", "add_prefix_space": True}]},
                  "post_processor": {"type": "BertProcessing", "cls": ["<s>", 16], "sep": ["<s>", 16]}},
        "characters": {"model": bpe | {"unk_token": "h", "fuse_unk": True, "byte_fallback": True}, "added_tokens": [],
                       "normalizer": {"type": "Sequence", "normalizers": [
                           {"type": "Prepend", "prepend": "a"}, {"type": "NFKC"}, {"type": "StripAccents"},
                           {"type": "Replace", "pattern": {"Regex": "c+"}, "content": "c"}, {"type": "Strip"}]},
                       "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                           {"type": "Punctuation", "behavior": "MergedWithNext"}, {"type": "Digits"},
                           {"type": "Metaspace", "replacement": "a", "prepend_scheme": "first", "split": True}]},
                       "decoder": {"type": "Sequence", "decoders": [
                           {"type": "Replace", "pattern": {"String": "a"}, "content": " "}, {"type": "ByteFallback"},
                           {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]}},
        "unigram": {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<u>", 0], ["a", -1.5], ["ab", -2], ["b", -3]]},
                    "pre_tokenizer": {"type": "Whitespace"}, "decoder": {"type": "Metaspace"},
                    "post_processor": {"type": "TemplateProcessing", "single": [
                        {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "e"}}],
                        "special_tokens": {"e": {"id": "e", "ids": [1]}}}},
        "wordpiece": {"model": {"type": "WordPiece", "unk_token": "u", "vocab": {"u": 0, "a": 1, "##b": 2}},
                      "normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"},
                      "decoder": {"type": "WordPiece"}},
    }
    text = "ab abc 12 \u00e9!\n <s>hh h\u65e5".encode() + b"\xff\xe2"
    for name, file in files.items():
        (out / name).write_bytes(json.dumps(file).encode() + b"\0" + text)
    (out / "sentencepiece").write_bytes(b"\0" + (OUT / "spm_bpe_plain.model").read_bytes())


def main():
    texts = make_texts()
    (OUT / "texts.json").write_text(json.dumps(texts, ensure_ascii=True, indent=0) + "\n")
    byte_level(texts)
    characters(texts)
    word_models(texts)
    sentencepiece_models(texts)
    fuzz_corpus()
    if len(sys.argv) > 1:
        real_tokenizers(pathlib.Path(sys.argv[1]))


main()
