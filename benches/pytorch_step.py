"""Times a MeZO step in PyTorch, to compare with `report.json` of `opt_superglue`: the same model, rows, prompt and loss.

    python3 benches/pytorch_step.py --model DIR --data DIR [--rows 16] [--steps 4] [--threads 2] [--rademacher]

The first rows of DIR/train.jsonl (`{"sentence": .., "label": 0 | 1}`) are the batch of every step. Weights are swept as in MeZO's own code:
four times per step, each time drawing the noise of every tensor anew. Prints one line of JSON with the names of `report.json`; the
first step is not counted. Needs torch and transformers.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

EPSILON, RATE = 1e-3, 5e-6


class Clock:
    """Adds up the seconds spent inside `with`."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self.start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rademacher", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    with open(f"{args.data}/train.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(args.rows), lines)]
    prompts = [row["sentence"].strip() + " It was" for row in rows]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="right")
    last = batch.attention_mask.sum(1) - 1
    words = torch.tensor([tokenizer.encode(word)[0] for word in (" terrible", " great")])
    labels = torch.tensor([row["label"] for row in rows])
    weights = list(model.parameters())

    def noise(weight):
        if args.rademacher:
            return torch.randint(0, 2, weight.shape).to(weight.dtype) * 2 - 1
        return torch.normal(mean=0, std=1, size=weight.shape, dtype=weight.dtype)

    def sweep(seed, scale):
        torch.manual_seed(seed)
        for weight in weights:
            weight.data = weight.data + scale * noise(weight)

    @torch.inference_mode()
    def loss():
        logits = model(**batch).logits[torch.arange(len(rows)), last]
        return torch.nn.functional.cross_entropy(logits[:, words], labels).item()

    before, steps = loss(), []
    for step in range(args.steps + 1):
        start, forwards, sweeps = time.perf_counter(), Clock(), Clock()
        with sweeps:
            sweep(step, EPSILON)
        with forwards:
            plus = loss()
        with sweeps:
            sweep(step, -2 * EPSILON)
        with forwards:
            minus = loss()
        with sweeps:
            sweep(step, EPSILON)
            sweep(step, -RATE * (plus - minus) / (2 * EPSILON))
        steps.append((time.perf_counter() - start, forwards.seconds, sweeps.seconds))
    seconds = [statistics.fmean(column) for column in zip(*steps[1:])]
    names = ["seconds_per_step", "seconds_forward_per_step", "seconds_sweep_per_step"]
    report = dict(zip(names, (round(mean, 4) for mean in seconds)))
    report["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report["loss_before"] = round(before, 5)
    report["torch"] = torch.__version__
    print(json.dumps(report))


if __name__ == "__main__":
    main()
