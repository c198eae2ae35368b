"""Console entries of the installed package, named in ``pyproject.toml``: each command's ``main`` as tools/ runs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..cli import run_command_line


def _entry(module: str) -> Callable[[], None]:
    def run() -> None:
        # Only now, as each has its own imports.
        run_command_line(import_module(f"msg_ms.{module}").main)

    return run


convert = _entry("commands.convert_torch_ckpt")
doctor = _entry("doctor")
export = _entry("commands.export")
mindcv_run = _entry("commands.mindcv_run")
predict = _entry("commands.predict")
