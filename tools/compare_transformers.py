"""Compares opt_superglue with transformers and PEFT on random model folders and random rows of all tasks.

usage: pip install torch transformers peft safetensors tokenizers
       cargo build --release --example opt_superglue
       python tools/compare_transformers.py target/release/examples/opt_superglue --seed 0 --count 500

Each folder is a function of the seed and its number, except for the training of unigram and WordPiece vocabularies, which no seed repeats
(--keep keeps the folders): family, sizes, float type, shards, tokenizer, task, rows, and what is done with
it: evaluation, in-context learning, training in each tuning with what was saved read by transformers or PEFT, an adapter that PEFT
made, narrowing to half precision. Prints a line for each difference and how to reproduce it; exits with 1 if there is one.
--golden DIR writes small folders with their expected values, which crates/zo-llm/tests/agreement.rs compares, and runs nothing.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import traceback

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from compare import folders, rows
from compare.reference import Reference, Refused

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
TOLERANCE = 1e-4
MODES = ["evaluate"] * 3 + ["icl", "full", "full", "head", "lora", "lora", "prefix", "prompt", "peft", "peft", "narrow"]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


class Case:
    """One random folder, and what to do with it."""

    def __init__(self, seed, number, dir, small=False, family=None):
        rng = random.Random(f"{seed}/{number}/{small}")
        self.model, self.data, self.out = dir / "model", dir / "data", dir / "out"
        self.task = rng.choice(rows.TASKS)
        self.drawn = folders.make(rng, self.model, small, family)
        self.family, self.context = self.drawn["family"], self.drawn["context"]
        self.mode = rng.choice(["evaluate", "peft"] if small else MODES)
        extra = [*self.drawn["tokenizer"]["extra"], "</s>"]
        count = {"train": 1 if small or self.mode == "icl" else 3, "dev": rng.randint(1, 2 if small else 4)}
        self.train, self.dev = rows.write(rng, self.task, self.data, count, extra)
        self.virtual = rng.randint(1, 4) if self.mode in ("prefix", "prompt") else 0
        self.cut = self.mode in ("evaluate", "icl") and rng.random() < 0.3
        if self.cut:  # a context that some prompts do not fit into
            self.shrink(rng.choice([48, 80, 120]))
        self.adapter = None
        if self.mode == "peft":
            self.adapter = dir / "adapter"
            self.virtual = folders.adapter(rng, self.adapter, load(self.model), self.family)
        self.dtype = rng.choice(["bf16", "f16"]) if self.mode == "narrow" else "f32"
        self.rank = rng.choice([1, 2])
        self.targets = rng.sample(folders.LORA_LAYERS[self.family], rng.randint(1, 3))

    def shrink(self, context):
        """Rotary positions have no table: the configuration alone says how many there are."""
        path = self.model / "config.json"
        config = json.loads(path.read_text())
        if self.family != "opt" and self.drawn["rope"] in ("default", "llama3"):
            config["max_position_embeddings"] = self.context = context
            path.write_text(json.dumps(config))

    def args(self):
        args = ["--model", self.model, "--data", self.data, "--task", self.task, "--out", self.out, "--dtype", self.dtype, "--batch", 2]
        args += ["--cut"] * self.cut
        trained = ["--steps", 2, "--lr", 1e-3, "--epsilon", 1e-2, "--save", "--tuning", self.mode]
        return list(map(str, args + {
            "evaluate": ["--steps", 0], "icl": ["--method", "icl", "--demonstrations", 1],
            "narrow": ["--steps", 0, "--save"], "peft": ["--steps", 0, "--adapter", self.adapter],
            "full": trained, "head": trained,
            "lora": trained + ["--lora-rank", self.rank, "--lora-targets", ",".join(self.targets)],
            "prefix": trained + ["--virtual-tokens", self.virtual], "prompt": trained + ["--virtual-tokens", self.virtual],
        }[self.mode]))

    def shown(self):
        """The demonstration of in-context learning: the only training row."""
        if self.mode != "icl":
            return ""
        [example] = self.train
        answer = f" {example['references'][0]}\n" if self.task in rows.GENERATION else example["options"][example["label"]]
        return f"{example['prompt']}{answer.rstrip()}\n\n"

    def reference(self, folder, adapter=None):
        model = load(folder)
        if adapter:
            from peft import PeftModel
            model = PeftModel.from_pretrained(model, adapter).eval()
        found = Reference(folder, self.context - self.virtual, model, self.cut or self.mode == "icl", self.shown())
        if adapter and self.virtual:
            found.logits = lambda ids: virtual_logits(model, ids)
        return found

    def expected(self, reference):
        # Training rows are never cut, and no examples are put before them.
        plain = Reference(self.model, reference.context, reference.model, self.cut)
        plain.check(self.task, self.train)
        return reference.evaluate(self.task, self.dev)

    def describe(self):
        t, d = self.drawn["tokenizer"], self.drawn
        return (f"{self.mode}, {self.task}, {d['family']} {d['dtype']} in {d['weights']}, {d['config']} config, "
                f"{t['kind']} tokenizer as {t['form']}, first {t['first']}, added {t['extra']}" + ", cut" * self.cut)


def virtual_logits(model, ids):
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        return out.logits[0, -len(ids):].float()


def differences(when, report, predictions, expected, exact=True):
    """Every difference between a report and what transformers found."""
    whole = None not in expected["chosen"]
    for name, key in [("loss", f"eval_loss_{when}"), ("accuracy", f"accuracy_{when}"), ("f1", f"f1_{when}")]:
        if name not in expected or name != "loss" and not whole:
            continue
        here, there = report[key], expected[name]
        if here is None or not abs(here - there) <= TOLERANCE * max(1.0, abs(there)):
            yield f"{key} is {here} here, {there} there"
    for row, (here, there) in enumerate(zip(predictions[when], expected["chosen"], strict=True)):
        if there is not None and here != there:
            yield f"row {row} {when}: {here!r} here, {there!r} there"


def run(program, case):
    """What differs, and what was done."""
    expected = refused = None
    reference = case.reference(case.model, case.adapter)
    # Virtual tokens of ours begin with random values: what they say is compared once they are saved.
    reference.context = case.context - case.virtual
    try:
        expected = case.expected(reference)
    except Refused as error:
        refused = str(error)
    done = subprocess.run([program, *case.args(), "--quiet"], capture_output=True, text=True, timeout=120)
    if refused is not None:
        return ([] if done.returncode else [f"evaluated what is to be refused: {refused}"]), "refused by both", 0
    if done.returncode:
        return [f"exit {done.returncode}: {done.stderr.strip()[-300:]}"], "", 0
    report = json.loads((case.out / "report.json").read_text())
    predictions = json.loads((case.out / "predictions.json").read_text())
    found = []
    if case.mode not in ("prefix", "prompt", "narrow"):
        found += differences("before", report, predictions, expected)
    ties = reference.ties
    if case.mode in ("full", "head", "narrow"):
        saved = case.reference(case.out / "model")
    elif case.mode in ("lora", "prefix", "prompt"):
        saved = case.reference(case.model, case.out / "adapter")
    else:
        return found, case.mode, ties
    if case.mode == "narrow":
        found += narrowed(case)
    else:
        after = saved.evaluate(case.task, case.dev)
        found += differences("after", report, predictions, after)
        if case.mode != "head" and after["loss"] == expected["loss"]:
            found.append("training changed nothing")
    return found, case.mode, ties + saved.ties


def narrowed(case):
    """Saved in half precision, weights are those of the folder, rounded once."""
    there = {name: value.to(folders.DTYPES[case.dtype]) for name, value in load(case.model).state_dict().items()}
    here = load_file(case.out / "model" / "model.safetensors")
    for name in sorted(there.keys() | here.keys()):
        if name not in here:
            if name != "lm_head.weight":
                yield f"{name} was not saved"
        elif name not in there:
            yield f"{name} was saved, transformers has none"
        elif here[name].dtype != there[name].dtype or not torch.equal(here[name], there[name]):
            yield f"{name} was not narrowed to {case.dtype} as PyTorch does"


def golden(dir, seed, count):
    """Writes folders whose choices are clear and which cover every task, kind of tokenizer and form."""
    shutil.rmtree(dir, ignore_errors=True)
    number, kept, seen = 0, 0, collections.Counter()
    while kept < count:
        with tempfile.TemporaryDirectory() as scratch:
            case = Case(seed, number, pathlib.Path(scratch), small=True)
            tokenizer = case.drawn["tokenizer"]
            kinds = [case.task, (case.family, tokenizer["kind"]), (tokenizer["kind"], tokenizer["form"])]
            number += 1
            if max(seen[kind] for kind in kinds[:2]) > count // 9:
                continue
            try:
                expected = case.expected(case.reference(case.model, case.adapter))
            except Refused:
                continue
            if None in expected["chosen"]:
                continue
            seen.update(kinds)
            name = f"{kept:02}-{case.family}-{tokenizer['kind']}-{tokenizer['form']}-{case.task}"
            kept += 1
            shutil.copytree(scratch, dir / name)
            text = {"task": case.task, "cut": case.cut, **expected}
            (dir / name / "expected.json").write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", help="the opt_superglue to check")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="begin with this folder")
    parser.add_argument("--only", type=int, help="only this folder")
    parser.add_argument("--family", choices=folders.FAMILIES + folders.LATER, help="only folders of this family")
    parser.add_argument("--keep", type=pathlib.Path, help="leave the folders here")
    parser.add_argument("--golden", type=pathlib.Path, help="write small folders with expected values here")
    args = parser.parse_args()
    if args.golden:
        return golden(args.golden, args.seed, args.count)
    if not args.program:
        parser.error("which opt_superglue?")
    tally, wrong, ties = collections.Counter(), 0, 0
    for number in range(args.first, args.first + args.count) if args.only is None else [args.only]:
        with tempfile.TemporaryDirectory() as scratch:
            dir = pathlib.Path(scratch) if args.keep is None else args.keep / str(number)
            if args.keep:
                shutil.rmtree(dir, ignore_errors=True)
            about = "making it"
            try:
                case = Case(args.seed, number, dir, family=args.family)
                about = case.describe()
                found, done, undecided = run(pathlib.Path(args.program).resolve(), case)
            except Exception as error:
                found, done, undecided = [f"the reference failed: {type(error).__name__}: {error}"], "", 0
                if args.only is not None:
                    traceback.print_exc()
        tally[done] += 1
        ties += undecided
        if found:
            wrong += 1
            print(f"{number}: {'; '.join(found)} | {about} | to reproduce: --seed {args.seed} --only {number} --keep DIR" + f" --family {args.family}" * bool(args.family), flush=True)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()) if name)
    print(f"{sum(tally.values())} folders ({counts}), {ties} choices left to rounding, {wrong} with differences")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
