#!/usr/bin/env python3
"""The ledger: one row of CSV for each run of `zo train`, and a way to run any of them again.

    python3 tools/ledger.py run target/release/zo results/bundled.csv --forwards 500 1000 2000 4000 --jobs 2
    python3 tools/ledger.py run target/release/zo results/smollm2.csv --forwards 2000 -- --model DIR --data DIR --task sst2 --train-rows 1000
    python3 tools/ledger.py again target/release/zo results/bundled.csv --row 3      must give the same accuracies
    python3 tools/ledger.py table results/bundled.csv                                means and standard deviations, as Markdown
    python3 tools/ledger.py plot results/bundled.csv docs/src/images/ledger.svg      the same as a picture

`run` takes the methods below, each at three learning rates, three times apart, around the rate that is stated here beforehand, with the seeds 0, 1
and 2 (`--factors`, `--seeds`: others), and appends what is not in the file yet: it may be stopped and started again. What follows `--` goes to every run. First-order Adam needs a
program with the feature `autodiff`, and counts three forwards a step, its backward pass being two. Needs nothing but Python.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# Name in the ledger, forwards of a step, and flags.
METHODS = [
    ("mezo", 2, "--method mezo"),
    ("mezo-rademacher", 2, "--method mezo --noise rademacher"),
    ("gv", 4, "--method gv"),
    ("greedy", 4, "--method greedy"),
    ("lezo", 2, "--method lezo"),
    ("adalezo", 2, "--method adalezo"),
    ("curvzo", 2, "--method curvzo"),
    ("fzoo", 9, "--method fzoo"),
    ("leave-one-out", 8, "--method mezo --coefficients leave-one-out --difference one-point --queries 8"),
    ("adam-window", 2, "--method adam-window"),
    ("hizoo", 3, "--method hizoo"),
    ("lozo", 2, "--method lozo --perturb on-the-fly"),
    ("lozo-m", 2, "--method lozo-m --perturb on-the-fly"),
    ("gv-lozo", 4, "--method gv --noise lozo --perturb on-the-fly"),
    ("subzero", 2, "--method subzero --perturb on-the-fly"),
    ("subzero-plus", 100, "--method subzero-plus --perturb on-the-fly --rows-at-once 128"),
    ("lora", 2, "--method mezo --tuning lora"),
    ("prefix", 2, "--method mezo --tuning prefix"),
    ("first-order-adam", 3, "--method first-order-adam"),
]
SEEDS = [0, 1, 2]
FACTORS = [1 / 3, 1, 3]
FIELDS = ["name", "seed", "lr", "forwards", "accuracies", "loss", "seconds_per_step", "peak_mib", "version", "threads", "command"]


def rounded(rate):
    return f"{rate:.1e}"


def one(args, name, flags, forwards_of_step, seed, lr):
    """Runs it; returns the row."""
    forwards, more = args.forwards, args.more
    steps = forwards[-1] // forwards_of_step
    every = max(1, forwards[0] // forwards_of_step)
    command = ["train", *flags.split(), "--steps", str(steps), "--eval-every", str(every), "--seed", str(seed), "--lr", lr, *more]
    # Side by side, runs have one thread each.
    environment = {**os.environ, "RAYON_NUM_THREADS": "1"} if args.jobs > 1 else None
    row = again(args.zo, command, forwards, forwards_of_step, environment)
    return {**row, "name": name, "seed": seed, "lr": lr}


def again(zo, command, forwards, forwards_of_step, environment=None):
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([zo, *command, "--quiet", "--out", out + "/run"], capture_output=True, text=True, env=environment)
        report = Path(out, "run", "report.json")
        if not report.exists():
            sys.exit(f"no report from {' '.join(command)}: {done.stderr.strip()}")
        report = json.loads(report.read_text())
        lines = [json.loads(line) for line in Path(out, "run", "metrics.jsonl").read_text().splitlines()]
    evaluated = {line["step"] * forwards_of_step: line for line in lines if "eval_accuracy" in line}
    accuracies = {}
    for wanted in forwards:
        reached = [at for at in evaluated if at <= wanted]
        finite = report["finish"] != "diverged"
        accuracies[wanted] = evaluated[max(reached)]["eval_accuracy"] if reached and finite else None
    last = evaluated[max(evaluated)]
    return {
        "forwards": report["forwards"],
        "accuracies": " ".join(f"{at}:{accuracy}" for at, accuracy in accuracies.items()),
        "loss": last["eval_loss"],
        "seconds_per_step": report.get("seconds_per_step"),
        "peak_mib": report.get("peak_rss_mib"),
        "version": report["versions"]["zo-optim"],
        "threads": report["threads"],
        "command": " ".join(command),
    }


def read(path):
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def final(row):
    value = row["accuracies"].split()[-1].split(":")[1]
    return float(value) if value != "None" else 0.0


def run(args):
    rows = read(args.file)
    known = {(row["name"], row["seed"], row["lr"]) for row in rows}
    if not rows:
        args.file.parent.mkdir(exist_ok=True)
        with args.file.open("w", newline="") as file:
            csv.DictWriter(file, FIELDS).writeheader()
    todo = []
    for name, of_step, flags in METHODS:
        if args.only and name not in args.only:
            continue
        middle = default_rate(args.zo, flags, args.more)
        rates = [rounded(middle * factor) for factor in args.factors]
        todo += [(name, flags, of_step, seed, lr) for lr in rates for seed in args.seeds if (name, str(seed), lr) not in known]
    with ThreadPoolExecutor(args.jobs) as pool:
        for done in as_completed([pool.submit(one, args, *each) for each in todo]):
            row = done.result()
            with args.file.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS).writerow(row)
            print(row["name"], row["lr"], row["seed"], row["accuracies"], flush=True)


def default_rate(zo, flags, more):
    """The rate that the program takes without --lr: that is what is stated beforehand."""
    shown = subprocess.run([zo, "config", *flags.split(), *more], capture_output=True, text=True)
    for line in shown.stdout.splitlines():
        if line.startswith("lr = "):
            return float(line.removeprefix("lr = "))
    sys.exit(f"no learning rate for {flags}: {shown.stderr.strip()}")


def rerun(args):
    row = read(args.file)[args.row]
    of_step = next(of_step for name, of_step, _ in METHODS if name == row["name"])
    forwards = [int(pair.split(":")[0]) for pair in row["accuracies"].split()]
    new = again(args.zo, row["command"].split(), forwards, of_step)
    print(f"{row['name']}, seed {row['seed']}, lr {row['lr']}\nbefore {row['accuracies']}\nnow    {new['accuracies']}")
    if new["accuracies"] != row["accuracies"]:
        sys.exit("the accuracies differ")


def best(rows):
    """For each name: the rate whose mean final accuracy is highest, and its rows."""
    found = {}
    for row in rows:
        found.setdefault(row["name"], {}).setdefault(row["lr"], []).append(row)
    for name, rates in found.items():
        lr = max(rates, key=lambda lr: statistics.mean(map(final, rates[lr])))
        yield name, lr, rates[lr]


def measured(rows):
    """The forwards at which accuracy was measured; and for each name its rate, the mean accuracies there, their standard deviations, and the rows."""
    points = [pair.split(":")[0] for pair in rows[0]["accuracies"].split()]
    found = []
    for name, lr, chosen in best(rows):
        accuracies = [[pair.split(":")[1] for pair in row["accuracies"].split()] for row in chosen]
        columns = [[0.0 if value == "None" else float(value) for value in column] for column in zip(*accuracies)]
        spreads = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        found.append((name, lr, [statistics.mean(column) for column in columns], spreads, chosen))
    return points, sorted(found, key=lambda each: -each[2][-1])


def table(args):
    points, found = measured(read(args.file))
    print(f"| method | learning rate | {' | '.join(f'{point} forwards' for point in points)} | loss | seeds |")
    print("|---|---|" + "---|" * (len(points) + 2))
    for name, lr, means, spreads, chosen in found:
        cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(means, spreads)]
        losses = [float(row["loss"]) for row in chosen if row["loss"] not in ("", "None")]
        loss = f"{statistics.mean(losses):.3f}" if losses else "-"
        print(f"| {name} | {lr} | {' | '.join(cells)} | {loss} | {len(chosen)} |")


def plot(args):
    """Accuracy from left to right, a line for each method, a dot for each number of forwards: the later, the darker."""
    points, found = measured(read(args.file))
    means = [mean for _, _, each, _, _ in found for mean in each]
    low, high = min(means) // 0.05 * 0.05, min(1.0, (max(means) // 0.05 + 1) * 0.05)
    left, width, line, top = 150, 520, 22, 46
    bottom = top + line * len(found)
    at = lambda accuracy: left + width * (min(max(accuracy, low), high) - low) / (high - low)
    shade = lambda k: 0.2 + 0.8 * (k + 1) / len(points)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {bottom + 44}" font-family="sans-serif" font-size="13" fill="#666">',
        "<style>.dot{fill:#1f77b4}.bar{stroke:#1f77b4;stroke-width:1.5}.grid{stroke:#8884}</style>",
    ]
    for k, point in enumerate(points):
        x = left + 130 * k
        svg.append(f'<circle class="dot" cx="{x}" cy="16" r="4.5" opacity="{shade(k):.2f}"/><text x="{x + 9}" y="20">{point} forwards</text>')
    for tick in range(round(low * 20), round(high * 20) + 1):
        x = at(tick / 20)
        svg.append(f'<path class="grid" d="M{x:.1f} {top - 10}V{bottom}"/><text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick / 20:.2f}</text>')
    svg.append(f'<text x="{left + width / 2}" y="{bottom + 38}" text-anchor="middle">accuracy; bars are one standard deviation over the seeds</text>')
    for number, (name, _, means, spreads, _) in enumerate(found):
        y = top + line * number + 2
        svg.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{name}</text>')
        svg.append(f'<path class="bar" d="M{at(means[-1] - spreads[-1]):.1f} {y}H{at(means[-1] + spreads[-1]):.1f}"/>')
        for k, mean in enumerate(means):
            svg.append(f'<circle class="dot" cx="{at(mean):.1f}" cy="{y}" r="4.5" opacity="{shade(k):.2f}"/>')
    args.svg.parent.mkdir(exist_ok=True)
    args.svg.write_text("\n".join([*svg, "</svg>", ""]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("zo")
    runs.add_argument("file", type=Path)
    runs.add_argument("--forwards", type=int, nargs="+", default=[2000, 4000])
    runs.add_argument("--only", nargs="+", help="names of methods")
    runs.add_argument("--jobs", type=int, default=1, help="runs side by side, of one thread each (default 1, with all threads)")
    runs.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    runs.add_argument("--factors", type=float, nargs="+", default=FACTORS, help="rates as multiples of the one that is stated beforehand")
    one_more = commands.add_parser("again")
    one_more.add_argument("zo")
    one_more.add_argument("file", type=Path)
    one_more.add_argument("--row", type=int, required=True, help="counted from 0")
    tables = commands.add_parser("table")
    tables.add_argument("file", type=Path)
    plots = commands.add_parser("plot")
    plots.add_argument("file", type=Path)
    plots.add_argument("svg", type=Path)
    argv = sys.argv[1:]
    more = argv[argv.index("--") + 1 :] if "--" in argv else []
    args = parser.parse_args(argv[: argv.index("--")] if "--" in argv else argv)
    args.more = more
    {"run": run, "again": rerun, "table": table, "plot": plot}[args.what](args)


if __name__ == "__main__":
    main()
