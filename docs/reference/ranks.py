#!/usr/bin/env python3
"""What a step takes on many ranks, from measured message times and stated step times: the tables of docs/src/many-machines.md.

    python3 docs/reference/ranks.py
    python3 docs/reference/ranks.py --hop-us 25 --gbit 100 --jitter 0.05

A step is the evaluations of its losses, which ranks share; passes over the weights, which each makes by itself; and the exchange of losses. The
exchange takes `hop-us` for each doubling of the ranks, and the time in which their bytes arrive. Each rank's own time varies by `jitter` (the
standard deviation of its logarithm), and a step ends with its slowest rank: 200 steps are drawn.
"""
import argparse
import math
import random
from statistics import NormalDist

RANKS = [1, 2, 4, 16, 64, 256, 1024, 10_000]

# Seconds: to read the weights once in a forward, a forward of one row apart from that, a pass over the weights, and one more noise vector in it.
MODELS = {
    # Measured: 1.12 s a step of 16 rows on two cores, 0.19 s of it two passes (README, What it costs); noise is most of a pass.
    "SmolLM2, f32, 2 cores": (0.05, 0.026, 0.095, 0.06),
    # Stated: 256 tokens a row at 350 TFLOP/s, 14 GB at 3 TB/s; a pass reads and writes them, and draws as long.
    "7B, bf16, a card of 3 TB/s": (0.005, 0.010, 0.019, 0.010),
    # Stated: 256 tokens a row at 700 TFLOP/s, 140 GB at 8 TB/s.
    "70B, bf16, a card of 8 TB/s": (0.018, 0.051, 0.070, 0.035),
}


def shares(split, ranks, rows, queries):
    """Ranks that share the rows, and parts of the displacements."""
    if split == "rows":
        return min(ranks, rows), 1
    parts = min(ranks, 2 * queries)
    return (min(max(1, ranks // parts), rows) if split == "both" else 1), parts


def step(model, split, ranks, rows, queries, way, net, steps, chance):
    """Mean seconds of a step, its messages, and the bytes of each that a rank sends."""
    weights, row, sweep, noise = MODELS[model]
    over_rows, parts = shares(split, ranks, rows, queries)
    evaluations = math.ceil(2 * queries / parts)
    forward = weights + math.ceil(rows / over_rows) * row
    own = evaluations * forward
    if way == "in place":
        # Every displacement is walked through, everywhere; the update waits for the next step's first.
        own += 2 * queries * sweep + (queries - 1) * noise
    elif way == "on the fly":
        own += evaluations * sweep + sweep + (queries - 1) * noise
    # Along low-rank noise: thin factors, which take next to nothing.
    messages, numbers = (2 * queries, 2) if parts == 1 else (1, evaluations + 2)
    hop, bandwidth, jitter = net
    exchange = 0.0
    if ranks > 1:
        exchange = messages * (hop * math.ceil(math.log2(ranks)) + ranks * 8 * numbers / bandwidth)
    total = 0.0
    for _ in range(steps):
        # The largest of so many draws: the quantile of a uniform number's root.
        quantile = chance.random() ** (1 / ranks)
        total += own * math.exp(jitter * normal(quantile))
    return total / steps + exchange, messages, 8 * numbers, exchange


def normal(quantile):
    return NormalDist().inv_cdf(min(max(quantile, 1e-12), 1 - 1e-12))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hop-us", type=float, default=100.0, help="microseconds of a message between two ranks")
    parser.add_argument("--gbit", type=float, default=10.0, help="gigabits per second of a rank's link")
    parser.add_argument("--jitter", type=float, default=0.03, help="by which a rank's time varies")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    net = (args.hop_us * 1e-6, args.gbit * 1e9 / 8, args.jitter)
    jobs = [
        ("rows", 16, 1, "in place"),
        ("rows", 1024, 1, "in place"),
        ("queries", 16, 32, "in place"),
        ("queries", 16, 32, "low rank"),
        ("both", 16, 32, "low rank"),
    ]
    for model in MODELS:
        print(f"\n{model}; {args.hop_us:g} us a hop, {args.gbit:g} Gbit/s, jitter {args.jitter:g}\n")
        print("| split | " + " | ".join(f"{ranks:,}" for ranks in RANKS) + " |")
        print("|---|" + "---|" * len(RANKS))
        for split, rows, queries, way in jobs:
            found = [step(model, split, ranks, rows, queries, way, net, args.steps, random.Random(ranks)) for ranks in RANKS]
            first = found[0][0]
            cells = [f"{first:.2f} s"] + [f"{first / seconds:.1f}" for seconds, *_ in found[1:]]
            print(f"| {split}: {rows} rows, {queries} queries, {way} | " + " | ".join(cells) + " |")
    print("\nmessages of a step, bytes that each rank sends in one, and the time of all, in ms\n")
    for split, rows, queries, way in jobs:
        found = [step("SmolLM2, f32, 2 cores", split, ranks, rows, queries, way, net, 1, random.Random(0)) for ranks in RANKS]
        cells = [f"{messages} x {size} B, {1e3 * exchange:.2f}" for _, messages, size, exchange in found[1:]]
        print(f"| {split}: {rows} rows, {queries} queries | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
