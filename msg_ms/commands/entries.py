"""Entry points of the installed commands, referenced in ``pyproject.toml``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..cli import run_command_line


def _entry(command: str) -> Callable[[], None]:
    def run() -> None:
        # Imported here, because each command has other dependencies.
        run_command_line(import_module(f"msg_ms.commands.{command}").main)

    return run


convert = _entry("convert_torch_ckpt")
doctor = _entry("doctor")
export = _entry("export")
mindcv_run = _entry("mindcv_run")
predict = _entry("predict")
