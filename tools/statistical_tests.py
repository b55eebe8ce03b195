#!/usr/bin/env python3
"""Runs every test of chance with n times the samples and other seeds: distributions, independence, unbiasedness.

    python3 tools/statistical_tests.py                          as in CI
    python3 tools/statistical_tests.py --samples 10 --seeds 3   ten times the samples, repetition 3 of the seeds

Each row says how often a test fails though nothing is wrong. The exit status is 1 if one fails.
"""
import argparse
import os
import re
import subprocess
import sys

# Numbers compared, each with its chance to be off by 5, 6 or 4 standard errors, or by what Kolmogorov and Smirnov allow.
FIVE, SIX, FOUR, KS = 5.7e-7, 2.0e-9, 6.3e-5, 1e-6
TESTS = [
    ("zo-core", "noise::statistics::gaussian_moments_tails_and_shape", 5 * FIVE + KS),
    ("zo-core", "noise::statistics::rademacher_is_a_fair_coin_in_every_bit", FIVE + 128 * SIX),
    ("zo-core", "noise::statistics::seeds_tensors_and_neighbours_are_uncorrelated", 37 * FIVE),
    ("zo-core", "noise::basis::tests::elements_have_unit_variance_and_estimates_the_expected_moments", 122 * FIVE),
    ("zo-core", "noise::basis::tests::within_an_interval_the_estimate_is_the_projected_gradient", 60 * FIVE),
    ("zo-core", "backend::cpu::tests::rounding::the_mean_is_exact", 34 * FIVE),
    ("zo-core", "backend::cpu::tests::rounding::updates_of_1e_7_are_lost_to_nearest_and_kept_stochastically", 6 * FIVE),
    ("zo-mezo", "tests::estimator::estimates_are_unbiased", 56 * FIVE),
    ("zo-mezo", "tests::estimator::one_sided_differences_are_unbiased_on_quadratics", 2 * FIVE),
    ("zo-mezo", "tests::rounding::steps_at_1e_7_are_lost_to_nearest_and_kept_stochastically", 2 * FIVE),
    ("zo-variants", "coefficients::tests::clipping_obeys_the_erf_law", SIX),
]
# Each holds 98 coordinates to 5 standard errors.
UNBIASED = 98 * FIVE
SEVERAL = {"curvzo_with_scores_of_its_own": UNBIASED, "alignment_grows_with_the_number_of_candidates_as_the_theory_says": FOUR}
# Not of chance.
OTHERS = {"the_largest_stable_step_is_that_of_the_theory"}


def cargo(args, environment):
    # The command of the README, so that what it has built is used.
    command = ["cargo", "test", "--workspace", "--features", "ndarray,autodiff,train,hub", *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout, done.stderr


def outcomes(output):
    """Each test that ran, and whether it passed."""
    return {name: end == "ok" for name, end in re.findall(r"^test (\S+) \.\.\. (ok|FAILED)$", output, re.MULTILINE)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1, help="times as many samples as in CI")
    parser.add_argument("--seeds", type=int, default=0, help="which repetition; 0 has the seeds of CI")
    args = parser.parse_args()
    environment = os.environ | {"ZO_SAMPLES": str(args.samples), "ZO_SEEDS": str(args.seeds)}
    failed, total, messages = 0, 0.0, []

    def row(name, rate, passed):
        nonlocal failed, total
        failed, total = failed + (not passed), total + rate
        print(f"{'passes' if passed else 'FAILS':7} {rate:8.1e}  {name}", flush=True)

    print("result  false alarms  test")
    rates = {name: rate for _, name, rate in TESTS}
    stdout, stderr = cargo(["--lib", "--no-fail-fast", "--", "--exact", *rates], environment)
    found = outcomes(stdout)
    if found.keys() != rates.keys():
        sys.exit(f"{sorted(rates.keys() ^ found.keys())} did not run, or are unknown:\n{stderr}")
    for crate, name, rate in TESTS:
        row(f"{crate} {name}", rate, found[name])
    messages += [] if all(found.values()) else [stdout]
    skipped = [word for name in OTHERS for word in ("--skip", name)]
    stdout, stderr = cargo(["--test", "unbiased", "--", *skipped], environment)
    found = outcomes(stdout)
    if not found:
        sys.exit(f"zo-optim: no test ran:\n{stderr}")
    for name, passed in sorted(found.items()):
        row(f"zo-optim {name}", SEVERAL.get(name, UNBIASED), passed)
    messages += [] if all(found.values()) else [stdout]
    print(f"{failed} failed; if nothing is wrong, one of all fails in {1 / total:.0f} runs")
    if failed:
        sys.exit("\n".join(messages))


if __name__ == "__main__":
    main()
