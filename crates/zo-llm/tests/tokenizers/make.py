"""Writes cases.json: small tokenizer folders, and the ids that transformers gives for them. tests/tokenizers.rs compares.

usage: python -m venv v && v/bin/pip install transformers && v/bin/python make.py [COUNT OUT_FILE]

With a count, that many folders; the test reads another file where ZO_TOKENIZER_CASES names one.
"""

import json
import os
import random
import sys
import tempfile

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, __version__

HERE = os.path.dirname(os.path.abspath(__file__))
COUNT = int(sys.argv[1]) if sys.argv[1:] else 72
OUT = sys.argv[2] if sys.argv[2:] else os.path.join(HERE, "cases.json")
MERGES = ["Ġ g", "Ġg r", "e a", "ea t", "Ġgr eat"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<s>", "<pad>", "</s>", "<unk>", *ALPHABET, *(m.replace(" ", "") for m in MERGES)]
VOCAB = {token: id for id, token in enumerate(TOKENS)}
TEXTS = ["", " great", "a great</s> <human> x<bot>", "naïve\n\n<pad><unk> !", "<|endoftext|> great <s>"]


def special(content, id=None, **flags):
    token = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **flags}
    return token if id is None else {"id": id, **token, "special": flags.get("special", True)}


def template(before, behind):
    piece = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}
    tokens = {t: {"id": t, "ids": [VOCAB[t]], "tokens": [t]} for t in before + behind}
    single = [*map(piece, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(piece, behind)]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def whole(processor, added=(), prefix_space=False):
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [special(t, VOCAB[t]) for t in TOKENS[:4]] + list(added),
        "pre_tokenizer": {**BYTES, "add_prefix_space": prefix_space}, "decoder": BYTES, "post_processor": processor,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": VOCAB, "merges": [m.split() for m in MERGES]},
    }


def gpt2(**fields):
    return {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", **fields}


def cases():
    """Files of each case; random ones from the same parts follow those that are written out."""
    two = {"265": special("<human>", special=False), "266": special("<bot>", special=True)}
    configs = [
        gpt2(add_bos_token=True), gpt2(add_bos_token=True, add_eos_token=True), gpt2(), gpt2(add_eos_token=True),
        gpt2(add_bos_token=True, bos_token=None),
        gpt2(add_bos_token=True, bos_token={"__type": "AddedToken", **special("<s>", normalized=True)}),
        gpt2(add_bos_token=True, added_tokens_decoder=two), gpt2(added_tokens_decoder=two, pad_token="<pad>"),
        gpt2(additional_special_tokens=["<human>", "<bot>"]), gpt2(add_prefix_space=True, add_bos_token=True),
        gpt2(extra_special_tokens={"image_token": "<bot>"}), gpt2(split_special_tokens=True, add_bos_token=True),
        gpt2(tokenizer_class="GPT2TokenizerFast", add_bos_token=True),
    ]
    maps = [None, None, {"bos_token": "<s>", "eos_token": special("</s>", normalized=True)}, {"eos_token": "<unk>", "pad_token": "<human>"}]
    added = [None, None, {"<human>": 265}, {"<human>": 265, "<bot>": 266}]
    processors = [None, template(["</s>"], []), template(["<s>"], ["</s>"]), template([], ["</s>"]), BYTES,
                  {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}]
    draw = random.Random(0)
    for number in range(COUNT):
        config = configs[number] if number < len(configs) else draw.choice(configs)
        files = {"tokenizer_config.json": config, "special_tokens_map.json": draw.choice(maps), "added_tokens.json": draw.choice(added)}
        kind = "opt" if number % 2 else "llama"
        if number < 30 or (number >= 72 and draw.random() < 0.3):
            files |= {"vocab.json": VOCAB, "merges.txt": "#version: 0.2\n" + "\n".join(MERGES) + "\n"}
        else:
            more = draw.choice([[], [special("<human>", 265, special=False)], [special("<bot>", 265, lstrip=True)]])
            files["tokenizer.json"] = whole(draw.choice(processors), more, draw.random() < 0.2)
            files["tokenizer_config.json"] = draw.choice([config, None, {**config, "tokenizer_class": "PreTrainedTokenizerFast"}])
            if files["tokenizer_config.json"] and draw.random() < 0.3:
                files["tokenizer_config.json"]["tokenizer_class"] = "GPT2Tokenizer"
        yield kind, {name: text for name, text in files.items() if text is not None}


out = []
for kind, files in cases():
    with tempfile.TemporaryDirectory() as dir:
        for name, text in {**files, "config.json": {"model_type": kind}}.items():
            with open(os.path.join(dir, name), "w", encoding="utf-8") as file:
                file.write(text if isinstance(text, str) else json.dumps(text))
        tokenizer = AutoTokenizer.from_pretrained(dir)
        # The vocabulary is the same in all.
        kept = {name: text for name, text in files.items() if name not in ("vocab.json", "merges.txt")}
        if "tokenizer.json" in kept:
            kept["tokenizer.json"] = {**kept["tokenizer.json"], "model": None}
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        decoded = [tokenizer.decode(i, skip_special_tokens=True) for i in ids]
        out.append({"kind": kind, "files": kept, "ids": ids, "decoded": decoded, "eos": tokenizer.eos_token_id})
base = {"vocab": VOCAB, "merges": MERGES, "texts": TEXTS, "transformers": __version__, "model": whole(None)["model"]}
with open(OUT, "w", encoding="utf-8") as file:
    rows = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in out)
    head = json.dumps(base, ensure_ascii=False, separators=(",", ":"))
    file.write(f'{{"base":{head},\n"cases":[\n{rows}\n]}}\n')
