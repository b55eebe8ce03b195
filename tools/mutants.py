#!/usr/bin/env python3
"""Breaks the library on purpose, one line at a time, and checks whether the tests notice.

    python3 tools/mutants.py                     every mutation of tools/mutants.toml: a few hours on two cores
    python3 tools/mutants.py sampler curvzo      those with one of these words in their name or file
    python3 tools/mutants.py --list

Each is made in a copy of the tree (the committed files and what has changed since), so the working tree stays as it is. Its tests run crate
by crate until one fails. The exit status is 1 if a mutation survives that is not listed as equivalent, or if one no longer fits the
source.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ["zo-mezo", "zo-gv", "zo-greedy", "zo-lezo", "zo-curvzo", "zo-low-rank", "zo-variants"]


def commands(file, features):
    """The tests that concern `file`: first those of its own crate, which are the fastest, then those of everything built on it."""
    crate = pathlib.PurePath(file).parts[1]
    # With zo-examples every run has the same features of burn, which is then built once.
    runs = [["-p", crate, "-p", "zo-examples", "--lib"]]
    if crate == "zo-core":
        runs.append([*(word for method in METHODS for word in ("-p", method)), "-p", "zo-examples", "--lib"])
    if crate == "zo-llm":
        runs.append(["-p", crate, "-p", "zo-examples", "--test", "side_path", "--test", "joint"])
    folder = ROOT / "crates/zo-optim/tests"
    found = [*folder.glob("*.rs"), *(path.parent for path in folder.glob("*/main.rs"))]
    tests = sorted(path.stem for path in found if path.stem not in ("gpu", "train"))
    runs.append(["-p", "zo-optim", "-p", "zo-examples", *(word for test in tests for word in ("--test", test))])
    return [run + (["--features", features] if features else []) for run in runs]


def copy_tree(to):
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for old in [path for path in to.rglob("*") if path.is_file() and str(path.relative_to(to)) not in names]:
        old.unlink()
    for name in names:
        source, target = ROOT / name, to / name
        # What is unchanged keeps its timestamp, so that cargo builds nothing twice.
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def cargo(tree, target_dir, arguments, limit):
    environment = os.environ | {"CARGO_TARGET_DIR": str(target_dir), "CARGO_TERM_COLOR": "never"}
    try:
        done = subprocess.run(["cargo", "test", "--quiet", *arguments], cwd=tree, env=environment, timeout=limit, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return "hangs", ""
    if done.returncode == 0:
        return "passes", ""
    said = done.stdout + done.stderr
    return ("does not build" if "error: could not compile" in said else "fails"), said


def verdict(tree, target_dir, runs, limit):
    for run in runs:
        found, said = cargo(tree, target_dir, run, limit)
        if found == "does not build":
            return f"DOES NOT BUILD ({' '.join(run)})\n{said[-2000:]}"
        if found != "passes":
            names = sorted(set(re.findall(r"^    ([\w:]+)$", said, re.MULTILINE)))
            return f"noticed ({found}: {', '.join(names[:3])})"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="try only mutations with one of these words in their name or file")
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument("--tree", type=pathlib.Path, help="where the copy is made (default: beside the build, in mutants/tree)")
    parser.add_argument("--features", default="ndarray,autodiff", help="features of zo-optim's tests (default: ndarray,autodiff)")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one run of the tests (default 1800)")
    parser.add_argument("--no-baseline", action="store_true", help="do not test the unchanged tree first")
    args = parser.parse_args()
    mutations = tomllib.loads((ROOT / "tools/mutants.toml").read_text())["mutation"]
    chosen = [m for m in mutations if not args.words or any(word in m["name"] + " " + m["file"] for word in args.words)]
    if not chosen:
        sys.exit(f"none of the {len(mutations)} mutations has one of the words {args.words}")
    stale = [m["name"] for m in chosen if (ROOT / m["file"]).read_text().count(m["old"]) != 1]
    for m in chosen if args.list else ():
        print(f"{m['file']}: {m['name']}" + (" (STALE)" if m["name"] in stale else ""))
    if stale:
        print(f"these no longer fit the source, their `old` does not occur exactly once: {stale}", file=sys.stderr)
    if args.list:
        sys.exit(bool(stale))
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    tree = (args.tree or target / "mutants" / "tree").resolve()
    tree.mkdir(parents=True, exist_ok=True)
    copy_tree(tree)
    if not args.no_baseline:
        runs = [run for m in chosen for run in commands(m["file"], args.features)]
        found = verdict(tree, target, [list(run) for run in dict.fromkeys(map(tuple, runs))], args.limit)
        if found:
            sys.exit(f"without a mutation the tests do not pass: {found}")
    survived = []
    for m in [m for m in chosen if m["name"] not in stale]:
        path, start = tree / m["file"], time.monotonic()
        original = path.read_text()
        path.write_text(original.replace(m["old"], m["new"]))
        try:
            found = verdict(tree, target, commands(m["file"], args.features), args.limit)
        finally:
            path.write_text(original)
        if found is None and "equivalent" in m:
            found = f"survived, as it must: {m['equivalent']}"
        elif found is None or found.startswith("DOES"):
            survived.append(m["name"])
        print(f"{m['name']}: {found or 'SURVIVED'} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - len(stale) - len(survived)} of {len(chosen)} noticed or equivalent; not: {survived + stale}")
    sys.exit(bool(survived or stale))


if __name__ == "__main__":
    main()
