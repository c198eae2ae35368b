"""The page of a report: one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import UserError
from .content import Image, Report, shown

TEMPLATE = Path(__file__).with_name("page.html")
LIBRARIES = ("jinja2", "matplotlib")


def check_libraries() -> None:
    """Raise UserError if a library is missing."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise UserError(f"--report needs {' and '.join(missing)}: pip install 'msg-ms[report]'")


def render(report: Report, facts: Sequence[tuple[str, str]]) -> str:
    """Return the page. Jinja escapes all text; the page's own policy forbids scripts and the network.

    Args:
        report: The content.
        facts: Names and values that identify the evaluation.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(uri=data_uri, shown=shown)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report, facts=facts)


def data_uri(image: Image) -> str:
    """Return an image as text for the page."""
    return f"data:{image.kind};base64,{base64.b64encode(image.content).decode('ascii')}"
