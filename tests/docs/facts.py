"""Facts that stand on several pages, or on a page and in the code.

A fact is a name and the regular expressions that find it. Their groups are its values. Every place must have the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pages import PAGES, ROOT

from msg_ms.models.variants import SIZES

Values = tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A fact and where it stands.

    Attributes:
        name: What it is about.
        patterns: Regular expressions with as many groups; each must occur on a page.
        value: The values that the code has; None if only pages have them.
    """

    name: str
    patterns: tuple[str, ...]
    value: Values | None = None

    def places(self, texts: Mapping[str, str]) -> list[tuple[str, re.Match]]:
        """Return (page, match) of each place."""
        found = [(page, match) for page in texts for p in self.patterns for match in re.finditer(p, texts[page], re.M)]
        return found

    def problems(self, texts: Mapping[str, str]) -> list[str]:
        """Return a line for each pattern that occurs nowhere, and for each place if the places differ."""
        lines = [f"nowhere: {p}" for p in self.patterns if not any(re.search(p, text, re.M) for text in texts.values())]
        values = [("the code", self.value)] if self.value else []
        values += [(page, match.groups()) for page, match in self.places(texts)]
        if len(values) < 2:
            lines.append("in one place only")
        if len({value for _, value in values}) > 1:
            lines += [f"{place}: {' '.join(value)}" for place, value in values]
        return lines


def texts() -> dict[str, str]:
    """Return the text of each page by its path."""
    return {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}


def smallest_and_largest_ratio() -> Values:
    """Return the range of the column msg_ms in the table of all peers."""
    rows = re.findall(r"^\| msg_\w+, \d \| (0\.\d\d) \(", (ROOT / "docs" / "measurements.md").read_text("utf-8"), re.M)
    return min(rows), max(rows)


def _classifiers() -> list[Fact]:
    found = []
    for (model, (parameters, operations)), letter in zip(SIZES.items(), "TSB", strict=True):
        row = rf"^\| (?:{letter}, )?`{model}` \|"
        code = (f"{parameters:,}",), (f"{operations / 1e9:.2f} G",)
        found += [
            Fact(f"parameters of {model}", (row + r".* (\d+,\d{3},\d{3}) \|",), code[0]),
            Fact(f"multiply-adds of {model}", (row + r".* (\d+\.\d\d G) \|",), code[1]),
            Fact(f"top-1 of {model} in the paper", (row + r".* (8\d\.\d) \|",)),
            Fact(
                f"inference time of {model}",
                (
                    rf"^\| {model} \| (0\.\d\d) and (0\.\d\d) \|",
                    rf"^\| {letter} \|.* (0\.\d\d) at batch 1, (0\.\d\d) at batch 8 \|",
                    rf"^\| {model}, 1 \| (0\.\d\d) \((?:.*\n)*?\| {model}, 8 \| (0\.\d\d) \(",
                ),
            ),
            Fact(
                f"inference time of {model} in bfloat16",
                (
                    rf"^\| {model} \| \S+ and \S+ \| (0\.\d\d) and (0\.\d\d) \|",
                    rf"^\| {model}, 1 \|(?: \S+(?: \(\S+\))? \|){{4}} (0\.\d\d) \((?:.*\n)*?"
                    rf"\| {model}, 8 \|(?: \S+(?: \(\S+\))? \|){{4}} (0\.\d\d) \(",
                ),
            ),
            Fact(
                f"AP of a detector with {model} in the paper",
                (
                    rf"^\| `cascade_mask_rcnn_{model}` \|.* (\d\d\.\d) \| (\d\d\.\d) \|",
                    rf"^\| {letter} \| (\d\d\.\d) \| not trained \| (\d\d\.\d) \|",
                ),
            ),
        ]
    return found


def _versions() -> list[Fact]:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    low, above = re.search(r'requires-python = ">=(3\.\d+),<3\.(\d+)"', project).groups()
    mindcv = re.search(r'"mindcv>=([\d.]+),', project)[1]
    return [
        Fact("versions of Python", (r"(3\.\d+) (?:to|至) (3\.\d+)",), (low, f"3.{int(above) - 1}")),
        Fact("oldest version of mindcv", (r"mindcv\D{0,60}?(\d\.\d\.\d) (?:to|至) \d\.\d\.\d",), (mindcv,)),
    ]


FACTS = [
    *_classifiers(),
    *_versions(),
    Fact(
        "range of inference times",
        (r"(0\.\d\d) (?:to|至) (0\.\d\d) (?:of the time of|倍)",),
        smallest_and_largest_ratio(),
    ),
    Fact(
        "result of the classification demo",
        (
            r"digits(?:\S*/best)?(?:\.ckpt)?: top-1 (\d+\.\d+%), top-5 (\S+), loss (\S+) on",
            r"learned ten handwritten digits: top-1 (\S+), top-5 (\S+), loss (\S+) on",
        ),
    ),
    Fact(
        "accuracy of the classification demo",
        (r"best top-1 (\S+), weights in demo/digits_p4_win4_64", r"(99\.\d+%) at O0"),
    ),
    Fact("first epoch of the classification demo", (r"(epoch 1/9, step 22/44.*)$",)),
    Fact("first prediction", (r"val/3/0003\.png: (.*)$",)),
    Fact(
        "result of the detection demo", (r"^\| 5 \| (0\.\d+) \| \S+ \| (0\.\d+) \|", r"guide.*O0 \| (\S+) \| (\S+) \|")
    ),
    Fact("training time of msg_tiny", (r"^\| msg_tiny \|.*and.* (0\.\d\d) \|$", r"^\| msg_tiny \| (0\.\d\d) \| 0")),
    Fact("training time of msg_small", (r"^\| msg_small \|.*and.* (0\.\d\d) \|$", r"^\| msg_small \| (0\.\d\d) \| 0")),
    Fact("time of a detector", (r"^\| inference, 800 x 1344, batch 1 \| (0\.\d\d) \|",)),
    Fact("training time of a detector", (r"^\| training step, 480 x 640, batch 2 \| (0\.\d\d) \|",)),
    Fact("memory of a detector", (r"\| (0\.\d\d) \(1\.76 GB\)",)),
    Fact("time to load a training image", (r"^\| training \| (0\.\d\d) \| (\d\.\d)",)),
    Fact("time to load an evaluation image", (r"^\| evaluation \| (0\.\d\d) \| (\d\.\d)",)),
    Fact("memory saved by recomputation", (r"\b(\d\d% lower|低 \d\d%)",)),
    Fact("second start", (r"(\d to \d+) times (?:faster|as)",)),
]
