"""Random tokenizers of five kinds, in the forms in which folders hold them."""
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from . import rows

KINDS = ["gpt2", "llama3", "llama2", "unigram", "wordpiece"]
BOS, PAD, EOS, UNK = SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
EXTRA = [("<|im_start|>", {}), ("<|sep|>", dict(lstrip=True)), ("water", dict(single_word=True, special=False)),
         ("New York", dict(normalized=True, special=False)), ("[X]", dict(rstrip=True)), ("ß", dict(special=False))]


def corpus(rng):
    texts = []
    for task in rows.TASKS:
        for _ in range(6):
            for example in rows.row(rng, task)[1]:
                texts.append(example["prompt"])
                texts += example.get("options", [f" {r}\n" for r in example.get("references", [])])
    return texts


def byte_level_alphabet(rng, small):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Without some of the bytes a text loses characters, as it does in transformers.
    return [c for c in alphabet if c.isascii() or c in "ĠĊÃ"] if small else alphabet


def train(rng, kind, small):
    """A tokenizer without post-processor; ids of SPECIAL are 0 to 3."""
    texts, size = corpus(rng), rng.randint(30, 90)
    if kind in ("gpt2", "llama3"):
        tokenizer = Tokenizer(models.BPE())
        if kind == "gpt2":
            # Without the expression a token may span words, newlines and the border between prompt and answer.
            pre = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.2, use_regex=rng.random() < 0.85)
        else:
            split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
            pre = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
        alphabet = byte_level_alphabet(rng, small)
        trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + 4 + size, special_tokens=SPECIAL, initial_alphabet=alphabet,
                                      limit_alphabet=len(alphabet), show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer
    if kind == "llama2":
        first = Tokenizer(models.BPE(unk_token=UNK))
        first.pre_tokenizer = pre_tokenizers.Metaspace()
        first.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=70 + size, special_tokens=SPECIAL, limit_alphabet=60, show_progress=False))
        model = json.loads(first.to_str())["model"]
        known = sorted(model["vocab"], key=model["vocab"].get)[4:]
        fallback = [] if small else [f"<0x{byte:02X}>" for byte in range(256)]
        vocab = {token: index for index, token in enumerate(SPECIAL + fallback + known)}
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m) for m in model["merges"]], unk_token=UNK, fuse_unk=True,
                                         byte_fallback=True))
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
        end = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        if rng.random() < 0.5:  # as Llama 2's file has it
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:  # as transformers 5 writes it
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=rng.choice(["first", "always"]), split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *end])
        return tokenizer
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = rng.choice([None, normalizers.NFKC(), normalizers.Sequence([normalizers.NFC(), normalizers.Replace(
            Regex(" {2,}"), " ")])])
        scheme = rng.choice(["always", "first", "never"])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
        tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(
            vocab_size=110 + size, special_tokens=SPECIAL, unk_token=UNK, show_progress=False))
        return tokenizer
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=rng.random() < 0.5)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=130 + size, special_tokens=SPECIAL, limit_alphabet=60, show_progress=False))
    return tokenizer


def template(first, last, ids):
    parts = ([first] if first else []) + ["$A"] + ([last] if last else [])
    return processors.TemplateProcessing(single=" ".join(parts), pair="$A $B", special_tokens=[(t, ids(t)) for t in {first, last} - {None}])


def write(rng, folder, family, small):
    """Writes a tokenizer into `folder`. Returns its size and its special ids and, as `how`, what reads it in Python."""
    kind = rng.choice(KINDS)
    # Training draws nothing from Python's generator.
    tokenizer = train(random.Random(rng.random()), kind, small)
    first = rng.choice([None, BOS, EOS]) if family == "opt" else rng.choice([None, BOS, BOS])
    last = EOS if rng.random() < 0.2 else None
    ids = tokenizer.token_to_id
    # A token already in the vocabulary would have two ids: such files are refused.
    unknown = [(token, flags) for token, flags in EXTRA if ids(token) is None]
    extra = rng.sample(unknown, rng.randint(1, 3)) if rng.random() < 0.5 else []
    form = rng.choice(["json", "saved", "config"] + (["vocab", "vocab"] if kind == "gpt2" and family in ("opt", "llama") else []))
    if family in ("qwen2", "qwen3"):  # whose own class would split every text by bytes, whatever the file says
        form = "json"
    if form == "vocab":
        return files(rng, folder, tokenizer, first, last, extra)
    tokenizer.post_processor = template(first, last, ids)
    if kind in ("gpt2", "llama3") and rng.random() < 0.5:
        level = processors.ByteLevel(trim_offsets=rng.random() < 0.5)
        tokenizer.post_processor = processors.Sequence([level, tokenizer.post_processor])
    names = dict(bos_token=first or BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK)
    more = {"clean_up_tokenization_spaces": True} if rng.random() < 0.25 else {}
    if form == "json":
        if kind == "gpt2" and family == "opt":  # whose class would ask a tokenizer_config.json about it
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        add(tokenizer, extra)
        if first is None and last is None and rng.random() < 0.3:
            tokenizer.post_processor = None
        if rng.random() < 0.2:  # the settings of someone's batch
            tokenizer.enable_padding(pad_id=1, pad_token=PAD, length=64)
            tokenizer.enable_truncation(8)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        return about(kind, form, tokenizer, names, extra, first)
    if form == "saved":
        add(tokenizer, extra)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **more).save_pretrained(folder)
        compact(folder / "tokenizer.json")
        return about(kind, form, tokenizer, names, extra, first)
    # tokenizer_config.json overrides the template, and brings the added tokens.
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    classes = ["PreTrainedTokenizerFast", "TokenizersBackend"]
    if kind == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.2)
        classes += ["GPT2Tokenizer", "GPT2TokenizerFast"]
    elif kind == "llama2":
        classes += ["LlamaTokenizer", "LlamaTokenizerFast"]
    config = {"tokenizer_class": rng.choice(classes), **names, **more, "model_max_length": 1e30}
    if rng.random() < 0.6:
        first = rng.choice([None, first])
        config |= {"add_bos_token": first is not None, "add_eos_token": rng.random() < 0.2}
    size = tokenizer.get_vocab_size()
    if extra:
        config["added_tokens_decoder"] = {str(size + i): entry(token, flags) for i, (token, flags) in enumerate(extra)}
    if rng.random() < 0.3:
        (folder / "special_tokens_map.json").write_text(json.dumps({k: {"content": v, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False} for k, v in names.items()}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return about(kind, form, tokenizer, names, extra, first, size + len(extra))


def files(rng, folder, tokenizer, first, last, extra):
    """vocab.json, merges.txt and what GPT-2's folders have beside them."""
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=rng.random() < 0.5))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    names = dict(bos_token=first or BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK)
    config = {"tokenizer_class": "GPT2Tokenizer", **names, "add_bos_token": first is not None}
    if last or rng.random() < 0.3:
        config["add_eos_token"] = last is not None
    if rng.random() < 0.3:
        config["add_prefix_space"] = rng.random() < 0.5
    size = len(model["vocab"])
    if extra and rng.random() < 0.5:
        config["added_tokens_decoder"] = {str(size + i): entry(token, flags) for i, (token, flags) in enumerate(extra)}
    elif extra:
        (folder / "added_tokens.json").write_text(json.dumps({token: size + i for i, (token, _) in enumerate(extra)}))
    if rng.random() < 0.4:
        (folder / "special_tokens_map.json").write_text(json.dumps(names))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return about("gpt2", "vocab", tokenizer, names, extra, first, size + len(extra))


def entry(token, flags):
    return {"content": token, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **flags}


def add(tokenizer, extra):
    for token, flags in extra:
        added = AddedToken(**{**entry(token, flags)})
        (tokenizer.add_special_tokens if added.special else tokenizer.add_tokens)([added])


def compact(path):
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False))


def about(kind, form, tokenizer, names, extra, first, size=None):
    ids = {name: tokenizer.token_to_id(token) for name, token in names.items()}
    return {"kind": kind, "form": form, "size": size or tokenizer.get_vocab_size(), "ids": ids, "extra": [token for token, _ in extra],
            "first": first}


def read(folder):
    """The tokenizer as transformers reads it; a lone tokenizer.json as it is written."""
    if (folder / "tokenizer_config.json").exists():
        return AutoTokenizer.from_pretrained(folder)
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
