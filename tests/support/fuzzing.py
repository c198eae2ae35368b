"""The command line that the fuzz scripts with counted outcomes share."""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

OUTCOMES = ("accepted", "refused", "traceback")  # every case has one of them


def fuzz_command(description: str, kept: str, run: Callable[..., tuple[Counter, list[str]]]) -> int:
    """Run for some seconds, or a number of cases; the status is 1 if a case fails."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=0, help="a number of cases instead of seconds")
    parser.add_argument("--keep", type=Path, help=f"folder for the {kept} of failures")
    args = parser.parse_args()
    counts, failures = run(args.seed, args.seconds, args.cases, args.keep)
    for line in failures:
        print(line)
    number = sum(counts[outcome] for outcome in OUTCOMES)
    print(f"{number} cases with seed {args.seed}: {dict(counts)}, {len(failures)} failures, no hang")
    return 1 if failures else 0
