"""Load mutated and random configurations: only a UserError or a configuration that reads back equal may come of it.

python tests/fuzz/config.py --seed 0 --seconds 180
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import yaml

from msg_ms import UserError
from msg_ms.config import KEYS, flat_items, load_config, to_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SECTIONS = sorted({key[:i] for key in KEYS for i, letter in enumerate(key) if letter == "."})
LIMIT = 10  # seconds of processor time that one case may take; a busy machine can stop a process for longer
TEXTS = r"""
1e-3 1E5 .5e3 007 0x1f 0o17 1_000 1:30 2026-11-26 yes no on off null ~ ~/x ~nobody/x None True false .inf -.inf .nan
= << *a &a !x !!int !!binary !!python/object:os.system %x @x ` {a [a a,b ' " \ - -- --- ... ? | > \x00 ../x . .. /
""".split()  # noqa: SIM905
TEXTS += [
    "",
    " ",
    "#x",
    "a: b",
    "- a",
    "a #b",
    " a ",
    "a\nb",
    "a\n\nb\n",
    "\t",
    "\r",
    "é",
    "e\u0301",
    "\u4e2d",
    "\U0001f600",
]
TEXTS += [
    "\udcff",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x7f",
    "\x1b[0m",
    "\x00",
    "a" * 300,
    "a  b " * 60,
    "[" * 3000,
    "{a: " * 500,
]
NUMBERS = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "0.5",
    "-0.0",
    "1e-45",
    "1e-30",
    "1e38",
    "1e39",
    "1e400",
    "0.99999999",
    "0.9999999999999",
]
NUMBERS += ["2147483647", "2147483648", "4294967296", "9" * 400, "0.1", "1.0", "1e-7", "1e-2", "100", "1000000"]
WORDS = [value for _, value in flat_items(load_config(None)) if isinstance(value, str)]
WORDS += "cosine linear step multistep sgd shuf none const elem pair random bilinear O1 bfloat16".split()  # noqa: SIM905
TOKENS = [
    ":",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "&a ",
    "*a",
    "<<: *a",
    "!!",
    "|\n",
    ">\n",
    "#",
    "\t",
    "\n",
    "? ",
]


def random_text(draws: random.Random) -> str:
    """Return the text of a value: a number, a list, a word, or something odd."""
    kind = draws.randrange(8)
    if kind < 2:
        return draws.choice(NUMBERS)
    if kind == 2:
        return repr(draws.choice((draws.uniform(0, 1), draws.uniform(-2, 20), 10 ** draws.uniform(-12, 12))))
    if kind == 3:
        return str(draws.choice((draws.randrange(10), draws.randrange(-5, 5000))))
    if kind == 4:
        entries = [
            random_text(draws) if draws.random() < 0.1 else draws.choice(NUMBERS[:12])
            for _ in range(draws.randrange(5))
        ]
        return f"[{', '.join(entries)}]"
    if kind == 5:
        return draws.choice(WORDS)
    return draws.choice(TEXTS)


def random_options(draws: random.Random) -> list[str]:
    """Return keys and values for ``--opts``."""
    options = []
    for _ in range(draws.randrange(1, 4)):
        name = (
            draws.choice(KEYS)
            if draws.random() < 0.95
            else draws.choice((*SECTIONS, "X", "TAG.X", "", "tag", "MODEL.MSG.X"))
        )
        options += [name, random_text(draws)]
    return options[: len(options) - (draws.random() < 0.02)]


def random_yaml(draws: random.Random) -> bytes:
    """Return a file with random keys and values, written with or without quotes."""
    tree: dict = {}
    for _ in range(draws.randrange(1, 6)):
        *sections, name = draws.choice(KEYS).split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = random_text(draws)
    if draws.random() < 0.5:
        return yaml.safe_dump(tree, default_flow_style=draws.choice((None, True, False))).encode("utf-8", "replace")
    lines = [f"{'  ' * key.count('.')}{key.rpartition('.')[2]}:{text}" for key, text in written(tree, "")]
    return "\n".join(lines).encode("utf-8", "surrogateescape" if draws.random() < 0.5 else "replace")


def written(tree: dict, prefix: str):
    """Yield (key, text of the line after the colon), sections first."""
    for name, value in tree.items():
        yield prefix + name, "" if isinstance(value, dict) else f" {value}"
        if isinstance(value, dict):
            yield from written(value, f"{prefix}{name}.")


def mutated_yaml(draws: random.Random) -> bytes:
    """Return a shipped or complete file with some bytes, tokens or lines changed."""
    data = bytearray(draws.choice((*[path.read_bytes() for path in CONFIGS], to_yaml(load_config(None)).encode())))
    for _ in range(draws.randrange(1, 8)):
        place = draws.randrange(len(data) + 1)
        kind = draws.randrange(6)
        if kind == 0 and place < len(data):
            data[place] = draws.randrange(256)
        elif kind == 1:
            data[place:place] = draws.choice(TOKENS).encode()
        elif kind == 2:
            data[place:place] = draws.choice((*TEXTS, *NUMBERS)).encode("utf-8", "surrogateescape")
        elif kind == 3:
            del data[place : place + draws.randrange(1, 20)]
        else:
            lines = data.split(b"\n")
            one, other = draws.randrange(len(lines)), draws.randrange(len(lines))
            if kind == 4:
                lines[one], lines[other] = lines[other], lines[one]
            else:
                lines.insert(one, lines[other])
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def check(cfg: Path | None, options: list[str], folder: Path) -> str:
    """Load a configuration; return "refused" or "loaded". Any error but a UserError passes through."""
    try:
        config = load_config(cfg, options)
    except UserError as error:
        assert str(error).strip(), "an error without text"
        return "refused"
    again = folder / "again.yaml"
    again.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(again) == config, "the written file reads back differently"
    for name, value in flat_items(config):  # as a command-line option
        text = (
            value
            if isinstance(value, str)
            else "None"
            if value is None
            else str(list(value) if isinstance(value, tuple) else value)
        )
        if options[::2].count(name):
            assert dict(flat_items(load_config(cfg, [*options, name, text])))[name] == value, name
    return "loaded"


@contextlib.contextmanager
def time_limit(seconds: float):
    """Raise TimeoutError if the block takes longer."""

    def stop(*_):
        raise TimeoutError(f"took over {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(seed: int, seconds: float, folder: Path) -> tuple[Counter, list[str]]:
    """Try cases for some seconds; return how many ended how, and a description of each failure."""
    counts, failures = Counter(), []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        draws = random.Random(f"{seed} {number}")
        kind = ("mutated", "random", "options")[number % 3]
        file, options = folder / "case.yaml", []
        if kind == "options":
            options = random_options(draws)
        else:
            file.write_bytes(mutated_yaml(draws) if kind == "mutated" else random_yaml(draws))
        try:
            with time_limit(LIMIT):
                counts[kind, check(None if kind == "options" else file, options, folder)] += 1
        except TimeoutError as error:
            counts[kind, "hangs"] += 1
            failures.append(f"case {number} {options}: {error}")
        except Exception:
            counts[kind, "tracebacks"] += 1
            content = "" if kind == "options" else file.read_bytes()[:2000]
            failures.append(f"case {number} {options} {content!r}: {traceback.format_exc()}")
        number += 1
    return counts, failures


def main() -> int:
    """Run the command line; the status is 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = fuzz(args.seed, args.seconds, Path(folder))
    for failure in failures[:10]:
        print(failure)
    ends = {
        end: sum(n for (_, e), n in counts.items() if e == end) for end in ("loaded", "refused", "tracebacks", "hangs")
    }
    print(f"{sum(counts.values())} cases: " + ", ".join(f"{count} {end}" for end, count in ends.items()))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
