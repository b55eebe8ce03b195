#!/usr/bin/env python3
"""Kills short runs of `zo train` at random moments, and checks that nothing is damaged and that they resume to the same bits.

    cargo build -p zo-cli
    python3 tools/kill.py target/debug/zo                   100 kills, some 10 minutes on two cores
    python3 tools/kill.py target/debug/zo --kills 5 --seed 7
    sudo python3 tools/kill.py target/debug/zo --kills 0 --disk     a full disk and a read-only folder instead (Linux; mounts a tmpfs)

Half of the kills hit a new run, half one that was finished, saved, and goes on for more steps. A third of them come at any time, the others
shortly after a temporary file or folder appears: while a checkpoint, the report or the model is written. The exit status is 1 if anything is
not as promised.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tomllib

SIZES = "--batch 4 --train-rows 16 --eval-rows 8 --checkpoint-every 2 --eval-every 4 --keep-best --save --quiet --seed 3".split()
# Weights that are displaced between steps; buffers beside the record; an adapter in place of the model.
RUNS = {"mezo": ["--method", "mezo"], "momentum": ["--method", "momentum"], "lora": ["--method", "mezo", "--tuning", "lora"]}
STEPS, MORE = 12, 20
# Files that are appended to.
LOGS = {"metrics.jsonl", "trajectory.zo"}
# What depends on the clock, the folder or the process: times and memory, paths, burn's ids of parameters, predictions that only the first process
# makes.
TIMES = ("seconds", "rss")
VARIES = {"ids", "command", "out", "saved", "before", "resumed_from", "tokens_per_step"}


class Broken(Exception):
    """Something is not as promised."""


def command(zo, name, steps, out, *more):
    return [zo, "train", *SIZES, *RUNS[name], "--steps", str(steps), "--out", str(out), *more]


def run(args):
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{' '.join(map(str, args))}: {done.stderr}")


def fixed(value):
    """JSON without what varies."""
    if isinstance(value, dict):
        return {key: fixed(item) for key, item in value.items() if key not in VARIES and not any(word in key for word in TIMES)}
    return [fixed(item) for item in value] if isinstance(value, list) else value


def is_temporary(path):
    return any(part.endswith(".tmp") for part in path.parts)


def files(out):
    """Every file that counts, by its name in the folder."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        if path.is_file() and not is_temporary(name):
            found[str(name)] = path.read_bytes()
    return found


def records(data):
    """The records of a trajectory, as docs/src/trajectory.md says. The last may be half there; the header names the folder."""
    at, found = 16 + struct.unpack_from("<I", data, 8)[0] if len(data) >= 12 else len(data), []
    while at + 9 <= len(data):
        end = at + 9 + int.from_bytes(data[at + 1:at + 4], "little")
        found += [data[at:end - 4]] if end <= len(data) else []
        at = end
    return found


def content(name, data):
    """What two runs must have in common of a file. Raises if it is not whole."""
    try:
        if name.endswith(".json"):
            return fixed(json.loads(data))
        if name.endswith(".jsonl"):
            # Lines are appended: the last may be half there.
            return [fixed(json.loads(line)) for line in data.split(b"\n")[:-1]]
        if name.endswith(".zo"):
            return records(data)
        if name.endswith(".toml"):
            return fixed(tomllib.loads(data.decode()))
        if name.endswith(".safetensors"):
            (length,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8:8 + length])
            ends = [info["data_offsets"][1] for key, info in header.items() if key != "__metadata__"]
            if len(data) != 8 + length + max(ends):
                raise Broken(f"{name} has {len(data)} bytes")
            return data
        if name.endswith((".svg", ".html")):
            # Drawn from the others, with times in them.
            if not data.rstrip().endswith((b"</svg>", b"</html>")):
                raise Broken(f"{name} ends early")
            return None
        return None if name.endswith("README.md") else data
    except (ValueError, struct.error) as error:
        raise Broken(f"{name} is damaged: {error}") from error


def contents(out):
    return {name: content(name, data) for name, data in files(out).items()}


def difference(a, b, place=""):
    """Where two contents part."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next(difference(a[key], b[key], f"{place}.{key}") for key in a if a[key] != b[key])
    if isinstance(a, list) and isinstance(b, list):
        both = (difference(x, y, f"{place}[{at}]") for at, (x, y) in enumerate(zip(a, b)) if x != y)
        return next(both, f"{place} has {len(a)} entries instead of {len(b)}")
    short = lambda value: repr(value)[:200]
    return f"{place} is {short(a)} instead of {short(b)}"


def same(what, found, expected):
    if found.keys() != expected.keys():
        raise Broken(f"{what}: lacks {sorted(expected.keys() - found.keys())}, has {sorted(found.keys() - expected.keys())}")
    for name in found:
        if found[name] != expected[name]:
            raise Broken(f"{what}: {name} differs: {difference(found[name], expected[name])}")


def phase(out):
    """What the run was doing when it died."""
    if not out.exists() or not (out / "metrics.jsonl").exists():
        return "starting"
    temporary = [path.relative_to(out) for path in out.rglob("*.tmp")]
    if any(path.parts[0] == "checkpoints" for path in temporary):
        return "writing a checkpoint"
    if temporary:
        return "saving" if any(path.parts[0] in ("model", "adapter") for path in temporary) else "writing a report"
    return "saved, or about to" if any((out / name).exists() for name in ("model", "adapter")) else "steps and evaluations"


def watch(out, deadline, rng):
    """Waits until a temporary file of some kind appears, and a moment more."""
    folders, skipped = rng.choice([(("checkpoints",), 12), (("model", "adapter"), 3), ((), 3)])
    skipped = rng.randrange(skipped)

    def temporary():
        found = [path.relative_to(out) for path in out.rglob("*.tmp")] if out.exists() else []
        # Of the folder itself: reports.
        return {path for path in found if (path.parts[0] in folders if folders else len(path.parts) == 1)}

    seen = temporary()
    while time.monotonic() < deadline:
        try:
            new = temporary() - seen
        except OSError:
            # Renamed meanwhile.
            continue
        if new:
            seen |= new
            skipped -= 1
            if skipped < 0:
                time.sleep(rng.random() * rng.choice([0, 1e-4, 1e-3, 1e-2]))
                return


def kill_one(zo, name, whole, rng, place):
    """One kill; says what it hit and what came of it, or nothing if the run had ended."""
    out, going_on = place / "run", rng.random() < 0.5
    before = {}
    if going_on:
        shutil.copytree(whole[name, STEPS], out)
        before = files(out)
    steps = MORE if going_on else STEPS
    args = command(zo, name, steps, out, *(["--resume"] if going_on else []))
    child = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    takes, start = whole[name, "seconds"], time.monotonic()
    if rng.random() < 1 / 3:
        time.sleep(rng.random() * takes)
    else:
        watch(out, start + takes, rng)
    child.send_signal(signal.SIGKILL)
    errors = child.communicate()[1]
    if child.returncode not in (0, -signal.SIGKILL):
        raise Broken(f"it failed before it was killed: {errors}")
    if child.returncode == 0:
        return None
    hit = phase(out)

    # What is there is whole. What was there before is there still, or what takes its place.
    left = contents(out) if out.exists() else {}
    new = contents(whole[name, MORE])
    for old, data in before.items():
        if old.startswith("checkpoints"):
            # They follow each other; the last one is tried below.
            continue
        if old not in left:
            raise Broken(f"{old} is gone")
        if old not in LOGS and left[old] not in (content(old, data), new[old]):
            raise Broken(f"{old} is neither the old nor the new one")
    done = subprocess.run(command(zo, name, steps, out, "--resume"), capture_output=True, text=True)
    if done.returncode:
        checkpoints = [path for path in out.glob("checkpoints/step-*") if path.suffix != ".tmp"]
        if checkpoints or len(left.get("trajectory.zo", [])) > 1 or not done.stderr.startswith("error: "):
            raise Broken(f"it does not resume: {done.stderr}")
        return hit, "nothing to resume"
    same("resumed", contents(out), contents(whole[name, steps]))
    return hit, "resumed to the same bits"


def references(zo, names, place):
    """Runs that nobody kills."""
    whole = {}
    for name in names:
        start = time.monotonic()
        short, long = (place / f"{name}-{steps}" for steps in (STEPS, MORE))
        run(command(zo, name, STEPS, short))
        whole[name, "seconds"] = time.monotonic() - start
        shutil.copytree(short, long)
        run(command(zo, name, MORE, long, "--resume"))
        whole[name, STEPS], whole[name, MORE] = short, long
    return whole


def kills(zo, count, rng, place):
    whole, hits, broken = references(zo, RUNS, place), collections.Counter(), 0
    while hits.total() + broken < count:
        name = rng.choice(sorted(RUNS))
        with tempfile.TemporaryDirectory(dir=place) as folder:
            try:
                found = kill_one(zo, name, whole, rng, pathlib.Path(folder))
                hits.update([found] if found else [])
            except Broken as error:
                print(f"a run of {name}: {error}", flush=True)
                broken += 1
    for (hit, end), times in sorted(hits.items()):
        print(f"{times:4}  {hit}: {end}")
    print(f"{hits.total()} of {count} as promised")
    if broken:
        raise Broken(f"{broken} are not")


def refused(args, reason):
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode != 1 or reason not in done.stderr or not done.stderr.startswith("error: "):
        raise Broken(f"{' '.join(map(str, args))} ended with {done.returncode}: {done.stderr}")
    return done.stderr.splitlines()[0]


def disk(zo, place):
    """A disk that is full, and a folder that cannot be written."""
    whole, mounted = references(zo, ["momentum"], place), place / "full"
    old, new = whole["momentum", STEPS], whole["momentum", MORE]
    size = sum(len(data) for data in files(old).values())
    tried = 0
    for room in (0, 4 << 10, 64 << 10, size // 4, size // 2, size):
        mounted.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2 * size + (1 << 20)}", "tmpfs", mounted], check=True)
        try:
            out = mounted / "run"
            shutil.copytree(old, out)
            before = files(out)
            free = shutil.disk_usage(mounted).free
            (mounted / "filler").write_bytes(bytes(max(0, free - room)))
            args = command(zo, "momentum", MORE, out, "--resume")
            try:
                print(refused(args, "No space left"))
                tried += 1
            except Broken:
                # There may have been room enough.
                same("with little room", contents(out), contents(new))
                continue
            # All of it is whole. Reports may be those of the run that failed; checkpoints follow each other.
            left = contents(out)
            for name, data in before.items():
                if name not in left and not name.startswith("checkpoints"):
                    raise Broken(f"{name} is gone")
                if name.startswith("model") and left[name] not in (content(name, data), contents(new)[name]):
                    raise Broken(f"{name} is neither the old nor the new one")
            (mounted / "filler").unlink()
            run(args)
            same("after a full disk", contents(out), contents(new))
        finally:
            subprocess.run(["umount", mounted], check=True)
    if tried < 3:
        raise Broken(f"the disk was full {tried} times only")

    out = place / "read-only"
    shutil.copytree(old, out)
    before = files(out)
    subprocess.run(["mount", "--bind", out, out], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", out], check=True)
    try:
        for args in (command(zo, "momentum", MORE, out, "--resume"), command(zo, "momentum", STEPS, out / "new"),
                     [zo, "eval", "--eval-rows", "4", "--result", out / "eval.json"]):
            print(refused(list(map(str, args)), "Read-only file system"))
        if files(out) != before:
            raise Broken("a read-only folder has changed")
    finally:
        subprocess.run(["umount", out], check=True)
    print("a full disk and a read-only folder: errors say so, nothing is damaged, runs resume")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zo", type=pathlib.Path, help="the program")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="of the moments [default: another one each time]")
    parser.add_argument("--disk", action="store_true", help="a full disk and a read-only folder as well (root)")
    args = parser.parse_args()
    seed = random.randrange(2**32) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        try:
            if args.kills:
                kills(args.zo.resolve(), args.kills, random.Random(seed), place)
            if args.disk:
                disk(args.zo.resolve(), place)
        except Broken as broken:
            sys.exit(str(broken))


if __name__ == "__main__":
    main()
