"""Standard streams that are closed when the process starts."""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise the next files that a library opens would become standard input, output or error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest free descriptor is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
