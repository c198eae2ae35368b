"""Keep compiled graphs across starts, in a folder named by everything that they follow from.

MindSpore's own cache numbers graphs in the order in which a process compiles them, chooses its folder at the first of
them, and trusts the numbers: graphs compiled in another order are mixed up, with wrong results. So a run compiles all
its graphs at the start, in one fixed order, in a folder named by a digest of code, configuration, versions, device and
input shapes. A graph is only reused where compiling it again would yield the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import numpy as np

from ..config import Config, to_yaml
from ..errors import UserError
from ..files import PARTIAL, folder_written_by_others, make_folder, written_by_others
from ..ops import backend
from .ranks import Ranks

PACKAGE = Path(__file__).parents[1]
log = logging.getLogger("msg_ms")
_used = False  # MindSpore keeps the folder of a process's first cached graph for all later ones


class CompileCache:
    """Compiled graphs under ``folder``.

    Graphs are only read from a folder that no other user can write to, and a folder that can't be written is only read.
    Otherwise the graphs are compiled without the cache, and a warning is logged.

    Args:
        folder: The cache's root.
        facts: Everything that the graphs follow from, besides code, versions and device.

    Raises:
        UserError: If the folder can't be created.
    """

    def __init__(self, folder: Path, *facts: str):
        self.folder, self.facts = folder.resolve(), facts
        try:
            make_folder(self.folder)
        except OSError as error:
            raise UserError(f"COMPILE_CACHE={folder}: can't be written ({error.strerror or error})") from None

    def key(self, graphs: str) -> str:
        """Return a digest of everything that the graphs follow from; ``graphs`` names them and their input shapes."""
        digest = hashlib.sha256()
        library = backend.native_library()
        versions = (ms.__version__, np.__version__, platform.python_version(), ms.get_context("device_target"))
        for text in (*self.facts, *versions, str(library), graphs):
            digest.update(text.encode() + b"\0")
        for path in sorted(path for suffix in ("py", "cc", "h") for path in PACKAGE.rglob(f"*.{suffix}")):
            digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:32]

    @contextlib.contextmanager
    def use(self, graphs: str) -> Iterator[None]:
        """Within the block, MindSpore reads graphs from the cache or writes them there.

        The block must compile the same graphs in the same order whenever the facts and ``graphs`` are the same.
        MindSpore allows one folder per process, so only the first block of a process uses the cache.

        Args:
            graphs: The graphs of the block, and the shapes of their inputs.
        """
        global _used
        target = self.folder / self.key(graphs)
        reason = "" if _used else self._reason_against(target)
        if reason:
            log.warning("COMPILE_CACHE=%s is not used: %s", self.folder, reason)
        if _used or reason:
            yield
            return
        _used = True
        if target.is_dir():
            with _mindspore_cache(target):
                yield
            return
        # The partial files of a killed process are never found, since their folder has another name.
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=self.folder, ignore_cleanup_errors=True) as new:
            with _mindspore_cache(Path(new)):
                yield
            with contextlib.suppress(OSError):  # another process was faster, or the disk is full
                Path(new).rename(target)

    def _reason_against(self, target: Path) -> str:
        """Return why graphs are not read from or written to ``target``, empty if they are.

        A graph names the libraries of its kernels. So whoever can write to the cache can run code in this process.
        """
        try:
            if not target.is_dir():
                writable = os.access(self.folder, os.W_OK | os.X_OK)
                return folder_written_by_others(self.folder) if writable else "it can't be written"
            if not os.access(target, os.R_OK | os.X_OK):
                return f"{target} can't be read"
            reasons = (folder_written_by_others(target), *map(written_by_others, target.rglob("*")))
            return next(filter(None, reasons), "")
        except OSError as error:
            return f"it can't be read ({error.strerror or error})"


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


def build_cache(config: Config, ranks: Ranks) -> CompileCache | None:
    """Return the cache in ``COMPILE_CACHE``; None where the key is empty."""
    if not config.compile_cache:
        return None
    facts = to_yaml(config.without_paths()), f"rank {ranks.rank} of {ranks.world_size}"
    return CompileCache(Path(config.compile_cache), *facts)
