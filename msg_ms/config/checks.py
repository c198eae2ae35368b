"""Conditions on single values of the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """A condition on a value; ``expects`` completes 'must be ...'."""

    expects: str
    holds: Callable[[Any], bool]


def at_least(bound: float) -> Check:
    """Return a check for values of at least ``bound``."""
    return Check(f"at least {bound}", lambda v: v >= bound)


def above(bound: float) -> Check:
    """Return a check for values above ``bound``."""
    return Check(f"above {bound}", lambda v: v > bound)


def within(low: float, high: float) -> Check:
    """Return a check for values from ``low`` to ``high``."""
    return Check(f"between {low} and {high}", lambda v: low <= v <= high)


def bounded(low: float, high: float) -> Check:
    """Return a check for values of at least ``low``; ``high`` is beyond any machine."""
    return Check(f"at least {low} and at most {high}", lambda v: low <= v <= high)


def one_of(*choices: str) -> Check:
    """Return a check for the given choices."""
    return Check(f"one of {', '.join(map(repr, choices))}", lambda v: v in choices)


def stages(high: int) -> Check:
    """Return a check for one whole number from 1 to ``high`` per stage."""
    expects = f"a list of 1 to 16 numbers between 1 and {high}"
    return Check(expects, lambda v: 1 <= len(v) <= 16 and all(1 <= n <= high for n in v))


def _is_file_name(text: str) -> bool:
    return (
        text not in ("", ".", "..")
        and not re.search(r"[/\x00-\x1f\x7f]", text)
        and len(text.encode("utf-8", "replace")) <= 200
    )


PROBABILITY = within(0, 1)
# In single precision a larger value would be 1.
RATE = Check("at least 0 and below 1", lambda v: 0 <= v < 1 - 2.0**-24)
RANGE = Check("two numbers above 0 in rising order", lambda v: len(v) == 2 and 0 < v[0] <= v[1])
FRACTIONS = Check("two numbers with 0 < first <= second <= 1", lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1)
BOX = Check("None, or two numbers with 0 <= first < second <= 1", lambda v: len(v) == 2 and 0 <= v[0] < v[1] <= 1)
MILESTONES = Check("epochs in rising order", lambda v: all(n >= 1 for n in v) and sorted(set(v)) == list(v))
BETAS = Check("two numbers in [0, 1)", lambda v: len(v) == 2 and all(map(RATE.holds, v)))
MAX_SIDE = 8192  # pixels of an image's side
SIDES = Check(
    f"a list of 1 to 64 lengths between 16 and {MAX_SIDE}",
    lambda v: 1 <= len(v) <= 64 and all(16 <= n <= MAX_SIDE for n in v),
)
SIDE_RANGE = Check(
    f"two lengths between 1 and {MAX_SIDE} in rising order", lambda v: len(v) == 2 and 1 <= v[0] <= v[1] <= MAX_SIDE
)
CANVASES = Check(
    f"a list of 1 to 16 different pairs [height, width] of multiples of 32, at most {MAX_SIDE // 32 * 32}",
    lambda v: (
        1 <= len(v) <= 16
        and len(set(v)) == len(v)
        and all(len(c) == 2 and all(n % 32 == 0 and 32 <= n <= MAX_SIDE for n in c) for c in v)
    ),
)
ENTRIES = Check(
    "a list of at most 100 stages and name patterns, such as [2] or [layers.0, norm]",
    lambda v: len(v) <= 100 and all(0 < len(entry) <= 200 and entry.isprintable() for entry in v),
)
FILE_NAME = Check("a name without '/' and control characters, at most 200 bytes", _is_file_name)
# The number of operations per image is one of the numbers.
AUTO_AUGMENT = Check(
    "at most 100 characters with numbers below 1000", lambda v: len(v) <= 100 and not re.search(r"[1-9]\d{3}|0\d{3}", v)
)
