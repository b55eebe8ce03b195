"""Compares masked language models with transformers: random RoBERTa folders and random rows of LM-BFF's tasks.

usage: pip install torch transformers peft safetensors tokenizers
       python tools/compare_masked.py crates/zo-llm/tests/masked --seed 1 --count 12
       cargo test -p zo-llm --test masked
       python tools/compare_masked.py /tmp/masked --seed 2 --count 24 --program target/release/examples/opt_superglue

Writes small folders (model, tokenizer, rows as GLUE, LM-BFF or the hub lay them out) with the losses and choices that transformers computes;
crates/zo-llm/tests/masked.rs compares. With --program each folder is trained in one of the tunings, and what was saved has to have the same losses
and choices when transformers or PEFT reads it. The prompts are written from docs/src/tasks.md, not from the Rust code that they check.
"""
import argparse
import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

from compare import rows

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTIMENT = ["terrible", "great"], ["terrible", "bad", "okay", "good", "great"]
TREC = ["Description", "Entity", "Expression", "Human", "Location", "Number"]
WORDS = {"sst2": SENTIMENT[0], "sst5": SENTIMENT[1], "rte": ["Yes", "No"], "snli": ["Yes", "Maybe", "No"],
         "mnli": ["Yes", "Maybe", "No"], "trec": TREC}
LIMITS = {"sst2": (128, None), "sst5": (128, 110), "rte": (256, 240), "snli": (256, 240), "mnli": (256, 240), "trec": (128, 110)}
NAMES = {"rte": ["entailment", "not_entailment"], "snli": ["entailment", "neutral", "contradiction"],
         "mnli": ["entailment", "neutral", "contradiction"]}


def tokenizer(rng, folder):
    """A byte-level BPE in which every label word is a token, as tokenizer.json or as vocab.json with merges.txt."""
    words = sorted({word for words in WORDS.values() for word in words})
    texts = [rows.sentence(rng) for _ in range(200)] + [f" {word}" for word in words] * 400
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=len(alphabet) + 5 + rng.randint(110, 160), special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = RobertaTokenizer(vocab=model["vocab"], merges=merges)
    assert all(len(made.encode(f" {word}", add_special_tokens=False)) == 1 for word in words), "a label word of several tokens"
    form = rng.choice(["json", "saved", "vocab"])
    if form == "saved":
        made.save_pretrained(folder)
    elif form == "json":
        made.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
        if rng.random() < 0.5:
            (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}))
    return made, form


def model(rng, folder, vocab):
    heads = rng.choice([1, 2])
    tied = rng.random() < 0.5
    made = RobertaForMaskedLM(RobertaConfig(
        vocab_size=vocab, hidden_size=heads * 4, num_attention_heads=heads, num_hidden_layers=rng.randint(1, 2), intermediate_size=12,
        max_position_embeddings=rng.choice([270, 100]), type_vocab_size=rng.choice([1, 2]), layer_norm_eps=1e-5, tie_word_embeddings=tied)).eval()
    seed = torch.Generator().manual_seed(rng.randrange(2**31))
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=seed) * (0.5 if p.dim() > 1 else 0.2) + (p if p.dim() == 1 else 0))
        made.roberta.embeddings.word_embeddings.weight[1] = 0
    (folder / "config.json").write_text(json.dumps(json.loads(made.config.to_json_string(use_diff=False)) | {"architectures": ["RobertaForMaskedLM"]}))
    state = {name: tensor.contiguous().clone() for name, tensor in made.state_dict().items()}
    if tied and rng.random() < 0.6:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("lm_head.decoder.")}
    # As the published folders hold them.
    if rng.random() < 0.5:
        width = made.config.hidden_size
        state |= {"roberta.pooler.dense.weight": torch.ones(width, width), "roberta.pooler.dense.bias": torch.ones(width)}
    kind = rng.choice(["safetensors", "bin"])
    if kind == "safetensors":
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        state["roberta.embeddings.position_ids"] = torch.arange(made.config.max_position_embeddings)[None]
        torch.save(state, folder / "pytorch_model.bin")
    return made, f"{'tied' if tied else 'untied'}-{kind}"


def text(rng):
    """Mostly short, sometimes beyond the limits."""
    long = rng.random() < 0.15
    return (" ".join(rows.sentence(rng) for _ in range(rng.randint(9, 14) if long else 1))).replace('"', "'")


def example(rng, task):
    """The fields of a row in order, its texts and its label."""
    label = rng.randrange(len(WORDS[task]))
    first, second = text(rng), rows.sentence(rng)
    return label, first, second


def pieces(task, first, second):
    first, second = first.strip(), second.strip()
    if task in ("sst2", "sst5"):
        return [(first, LIMITS[task][1]), (" It was", None), None, (".", None)]
    if task == "trec":
        return [None, (":", None), (f" {first}", 110)]
    return [(first[:-1], 240), ("?", None), None, (",", None), (f" {second[:1].lower()}{second[1:]}", None)]


def write(rng, task, folder, split, examples):
    """A file of the split in one of the forms in which the data set is found."""
    forms = {"sst2": ["glue", "hub"], "sst5": ["csv", "hub"], "trec": ["csv", "hub"]}.get(task, ["glue", "hub"])
    form = rng.choice(forms)
    if form == "csv":  # LM-BFF's, without names
        import csv
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([label, first] for label, first, _ in examples)
    elif form == "glue" and task == "sst2":
        lines = ["sentence\tlabel"] + [f"{first}\t{label}" for label, first, _ in examples]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    elif form == "glue":
        key = "label" if task == "rte" else "gold_label"
        lines = [f"index\tsentence1\tsentence2\t{key}"]
        lines += [f"{i}\t{a}\t{b}\t{NAMES[task][label]}" for i, (label, a, b) in enumerate(examples)]
        if task != "rte" and split == "dev":  # a row on which the annotators disagreed
            lines.append("99\tA.\tB.\t-")
        (folder / f"{split if task != 'mnli' or split == 'train' else 'dev_matched'}.tsv").write_text("\n".join(lines) + "\n")
    else:
        hub = [2, 1, 0, 3, 4, 5]
        make = {
            "sst2": lambda l, a, b: {"sentence": a, "label": l}, "sst5": lambda l, a, b: {"text": a, "label": l, "label_text": "?"},
            "trec": lambda l, a, b: {"text": a, "coarse_label": hub.index(l), "fine_label": 0},
        }.get(task, lambda l, a, b: {"premise": a, "hypothesis": b, "label": l})
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(make(*e), ensure_ascii=False) for e in examples) + "\n")


def evaluate(task, examples, made, words_of, context):
    """Mean loss, accuracy and choices, by LM-BFF's prompts."""
    encode = lambda text: words_of.encode(text, add_special_tokens=False)
    words = [encode(f" {word}")[0] for word in WORDS[task]]
    losses, chosen = [], []
    for label, first, second in examples:
        ids = [words_of.cls_token_id]
        for piece in pieces(task, first, second):
            ids += [words_of.mask_token_id] if piece is None else encode(piece[0])[:piece[1]]
        ids = (ids + [words_of.sep_token_id])[:min(LIMITS[task][0], context)]
        if words_of.mask_token_id not in ids:
            return None
        with torch.inference_mode():
            logits = made(torch.tensor([ids])).logits[0, ids.index(words_of.mask_token_id)].double()[words]
        order = logits.sort(descending=True).values
        if order[0] - order[1] < 2e-5:
            return None
        losses.append(-torch.log_softmax(logits, 0)[label].item())
        chosen.append(int(logits.argmax()))
    right = [choice == label for choice, (label, _, _) in zip(chosen, examples)]
    return {"loss": sum(losses) / len(losses), "accuracy": sum(right) / len(right), "chosen": chosen}


def prefixed(made, adapter):
    """PEFT has no task for masked language models, and drops the prefix of one: the encoder takes it, for features."""
    from peft import PeftModel
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task_type": "FEATURE_EXTRACTION"}))
    encoder = PeftModel.from_pretrained(made.roberta, adapter).eval()
    head = made.lm_head

    class Output:
        def __init__(self, ids):
            self.logits = head(encoder(input_ids=ids, attention_mask=torch.ones_like(ids))[0])

    return Output


def trained(program, number, folder, task, examples, words_of, context):
    """What differs between the program's report of what it has saved, and what transformers or PEFT computes from that."""
    from peft import PeftModel
    tuning = ["full", "head", "lora", "prefix"][number % 4]
    out = folder / "out"
    extra = {"prefix": ["--virtual-tokens", 2], "lora": ["--lora-rank", 2]}.get(tuning, [])
    args = ["--model", folder / "model", "--data", folder / "data", "--task", task, "--out", out, "--tuning", tuning, "--steps", 2, "--batch", 2,
            "--lr", 0.1 if extra else 1e-3, "--epsilon", 1e-2, "--save", "--quiet"] + extra
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, timeout=120)
    if "the text has 0 gaps" in done.stderr:  # a training row whose gap is beyond the limit
        return "refused", None
    if done.returncode:
        return tuning, f"exit {done.returncode}: {done.stderr.strip()[-300:]}"
    report = json.loads((out / "report.json").read_text())
    if tuning in ("full", "head"):
        made = RobertaForMaskedLM.from_pretrained(out / "model").eval()
    else:
        made = RobertaForMaskedLM.from_pretrained(folder / "model").eval()
        if tuning == "prefix":
            made = prefixed(made, out / "adapter")
            context -= 2  # which the virtual tokens take
        else:
            made = PeftModel.from_pretrained(made, out / "adapter").eval()
    found = evaluate(task, examples, made, words_of, context)
    if found is None:
        return tuning, None
    chosen = json.loads((out / "predictions.json").read_text())["after"]
    near = abs(found["loss"] - report["eval_loss_after"]) <= 1e-5 * max(1, found["loss"])
    moved = report["eval_loss_after"] != report["eval_loss_before"]
    if near and moved and chosen == found["chosen"]:
        return tuning, None
    return tuning, f"loss {report['eval_loss_before']} became {report['eval_loss_after']}, {found['loss']} there; {chosen} and {found['chosen']} chosen"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="write the folders here")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--rows", type=int, default=6, help="held-out rows of each")
    parser.add_argument("--program", help="the opt_superglue whose saved models are to be compared")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    kept, number, seen = 0, 0, collections.Counter()
    tally, wrong = collections.Counter(), 0
    while kept < args.count:
        rng = random.Random(f"{args.seed}/{number}")
        number += 1
        task = list(WORDS)[kept % len(WORDS)]
        folder = args.out / "new"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "model").mkdir(parents=True)
        (folder / "data").mkdir()
        words_of, form = tokenizer(rng, folder / "model")
        made, kind = model(rng, folder / "model", len(words_of) + rng.choice([0, 3]))
        examples = {split: [example(rng, task) for _ in range(count)] for split, count in [("train", len(WORDS[task])), ("dev", args.rows)]}
        for split in examples:
            write(rng, task, folder / "data", split, examples[split])
        found = evaluate(task, examples["dev"], made, words_of, made.config.max_position_embeddings - 2)
        if found is None or seen[form, kind] >= max(2, args.count // 4):
            continue
        seen[form, kind] += 1
        if args.program:
            context = made.config.max_position_embeddings - 2
            tuning, different = trained(args.program, kept, folder, task, examples["dev"], words_of, context)
            tally[tuning] += 1
            if different:
                wrong += 1
                print(f"{kept}: {different} | {tuning}, {form}, {kind}, {task}", flush=True)
        (folder / "expected.json").write_text(json.dumps({"task": task, "cut": False, **found}, indent=1) + "\n")
        folder.rename(args.out / f"{kept:03}-{form}-{kind}-{task}")
        kept += 1
    shutil.rmtree(args.out / "new", ignore_errors=True)
    print(f"{kept} folders of {number} drawn" + "".join(f", {count} {name}" for name, count in tally.items()))
    if args.program:
        print(f"{wrong} with differences")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
