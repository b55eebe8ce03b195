"""What a model answers to rows, by MeZO's rule, computed with transformers.

Prompt and continuation are tokenised together. The continuation is the tokens that end after the prompt; a token that a template
puts after every text is left out. Options are compared by the mean log-probability of their tokens; an answer is generated greedily
after the prompt's own tokens, up to a newline, the end of text or 50 tokens.
"""
import collections
import copy
import json
import re
import string

import torch
from tokenizers import processors

from . import rows, vocabularies

MAX_TOKENS = 50
# Where two logits are this close, rounding decides what is chosen.
TIE = 2e-5


class Refused(Exception):
    """A row that has to be refused."""


class Tokenizer:
    def __init__(self, folder):
        self.tokenizer = vocabularies.read(folder)
        # Without a post-processor offsets are those of the tokens; GPT-2's leaves spaces out of them.
        self.plain = copy.deepcopy(self.tokenizer.backend_tokenizer)
        self.plain.no_truncation()
        self.plain.no_padding()
        self.plain.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
        mask = self.encode("a")["special_tokens_mask"]
        self.before = self.encode("a")["input_ids"][:mask.index(0)]

    def encode(self, text):
        found = self.tokenizer(text, return_special_tokens_mask=True, truncation=False, padding=False)
        return {key: list(value) for key, value in found.items()}

    def ids(self, text):
        """Ids and where each ends in the text, without what a template puts after it."""
        found = self.plain.encode(text)
        ids, ends = self.before + found.ids, [0] * len(self.before) + [end for _, end in found.offsets]
        assert self.encode(text)["input_ids"][:len(ids)] == ids, "a template that does more than surround a text"
        return ids, ends

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True)


class Reference:
    def __init__(self, folder, context, model, cut=False, before=""):
        config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer(folder)
        self.model, self.context, self.cut, self.shown = model, context, cut, before
        self.end = self.ends(folder, config)
        self.ties = 0

    def ends(self, folder, config):
        """Tokens that end a text: the tokenizer's and generation_config.json's, or else those of config.json."""
        path = folder / "generation_config.json"
        ends = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.tokenizer.eos_token_id} - {None}
        if not ends:
            ends = config.get("eos_token_id", 2)
            ends = {*(ends if isinstance(ends, list) else [ends])} - {None}
        return ends

    def logits(self, ids):
        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits[0].float()

    def sequence(self, prompt, continuation, room=0):
        """All tokens, and how many of them are the prompt's."""
        text = self.shown + prompt
        ids, ends = self.tokenizer.ids(text + continuation)
        first = next((i for i, end in enumerate(ends) if end > len(text)), len(ids))
        if first == len(ids) or first == 0:
            raise Refused("the continuation has no tokens of its own, or the prompt none")
        return self.fit(ids, first, max(len(ids), first + room))

    def fit(self, ids, first, needed):
        over = max(0, needed - self.context)
        keep = len(self.tokenizer.before)
        if over and (not self.cut or over + keep >= first):
            raise Refused("too long")
        return ids[:keep] + ids[keep + over:], first - over

    def score(self, prompt, continuation, room=0):
        ids, first = self.sequence(prompt, continuation, room)
        log = torch.log_softmax(self.logits(ids[:-1]).double(), -1)
        return sum(log[at - 1, ids[at]].item() for at in range(first, len(ids))) / (len(ids) - first)

    def generate(self, prompt):
        ids, _ = self.tokenizer.ids(self.shown + prompt)
        if not ids:
            raise Refused("the prompt has no tokens")
        ids, _ = self.fit(ids, len(ids), len(ids) + MAX_TOKENS)
        new, tie = [], False
        while True:
            last = self.logits(ids + new)[-1]
            two = last.topk(2).values
            tie = tie or (two[0] - two[1]).item() < TIE * max(1.0, two[0].abs().item())
            token = last.argmax().item()
            if token in self.end:
                break
            new.append(token)
            if "\n" in self.tokenizer.decode(new) or len(new) == MAX_TOKENS:
                break
        return self.tokenizer.decode(new).split("\n")[0].strip(), tie

    def check(self, task, examples):
        """Refuses whatever cannot be trained on."""
        for example in examples:
            written = task in rows.GENERATION
            for text in [f" {example['references'][0]}\n"] if written else example["options"]:
                self.sequence(example["prompt"], text, MAX_TOKENS if written else 0)

    def evaluate(self, task, examples):
        """Loss, score, and the options or answers chosen; None where rounding decides."""
        losses, right, f1s, chosen = [], [], [], []
        for example in examples:
            prompt = example["prompt"]
            if task in rows.GENERATION:
                target = f" {example['references'][0]}\n"
                losses.append(-self.score(prompt, target, MAX_TOKENS))
                answer, tie = self.generate(prompt)
                self.ties += tie
                chosen.append(None if tie else answer)
                f1s.append(max(f1(answer, r) for r in example["references"]))
                right.append(any(normal(answer) == normal(r) for r in example["references"]))
                continue
            scores = torch.tensor([self.score(prompt, option) for option in example["options"]], dtype=torch.float64)
            best = int(scores.argmax())
            order = scores.sort(descending=True).values
            # Options that are tokenised alike are equal on both sides; the first counts.
            tie = len(order) > 1 and 1e-12 < (order[0] - order[1]).item() < TIE * max(1.0, order[0].abs().item())
            self.ties += tie
            chosen.append(None if tie else best)
            right.append(best in example["right"])
            per_option = task in rows.WORDS
            losses.append(-torch.log_softmax(scores, 0)[example["label"]].item() if per_option else -scores[example["label"]].item())
        mean = lambda values: sum(values) / len(values)
        found = {"loss": mean(losses), "accuracy": mean([float(r) for r in right]), "chosen": chosen}
        return found | ({"f1": mean(f1s)} if f1s else {})


def normal(text):
    """SQuAD's normalisation."""
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def f1(answer, reference):
    a, b = normal(answer).split(), normal(reference).split()
    if not a or not b:
        return float(a == b)
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * common / (len(a) + len(b))
