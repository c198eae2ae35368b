"""AddressSanitizer for processes that load a library built with it."""

import subprocess
from pathlib import Path

import pytest

SANITIZE = ("-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer")  # flags of the compiler


def sanitizer_environment() -> dict[str, str]:
    """The environment of such a process; skips the test if the compiler has no AddressSanitizer."""
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, encoding="utf-8"
    ).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("this compiler has no AddressSanitizer")
    return {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "MSG_MS_THREADS": "2",
        "PATH": "/usr/bin:/bin",
    }
