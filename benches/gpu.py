#!/usr/bin/env python3
"""Passes and steps on a GPU, compared with the goals and, if asked for, with the same step in PyTorch.

    cargo build --release --features cuda --example gpu
    python3 benches/gpu.py target/release/examples/gpu --peer PEER.py --out gpu.json

The binary (examples/gpu.rs) is run once for the passes, and for each length once for inference and once for steps, each in a process of
its own, while nvidia-smi tells how much memory of the card is in use. Needs nothing but Python. Without nvidia-smi, memory is what the
binary says of itself.

PEER.py is any script that takes --device, --size, --dtype, --batch, --seq and --steps as the binary does (--dtype by PyTorch's name,
bfloat16) and prints one line of JSON with the numbers step_s, sweep_s, forward_s, infer_peak_gib, step_peak_gib and copy_gb_s.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading

# Bandwidth of passes as a share of a copy's, and memory of a step as a multiple of inference's.
GOALS = {"rademacher": 0.85, "gaussian": 0.70}
MEMORY_GOAL = 1.02
TORCH = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class Memory:
    """Peak memory in use on a card while it is watched, above what was in use before, in GiB."""

    def __init__(self, card):
        query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        known = card is not None and shutil.which("nvidia-smi")
        self.command = ["nvidia-smi", *query, "-i", card] if known else None

    def __enter__(self):
        self.before, self.most = self.used(), None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def used(self):
        """In MiB; None if the card does not say."""
        if self.command is None:
            return None
        answer = subprocess.run(self.command, capture_output=True, text=True).stdout.strip()
        return int(answer) if answer.isdigit() else None

    def watch(self):
        # Allocators keep what they took, so the peak is not missed between two samples.
        while self.before is not None and not self.over.wait(0.1):
            used = self.used()
            if used is not None:
                self.most = max(used, self.most or 0)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def gib(self):
        return None if self.most is None else (self.most - self.before) / 1024


def run(command, card):
    """The last line a command prints, as JSON, with the memory it took."""
    with Memory(card) as memory:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        sys.exit(f"failed with status {done.returncode}: {' '.join(command)}")
    return {**json.loads(lines[-1]), "card_gib": memory.gib()}


def number(value, digits=3, unit=""):
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def verdict(met):
    return "met" if met else "missed"


def ratio(a, b):
    return None if a is None or not b else a / b


def print_passes(passes, peer_copy):
    copy = max(passes["copy_gb_s"], peer_copy or 0)
    print(f"\n{passes['device']}: copy {number(passes['copy_gb_s'], 1)} GB/s (PyTorch's: {number(peer_copy, 1)}), {passes['mib']} MiB, read + written")
    print(f"{'pass':<20} {'GB/s':>9} {'share':>7}   goal")
    for entry in passes["passes"]:
        name, share = f"{entry['dtype']} {entry['noise']}", entry["gb_s"] / copy
        goal = GOALS[entry["noise"]]
        print(f"{name:<20} {entry['gb_s']:>9.1f} {share:>7.3f}   {goal:.2f} {verdict(share >= goal)}")


def print_steps(steps, infer, peer):
    print(f"\n{steps['size']}, {steps['parameters'] / 1e9:.2f} G parameters, {steps['dtype']}, {steps['batch']} x {steps['seq']} tokens")
    print(f"{'':<22} {'step':>10} {'forwards':>10} {'passes':>10} {'of PyTorch':>11}")
    rows = [(f"MeZO, {entry['noise']}", entry) for entry in steps["steps"]]
    for name, entry in rows + ([("PyTorch", peer)] if peer else []):
        share = ratio(entry["step_s"], peer and peer["step_s"])
        seconds = [number(1e3 * entry[key], 2, " ms") for key in ("step_s", "forward_s", "sweep_s")]
        print(f"{name:<22} {seconds[0]:>10} {seconds[1]:>10} {seconds[2]:>10} {number(share):>11}")
        if entry.get("copied"):
            print(f"    {entry['copied']} writes were not in place")
    print(f"one forward of inference {number(1e3 * infer['infer_s'], 2)} ms")
    memory = [
        ("the card", infer["card_gib"], steps["card_gib"]),
        (steps["memory"]["source"], infer["memory"]["infer_gib"], steps["memory"]["step_gib"]),
    ]
    if peer:
        memory.append(("PyTorch", peer["infer_peak_gib"], peer["step_peak_gib"]))
    print(f"{'peak memory':<22} {'inference':>14} {'steps':>14} {'ratio':>7}   goal")
    for name, before, after in memory:
        share = ratio(after, before)
        goal = "" if share is None or name == "PyTorch" else f"{MEMORY_GOAL} {verdict(share <= MEMORY_GOAL)}"
        print(f"{name:<22} {number(before, 3, ' GiB'):>14} {number(after, 3, ' GiB'):>14} {number(share):>7}   {goal}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="examples/gpu, built for the device")
    parser.add_argument("--peer", help="a script that takes the same step in PyTorch")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that runs it")
    parser.add_argument("--peer-device", help="the device it is given [default: the same]")
    parser.add_argument("--device", default="cuda", help="flex, ndarray, cuda or wgpu")
    parser.add_argument("--card", default="0", help="the card's number in nvidia-smi")
    parser.add_argument("--size", default="1.3b", help="tiny, 125m, 1.3b or 6.7b")
    parser.add_argument("--dtype", default="bf16", choices=TORCH)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, nargs="+", default=[64, 256], help="tokens in a sequence, one table each")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", help="a file for everything that was measured, as JSON")
    args = parser.parse_args()

    # The memory of a card says nothing of what runs on the host.
    card = args.card if args.device in ("cuda", "wgpu") else None
    common = ["--size", args.size, "--batch", str(args.batch), "--steps", str(args.steps)]

    def ours(part, seq):
        options = [*common, "--device", args.device, "--dtype", args.dtype, "--seq", str(seq), "--part", part]
        return run([os.path.abspath(args.binary), *options], card)

    def theirs(seq):
        device = args.peer_device or args.device
        options = [*common, "--device", device, "--dtype", TORCH[args.dtype], "--seq", str(seq)]
        return run([args.peer_python, args.peer, *options], card)

    lengths = []
    passes = ours("passes", args.seq[0])
    for seq in args.seq:
        peer = theirs(seq) if args.peer else None
        lengths.append({"infer": ours("infer", seq), "steps": ours("step", seq), "peer": peer})
    copies = [entry["peer"]["copy_gb_s"] for entry in lengths if entry["peer"]]
    print_passes(passes, max(copies, default=None))
    for entry in lengths:
        print_steps(entry["steps"], entry["infer"], entry["peer"])
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"passes": passes, "lengths": lengths}, file, indent=2)


if __name__ == "__main__":
    main()
