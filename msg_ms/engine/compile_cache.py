"""A process's first and largest graph kept across starts, under everything that it follows from.

MindSpore's own cache numbers graphs by the order in which a process compiles them, takes its folder from the first of
them and trusts the numbers. Here only the first graph goes there (the training step's, or evaluation's), in a folder
named by a digest of code, configuration, versions, device and inputs, so that it is only found again where it
would be compiled again to the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from ..config import Config, to_yaml
from ..errors import UserError
from ..files import PARTIAL
from ..ops import backend
from .ranks import Ranks

PACKAGE = Path(__file__).parents[1]


class CompileCache:
    """Graphs under ``folder`` that follow from ``facts``, besides the code, the versions and the device."""

    def __init__(self, folder: Path, *facts: str):
        self.folder, self.facts = folder.resolve(), facts
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"COMPILE_CACHE={folder}: can't be written ({error.strerror or error})") from None

    def key(self, what: str) -> str:
        """A digest of everything that the graph called ``what`` follows from."""
        digest = hashlib.sha256()
        library = backend.native_library()
        versions = (ms.__version__, np.__version__, platform.python_version(), ms.get_context("device_target"))
        for text in (*self.facts, *versions, str(library), what):
            digest.update(text.encode() + b"\0")
        for path in sorted((*PACKAGE.rglob("*.py"), *PACKAGE.rglob("csrc/*"))):
            digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:32]

    @contextlib.contextmanager
    def use(self, what: str) -> Iterator[None]:
        """Within it, what MindSpore compiles comes from the cache or goes there."""
        target = self.folder / self.key(what)
        if target.is_dir():
            with _mindspore_cache(target):
                yield
            return
        # What a killed process leaves half-written is never found, as its folder has another name.
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=self.folder, ignore_cleanup_errors=True) as new:
            with _mindspore_cache(Path(new)):
                yield
            with contextlib.suppress(OSError):  # another process was faster, or the disk is full
                Path(new).rename(target)


@contextlib.contextmanager
def _mindspore_cache(folder: Path) -> Iterator[None]:
    names = ("MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(MS_COMPILER_CACHE_ENABLE="1", MS_COMPILER_CACHE_PATH=str(folder))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_active: CompileCache | None = None
_used = False  # MindSpore keeps the folder of a process's first graph for all that follow


def enable(config: Config, ranks: Ranks) -> None:
    """The process's first graph from now on goes through the cache in ``COMPILE_CACHE``; an empty one has none."""
    global _active
    _active = None
    if config.compile_cache:
        place = dict(output="", compile_cache="", data=replace(config.data, data_path="", val_list="", class_index=""))
        facts = to_yaml(replace(config, **place)), f"rank {ranks.rank} of {ranks.world}"
        _active = CompileCache(Path(config.compile_cache), *facts)


class CachedCell(nn.Cell):
    """A Cell whose graph goes through the cache where one is enabled and it is the first."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        global _used
        if _active is None or _used:
            return super().compile(*args, **kwargs)
        _used = True
        shapes = tuple((tuple(x.shape), str(x.dtype)) if isinstance(x, ms.Tensor) else repr(x) for x in args)
        with _active.use(f"{type(self).__name__} {self.training} {shapes}"):
            return super().compile(*args, **kwargs)
