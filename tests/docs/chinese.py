"""How readable Chinese pages are: python tests/docs/chinese.py [PAGE...].

Prints for each page the mean length of its sentences, the share of long ones and the breaches of the rules below.
A sentence ends at 。！？ or with its paragraph or item. Its length counts one for each Chinese character and
two, as many as a Chinese word has, for each Latin word, number and code span; punctuation does not count.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sections import LINK, SPAN, Block, Page
from translation import ROOT, pairs

MEAN = 35  # of a page, at most
LONG, SHARE = 60, 0.05  # at most this share of the sentences is longer
HAN = r"[\u4e00-\u9fff]"
# What makes a clause hard to read: 的 three times, or twice within a few characters.
CHAINS = (re.compile(r"的[^的]+的[^的]+的"), re.compile(rf"的{HAN}{{1,2}}的"))
RULES = {
    "half-width punctuation": re.compile(rf"{HAN}[,;:?!(]|[,;:?!)]{HAN}"),
    "no space between Chinese and Latin": re.compile(rf"{HAN}[A-Za-z0-9`]|[A-Za-z0-9`%]{HAN}"),
    "space beside full-width punctuation": re.compile(r"[，。；：？！、（）“”] | [，。；：？！、（）“”]"),
    "line break in a paragraph": re.compile(r"\S\n\S"),
}


def plain(block: Block) -> str:
    """Return the text as it is displayed, with `` ` `` for each code span."""
    text = LINK.sub("]", SPAN.sub("`", block.text))
    # Markdown needs the space after bold text that ends with punctuation.
    text = re.sub(r"^ *(?:[-*]|\d+\.) +|(?<=[。：])\*\* |\*\*", "", text)
    return text.replace("!", "").replace("[", "").replace("]", "") if "](" in block.text else text


def parts(page: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, text, whether it has sentences) of each heading, paragraph, item of a list and cell of a table."""
    for section in Page(page.parent, page.name).sections:
        yield section.line, section.title, False
        for block in section.blocks:
            if block.kind in ("code", "output") or re.match(r"\[\w+\]: ", block.text):
                continue
            for text in Block("", 0, plain(block)).cells if block.kind == "row" else [plain(block)]:
                if not re.fullmatch(r"[\s:-]*", text):
                    yield block.line, text.strip(), block.kind in ("text", "item")


def length(sentence: str) -> int:
    return len(re.findall(HAN, sentence)) + 2 * len(re.findall(r"[A-Za-z0-9][\w.,/%+-]*|`", sentence))


def sentences(text: str) -> list[str]:
    found = re.split(r"[。！？]", text)
    return [sentence for sentence in found if re.search(HAN, sentence)]


def problems(page: Path) -> list[str]:
    """Return a line for each breach of a rule."""
    found, lengths = [], []
    name = page.name
    for line, text, prose in parts(page):
        for rule, pattern in RULES.items():
            if match := pattern.search(text):
                found.append(f"{name}:{line}: {rule}: {text[max(0, match.start() - 10) : match.end() + 10]!r}")
        lengths += [(length(sentence), line, sentence) for sentence in sentences(text) if prose]
        for clause in re.split(r"[，。！？；：、（）“”]", text):
            found += [f"{name}:{line}: too many 的: {clause!r}" for chain in CHAINS if chain.search(clause)][:1]
    mean, share = measures([count for count, *_ in lengths])
    if mean > MEAN:
        found.append(f"{name}: {mean:.1f} characters a sentence")
    if share > SHARE:
        long = [f"{name}:{line}: {count} characters: {sentence}" for count, line, sentence in lengths if count > LONG]
        found += [f"{name}: {share:.0%} of the sentences have more than {LONG} characters", *long]
    return found


def measures(lengths: list[int]) -> tuple[float, float]:
    """Return the mean length and the share of long sentences."""
    return sum(lengths) / len(lengths), sum(count > LONG for count in lengths) / len(lengths)


if __name__ == "__main__":
    pages = [Path(path) for path in sys.argv[1:]] or [ROOT / chinese for _, chinese in pairs()]
    for page in pages:
        texts = [text for _, text, prose in parts(page) if prose]
        lengths = [length(sentence) for text in texts for sentence in sentences(text)]
        print("{}: {:.1f} characters a sentence, {:.1%} long".format(page.name, *measures(lengths)))
        print(*problems(page), sep="\n")
