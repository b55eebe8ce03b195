#!/usr/bin/env python3
"""The ledger: one row of CSV for each run of `zo train`, and a way to run any of them again.

    python3 tools/ledger.py run target/release/zo results/bundled.csv --forwards 2000 4000
    python3 tools/ledger.py run target/release/zo results/smollm2.csv --forwards 2000 -- --model DIR --data DIR --task sst2 --train-rows 1000
    python3 tools/ledger.py again target/release/zo results/bundled.csv --row 3      must give the same accuracies
    python3 tools/ledger.py table results/bundled.csv                                means and standard deviations, as Markdown

`run` takes the methods below, each at three learning rates, three times apart, around the rate that is stated here beforehand, with the seeds 0, 1
and 2, and appends what is not in the file yet: it may be stopped and started again. What follows `--` goes to every run. Needs nothing but Python.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
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
    ("lozo", 2, "--method lozo --perturb on-the-fly"),
    ("subzero", 2, "--method subzero --perturb on-the-fly"),
    ("subzero-plus", 100, "--method subzero-plus --perturb on-the-fly --rows-at-once 128"),
    ("lora", 2, "--method mezo --tuning lora"),
    ("prefix", 2, "--method mezo --tuning prefix"),
]
SEEDS = [0, 1, 2]
FACTORS = [1 / 3, 1, 3]
FIELDS = ["name", "seed", "lr", "forwards", "accuracies", "loss", "seconds_per_step", "peak_mib", "version", "threads", "command"]


def rounded(rate):
    return f"{rate:.1e}"


def one(zo, flags, forwards_of_step, forwards, more, seed, lr):
    """Runs it; returns the row."""
    steps = forwards[-1] // forwards_of_step
    every = max(1, forwards[0] // forwards_of_step)
    command = ["train", *flags.split(), "--steps", str(steps), "--eval-every", str(every), "--seed", str(seed), "--lr", lr, *more]
    return again(zo, command, forwards, forwards_of_step)


def again(zo, command, forwards, forwards_of_step):
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([zo, *command, "--quiet", "--out", out + "/run"], capture_output=True, text=True)
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
    for name, of_step, flags in METHODS:
        if args.only and name not in args.only:
            continue
        middle = default_rate(args.zo, flags, args.more)
        for factor in FACTORS:
            for seed in SEEDS:
                lr = rounded(middle * factor)
                if (name, str(seed), lr) in known:
                    continue
                row = one(args.zo, flags, of_step, args.forwards, args.more, seed, lr)
                row.update(name=name, seed=seed, lr=lr)
                with args.file.open("a", newline="") as file:
                    csv.DictWriter(file, FIELDS).writerow(row)
                print(name, lr, seed, row["accuracies"], flush=True)


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


def table(args):
    rows = read(args.file)
    points = [pair.split(":")[0] for pair in rows[0]["accuracies"].split()]
    print(f"| method | learning rate | {' | '.join(f'{point} forwards' for point in points)} | loss | seeds |")
    print("|---|---|" + "---|" * (len(points) + 2))
    for name, lr, chosen in sorted(best(rows), key=lambda each: -statistics.mean(map(final, each[2]))):
        cells = []
        for place in range(len(points)):
            values = [row["accuracies"].split()[place].split(":")[1] for row in chosen]
            values = [0.0 if value == "None" else float(value) for value in values]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
        losses = [float(row["loss"]) for row in chosen if row["loss"] not in ("", "None")]
        loss = f"{statistics.mean(losses):.3f}" if losses else "-"
        print(f"| {name} | {lr} | {' | '.join(cells)} | {loss} | {len(chosen)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("zo")
    runs.add_argument("file", type=Path)
    runs.add_argument("--forwards", type=int, nargs="+", default=[2000, 4000])
    runs.add_argument("--only", nargs="+", help="names of methods")
    one_more = commands.add_parser("again")
    one_more.add_argument("zo")
    one_more.add_argument("file", type=Path)
    one_more.add_argument("--row", type=int, required=True, help="counted from 0")
    tables = commands.add_parser("table")
    tables.add_argument("file", type=Path)
    argv = sys.argv[1:]
    more = argv[argv.index("--") + 1 :] if "--" in argv else []
    args = parser.parse_args(argv[: argv.index("--")] if "--" in argv else argv)
    args.more = more
    {"run": run, "again": rerun, "table": table}[args.what](args)


if __name__ == "__main__":
    main()
