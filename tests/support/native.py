"""The library of the native kernels, for tests that call it without MindSpore's operators."""

from pathlib import Path

from msg_ms.native.build import build_library
from msg_ms.ops.backend import LIBRARY, SOURCES


def kernel_library(flags: tuple[str, ...] = ()) -> Path:
    """Return the library, built if necessary: see ``build_library``."""
    return build_library(LIBRARY, SOURCES, flags)
