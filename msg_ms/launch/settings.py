"""The launcher's settings in environment variables."""

from __future__ import annotations

import os

from ..errors import UserError


def setting(name: str) -> str:
    """Return the environment variable ``name``; empty, which means the default, if it is not set or blank."""
    return os.environ.get(name, "").strip()


def parse_integer(name: str, default: int, least: int = 0) -> int:
    """Return the integer in the environment variable ``name``; raises UserError if it is invalid or below ``least``."""
    text = setting(name)
    return integer(text, name, least) if text else default


def integer(text: str, origin: str, least: int = 0) -> int:
    """Return the integer in a text that ``origin`` has set; raises UserError if it is invalid or below ``least``."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UserError(f"{origin}={text}: must be an integer of at least {least}")
    return int(text)
