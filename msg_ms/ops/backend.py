"""Which implementation operators take: C++ kernels on CPU, or MindSpore's operators composed, which run anywhere."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mindspore as ms
from mindspore import ops
from mindspore.ops import signature

from ..errors import UserError
from .build import cache_folder, kernel_library

CHOICES = ("auto", "native", "composed")

log = logging.getLogger("msg_ms")
_chosen: str | None = None
_said: set[str] = set()


def set_backend(choice: str) -> None:
    """Choose for models built from now on: "auto", "native" or "composed"; the default is ``MSG_MS_OPS``, then auto.

    ``auto`` takes the native kernels where the device target is CPU and they can be compiled, and says in one line of
    the log what it took. ``native`` raises UserError where it can't. Half precision is always composed.
    """
    global _chosen
    _chosen = _valid(choice, "backend")


@contextlib.contextmanager
def use_backend(choice: str) -> Iterator[None]:
    """Within the block models are built as after :func:`set_backend`; then the choice is what it was."""
    global _chosen
    before = _chosen
    set_backend(choice)
    try:
        yield
    finally:
        _chosen = before


def get_backend() -> str:
    """The choice in force: "auto", "native" or "composed"."""
    return _chosen or _valid(os.environ.get("MSG_MS_OPS") or "auto", "MSG_MS_OPS")


def _valid(choice: str, name: str) -> str:
    if choice not in CHOICES:
        raise UserError(f"{name}={choice!r}: one of {', '.join(CHOICES)}")
    return choice


def native_library() -> Path | None:
    """The compiled kernels if they are to be used, else None."""
    choice = get_backend()
    target = ms.get_context("device_target")
    if choice == "composed":
        return None
    if target != "CPU":
        if choice == "native":
            raise UserError(f"the native kernels are for CPU, and the device target is {target}; take auto or composed")
        return None
    found = _built(cache_folder(), os.environ.get("CXX"))
    if isinstance(found, Path):
        return found
    if choice == "native":
        raise found
    if str(found) not in _said:
        _said.add(str(found))
        log.warning("composed operators, slower than native kernels: %s", found)
    return None


def _choose_threads() -> None:
    """Tell the kernels how many threads to take: MSG_MS_THREADS, else OMP_NUM_THREADS, else the process's cores.

    Where nobody has set OMP_NUM_THREADS, MindSpore puts 1 there, which only C sees: what Python found at its start is
    what the user wants.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("MSG_MS_THREADS", wanted if wanted.isdecimal() and int(wanted) > 0 else str(cores))


@functools.cache
def _built(cache: Path, compiler: str | None) -> Path | UserError:
    """The library, or why there is none; a model asks for each of its operators."""
    _choose_threads()
    try:
        return kernel_library()
    except UserError as error:
        return error


def kernel(
    name: str, shapes: Callable, outputs: int = 1, gradient: Callable | None = None, writes: int = 0, reads: int = 0
) -> ops.Custom | None:
    """The native kernel ``name`` as an operator, or None where operators are to be composed.

    ``shapes`` gives the outputs' shapes from the inputs'; all are float32. ``gradient`` is the operator's bprop.
    One that changes parameters takes ``writes`` of them, and then ``reads`` inputs that it leaves alone.
    """
    library = native_library()
    if library is None:
        return None

    def dtypes(*_):
        return ms.float32 if outputs == 1 else (ms.float32,) * outputs

    found = ops.Custom(f"{library}:{name}", shapes, dtypes, "aot", bprop=gradient)
    if writes > 0:
        # What MindSpore's own optimizers say of themselves, so that whatever reads the parameters keeps its place.
        found.add_prim_attr("side_effect_mem", True)
        written = [signature.make_sig(f"written{i}", signature.sig_rw.RW_WRITE) for i in range(writes)]
        found.set_signatures((*written, *(signature.make_sig(f"read{i}") for i in range(reads))))
    return found
