"""Draw layers.svg beside this file: python docs/assets/make_layers.py."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.layers import KERNELS, LAYERS, ROOMS  # noqa: E402

WIDTH, LEFT, GAP, LINE = 900, 20, 10, 15  # pixels
LETTER = 6.4  # mean width of a letter
SCRIPTS = {"train.py, eval.py, tools/": "The commands of a clone"}


def role(name: str) -> str:
    """Return the first sentence of the docstring of a package or module, without its end after a semicolon."""
    package = ROOT / "msg_ms" / name / "__init__.py"
    file = package if package.is_file() else ROOT / "msg_ms" / f"{name}.py"
    return re.split(r"[;.](?=\s|$)", ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))[0]


def inside(name: str) -> list[str]:
    """Return the parts of a package, from low to high."""
    folders = {"ops": [*KERNELS, {"operators"}], "data": [*({room} for room in ROOMS["data"]), {"batches of a task"}]}
    return [", ".join(sorted(names)) for names in folders.get(name, [])]


def box(x: float, y: float, width: float, height: float, name: str, lines: list[str]) -> str:
    text = [f'<text x="{x + 10:g}" y="{y + 18:g}" font-weight="bold">{escape(name)}</text>']
    text += [
        f'<text x="{x + 10:g}" y="{y + 18 + LINE * i:g}" fill="#57606a">{escape(line)}</text>'
        for i, line in enumerate(lines, 1)
    ]
    frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="#f6f8fa" stroke="#57606a"/>'
    return "\n".join([frame, *text])


def draw() -> str:
    """Return the drawing: a row of boxes for each layer, the highest first."""
    rows = [SCRIPTS, *({name: role(name) for name in sorted(layer)} for layer in reversed(LAYERS))]
    parts, y = [], LEFT
    for row in rows:
        width = (WIDTH - 2 * LEFT - GAP * (len(row) - 1)) / len(row)
        texts = {}
        for name, text in row.items():
            lines = textwrap.wrap(text, int((width - 20) / LETTER))
            parts_of = inside(name)
            texts[name] = lines + ([" \N{LEFTWARDS ARROW} ".join(parts_of)] if parts_of else [])
        height = 14 + LINE * (1 + max(map(len, texts.values())))
        for i, (name, lines) in enumerate(texts.items()):
            parts.append(box(LEFT + i * (width + GAP), y, width, height, name, lines))
        y += height + GAP
    size = f'width="{WIDTH}" height="{y + LEFT - GAP:g}" viewBox="0 0 {WIDTH} {y + LEFT - GAP:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="#24292f">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>", ""])


if __name__ == "__main__":
    (HERE / "layers.svg").write_text(draw(), encoding="utf-8")
