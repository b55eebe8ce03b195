"""Makes folders with a sentencepiece `tokenizer.model`, and the ids and decoded texts of transformers for some texts.

usage: pip install torch transformers sentencepiece protobuf tokenizers
       python make.py DIR [count] [texts of each]

crates/zo-llm/tests/sentencepiece.rs compares; the folders beside this file are `make.py . 12 6`. For a thousand texts:
       python make.py /tmp/texts 100 10 && ZO_SENTENCEPIECE=/tmp/texts cargo test -p zo-llm --test sentencepiece
"""
import json
import os
import pathlib
import random
import shutil
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "tools"))
import sentencepiece
import transformers
from transformers import AutoTokenizer

from compare import rows

transformers.logging.set_verbosity_error()
PARTS = ["\n", "\t", "  ", "   ", "日本語", "naïve", "e\u0301", "ﬁ", "½", "😀", "İ", "<s>", "</s>", "<unk>", "<0x0A>", "▁", " ▁", "Ⅷ", "\u00a0", "a\u200bb",
         "[X]", "New York", "don't", "１２", "...", " ", "\r\n"]


def text(rng):
    parts = [rng.choice(PARTS) if rng.random() < 0.3 else rows.sentence(rng, 1, 5) for _ in range(rng.randint(0, 6))]
    return rng.choice(["", " "]).join(parts)


def train(rng, path, small):
    """A model of random kind, size and settings."""
    corpus = path.with_suffix(".txt")
    corpus.write_text("\n".join(rows.sentence(rng) for _ in range(400)))
    kind = rng.choice(["bpe", "unigram"])
    fallback = rng.random() < (0.7 if kind == "bpe" else 0.4)
    settings = dict(
        model_type=kind, byte_fallback=fallback, vocab_size=(256 if fallback else 0) + rng.randint(90, 140), hard_vocab_limit=False,
        character_coverage=0.98, normalization_rule_name="identity" if small else rng.choice(["identity", "nmt_nfkc", "nfkc"]),
        remove_extra_whitespaces=rng.random() < 0.5, add_dummy_prefix=rng.random() < 0.8, pad_id=rng.choice([-1, 3]), minloglevel=2,
        num_threads=1)
    if rng.random() < 0.3:
        settings["user_defined_symbols"] = ["[X]", "  "]
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(path), **settings)
    corpus.unlink()
    path.with_suffix(".vocab").unlink()


def config(rng):
    """tokenizer_config.json as old folders have it, or none."""
    if rng.random() < 0.2:
        return None
    fields = {}
    if rng.random() < 0.75:
        fields["tokenizer_class"] = rng.choice(["LlamaTokenizer", "LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"])
    if rng.random() < 0.6:
        fields |= {"add_bos_token": rng.random() < 0.8, "add_eos_token": rng.random() < 0.3}
    if rng.random() < 0.6:
        fields["legacy"] = rng.random() < 0.5
    if rng.random() < 0.4:
        fields |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return fields


def main():
    out = pathlib.Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    texts = int(sys.argv[3]) if len(sys.argv) > 3 else 6
    out.mkdir(exist_ok=True)
    for number in range(count):
        rng = random.Random(number)
        folder = out / f"{number:03}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        # The tables of the other normalizations take 240 KB.
        train(rng, folder / "tokenizer", small=count <= 12 and number not in (2, 5))
        family, said = rng.choice(["llama", "llama", "mistral"]), config(rng)
        (folder / "config.json").write_text(json.dumps({"model_type": family}))
        if said is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(said))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        cases = []
        for _ in range(texts):
            written = text(rng)
            ids = tokenizer(written)["input_ids"]
            cases.append({"text": written, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
        fields = {"family": family, "size": len(tokenizer), "cases": cases}
        (folder / "cases.json").write_text(json.dumps(fields, ensure_ascii=False, indent=1) + "\n")
        (folder / "config.json").unlink()


if __name__ == "__main__":
    main()
